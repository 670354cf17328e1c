"""How much faster two replicas on Ray are than one."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.backends.ray.api import on_cpu, started, work_of
from unitok.backends.ray.cluster import Replicas, joined
from unitok.backends.ray.lines import lines_of_file
from unitok.backends.ray.replica import ShardOutcome


@dataclass(frozen=True)
class Turn:
    """A run of so many replicas.

    Attributes:
        start: Seconds until all of them worked, which is not measured.
        rate: Drawings a second while all of them worked.
    """

    start: float
    rate: float


def replicas(setting: Setting) -> Iterator[Result]:
    """Guided drawings of the embedded model in fp32, as lines of a batch: what two replicas of one
    thread each draw in a second, over what one draws. Both run by turns on one local Ray, each
    replica about 160 lines in three turns. A replica computes on the core that is its own alone,
    pixels too. What counts is the time in which all replicas work. The time until then, in which
    they load their models, is told beside it."""
    lines, part = setting.either(160, 4), setting.either(16, 2)
    turns: dict[int, list[Turn]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, joined("local", Replicas(2)):
        for number in range(setting.rounds(3)):
            for count in sorted(turns, reverse=bool(number % 2)):
                place = Path(folder) / f"{number}-{count}"
                turns[count].append(turn_of(place, count, lines * count, part))
    ratio = statistics.median(two.rate / one.rate for one, two in zip(*turns.values(), strict=True))
    one, two = (statistics.median(turn.rate for turn in turns[count]) for count in (1, 2))
    start = statistics.median(turn.start for turn in turns[1] + turns[2])
    yield Result(
        "two replicas on Ray, one thread each: faster than one", ratio, "x", 1.7, True,
        f"{lines} drawings of each; one {one:.1f}, two {two:.1f} drawings a second, behind a start "
        f"of {start:.1f} s",
    )  # fmt: skip


def turn_of(folder: Path, count: int, lines: int, part: int) -> Turn:
    """Run lines.

    Args:
        folder: A new one, for lines and results.
        count: How many replicas there are.
        lines: How many lines.
        part: How many lines a replica gets at once.
    """
    source, each = write_lines(folder, lines), Replicas(count)
    load = on_cpu({"dtype": "float32"}, each)
    work = work_of(str(folder / "out"), folder, "jsonl", None, load)
    began = time.time()
    with started(lines_of_file(str(source)), work, each, part) as (run, _):
        outcomes = list(run.outcomes())
    first, last = common_time(outcomes)
    return Turn(first - began, lines_within(outcomes, first, last) / (last - first))


def write_lines(folder: Path, count: int) -> Path:
    """A file of drawings."""
    folder.mkdir()
    path = folder / "work.jsonl"
    lines = [{"draw": "two apples on a blue background", "seed": seed} for seed in range(count)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def common_time(outcomes: Sequence[ShardOutcome]) -> tuple[float, float]:
    """From when to when all replicas that worked did so at once, in seconds since 1970.

    Of those that never did, as in a rehearsal, it is the time in which any of them worked.
    """
    names = {outcome.replica for outcome in outcomes}
    own = [[outcome for outcome in outcomes if outcome.replica == name] for name in names]
    begins = [min(outcome.began for outcome in each) for each in own]
    ends = [max(outcome.ended for outcome in each) for each in own]
    first, last = max(begins), min(ends)
    return (first, last) if first < last else (min(begins), max(ends))


def lines_within(outcomes: Sequence[ShardOutcome], first: float, last: float) -> float:
    """How many lines were run in a time, if those of a part are spread evenly over its own time."""
    return sum(
        o.span.count * max(0.0, min(o.ended, last) - max(o.began, first)) / (o.ended - o.began)
        for o in outcomes
    )
