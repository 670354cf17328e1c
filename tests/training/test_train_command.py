"""`unitok train`: plans, results and mistakes, as the command line tells them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.training.toy import toy_recipe
from unitok.cli import app
from unitok.training import trainer
from unitok.training.recipe_file import to_toml


@pytest.fixture
def recipe(untrained_folder: Path, toy_data: Path, tmp_path: Path) -> Path:
    """The file of a short recipe."""
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(toy_recipe(untrained_folder, toy_data, tmp_path / "run", steps=2)))
    return path


def train(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, words)])


def test_a_plan_writes_nothing_and_a_run_prints_its_result(recipe: Path, tmp_path: Path):
    plan = train(recipe, "--dry-run", "--set", "train.parts=['image_head']", "--set", "steps=7")
    assert plan.exit_code == 0 and "7 of 4 conversations" in plan.output
    assert "image_head" in plan.output and "decoder" not in plan.output
    assert not (tmp_path / "run").exists()
    done = train(recipe)
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "run" / "model")
    assert "step 1: text" in done.stderr and "gradient norm" in done.stderr
    assert train(recipe, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere: there is no such recipe; unitok comes with dpo, full, grpo, "),
        (["{}", "--set", "stepz=1"], "there is no key stepz; did you mean steps?"),
        (["{}", "--set", "steps"], "--set takes key=value, not 'steps'"),
        (["{}", "--set", "model=nowhere"], "nowhere"),
        (["{}", "--set", "train.parts=['decodr']"], "no part 'decodr'; did you mean decoder?"),
        (["{}", "--set", "lora.targets=['decodr']"], "the nearest is decoder"),
        (["{}", "--set", "data.0.path=gone.jsonl"], "gone.jsonl: no such file"),
        (["{}", "--set", "batch.max_length=400"], "batch.max_length is 400, and batch.max_tokens"),
        (["{}", "--set", "held_out.path=gone.jsonl"], "gone.jsonl: no such file"),
    ],
)
def test_a_mistake_is_one_line(recipe: Path, words: list[str], told: str):
    done = train(*[word.format(recipe) for word in words])
    assert done.exit_code == 2 and told in done.stderr
    assert done.stderr.startswith("unitok: ") and done.stderr.count("\n") == 1


def test_a_run_that_breaks_off_says_what_is_kept(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "step", stop)
    done = train(recipe)
    assert done.exit_code == 130
    assert "stopped; there is no checkpoint yet, and the same command goes on" in done.stderr

    def diverge(self: object) -> None:
        raise trainer.NotFiniteError("a loss is infinite")

    monkeypatch.setattr(trainer.Trainer, "step", diverge)
    done = train(recipe)
    assert done.exit_code == 1 and "a loss is infinite; there is no checkpoint yet" in done.stderr


def test_a_missing_library_says_how_to_install_it(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "accelerate", None)
    done = train(recipe)
    assert done.exit_code == 2
    assert "this needs accelerate" in done.stderr and "unitok-engine[train]" in done.stderr
