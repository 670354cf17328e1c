"""What the benchmarks found: a table in Markdown, and a plot."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True)
class Result:
    """One line of the table: what was measured, how much it is, and what it should be, if that
    was said."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = True
    detail: str = ""

    @property
    def met(self) -> str:
        if self.bar is None:
            return ""
        met = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "yes" if met else "no"

    def row(self) -> str:
        bar = "" if self.bar is None else f"{'≥' if self.at_least else '≤'} {self.bar:.3g}"
        return (
            f"| {self.name} | {self.value:.3g} {self.unit} | {bar} | {self.met} | {self.detail} |"
        )


@dataclass(frozen=True)
class Throughput:
    """Seconds that `count` drawings at once take, on both sides."""

    count: int
    ours: float
    theirs: float


def table(results: Sequence[Result]) -> str:
    """Results in Markdown."""
    head = "| what | got | bar | met | detail |\n|---|---|---|---|---|"
    return "\n".join([head, *(result.row() for result in results)])


def throughput_table(points: Sequence[Throughput]) -> str:
    """Amortised seconds per picture in Markdown."""
    head = "| at once | seconds per picture | transformers | pictures per second | transformers |"
    rows = [
        f"| {p.count} | {p.ours / p.count:.3f} | {p.theirs / p.count:.3f} "
        f"| {p.count / p.ours:.2f} | {p.count / p.theirs:.2f} |"
        for p in points
    ]
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def plot(points: Sequence[Throughput], path: Path) -> None:
    """Pictures per second, and seconds per picture, by the number of drawings at once."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [point.count for point in points]
    figure, (rate, cost) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name, marker in (("ours", "o"), ("theirs", "s")):
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
