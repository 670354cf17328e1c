"""What the benchmarks found: tables in Markdown, a plot, and the document."""

import inspect
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from unitok.saving import write_whole

PLOT = "benchmarks_throughput.png"


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        name: What was measured.
        value: How much it is.
        unit: In which unit.
        target: What it should be, if that was said before.
        at_least: Whether the target is a lower bound; else it is an upper one.
        detail: The numbers behind it.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = True
    detail: str = ""

    @property
    def met(self) -> str:
        """ "yes" or "no"; nothing where there is no target."""
        if self.target is None:
            return ""
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return "yes" if met else "no"

    def row(self) -> str:
        """The row in Markdown."""
        sign = "≥" if self.at_least else "≤"
        target = "" if self.target is None else f"{sign} {self.target:.3g}"
        cells = (self.name, f"{self.value:.3g} {self.unit}", target, self.met, self.detail)
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Throughput:
    """How long drawings that arrive together take.

    Attributes:
        count: How many they are.
        ours: Seconds that unitok takes for all.
        baseline: Seconds that the baseline takes.
    """

    count: int
    ours: float
    baseline: float


def write_found(path: Path, found: Sequence[Result | Throughput], rehearsed: bool) -> None:
    """Keep what a comparison found, and where."""
    rows = [{"kind": type(one).__name__, **vars(one)} for one in found]
    whole = {"machine": machine(), "rehearsed": rehearsed, "found": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(json.dumps(whole, indent=1).encode(), path)


def read_found(path: Path, rehearsed: bool) -> list[Result | Throughput]:
    """What a comparison found.

    Raises:
        ValueError: The file holds something else, or what another machine or a rehearsal found.
    """
    kinds = {kind.__name__: kind for kind in (Result, Throughput)}
    try:
        whole = json.loads(path.read_text())
        of = whole["machine"], whole["rehearsed"]
        found = [kinds[row.pop("kind")](**row) for row in whole["found"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} is not what a comparison found; delete it") from None
    if of != (machine(), rehearsed):
        what = "a rehearsal" if of[1] and not rehearsed else "another machine or way to run"
        raise ValueError(f"{path} is of {what}; keep this one's in another folder")
    return found


def table(results: Sequence[Result]) -> str:
    """Results in Markdown."""
    head = "| what | got | target | met | detail |\n|---|---|---|---|---|"
    return "\n".join([head, *(result.row() for result in results)])


def throughput_table(points: Sequence[Throughput]) -> str:
    """Amortised seconds per picture in Markdown."""
    head = "| at once | seconds per picture | transformers | pictures per second | transformers |"
    rows = [
        f"| {p.count} | {p.ours / p.count:.3f} | {p.baseline / p.count:.3f} "
        f"| {p.count / p.ours:.2f} | {p.count / p.baseline:.2f} |"
        for p in points
    ]
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def plot(points: Sequence[Throughput], path: Path) -> None:
    """Save pictures per second, and seconds per picture, by the number of drawings at once."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [point.count for point in points]
    figure, (rate, cost) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name, marker in (("ours", "o"), ("baseline", "s")):
        seconds = [getattr(point, name) for point in points]
        label = "unitok" if name == "ours" else "transformers, static batches"
        pairs = list(zip(counts, seconds, strict=True))
        rate.plot(counts, [n / s for n, s in pairs], marker=marker, label=label)
        cost.plot(counts, [s / n for n, s in pairs], marker=marker, label=label)
    rate.set_ylabel("pictures per second")
    cost.set_ylabel("seconds per picture")
    cost.set_yscale("log")
    for axes in (rate, cost):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("drawings at once")
        axes.grid(alpha=0.3)
    rate.set_ylim(bottom=0)
    rate.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def machine() -> str:
    """Hardware and versions, in a line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {torch.get_num_threads()} threads of "
        f"torch; {libraries}, Python {platform.python_version()}"
    )


def command(script: str) -> str:
    """The command of this run, as it is written in documents."""
    return " ".join(["python", f"scripts/{script}", *sys.argv[1:]])


def write_document(
    folder: Path,
    explained: Mapping[str, Callable[..., object]],
    results: Sequence[Result],
    points: Sequence[Throughput],
) -> None:
    """Write benchmarks.md and, if there were drawings, its plot.

    Args:
        folder: Where to write them.
        explained: The comparisons that ran; their docstrings say how the figures are made.
        results: The rows of the table.
        points: The points of the plot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Benchmarks", f"    {command('bench.py')}", machine() + ".", table(results)]
    parts.append(
        "Speed drifts, so only what ran side by side is compared: sides alternate, and ratios are "
        "medians. More than 1 x is better for *faster*, less for *over*."
    )
    if points:
        plot(points, folder / PLOT)
        parts += ["## Throughput", f"![Throughput by the number of drawings at once]({PLOT})"]
        parts += [throughput_table(points)]
    parts.append("## How each figure is made")
    parts += [f"- **{name}**: {in_one_line(made)}" for name, made in explained.items()]
    (folder / "benchmarks.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def in_one_line(documented: object) -> str:
    """The docstring of an object, in one line."""
    return " ".join((inspect.getdoc(documented) or "").split())
