"""The embedded model's runs from end to end, at toy size: as the script tells."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import unitok
from scripts import reinforce_embedded
from unitok.cli import app
from unitok.emoji.tuning_data import TuningSizes, write_tuning_data
from unitok.loading import DEFAULT_FOLDER

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "embedded"
SMALL = ("held_out.conversations=4", "batch.conversations=4", "samples.prompts=[]", "log_every=1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "runs" / "embedded"
    sizes = TuningSizes(draw=6, ask=6, paint=6, read=6, places=6, held_out=2)
    write_tuning_data(made, sizes)
    write_tuning_data(made / "second", sizes, seed=1)
    return made


def unitok_(*words: str) -> str:
    """What a command of `unitok` prints."""
    done = CliRunner().invoke(app, [*words, "--quiet"], prog_name="unitok")
    assert done.exit_code == 0, done.output
    return done.output


def train(name: str, *settings: str) -> dict[str, Any]:
    """Make a run of a recipe, and return the last record of its losses."""
    words = [w for setting in (*SMALL, *settings) for w in ("--set", setting)]
    printed = unitok_("train", str(RECIPES / f"{name}.toml"), *words)
    lines = (Path(printed.strip().splitlines()[-1]).parent / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "speed" in record][-1]


@pytest.mark.timeout(400)  # six runs of a model that is small, but no toy
def test_the_model_learns_both_orders_and_then_from_rewards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    learned = train("both_orders", "steps=2", "held_out.every=2")
    assert learned["text"] > 0 and learned["image"] > 0 and not learned["skipped"]
    for name in ("places", "settle"):
        assert train(name, "steps=1")["text"] > 0
    unitok_(
        *("data", "pairs", "runs/embedded/draw.jsonl", "--reward", "emoji", "-n", "4"),
        *("--temperature", "2.5", "--guidance", "1.5", "--out", "runs/embedded/pairs.jsonl"),
    )
    preferred = train("dpo", "steps=2")
    assert preferred["dpo"] > 0 and (folder / "dpo" / "model").is_dir()
    tuned = [f"runs/embedded/{n}/model={s}" for n, s in (("dpo", 1), ("settle", 0.6))]
    parts = (f"{DEFAULT_FOLDER}=-1", *tuned, "runs/embedded/both_orders/model=0.4")
    run_script(monkeypatch, "blend", *parts, "--out", "runs/embedded/blend")
    for name in ("grpo", "grpo_guided"):
        rewarded = train(
            name, "steps=1", "rollout.groups=6", "rollout.samples=4", "rollout.temperature=1.5"
        )
        assert 0 <= rewarded["reward_text"] <= 1 and 0 <= rewarded["reward_image"] <= 1
        assert rewarded["live_groups"] + rewarded["flat_groups"] == 6 and not rewarded["failed"]
        parts = (f"runs/embedded/{name}/model=0.8", "runs/embedded/dpo/model=0.2")
        blended = {"grpo": "rewarded", "grpo_guided": "tuned"}[name]
        run_script(monkeypatch, "blend", *parts, "--out", f"runs/embedded/{blended}")
    for name, model in {"before": "both_orders/model", "after": "tuned"}.items():
        words = ("score", "--model", f"runs/embedded/{model}", "--prompts", "1")
        run_script(monkeypatch, *words, "--seeds", "5", "--out", f"{name}.jsonl")
    model = ("--model", "runs/embedded/tuned")
    run_script(monkeypatch, "grid", *model, "--prompts", "1", "--out", "a.png")
    with Image.open("a.png") as grid:
        assert grid.height > 4 * grid.width  # a row for each kind, of one drawing
    with pytest.raises(SystemExit) as ended:  # one prompt of each kind, after two updates
        run_script(monkeypatch, "compare", "before.jsonl", "after.jsonl")
        sys.exit(0)
    assert ended.value.code in (0, reinforce_embedded.MISSED)
    assert "| question_first | 9 |" in capsys.readouterr().out


def test_weights_are_blended(
    untrained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = load_file(untrained_folder / "model.safetensors")
    other = tmp_path / "other"
    shutil.copytree(untrained_folder, other)
    doubled = {name: weight * 2 for name, weight in weights.items()}
    save_file(doubled, other / "model.safetensors", metadata={"format": "pt"})
    parts = (f"{untrained_folder}=0.25", f"{other}=0.75")
    run_script(monkeypatch, "blend", *parts, "--out", str(tmp_path / "blend"))
    blended = load_file(tmp_path / "blend" / "model.safetensors")
    assert blended.keys() == weights.keys()
    for name, weight in weights.items():
        assert blended[name].dtype == weight.dtype
        torch.testing.assert_close(blended[name], weight * 1.75, rtol=1e-6, atol=0)
    with unitok.load(tmp_path / "blend", device="cpu") as model:
        assert model.draw("a cat", seed=1).image.width > 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["a=1", "b=1"], "the shares add up to 2, not to 1"),
        (["a"], "'a' is not FOLDER=SHARE"),
        (["a=much"], "'a=much' is not FOLDER=SHARE"),
        (["a=1"], "a/model.safetensors"),
    ],
)
def test_what_cannot_be_blended_is_refused(
    parts: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=re.escape(message)):
        run_script(monkeypatch, "blend", *parts, "--out", "blend")
    assert not (tmp_path / "blend").exists()


def run_script(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["reinforce_embedded.py", *words])
    reinforce_embedded.main()
