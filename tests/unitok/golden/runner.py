"""Run golden requests, each alone, and record what they give."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import unitok
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.golden.recording import Pixels, Recorded, rounded
from tests.unitok.golden.requests import Case, Result, perform
from tests.unitok.golden.trace import Trace, traced
from unitok import TextResult


def open_model(name: str, root: Path) -> unitok.Model:
    """The tiny model of a family, whose folder is made under `root`."""
    return unitok.load(FOLDERS[name](root / name), device="cpu", dtype="float32")


def record(cases: Iterable[Case], root: Path, stride: int = 1) -> dict[str, list[Recorded]]:
    """Run all cases, each request alone. root: an empty folder, where models are made."""
    recordings: dict[str, list[Recorded]] = {}
    models: dict[str, unitok.Model] = {}
    for case in cases:
        if case.model not in models:
            models = {case.model: open_model(case.model, root)}  # the one before is let go
        recordings[case.name] = record_case(models[case.model], case, stride)
    return recordings


def record_case(model: unitok.Model, case: Case, stride: int = 1) -> list[Recorded]:
    with traced() as trace, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this model never saw the word")
        return [
            recorded(case.described(ask), result, trace, stride)
            for ask, result in perform(model, case)
        ]


def recorded(asked: dict[str, Any], result: Result, trace: Trace, stride: int) -> Recorded:
    if result.error is not None:
        raise RuntimeError(f"{asked} failed: {result.error}")
    samples = [
        replace(sample, **extra)
        for sample, extra in zip(trace.take(), extras(result, stride), strict=True)
    ]
    return Recorded(
        asked=asked,
        finish_reason=result.finish_reason,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        samples=tuple(samples),
        text=result.text if isinstance(result, TextResult) else None,
    )


def extras(result: Result, stride: int) -> list[dict[str, Any]]:
    """What a result tells of each sample beside its ids."""
    if isinstance(result, TextResult):
        return [told(result.logprobs, result.branch_logprobs)]
    nothing = [None] * len(result.images)
    logprobs, branch_logprobs = result.logprobs or nothing, result.branch_logprobs or nothing
    return [
        told(*of_one) | {"pixels": Pixels.of(image, stride)}
        for image, *of_one in zip(result.images, logprobs, branch_logprobs, strict=True)
    ]


def told(*logprobs: Sequence[float] | None) -> dict[str, Any]:
    return dict(zip(("logprobs", "branch_logprobs"), map(rounded, logprobs), strict=True))
