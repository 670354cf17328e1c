"""What docs/benchmarks_gpu.md says was measured, and the speeds that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.scaling.shapes import JANUS_1B, JANUS_7B, TWO_BYTES, Shape
from benchmarks.scaling.steps import Speed

BANDWIDTH = r"^\| reading memory \| (\S+) GB/s"
STEP_1B = r"^\| 1B, (\d+) at once: floor over a step \|.*\| (\S+) ms a step"
STEP_7B = r"^\| 7B, int8, (1) at once: a step over bf16's \|.*bf16 (\S+) \|"
PICTURES_1B = r"^\| 1B, (\d+) at once: pictures \| (\S+) /s"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of one GPU.

    Attributes:
        bandwidth: Bytes a second.
        steps_1b: Seconds of a step of the 1B model, by drawings at once.
        steps_7b: The same of the 7B model.
        pictures_1b: Pictures a second of the 1B model, by drawings at once.
    """

    bandwidth: float
    steps_1b: Mapping[int, float]
    steps_7b: Mapping[int, float]
    pictures_1b: Mapping[int, float]


def read_page(text: str) -> Measured:
    """The figures of the page.

    Args:
        text: Of docs/benchmarks_gpu.md.

    Raises:
        ValueError: A row is missing, which `scripts/bench_gpu.py` writes.
    """
    found = re.search(BANDWIDTH, text, re.MULTILINE)
    if found is None:
        raise _missing(BANDWIDTH)
    return Measured(
        bandwidth=1e9 * float(found[1]),
        steps_1b=_rows(STEP_1B, text, 1e-3),
        steps_7b=_rows(STEP_7B, text, 1e-3),
        pictures_1b=_rows(PICTURES_1B, text, 1.0),
    )


def _rows(pattern: str, text: str, unit: float) -> dict[int, float]:
    found = re.findall(pattern, text, re.MULTILINE)
    if not found:
        raise _missing(pattern)
    return {int(count): unit * float(value) for count, value in found}


def _missing(pattern: str) -> ValueError:
    return ValueError(f"docs/benchmarks_gpu.md has no row like {pattern}: measure it anew")


def fit(measured: Measured) -> Speed:
    """The speed at which the model of a step gives three of the measured steps exactly.

    They are the steps of one drawing at 1B and at 7B, which differ in layers and weights, and of
    the most drawings at 1B, which differs in K/V. The other figures are left to check it with.

    Args:
        measured: The figures.
    """
    most = max(measured.steps_1b)
    points = [
        (JANUS_1B, 1, measured.steps_1b[1]),
        (JANUS_1B, most, measured.steps_1b[most]),
        (JANUS_7B, 1, measured.steps_7b[1]),
    ]
    rows = [_terms(shape, drawings, measured.bandwidth) for shape, drawings, _ in points]
    per_layer, weights, kv = np.linalg.solve(rows, [seconds for *_, seconds in points])
    return Speed(
        bandwidth=measured.bandwidth,
        per_layer=float(per_layer),
        weight_share=float(1 / weights),
        kv_share=float(1 / kv),
    )


def _terms(shape: Shape, drawings: int, bandwidth: float) -> list[float]:
    """What c, 1 / w and 1 / a are multiplied by."""
    kv = shape.branches * drawings * shape.context * shape.kv_per_token
    return [shape.layers, TWO_BYTES * shape.weights / bandwidth, kv / bandwidth]
