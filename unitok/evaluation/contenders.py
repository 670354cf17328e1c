"""Who is evaluated: a model of ours, or a baseline of others."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unitok import __version__
from unitok.requests import Caption, Draw, Edit

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.baselines.protocols import Runner
    from unitok.evaluation.registry import SuiteEntry
    from unitok.flags import Common

Role = Literal["captioner", "generator"]
TAKES: dict[Role, tuple[type, ...]] = {"captioner": (Caption,), "generator": (Draw, Edit)}
# Flags of every command that mean nothing to a model of others.
OURS = ("adapter", "adapters", "dtype", "memory", "strict", "compile")


@dataclass(frozen=True)
class Contender:
    """What is evaluated, opened.

    Attributes:
        runner: Takes requests.
        digest: Of its files.
        facts: What a report says of it, in words.
    """

    runner: Runner
    digest: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Baseline:
    """A model of others that is named in place of ours.

    Attributes:
        role: What it does.
        source: Its folder or hub id.
    """

    role: Role
    source: str

    @property
    def takes(self) -> tuple[type, ...]:
        """The kinds of requests that it can be asked."""
        return TAKES[self.role]


def baseline_of(common: Common, named: Mapping[Role, str | None]) -> Baseline | None:
    """The baseline that flags name; None for a model of ours.

    Raises:
        ValueError: Several models are named, or a flag is only for models of ours.
    """
    given = [Baseline(role, source) for role, source in named.items() if source]
    flags = [f"--{one.role}" for one in given] + (["--model"] if common.model and given else [])
    if len(flags) > 1:
        raise ValueError(f"give one of {' and '.join(flags)}, as one model is evaluated at a time")
    if not given:
        return None
    for name in OURS:
        if getattr(common, name):
            raise ValueError(f"--{name} is for models of unitok, not for a {given[0].role}")
    return given[0]


@contextmanager
def our_model(common: Common, entry: SuiteEntry) -> Iterator[Contender]:
    """Load a model of ours.

    Raises:
        ValueError, OSError: It cannot be loaded.
    """
    from unitok.batch.keys import identity_of, with_adapters

    with common.load() as model:
        runner = entry.runner(model) if entry.runner else model
        digest = with_adapters(identity_of(common.find_folders()), common.find_adapters())
        yield Contender(runner, digest, model_facts(model) | versions())


@contextmanager
def other_model(common: Common, baseline: Baseline, options: dict[str, Any]) -> Iterator[Contender]:
    """Open a model of others.

    Raises:
        ValueError, OSError: It cannot be opened, or a library is missing.
    """
    from unitok.baselines.opening import load
    from unitok.batch.keys import model_identity
    from unitok.checkpoints.folders import HubOptions, find_folder

    folder = find_folder(
        baseline.source, HubOptions(common.revision, cache_dir=common.cache_dir)
    )  # fmt: skip
    try:
        runner = load(folder, baseline.role, device=common.device or "auto", **options)
    except ImportError as error:  # its message says what to install
        raise ValueError(str(error)) from None
    try:
        facts = {"role": baseline.role, "source": baseline.source}
        yield Contender(runner, model_identity(folder), facts | versions())
    finally:
        runner.close()


def model_facts(model: Model) -> dict[str, str]:
    """What a report says of a model of ours."""
    info = model.info()
    return {
        "parameters": f"{info.parameters:,}",
        "device": info.device,
        "dtype": info.dtype,
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
