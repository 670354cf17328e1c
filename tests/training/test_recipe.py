"""Recipes: what is read, what is refused and how, what is written."""

from pathlib import Path

import pytest

from unitok.training.recipe import Recipe
from unitok.training.recipe_file import LONGEST, differences, parse_recipe, read_recipe, to_toml

SMALL = 'out = "runs/x"\nsteps = 10\n[[data]]\npath = "train.jsonl"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, *settings: str) -> Recipe:
    return read_recipe(written(folder, text), settings)


def test_a_small_recipe_has_defaults_for_the_rest(tmp_path: Path):
    recipe = read(tmp_path, SMALL)
    assert (recipe.out, recipe.steps, recipe.model) == ("runs/x", 10, None)
    assert [data.path for data in recipe.data] == ["train.jsonl"]
    assert recipe.train.freeze == ("image_tokenizer",) and recipe.lora is None


def test_sections_and_lists_are_read(tmp_path: Path):
    text = SMALL + (
        '[optimiser]\nname = "muon"\nlearning_rate = 1\n[lora]\nrank = 4\ntargets = ["q"]\n'
        '[samples]\nprompts = ["a cat", "two cats"]\n'
    )
    recipe = read(tmp_path, text)
    assert recipe.optimiser.learning_rate == 1.0 and recipe.optimiser.name == "muon"
    assert recipe.lora is not None and recipe.lora.targets == ("q",)
    assert recipe.samples.prompts == ("a cat", "two cats")


def test_settings_of_the_command_line_win(tmp_path: Path):
    recipe = read(
        tmp_path,
        SMALL,
        "steps=20",
        "optimiser.learning_rate=3e-4",
        "model=some/folder",
        'samples.prompts=["a", "b"]',
        "data.0.weight=2",
        "data.1.path=more.jsonl",
        "lora.rank=2",
    )
    assert (recipe.steps, recipe.model, recipe.optimiser.learning_rate) == (20, "some/folder", 3e-4)
    assert [(d.path, d.weight) for d in recipe.data] == [("train.jsonl", 2.0), ("more.jsonl", 1.0)]
    assert recipe.lora is not None and recipe.lora.rank == 2
    assert recipe.samples.prompts == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 1\n" + SMALL, "there is no key stepz; did you mean steps?"),
        ("learning_rate = 1\n" + SMALL, "no key learning_rate; did you mean optimiser.learning"),
        (SMALL + "[optimizer]\nname = 'adamw'\n", "no key optimizer; did you mean optimiser?"),
        (SMALL + "[lora]\nrnk = 1\n", "no key lora.rnk; did you mean lora.rank?"),
        (SMALL + "[lora]\nqqqq = 1\n", "there is no key lora.qqqq"),
        (SMALL.replace("10", "'ten'"), "steps must be a whole number at least 1, not 'ten'"),
        (SMALL.replace("10", "0"), "steps must be a whole number at least 1, not 0"),
        (SMALL.replace("10", "true"), "steps must be a whole number at least 1, not True"),
        (SMALL + "[optimiser]\nlearning_rate = 0\n", "optimiser.learning_rate must be a number ab"),
        (SMALL + "[optimiser]\nlearning_rate = nan\n", "must be a number above 0, not nan"),
        (SMALL + "[optimiser]\nema = 1\n", "ema must be a number above 0 and below 1, not 1"),
        (SMALL + "[batch]\ntoo_long = 'keep'\n", "too_long must be drop or cut, not 'ke"),
        (SMALL + "[samples]\nprompts = 'a cat'\n", "samples.prompts must be a list of texts, not"),
        (SMALL + "[samples]\nprompts = [1]\n", "samples.prompts.0 must be a text, not 1"),
        (SMALL + "[loss]\ntext_weight = 0\nimage_weight = 0\n", "are both 0"),
        (SMALL.replace("runs/x", " "), "out is empty: name a folder"),
        (SMALL.replace("10", "9" * 30), "steps is too large: 9999"),
        (SMALL.replace("10", "9" * 5000), "this is no TOML: Exceeds the limit"),
        (SMALL + "[batch]\nconversations = 1000000\n", "at least 1 and at most 100000, not"),
        (SMALL + "[optimiser]\nlearning_rate = 1" + "0" * 400 + "\n", "learning_rate must be a n"),
        ("loss = 1\n" + SMALL, r"loss must be a section \[loss\], not 1"),
        (
            "out = 'x'\nsteps = 1\ndata = 'train.jsonl'\n",
            r"data must be sections \[\[data\]\], not",
        ),
        ("out = 'x'\nsteps = 1\n", r"there is no data: write \[\[data\]\]"),
        (SMALL.replace('path = "train.jsonl"', "weight = 1"), "the key data.0.path is missing"),
        (SMALL.replace("steps = 10\n", ""), "give steps or epochs"),
        ("epochs = 1\n" + SMALL, "give steps or epochs"),
        (SMALL.replace('out = "runs/x"\n', ""), "the key out is missing"),
        (SMALL + "[lora]\n[train]\nparts = ['decoder']\n", r"give \[train\] or \[lora\], not both"),
        (SMALL + "[optimiser]\nname='muon'\n[memory]\nsharding='fsdp'\n", "Muon needs whole matri"),
        ("out = \n", "this is no TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "recipe.toml"))


@pytest.mark.parametrize("setting", ["steps", "=1", "steps.x=1", "data.2.path=x", "data.x.path=y"])
def test_a_setting_of_the_wrong_form_is_named(tmp_path: Path, setting: str):
    with pytest.raises(ValueError, match="--set"):
        read(tmp_path, SMALL, setting)


def test_a_missing_recipe_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no\.toml: there is no such recipe"):
        read_recipe(tmp_path / "no.toml")


def test_what_is_written_reads_back_alike(tmp_path: Path):
    settings = ["lora.rank=3", 'samples.prompts=["a \\"b\\"\\u007f é"]', "optimiser.ema=0.99"]
    recipe = read(tmp_path, SMALL, *settings, "optimiser.learning_rate=1e-7", "data.1.path=x")
    assert read(tmp_path, to_toml(recipe)) == recipe


def test_differences_name_their_keys(tmp_path: Path):
    left, right = read(tmp_path, SMALL), read(tmp_path, SMALL, "loss.z_loss=0.5", "data.0.path=y")
    assert differences(left, left) == []
    assert differences(left, right)[1] == "loss.z_loss: 0.0 and 0.5"
    assert len(differences(left, right)) == 2


def test_a_recipe_that_is_too_large_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="a recipe has at most 1,048,576 bytes"):
        read(tmp_path, SMALL + "#" * LONGEST)


def test_a_table_needs_no_file():
    table = {"out": "x", "epochs": 1, "data": [{"path": "y"}]}
    assert parse_recipe(table, "here").epochs == 1
