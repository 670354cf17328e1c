"""Training the image tokenizer on the emoji world."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unitok.resuming import assert_resumes_exactly
from tests.unitok.tiny import TINY
from unitok.emoji import image_tokenizer
from unitok.emoji.image_tokenizer import (
    TokenizerBatch,
    TokenizerLoss,
    TokenizerRun,
    load_tokenizer,
    make_trainer,
    random_backing,
    train,
)
from unitok.training.checkpoints import save_checkpoint
from unitok.training.loop import LoopOptions
from unitok.training.trainer import Trainer


def tokenizer_trainer() -> Trainer[TokenizerBatch]:
    return make_trainer(TINY.image_tokenizer, TokenizerRun(steps=8, batch=3, warmup=2))


@pytest.fixture
def few_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codebook is fitted to fewer scenes, for speed."""
    many = TokenizerLoss.many_latents
    monkeypatch.setattr(TokenizerLoss, "many_latents", lambda loss: many(loss, batches=8))


def test_the_tokenizers_loss_falls_and_its_codebook_is_fitted_on_the_way():
    run = TokenizerRun(steps=32, batch=4, warmup=2)
    trainer = make_trainer(TINY.image_tokenizer, run)
    model: Any = trainer.model
    before = model.quantizer.codebook.clone()
    losses = [trainer.step().parts for _ in range(32)]
    without_codes = [parts["commitment"] == 0 for parts in losses]
    assert without_codes == [True] * 8 + [False] * 24, "a quarter has no codes"
    assert losses[-1]["reconstruction"] < 0.7 * losses[0]["reconstruction"]
    assert not torch.equal(model.quantizer.codebook, before)


def test_backing_colours_are_of_the_palette_and_white_half_of_the_time():
    backing = random_backing(2000, torch.Generator().manual_seed(0))
    assert backing.shape == (2000, 4, 3)
    white = (backing == 1).flatten(1).all(1).float().mean()
    assert 0.45 < white < 0.56


@pytest.mark.usefixtures("few_latents")
@pytest.mark.parametrize("steps_before", [1, 2, 4])
def test_tokenizer_training_resumes_exactly_before_and_after_the_fit(steps_before: int):
    assert_resumes_exactly(tokenizer_trainer, steps_before, 6 - steps_before)


def test_a_trained_tokenizer_comes_back_from_its_checkpoint(tmp_path: Path):
    trainer = tokenizer_trainer()
    trainer.step()
    save_checkpoint(trainer.state_dict(), tmp_path / "checkpoint.pt")
    model, run = load_tokenizer(tmp_path / "checkpoint.pt")
    assert run == TokenizerRun(steps=8, batch=3, warmup=2)
    assert model.config == TINY.image_tokenizer and not model.training
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_checkpoint_of_something_else_is_named(tmp_path: Path):
    state = {"model": {}, "optimiser": {}, "step": 1, "settings": {"run": {}}}
    save_checkpoint(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is no checkpoint of an image tokenizer"):
        load_tokenizer(tmp_path / "other.pt")


@pytest.mark.usefixtures("few_latents")
def test_a_run_writes_its_scores_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_tokenizer, "DEFAULT", TINY)
    few = functools.partial(image_tokenizer.evaluate, count=16)
    monkeypatch.setattr(image_tokenizer, "evaluate", few)
    run = TokenizerRun(steps=2, batch=2, warmup=1)
    train(run, "patch", LoopOptions(tmp_path, 2))
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 2 and 0 < record["stable"] <= 1 and record["used"] >= 1
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
