"""Tensor parallelism and data parallelism change no id."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unitok
from tests.vllm.parallel_child import SIZES
from tests.vllm.work import own_ids, work
from unitok.loading import DEFAULT_FOLDER


def in_child(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    """What vLLM gives in processes of its own."""
    command = [sys.executable, "-m", "tests.vllm.parallel_child", str(folder), str(out)]
    done = subprocess.run([*command, json.dumps(options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("option", ["tensor_parallel_size", "data_parallel_size"])
def test_two_processes_emit_the_ids_of_our_engine(option: str, tmp_path: Path):
    model = unitok.load(DEFAULT_FOLDER, device="cpu", dtype="float32")
    found = in_child(DEFAULT_FOLDER, tmp_path / "out.json", **{option: 2})
    assert found["ids"] == own_ids(model, work(*SIZES))
    replicas = 2 if option == "data_parallel_size" else 1
    assert len(found["tokens"]) == replicas and all(found["tokens"].values())
