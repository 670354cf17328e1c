"""Tensor parallelism and data parallelism change no id."""

from pathlib import Path
from typing import Any

import pytest

import unitok
from scripts import check_vllm
from tests.vllm.parallel_child import SIZES, in_child
from tests.vllm.tiny import save_tiny
from tests.vllm.work import own_ids, work
from unitok.loading import DEFAULT_FOLDER


@pytest.mark.timeout(600)
@pytest.mark.parametrize("option", ["tensor_parallel_size", "data_parallel_size"])
def test_two_processes_emit_the_ids_of_our_engine(option: str, tmp_path: Path):
    model = unitok.load(DEFAULT_FOLDER, device="cpu", dtype="float32")
    found = in_child(DEFAULT_FOLDER, tmp_path / "out.json", {option: 2})
    assert found["ids"] == own_ids(model, work(*SIZES))
    replicas = 2 if option == "data_parallel_size" else 1
    assert len(found["tokens"]) == replicas and all(found["tokens"].values())


@pytest.mark.timeout(600)
def test_the_check_compares_what_two_processes_emit(capsys: Any, tmp_path: Path):
    folder = save_tiny(tmp_path / "tiny")
    model = unitok.load(folder, device="cpu", dtype="float32")
    assert check_vllm.compare(model, folder, ["data"], (3, 2, 1))
    told = "data_parallel_size=2: the same ids in 3 of 3 drawings, 2 of 2 captions, 1 of 1 texts; "
    assert capsys.readouterr().out.startswith(told)
