"""Two ranks learn what one learns, with DDP and with FSDP2; a run goes on with fewer ranks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.training.ranks import finish, start_ranks
from tests.training.toy import toy_recipe
from unitok.training.recipe import MemoryKeys, Recipe
from unitok.training.recipe_file import read_recipe, to_toml
from unitok.training.run import FineTuning

STEPS = 20
EMA = {"learning_rate": 1e-3, "warmup": 2, "ema": 0.9}


def losses(folder: Path) -> list[dict[str, float]]:
    """The losses of each update in a run's log, and its norm."""
    records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    names = ("text", "image", "gradient_norm", "held_out_text", "held_out_image")
    return [{name: r[name] for name in names if name in r} for r in records]


@pytest.fixture(scope="module")
def runs(untrained_folder: Path, toy_data: Path, tmp_path_factory: Any) -> dict[str, Path]:
    """The folders of the same run: on one rank, on two with DDP, on two with FSDP2."""
    folder = tmp_path_factory.mktemp("ranks")

    def recipe(name: str, **sections: Any) -> Recipe:
        return toy_recipe(
            untrained_folder,
            toy_data,
            folder / name,
            steps=STEPS,
            optimiser=EMA,
            batch={"conversations": 5, "max_tokens": 100},
            checkpoint={"every": 10, "keep": 5},
            held_out={"path": str(toy_data), "every": 10},
            **sections,
        )

    files = []
    sharded = {"memory": {"sharding": "fsdp"}, "codes": str(folder / "codes")}
    for name, sections in {"ddp": {}, "fsdp": sharded}.items():
        files.append(folder / f"{name}.toml")
        files[-1].write_text(to_toml(recipe(name, **sections)))
    processes = start_ranks(files)
    FineTuning(recipe("one")).run(shown=False)
    printed = finish(processes)
    assert "0 of 2, sharded False" in printed[0] and "1 of 2, sharded True" in printed[1]
    # Else the tests would not show that a rank with less work keeps step.
    assert "fillers: 0" not in printed[0] or "fillers: 0" not in printed[1]
    return {name: folder / name for name in ("one", "ddp", "fsdp")}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_learn_what_one_learns(runs: dict[str, Path], kind: str):
    expected, found = losses(runs["one"]), losses(runs[kind])
    assert len(found) == len(expected) == STEPS + 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    weights = load_file(runs["one"] / "model" / "model.safetensors")
    for name, tensor in load_file(runs[kind] / "model" / "model.safetensors").items():
        assert (tensor - weights[name]).abs().max() < 1e-4, name


def test_a_run_of_two_ranks_goes_on_with_one(runs: dict[str, Path], tmp_path: Path):
    """From the middle of the run with FSDP2, whose checkpoints hold parts of tensors."""
    out = tmp_path / "run"
    shutil.copytree(runs["fsdp"], out)
    for later in (out / "checkpoints/step-000020", out / "model"):
        shutil.rmtree(later)
    recipe = replace(read_recipe(out / "recipe.toml"), out=str(out), memory=MemoryKeys())
    run = FineTuning(recipe)
    assert run.trainer.step_count == 10 and run.ranks.count == 1
    run.run(shown=False)
    weights = load_file(runs["fsdp"] / "model" / "model.safetensors")
    for name, tensor in load_file(out / "model" / "model.safetensors").items():
        assert (tensor - weights[name]).abs().max() < 1e-5, name


def test_checkpoints_hold_no_pickle(runs: dict[str, Path]):
    folder = runs["fsdp"] / "checkpoints" / "step-000020"
    kinds = sorted(path.suffix for path in folder.iterdir())
    assert kinds == [".json", ".safetensors", ".safetensors"]
    stored = [set(load_file(path)) for path in folder.glob("*.safetensors")]
    assert "model.decoder.norm.weight" in stored[0] & stored[1], "each rank has its part"
