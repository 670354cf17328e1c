"""Training without a data set: losses, optimisers, exact resumption, the loop."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unitok.resuming import assert_resumes_exactly, through_a_file
from unitok.training.checkpoints import load_checkpoint, save_checkpoint
from unitok.training.log import TrainingLog
from unitok.training.loop import LoopOptions, TrainingLoop
from unitok.training.losses import Loss, Losses, merge
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok.training.schedule import WarmupCosine
from unitok.training.trainer import Trainer


class Noise:
    """Two batches an update: random vectors [4, 3]."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __next__(self) -> list[Tensor]:
        return [torch.randn(4, 3, generator=self.generator) for _ in range(2)]

    def __iter__(self) -> Iterator[list[Tensor]]:
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.generator.set_state(state["generator"])


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 3))


def optimiser(model: nn.Module) -> MixedOptimiser:
    matrices = matrices_in(model)
    return MixedOptimiser(matrices, others(model, matrices), weight_decay=0.01)


def toy() -> Trainer[Tensor]:
    model = network()

    def loss(batch: Tensor, step: int) -> Loss:
        error = (model(batch) - batch).square().mean()
        return Loss(error * 0.5, {"error": error}, len(batch))

    return Trainer(model, loss, optimiser(model), WarmupCosine(0.05, 2, 10), Noise())


# --- losses, schedule, optimisers ----------------------------------------------------------------


def test_a_missing_loss_does_not_count_in_the_mean():
    batches = [
        Losses({"image": 2.0}, 5),
        Losses({"image": 4.0, "text": 1.0}, 6),
        Losses({}, 1),
    ]
    assert merge(batches) == Losses({"image": 3.0, "text": 1.0}, 12)
    assert "image" not in merge([Losses({"text": 1.0}, 1)]).parts


def test_the_rate_warms_up_and_falls_to_a_fiftieth():
    rate = WarmupCosine(peak=2.0, warmup=4, steps=100)
    assert [rate(step) for step in (0, 1)] == pytest.approx([0.5, 1.0], rel=2e-3)
    assert rate(50) == pytest.approx(2.0 * (0.02 + 0.98 * 0.5))
    assert rate(100) == rate(1000) == pytest.approx(0.04)
    falling = [rate(step) for step in range(4, 100)]
    assert falling == sorted(falling, reverse=True)


def test_muon_moves_the_very_weights_it_flattens():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 4, 3)
    matrices = matrices_in(conv)
    optimiser = MixedOptimiser(matrices, others(conv, matrices), learning_rate=0.1)
    before = conv.weight.detach().clone()
    conv(torch.randn(1, 2, 5, 5)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    assert not torch.equal(conv.weight, before)
    assert conv.weight.grad is None and conv.bias is not None and conv.bias.grad is None


def test_the_mixed_optimiser_takes_no_closure():
    with pytest.raises(ValueError, match="no closure"):
        optimiser(network()).step(lambda: 0.0)


# --- the trainer ---------------------------------------------------------------------------------


def test_the_trainer_does_what_a_loop_written_out_does():
    """To the last bit: losses, gradients of both batches together, clipping, rates, weights."""
    trainer, model, data = toy(), network(), Noise()
    plain, rates = optimiser(model), WarmupCosine(0.05, 2, 10)
    torch.manual_seed(11)
    losses = [trainer.step() for _ in range(5)]
    torch.manual_seed(11)
    for step, seen in enumerate(losses):
        errors = []
        for batch in next(data):
            with torch.autocast("cpu", torch.bfloat16):
                error = (model(batch) - batch).square().mean()
            (error * 0.5).backward()
            errors.append(error.item())
        nn.utils.clip_grad_norm_([*plain.matrices, *plain.rest], 1.0)
        for group in plain.param_groups:
            group["lr"] = rates(step)
        plain.step()
        plain.zero_grad()
        assert seen == Losses({"error": sum(errors) / 2}, 8)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_trainer_takes_any_optimiser_of_torch():
    model = network()

    def loss(batch: Tensor, step: int) -> Loss:
        error = (model(batch) - batch).square().mean()
        return Loss(error, {"error": error}, len(batch))

    adamw = torch.optim.AdamW(model.parameters())
    trainer = Trainer(model, loss, adamw, lambda step: 0.02, Noise())
    errors = [trainer.step().parts["error"] for _ in range(60)]
    assert sum(errors[-10:]) < 0.7 * sum(errors[:10])
    assert adamw.param_groups[0]["lr"] == 0.02


def test_gradients_are_clipped_to_their_common_norm():
    model = nn.Linear(3, 3, bias=False)
    start = model.weight.detach().clone()

    def loss(batch: Tensor, step: int) -> Loss:
        total = 1000 * model(batch).square().sum()
        return Loss(total, {"total": total}, len(batch))

    descent = torch.optim.SGD(model.parameters())
    Trainer(model, loss, descent, lambda step: 1.0, Noise(), clip=0.25).step()
    assert (model.weight - start).norm().item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("steps_before", [1, 4])
def test_a_trainer_resumes_exactly(steps_before: int):
    def seeded() -> Trainer[Tensor]:
        torch.manual_seed(5)
        return toy()

    assert_resumes_exactly(seeded, steps_before, 3)


# --- files and the loop --------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    trainer = toy()
    trainer.step()
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(trainer.state_dict(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    state, expected = load_checkpoint(path), through_a_file(trainer.state_dict())
    assert state["step"] == 1 and state.keys() == expected.keys()
    for name, tensor in state["model"].items():
        assert torch.equal(tensor, expected["model"][name])


def test_a_broken_checkpoint_is_named(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(FileNotFoundError):
        load_checkpoint(path)
    path.write_bytes(b"PK half of a file")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is no training checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="it has no model, optimiser and step"):
        load_checkpoint(path)


def test_a_full_disk_keeps_the_checkpoint_that_was_there(tmp_path: Path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"model": {}, "optimiser": {}, "step": 1}, path)

    def full(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")  # what torch says then

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"checkpoint\.pt could not be written: .*the one that was"):
        save_checkpoint({"model": {}, "optimiser": {}, "step": 2}, path)
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_where_a_run_went_back_the_later_records_count(tmp_path: Path):
    log = TrainingLog(tmp_path / "log.jsonl")
    for record in (
        {"step": 2, "speed": 1.0, "error": 3.0},
        {"step": 2, "score": 0.5},
        {"step": 1, "speed": 1.0, "error": 4.0},
        {"step": 2, "speed": 1.0, "error": 2.0},
    ):
        log.append(record)
    assert [record["error"] for record in log.losses()] == [4.0, 2.0]
    assert [record["score"] for record in log.scores()] == [0.5]


def run_loop(folder: Path, steps: int, minutes: float = 10.0) -> Trainer[Tensor]:
    trainer = toy()
    options = LoopOptions(folder, steps, minutes, save_every=4, log_every=2)
    TrainingLoop(trainer, options, lambda: {"score": trainer.step_count / 10}).run()
    return trainer


def test_the_loop_logs_saves_and_evaluates_when_it_should(tmp_path: Path):
    run_loop(tmp_path / "run", 10)
    log = TrainingLog(tmp_path / "run" / "log.jsonl")
    assert [record["step"] for record in log.losses()] == [2, 4, 6, 8, 10]
    assert [(r["step"], r["score"]) for r in log.scores()] == [(4, 0.4), (8, 0.8), (10, 1.0)]
    plain = toy()
    losses = [plain.step().parts["error"] for _ in range(2)]
    assert log.losses()[0]["error"] == sum(losses) / 2
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_over_its_time_stops_at_a_checkpoint_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = run_loop(tmp_path / "whole", 3)
    first = run_loop(tmp_path / "parts", 3, minutes=0.0)
    assert first.step_count == 1
    second = run_loop(tmp_path / "parts", 3)
    assert "continuing from step 1" in capsys.readouterr().out
    assert second.step_count == 3
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name


def test_a_finished_run_does_nothing_more(tmp_path: Path):
    run_loop(tmp_path, 2)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    run_loop(tmp_path, 2)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == lines
    assert json.loads(lines[-1])["step"] == 2
