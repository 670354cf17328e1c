"""A run that is killed goes on as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.pairs import write_pairs
from tests.training.ranks import ROOT, SECONDS
from tests.training.toy import toy_recipe
from unitok.training.recipe import Recipe
from unitok.training.recipe_file import to_toml
from unitok.training.run import FineTuning
from unitok.training.run_checkpoints import RunCheckpoints

STEPS = 20


@pytest.fixture(params=["conversations", "pairs"])
def recipe(
    untrained_folder: Path, toy_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Recipe:
    """Adapters with dropout, so that random numbers matter, and averages. Also by DPO."""
    by_pairs = request.param == "pairs"
    beside: dict[str, Any] = {
        "batch": {"conversations": 4, "max_tokens": 400},
        "dpo": {"beta": 0.5},
    }
    return toy_recipe(
        untrained_folder,
        write_pairs(tmp_path / "pairs") if by_pairs else toy_data,
        tmp_path / "run",
        **(beside if by_pairs else {}),
        steps=STEPS,
        lora={"rank": 2, "dropout": 0.2},
        optimiser={"learning_rate": 1e-3, "ema": 0.9},
        checkpoint={"every": 4},
        loss={"prompt_dropout": 0.5},
    )


def start(recipe: Recipe, path: Path) -> subprocess.Popen[bytes]:
    """The run in a process of its own, as the command line makes it."""
    path.write_text(to_toml(recipe))
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "engine", ROOT / "tokenizers")))
    command = [sys.executable, "-m", "unitok", "train", str(path)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, cwd=ROOT)


def kill_after(process: subprocess.Popen[bytes], checkpoints: RunCheckpoints, step: int) -> None:
    """Kill a run at a random moment after a checkpoint."""
    limit = time.monotonic() + SECONDS
    while max(checkpoints.steps(), default=0) < step and time.monotonic() < limit:
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.005)
    time.sleep(random.random() * 0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()


def everything(folder: Path) -> dict[str, Any]:
    """What the last checkpoint and the result hold, by file and by tensor."""
    found: dict[str, Any] = {}
    for part in (folder / f"checkpoints/step-{STEPS:06d}", folder / "adapter"):
        for path in part.iterdir():
            if path.suffix == ".safetensors":  # the order of a file's tensors may differ
                found |= {f"{part.name}/{name}": t for name, t in load_file(path).items()}
            else:
                found[f"{part.name}/{path.name}"] = path.read_bytes()
    return found


def test_a_run_that_is_killed_resumes_bit_for_bit(recipe: Recipe, tmp_path: Path):
    folder = Path(recipe.out)
    killed = start(recipe, tmp_path / "recipe.toml")
    kill_after(killed, RunCheckpoints(folder / "checkpoints", 2), 4)
    assert not (folder / "adapter").exists(), "it was killed before its end"
    resumed = FineTuning(recipe)
    assert 4 <= resumed.trainer.step_count < STEPS
    resumed.run(shown=False)
    interrupted = everything(folder)
    folder.rename(tmp_path / "interrupted")
    FineTuning(recipe).run(shown=False)
    whole = everything(folder)
    assert whole.keys() == interrupted.keys() and len(whole) > 50
    for name, value in whole.items():
        other = interrupted[name]
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        assert same, name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_optimiser_goes_on_from_the_middle(
    untrained_folder: Path, toy_data: Path, tmp_path: Path, name: str
):
    keys = {"name": name, "learning_rate": 1e-3, "weight_decay": 0.1}
    run = FineTuning(toy_recipe(untrained_folder, toy_data, tmp_path / "run", optimiser=keys))
    run.run(shown=False)
    whole = {name: p.detach().clone() for name, p in run.family.model.named_parameters()}
    shutil.rmtree(run.checkpoints.path(6))
    again = FineTuning(run.recipe)
    assert again.trainer.step_count == 3
    again.run(shown=False)
    for part, weight in again.family.model.named_parameters():
        assert torch.equal(weight, whole[part]), part
