"""Log-probabilities of tokens that are given, as the engine reports them of those that it samples.

Learning from preferences and from rewards compares them with those of another model, or of the same
one before. Gradients flow through them.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from unitok.nn.model import UnifiedModel
from unitok.training.cross_entropy import cross_entropy
from unitok.training.hidden_states import hidden_states
from unitok.training.packing import PackedBatch, pack
from unitok.training.sampling_shape import SamplingShape
from unitok.training.sequences import TrainingSequence
from unitok.training.targets import targets_by_kind
from unitok_engine import IdRange

Mix = tuple[tuple[float, ...], SamplingShape | None]
"""The weights of a request's branches, and how it was sampled."""


def log_probabilities(
    model: UnifiedModel, sequences: Sequence[TrainingSequence], text_range: IdRange
) -> list[Tensor]:
    """The log-probability of each target of each sequence, by itself, [targets] in fp32.

    With prompt and emitted ids of a request's first branch as the sequence, and what was sampled as
    its targets, they are `Output.branch_logprobs`.

    Args:
        model: The model.
        sequences: They run together, as one packed batch.
        text_range: The ids that an answer of text is made of: those of the family's text plan.

    Raises:
        ValueError: As for `pack`, or a target is none that the model emits.
    """
    alone = [(sequence,) for sequence in sequences]
    return _log_probabilities(model, alone, [(1.0,)] * len(alone), text_range)


def guided_log_probabilities(
    model: UnifiedModel, requests: Sequence[Sequence[TrainingSequence]], text_range: IdRange
) -> list[Tensor]:
    """The log-probability of each target of each request, from mixed logits, [targets] in fp32.

    The logits of the branches are mixed by their weights. So they are `Output.logprobs` at a
    temperature of 1 and without filters, for plans that mask no id of the range.

    Args:
        model: The model.
        requests: The sequences of the branches of each. All branches of one have the same targets.
        text_range: As for `log_probabilities`.

    Raises:
        ValueError: As for `log_probabilities`, or the branches of a request differ in their
            targets.
    """
    weights = [tuple(s.branch.weight for s in branches) for branches in requests]
    return _log_probabilities(model, requests, weights, text_range)


def sampled_log_probabilities(
    model: UnifiedModel,
    requests: Sequence[Sequence[TrainingSequence]],
    shapes: Sequence[SamplingShape],
    text_range: IdRange,
) -> list[Tensor]:
    """As `guided_log_probabilities`, with the temperature and the filters of each request.

    So they are `Output.logprobs`. A target that a filter would leave out by now, as the weights are
    others than those it was sampled with, is kept.

    Args:
        model: The model.
        requests: As for `guided_log_probabilities`.
        shapes: How each request was sampled.
        text_range: As for `log_probabilities`.

    Raises:
        ValueError: As for `guided_log_probabilities`.
    """
    weights = [tuple(s.branch.weight for s in branches) for branches in requests]
    return _log_probabilities(model, requests, weights, text_range, shapes)


def _log_probabilities(
    model: UnifiedModel,
    requests: Sequence[Sequence[TrainingSequence]],
    weights: Sequence[tuple[float, ...]],
    text_range: IdRange,
    shapes: Sequence[SamplingShape] = (),
) -> list[Tensor]:
    batch = pack([s for branches in requests for s in branches], {})
    rows = _target_rows(batch, [len(branches) for branches in requests])
    ids, hidden = hidden_states(model, batch)
    alike: dict[Mix, list[int]] = defaultdict(list)
    for i, own in enumerate(weights):
        alike[own, shapes[i] if shapes else None].append(i)
    found: dict[int, Tensor] = {}
    for key, group in alike.items():
        mixed = _mixed(model, batch, ids, hidden, [rows[i] for i in group], key, text_range)
        found |= dict(zip(group, mixed, strict=True))
    return [found[i] for i in range(len(requests))]


def _target_rows(batch: PackedBatch, branches: Sequence[int]) -> list[Tensor]:
    """Where the targets of each request stand in the rows of its branches, [targets, branches]."""
    counts = [int(part.sum()) for part in batch.targets.split(batch.lengths)]
    rows = list(batch.targets.nonzero()[:, 0].split(counts))
    found: list[Tensor] = []
    for count in branches:
        own, rows = rows[:count], rows[count:]
        first = batch.ids[own[0]]
        if not all(torch.equal(batch.ids[other], first) for other in own):
            name = batch.name_at(sum(batch.lengths[: sum(branches[: len(found)])]))
            raise ValueError(f"{name}: the branches of a request differ in their targets")
        found.append(torch.stack(own, dim=1))
    return found


def _mixed(
    model: UnifiedModel,
    batch: PackedBatch,
    ids: Tensor,
    hidden: Tensor,
    rows: Sequence[Tensor],
    how: Mix,
    text_range: IdRange,
) -> Sequence[Tensor]:
    """The log-probabilities of requests of equal weights, whose targets stand at `rows`."""
    weights, shape = how
    every = torch.cat(list(rows))  # [m, branches]
    shares = torch.tensor(weights, device=hidden.device)[:, None]
    out = torch.zeros(len(every), device=hidden.device)
    for each in targets_by_kind(batch, every[:, 0], model.vocabulary, text_range):
        at, id_range = every[each.chosen].to(hidden.device), each.id_range

        def mix(states: Tensor, id_range: IdRange = id_range) -> Tensor:
            return (model.logits(states, id_range).float() * shares).sum(1)

        wanted = ids[at[:, 0]] - id_range.start
        shaped = None if shape is None else shape.of_kind(each.kind)
        losses, _ = cross_entropy(mix, hidden[at - 1], wanted, id_range.size, shape=shaped)
        out = out.index_copy(0, each.chosen.to(out.device), -losses)
    return out.split([len(part) for part in rows])
