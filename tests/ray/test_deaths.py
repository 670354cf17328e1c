"""Lines that kill their process: how many deaths they cost, with an exception for a death."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ray.batches import records, write_work
from tests.ray.loaders import DEADLY, deadly
from tests.ray.test_shards import cut, work_in
from unitok.backends.ray.attempts import ALONE, TOGETHER, Attempts
from unitok.backends.ray.replica import Replica, ShardOutcome
from unitok.cores import usable_cores


class Died(BaseException):
    """A process died, which nothing in it can catch."""


class Here:
    """The actor that counts attempts, in this process."""

    def __init__(self) -> None:
        self.attempts = Attempts()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.attempts, name))


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray without other processes."""

    def die(*_: object) -> None:
        raise Died

    me = SimpleNamespace(get_actor_id=lambda: "me")
    alone = SimpleNamespace(get=lambda value: value, get_runtime_context=lambda: me)
    monkeypatch.setitem(sys.modules, "ray", alone)
    monkeypatch.setattr(os, "kill", die)


def test_each_line_that_kills_costs_as_many_deaths_as_the_first(short_folder: Path, tmp_path: Path):
    prompts = ["a cat", DEADLY, "a dog", DEADLY, DEADLY, "a tree"]
    (shard,) = cut(write_work(tmp_path, [{"draw": prompt} for prompt in prompts]), 9)
    row, attempts, deaths = shard.table().to_pylist()[0], Here(), 0
    while True:
        try:
            outcome = ShardOutcome.of(
                Replica(work_in(tmp_path, deadly(short_folder)), attempts)(row)
            )
            break
        except Died:
            deaths += 1
    assert deaths == TOGETHER + 3 * ALONE
    assert [line for line, _ in outcome.failed] == [2, 4, 5]
    assert [record["line"] for record in records(tmp_path / "out")] == [1, 3, 6]


def test_a_replica_keeps_to_the_cores_that_ray_reserved_for_it(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("unitok.cores._reserved", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    Replica(work_in(tmp_path, deadly(short_folder)), Here(), 3)
    assert usable_cores() == 3
