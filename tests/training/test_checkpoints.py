"""Checkpoints: whole or not there, the last few kept, what is wrong with them named."""

import errno
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unitok.training import run_checkpoints
from unitok.training.run_checkpoints import RunCheckpoints


def tensors(value: float) -> dict[str, Tensor]:
    return {"model.a": torch.full((3, 2), value), "optimiser.a.step": torch.tensor(value)}


def loaded(checkpoints: RunCheckpoints, step: int) -> dict[str, Tensor]:
    found = tensors(0.0)
    checkpoints.load(step, found)
    return found


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    checkpoints = RunCheckpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.steps() == []
    checkpoints.save(250, tensors(1.5), {"step": 250, "place": [1, {"a": None}]})
    assert checkpoints.steps() == [250]
    assert checkpoints.path(250).name == "step-000250"
    assert checkpoints.values(250) == {"step": 250, "place": [1, {"a": None}]}
    assert checkpoints.shapes(250) == {"model.a": (3, 2), "optimiser.a.step": ()}
    for name, tensor in loaded(checkpoints, 250).items():
        assert torch.equal(tensor, tensors(1.5)[name])


def test_the_last_few_are_kept(tmp_path: Path):
    checkpoints = RunCheckpoints(tmp_path, keep=2)
    for step in (5, 10, 15, 1_000_000):
        checkpoints.save(step, tensors(step), {"step": step})
    assert checkpoints.steps() == [15, 1_000_000]
    assert len(list(tmp_path.iterdir())) == 2
    assert loaded(checkpoints, 15)["model.a"][0, 0] == 15


def test_a_step_that_comes_again_is_replaced(tmp_path: Path):
    checkpoints = RunCheckpoints(tmp_path, keep=2)
    checkpoints.save(5, tensors(1), {"step": 5})
    checkpoints.save(5, tensors(2), {"step": 5})
    assert loaded(checkpoints, 5)["model.a"][0, 0] == 2


def test_half_a_checkpoint_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process ends before the folder gets its name: nothing looks like a checkpoint."""
    checkpoints = RunCheckpoints(tmp_path, keep=2)
    checkpoints.save(5, tensors(1), {"step": 5})

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_checkpoints, "_sync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(10, tensors(2), {"step": 10})
    monkeypatch.undo()
    assert checkpoints.steps() == [5] and len(list(tmp_path.iterdir())) == 2
    checkpoints.save(10, tensors(3), {"step": 10})
    assert checkpoints.steps() == [5, 10] and len(list(tmp_path.iterdir())) == 2
    assert loaded(checkpoints, 10)["model.a"][0, 0] == 3


@pytest.mark.parametrize("place", ["save", "_sync"])
def test_a_full_disk_is_an_error_that_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    checkpoints = RunCheckpoints(tmp_path, keep=1)
    checkpoints.save(5, tensors(1), {"step": 5})

    def full(*_: object, **__: object) -> None:
        error = OSError(errno.ENOSPC, "No space left on device")
        if place == "_sync":
            raise error
        raise run_checkpoints.CheckpointException("save", {0: (error, None)})  # type: ignore[arg-type]

    monkeypatch.setattr(
        run_checkpoints.state_dict_saver if place == "save" else run_checkpoints, place, full
    )
    with pytest.raises(OSError, match=r"step-000010 could not be written: .*No space left on dev"):
        checkpoints.save(10, tensors(2), {"step": 10})
    monkeypatch.undo()
    assert checkpoints.steps() == [5]
    assert loaded(checkpoints, 5)["model.a"][0, 0] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_writing_that_breaks_off_without_a_word_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
):
    checkpoints = RunCheckpoints(tmp_path, keep=1)
    checkpoints.save(5, tensors(1), {"step": 5})

    def breaks_off(*_: object) -> None:
        raise error

    monkeypatch.setattr(run_checkpoints.HuggingFaceStorageWriter, "write_data", breaks_off)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OSError):
        checkpoints.save(10, tensors(2), {"step": 10})
    assert checkpoints.steps() == [5]


def test_a_broken_checkpoint_is_named(tmp_path: Path):
    checkpoints = RunCheckpoints(tmp_path, keep=2)
    checkpoints.save(5, tensors(1), {"step": 5})
    with pytest.raises(ValueError, match="step-000005 does not fit"):
        checkpoints.load(5, {"model.b": torch.zeros(2)})
    with pytest.raises(ValueError, match="step-000005 does not fit"):
        checkpoints.load(5, {"model.a": torch.zeros(7, 7)})
    (file,) = checkpoints.path(5).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="step-000005 is broken"):
        checkpoints.shapes(5)
    (checkpoints.path(5) / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"state\.json"):
        checkpoints.values(5)
