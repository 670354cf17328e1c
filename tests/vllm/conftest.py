"""How vLLM's CPU build runs in tests: in this process, on one thread, with a cache of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

SMALL = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    # Its library is not in every environment, and one CPU needs no other.
    "GLOO_SOCKET_IFNAME": "lo",
}
# vLLM reads them when it is imported, which is when the tests are collected.
for name, value in SMALL.items():
    os.environ.setdefault(name, value)
CACHE = TemporaryDirectory(prefix="vllm-cache-")
os.environ.setdefault("VLLM_CACHE_ROOT", CACHE.name)


@pytest.fixture(scope="session", autouse=True)
def remove_cache() -> Iterator[Path]:
    """vLLM's cache, which goes with the tests."""
    yield Path(CACHE.name)
    CACHE.cleanup()
