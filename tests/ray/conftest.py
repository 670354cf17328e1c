"""What tests of batches on Ray share: a tiny model, and Ray on this machine."""

import logging
import os
from collections.abc import Iterator

import pytest
import ray

from tests.ray.batches import environment
from tests.unitok.conftest import short_folder

__all__ = ["short_folder"]  # the fixture

# Processes of Ray are nicer than others, so that they would starve beside other tests.
QUICK = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session", autouse=True)
def settings() -> None:
    """Ray's processes find the tests, and get their share of this machine."""
    os.environ.update(environment() | QUICK)


@pytest.fixture(scope="module")
def cluster(settings: None) -> Iterator[None]:
    """Ray on this machine, for the tests of a file."""
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()
