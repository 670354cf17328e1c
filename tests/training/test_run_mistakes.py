"""Runs that cannot go well: what is noticed before the first update, and what is lost: nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.toy import toy_recipe, write_data
from unitok.training import progress
from unitok.training.log import TrainingLog
from unitok.training.recipe import Recipe
from unitok.training.run import FineTuning
from unitok.training.samples import Sampler


@pytest.fixture
def make(untrained_folder: Path, toy_data: Path, tmp_path: Path) -> Any:
    """Makes recipes of toy runs."""

    def made(source: Path = toy_data, **sections: Any) -> Recipe:
        return toy_recipe(untrained_folder, source, tmp_path / "run", **sections)

    return made


# --- before the first update ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pictures": ["gone.png"]}, r"gone\.png"),
        ({"pictures": [__file__]}, r"test_run_mistakes\.py"),
        ({"prompts": ["a cat", " "]}, r"a prompt of samples\.prompts is empty"),
        ({"prompts": ["cat " * 900]}, "samples.prompts.*have .* tokens; at most|too long"),
        ({"question": ""}, r"samples\.question is empty"),
    ],
)
def test_samples_that_would_fail_are_refused(make: Any, keys: dict[str, Any], message: str):
    with pytest.raises((OSError, ValueError), match=message):
        FineTuning(make(samples=keys))


@pytest.mark.parametrize("name", ["model", "adapter"])
def test_a_result_replaces_nothing_but_that_of_its_own_run(make: Any, name: str):
    recipe = make(steps=1, **({"lora": {"rank": 2}} if name == "adapter" else {}))
    target = Path(recipe.out) / name
    target.mkdir(parents=True)
    (target / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name} exists, and there is no checkpoint"):
        FineTuning(recipe)
    assert (target / "mine.txt").read_text() == "mine"
    target.rename(target.with_name("moved"))
    for _ in range(2):  # a run that goes on replaces its own
        assert FineTuning(recipe).run(shown=False) == target


@pytest.mark.parametrize("epochs", [None, 2])
def test_data_of_which_nothing_can_be_learned_end_the_run(make: Any, epochs: int | None):
    recipe = make(batch={"conversations": 2, "max_tokens": 300, "max_length": 2})
    run = FineTuning(replace(recipe, steps=None if epochs else 3, epochs=epochs))
    with pytest.raises(ValueError, match="there is nothing to learn in these data"):
        run.run(shown=False)
    assert run.checkpoints.steps() == [] and not (run.folder / "model").exists()


def test_a_shorter_limit_is_another_recipe_only_if_more_is_left_out(make: Any):
    """Sequences are as long as a batch, if nothing else is said, or as the model's context."""

    def limits(max_tokens: int, **keys: int) -> Any:
        batch = {"conversations": 4, "max_tokens": max_tokens, **keys}
        return make(steps=1, batch=batch)

    run = FineTuning(limits(3000))
    context = run.family.max_context
    assert context < 2500
    run.run(shown=False)
    assert FineTuning(limits(2500)).resumed
    with pytest.raises(ValueError, match=rf"batch\.max_length: {context} and 100"):
        FineTuning(limits(100))


def test_a_place_that_cannot_be_written_is_told_before_the_first_update(make: Any):
    run = FineTuning(make())
    run.folder.mkdir()
    (run.folder / "checkpoints").write_text("no folder")
    with pytest.raises(NotADirectoryError, match="checkpoints is not a folder"):
        run.run(shown=False)
    assert run.trainer.step_count == 0


# --- on the way ----------------------------------------------------------------------------------


def test_a_checkpoint_is_there_before_samples_can_fail(make: Any, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError("no space for pictures")

    monkeypatch.setattr(Sampler, "write", full)
    run = FineTuning(make(samples={"every": 3, "prompts": ["two apples"]}))
    with pytest.raises(OSError, match="no space for pictures"):
        run.run(shown=False)
    assert run.checkpoints.steps() == [3]


def test_epochs_that_end_early_end_as_others_do(make: Any, toy_data: Path, tmp_path: Path):
    data = write_data(tmp_path / "data")
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines, *["{}"] * 9]) + "\n")
    batch = {"conversations": 4, "max_tokens": 300, "on_error": "skip"}
    recipe = make(data, batch=batch, held_out={"path": str(toy_data)}, log_every=50)
    run = FineTuning(replace(recipe, steps=None, epochs=1))
    run.run(shown=False)
    assert (run.steps, run.trainer.step_count, run.checkpoints.steps()) == (5, 3, [3])
    records = TrainingLog(run.folder / "log.jsonl").records()
    assert [record["step"] for record in records] == [3, 3]
    assert any("held_out_text" in record for record in records)


def test_wrong_lines_of_held_out_data_are_skipped_alike(make: Any, tmp_path: Path):
    data = write_data(tmp_path / "data")
    data.write_text("{}\n" + data.read_text())
    held_out = {"path": str(data)}
    with pytest.raises(ValueError, match=r"train\.jsonl:1"):
        FineTuning(make(held_out=held_out))
    batch = {"conversations": 4, "max_tokens": 300, "on_error": "skip"}
    assert FineTuning(make(held_out=held_out, batch=batch)).held_out.batches


def test_a_full_disk_is_told_by_the_checkpoint_and_not_by_the_plot(
    make: Any, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise OSError("no space for the plot")

    def checkpoint(*_: object) -> None:
        raise OSError("no space for the checkpoint")

    run = FineTuning(make())
    monkeypatch.setattr(progress, "plot", full)
    monkeypatch.setattr(run.checkpoints, "save", checkpoint)
    with pytest.raises(OSError, match="no space for the checkpoint"):
        run.run(shown=False)
    monkeypatch.undo()
    monkeypatch.setattr(progress, "plot", full)
    with pytest.raises(OSError, match="no space for the plot"):
        run.run(shown=False)


def test_a_run_that_cannot_write_its_recipe_leaves_the_one_that_is_there(
    make: Any, monkeypatch: pytest.MonkeyPatch
):
    recipe = make(steps=1)
    FineTuning(recipe).run(shown=False)
    path = Path(recipe.out) / "recipe.toml"
    before = path.read_text()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    again = FineTuning(recipe)
    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        again.run(shown=False)
    assert path.read_text() == before


def test_a_line_of_the_log_that_was_cut_off_is_left_out(tmp_path: Path):
    log = TrainingLog(tmp_path / "log.jsonl")
    log.append({"step": 1, "speed": 2.0})
    log.path.write_bytes(log.path.read_bytes() + b'[3]\n{"a": 1}\n\xff\n{"step": 2, "spe')
    log.append({"step": 3, "speed": 4.0})
    assert [record["step"] for record in log.records()] == [1, 3]
    assert json.loads(log.path.read_bytes().splitlines()[-1]) == {"step": 3, "speed": 4.0}
