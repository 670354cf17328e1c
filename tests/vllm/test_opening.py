"""What `unitok.load(backend="vllm")` refuses before or while vLLM starts."""

from pathlib import Path
from typing import Any

import pytest

import unitok
from tests.unitok.tiny_chameleon import save_tiny as save_chameleon

pytestmark = pytest.mark.timeout(1200)  # vLLM takes its time to start


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"adapters": {"a": "folder"}}, "takes no adapters"),
        ({"adapter": "folder"}, "takes no adapter: merge"),
        ({"compile": True}, "takes no compile"),
        ({"drafts": True}, "takes no drafts"),
        ({"quantize": "int8"}, "takes no quantize"),
        ({"memory": "50%"}, "gpu_memory_utilization"),
    ],
)
def test_what_only_our_engine_takes_is_refused(given: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        unitok.load(backend="vllm", **given)


def test_a_folder_of_another_family_is_refused(tmp_path: Path):
    folder = save_chameleon(tmp_path / "chameleon")
    with pytest.raises(ValueError, match=r"chameleon: .*serves Janus"):
        unitok.load(folder, backend="vllm")


def test_a_tensor_parallel_size_that_divides_nothing_is_refused():
    with pytest.raises(ValueError, match="tensor parallel size of 5 does not divide"):
        unitok.load(backend="vllm", device="cpu", tensor_parallel_size=5)


def test_a_plugin_that_vllm_may_not_load_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    with pytest.raises(ImportError, match="VLLM_PLUGINS is 'other'"):
        unitok.load(backend="vllm")
