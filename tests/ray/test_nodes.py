"""A machine is lost in the middle of a run, and nothing that it had begun."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.ray.batches import records, run, write_work
from tests.ray.loaders import found_by

LINES = 60


@pytest.fixture
def two_machines(settings: None) -> Iterator[tuple[Cluster, object]]:
    """A cluster whose second machine may be lost. Each has room for one replica."""
    memory = 100 * 2**20
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=1, object_store_memory=memory)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def lose(cluster: Cluster, machine: object, out: Path, pids: Path, lost: list[object]) -> None:
    """Take the machine away as soon as both replicas run and there are results."""
    while not (len(list(pids.glob("*"))) == 2 and list((out / "results").glob("lines-*"))):
        time.sleep(0.01)
    cluster.remove_node(machine, allow_graceful=False)
    lost.append(machine)


@pytest.mark.timeout(900)
def test_the_lines_of_a_machine_that_is_lost_are_run_by_the_other(
    two_machines, short_folder, tmp_path
):
    lines = [{"draw": f"a cat and {i} dogs", "n": 8, "seed": i} for i in range(LINES)]
    source, out = write_work(tmp_path / "in", lines), tmp_path / "out"
    lost: list[object] = []
    arguments = (*two_machines, out, tmp_path / "pids", lost)
    threading.Thread(target=lose, args=arguments, daemon=True).start()
    load = found_by(tmp_path / "pids", short_folder)
    report = run(source, out, short_folder, load, replicas=2, part=2)
    assert len(lost) == 1
    assert (report.new, report.kept, report.failed) == (LINES, 0, ())
    assert [record["line"] for record in records(out)] == list(range(1, LINES + 1))
    assert len(list((out / "pictures").iterdir())) == 8 * LINES
