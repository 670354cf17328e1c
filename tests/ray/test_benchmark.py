"""The benchmark of two replicas: what it counts, and that it runs."""

import subprocess
import sys

import pytest

from benchmarks.replicas import common_time, lines_within
from tests.ray.batches import ROOT, environment
from unitok.backends.ray.replica import ShardOutcome
from unitok.backends.ray.shards import Span


def ran(replica: str, began: float, ended: float, count: int = 10) -> ShardOutcome:
    return ShardOutcome(Span(1, count, count), replica=replica, began=began, ended=ended)


def test_lines_count_while_all_replicas_work():
    outcomes = [ran("a", 0, 4), ran("a", 4, 8), ran("b", 3, 8), ran("b", 8, 10)]
    assert common_time(outcomes) == (3, 8)
    assert lines_within(outcomes, 3, 8) == pytest.approx(2.5 + 10 + 10)
    assert common_time(outcomes[:2]) == (0, 8), "one replica works all of its time"
    assert common_time([ran("a", 0, 2), ran("b", 3, 4)]) == (0, 4)


@pytest.mark.timeout(900)
def test_the_benchmark_prints_a_ratio_and_the_start_apart():
    words = [sys.executable, "scripts/bench.py", "--rehearse", "--only", "ray"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = {line for line in done.stdout.splitlines() if "two replicas" in line}
    assert "x | ≥ 1.7 |" in row and "drawings a second, behind a start of" in row
