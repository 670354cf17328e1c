"""How much faster two replicas on Ray are than one."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.backends.ray.api import on_cpu, started, work_of
from unitok.backends.ray.cluster import Replicas, joined
from unitok.backends.ray.lines import lines_of_file
from unitok.backends.ray.report import report_of


def replicas(setting: Setting) -> Iterator[Result]:
    """Guided drawings of the embedded model in fp32, as lines of a batch: what two replicas of one
    thread each draw in a second, over what one draws. Both run by turns on one local Ray, and the
    time that a replica takes to load its model does not count."""
    lines, part = setting.either(1024, 8), setting.either(32, 2)
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, joined("local", Replicas(2)):
        source = write_lines(Path(folder), lines)
        for turn in range(setting.rounds(5)):
            for count in sorted(rates, reverse=bool(turn % 2)):
                rates[count].append(lines_per_second(source, f"{turn}-{count}", count, part))
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    yield Result(
        "two replicas on Ray, one thread each: faster than one", ratio, "x", 1.7, True,
        f"{lines:,} drawings; one {one:.1f}, two {two:.1f} drawings a second",
    )  # fmt: skip


def write_lines(folder: Path, count: int) -> Path:
    """A file of drawings."""
    path = folder / "work.jsonl"
    lines = [{"draw": "two apples on a blue background", "seed": seed} for seed in range(count)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def lines_per_second(source: Path, name: str, count: int, part: int) -> float:
    """What so many replicas do in a second, each from its first line to its last.

    Args:
        source: The lines.
        name: Of a new folder beside them.
        count: How many replicas there are.
        part: How many lines one gets at once.
    """
    each = Replicas(count)
    load = on_cpu({"dtype": "float32"}, each)
    work = work_of(str(source.with_name(name)), source.parent, "jsonl", None, load)
    with started(lines_of_file(str(source)), work, each, part) as (run, _):
        report = report_of(work.output.place, run.outcomes())
    return sum(replica.lines_per_second for replica in report.replicas)
