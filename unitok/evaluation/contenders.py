"""Who is evaluated: a model of ours, or a baseline of others."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unitok import __version__
from unitok.evaluation.matching import Match, ScorerRunner
from unitok.requests import Caption, Draw, Edit

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.baselines.protocols import Runner
    from unitok.evaluation.registry import SuiteEntry
    from unitok.evaluation.suite import Item
    from unitok.flags import Common

Role = Literal["captioner", "generator", "scorer"]
TAKES: dict[Role, tuple[type, ...]] = {
    "captioner": (Caption,),
    "generator": (Draw, Edit),
    "scorer": (Match,),
}
OURS_TAKES = (Caption, Draw, Edit)
# Flags of every command that mean nothing to a model of others.
OURS = ("adapter", "adapters", "dtype", "quantize", "memory", "strict", "compile")


@dataclass(frozen=True)
class Contender:
    """What is evaluated, opened.

    Attributes:
        runner: Takes requests.
        digest: Of its files.
        facts: What a report says of it, in words.
        can_take: Whether it can be asked a request of a kind that it takes.
    """

    runner: Runner
    digest: str
    facts: dict[str, str]
    can_take: Callable[[Any], bool] = lambda request: True


@dataclass(frozen=True)
class Baseline:
    """A model of others.

    Attributes:
        role: What it does.
        source: The folder or hub id that names it.
        folder: Where it is.
    """

    role: Role
    source: str
    folder: Path

    @property
    def takes(self) -> tuple[type, ...]:
        """The kinds of requests that it can be asked."""
        return TAKES[self.role]


def baseline_of(common: Common, items: Sequence[Item]) -> Baseline | None:
    """The model of others that --model names; None for a model of ours.

    One that can do several things does what the items ask for.

    Raises:
        ValueError: It can be asked none of the items, or a flag is only for models of ours.
        OSError: There is no such folder.
    """
    if common.model is None:
        return None
    from unitok.baselines.opening import ADAPTERS, kind_of
    from unitok.checkpoints.folders import HubOptions, find_folder

    folder = find_folder(common.model, HubOptions(common.revision, cache_dir=common.cache_dir))
    try:
        kind = kind_of(folder)
    except ValueError:
        return None
    roles: list[Role] = [role for role in TAKES if kind in ADAPTERS[role]]
    if not roles:
        return None
    for name in OURS:
        if getattr(common, name):
            raise ValueError(f"--{name} is for models of unitok, not for a {roles[0]}")
    for role in roles:
        if any(isinstance(item.request, TAKES[role]) for item in items):
            return Baseline(role, common.model, folder)
    raise ValueError(f"the suite asks nothing that a {' or a '.join(roles)} does")


@contextmanager
def our_model(common: Common, entry: SuiteEntry) -> Iterator[Contender]:
    """Load a model of ours.

    Raises:
        ValueError, OSError: It cannot be loaded.
    """
    with common.load() as model:
        runner = entry.runner(model) if entry.runner else model
        yield Contender(runner, common.identity(), model_facts(model) | versions())


@contextmanager
def other_model(common: Common, baseline: Baseline, options: dict[str, Any]) -> Iterator[Contender]:
    """Open a model of others.

    Raises:
        ValueError, OSError: It cannot be opened.
        ImportError: A library is not installed; the message says which extra has it.
    """
    from unitok.baselines.opening import load
    from unitok.batch.keys import model_identity

    device = common.device or "auto"
    opened = load(baseline.folder, baseline.role, device=device, silent=True, **options)
    runner = ScorerRunner(opened) if baseline.role == "scorer" else opened
    try:
        facts = {"role": baseline.role, "source": baseline.source}
        takes = getattr(runner, "can_take", Contender.can_take)  # captioners have it
        yield Contender(runner, model_identity(baseline.folder), facts | versions(), takes)
    finally:
        runner.close()


def model_facts(model: Model) -> dict[str, str]:
    """What a report says of a model of ours."""
    info = model.info()
    return {
        "parameters": f"{info.parameters:,}",
        "device": info.device,
        "dtype": info.dtype,
        **({"quantization": info.quantization} if info.quantization else {}),
        **({"adapter": info.adapter} if info.adapter else {}),
    }


def versions() -> dict[str, str]:
    """The versions that a run was made with."""
    import torch

    return {
        "unitok": __version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
