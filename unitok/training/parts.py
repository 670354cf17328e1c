"""Which parts of a model are trained, by the names of its modules."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

NOT_BY_THIS_LOSS = "image_tokenizer"


def choose_parts(model: nn.Module, parts: Sequence[str], freeze: Sequence[str] = ()) -> list[str]:
    """Make the weights of some parts trainable, and freeze all others.

    Args:
        model: The model.
        parts: Names of modules or weights, such as "decoder" or "vision.blocks.0"; * stands for
            anything, as in "decoder.blocks.*.attention".
        freeze: Parts of these that are frozen all the same.

    Returns:
        The names of the weights that are trained.

    Raises:
        ValueError: A part has no weights in this model, or none is left, or one cannot be trained
            this way.
    """
    names = [name for name, _ in model.named_parameters()]
    wanted = _all_matches("parts", parts, names)
    frozen = _all_matches("freeze", freeze, names)
    trained = [name for name in names if name in wanted and name not in frozen]
    if not trained:
        raise ValueError("train: no weight is left to be trained: parts and freeze are the same")
    if any(name.startswith(NOT_BY_THIS_LOSS) for name in trained):
        raise ValueError(
            f"train.parts: {NOT_BY_THIS_LOSS} only gives the codes that the model learns, and is "
            f"not trained with it: put it into train.freeze"
        )
    chosen = set(trained)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in chosen)
    return trained


def _all_matches(key: str, patterns: Iterable[str], names: Sequence[str]) -> set[str]:
    return {name for pattern in patterns for name in _matches(key, pattern, names)}


def _matches(key: str, pattern: str, names: Sequence[str]) -> list[str]:
    """The weights that a pattern names, or that lie in a module which it names."""
    found = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")]
    if found:
        return found
    known = list(dict.fromkeys(name.partition(".")[0] for name in names))
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    near = get_close_matches(pattern, [*known, *modules], 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(
        f"train.{key}: this model has no part {pattern!r}{hint} Its parts are {', '.join(known)}"
    )
