"""Recipes that train image tokenizers, `unitok train` with them, and several processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.training.tiny_image_tokenizer import tiny_pictures
from unitok.cli import app
from unitok.emoji.rendering import to_pil
from unitok.training.image_tokenizer.recipe import is_image_tokenizer, read_options
from unitok.training.image_tokenizer.run import train_image_tokenizer
from unitok.training.recipe_file import to_toml

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
task = "image_tokenizer"
out = "{folder}/out"
pictures = "{folder}/pictures"
steps = 2
batch = 2
crop = 1
device = "cpu"
[sizes]
image_size = 32
codebook_size = 32
code_dim = 4
latent_channels = 32
base_channels = 32
[loss]
l1 = 0.5
revive_after = 1
"""
DISCRIMINATOR = """
adversarial = "hinge"
adversarial_start = 1
discriminator_channels = 8
discriminator_layers = 2
discriminator_norm = "group"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for i, pixels in enumerate(tiny_pictures(4, 32)):
        to_pil(pixels).save(tmp_path / "pictures" / f"{i}.png")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path


def test_a_recipe_has_the_options_of_a_run(recipe: Path):
    options = read_options(recipe, ["steps=7", "loss.mse=2", 'parts=["decoder"]', "flip=true"])
    assert (options.steps, options.parts, options.flip) == (7, ("decoder",), True)
    assert (options.loss.l1, options.loss.mse, options.sizes.image_size) == (0.5, 2.0, 32)
    assert options.pictures == str(recipe.parent / "pictures") and options.crop == 1.0
    again = recipe.with_name("again.toml")
    again.write_text(to_toml(options))
    assert read_options(again) == options


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stepz=1", "there is no key stepz; did you mean steps?"),
        ("loss.l2=1", "there is no key loss.l2; did you mean loss.l1?"),
        ("batch=1.5", "batch must be a whole number, not 1.5"),
        ('parts=["head"]', "parts.0 must be encoder or codebook or decoder, not 'head'"),
        ("crop=2", "recipe.toml: crop must be above 0 and at most 1, not 2.0"),
        ("sizes.downsample=4", "recipe.toml: sizes.downsample must be 8 or 16, not 4"),
    ],
)
def test_a_wrong_key_or_value_is_named(recipe: Path, setting: str, message: str):
    with pytest.raises(ValueError) as caught:
        read_options(recipe, [setting])
    assert message in str(caught.value) and str(caught.value).startswith(str(recipe))


def test_the_task_decides_what_a_recipe_is_for(recipe: Path):
    assert is_image_tokenizer(recipe)
    with pytest.raises(ValueError, match="task must be image_tokenizer, not 'tokenizer'"):
        is_image_tokenizer(recipe, ["task=tokenizer"])
    recipe.write_text('out = "x"\n')
    assert not is_image_tokenizer(recipe)


def test_the_command_says_its_plan_and_trains(recipe: Path):
    runner, out = CliRunner(), recipe.parent / "out"
    plan = runner.invoke(app, ["train", str(recipe), "--dry-run"])
    assert plan.exit_code == 0 and not out.exists()
    for text in ("4, 2 in an update", "2 x 2 of 32", "encoder, codebook, decoder"):
        assert text in plan.stdout
    done = runner.invoke(app, ["train", str(recipe), "--set", "steps=1"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().endswith(str(out / "image_tokenizer.safetensors"))
    assert read_options(out / "recipe.toml") == read_options(recipe, ["steps=1"])
    wrong = runner.invoke(app, ["train", str(recipe), "--set", "pictures=nowhere"])
    assert wrong.exit_code == 2 and "nowhere: no such folder or file" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def start_rank(recipe: Path, rank: int, port: int) -> subprocess.Popen[str]:
    """`unitok train` as torchrun starts it twice."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    return subprocess.Popen(
        [sys.executable, "-m", "unitok", "train", str(recipe), "--set", "out=shared"],
        env={
            **os.environ,
            **{name: str(value) for name, value in ranks.items()},
            "PYTHONPATH": os.pathsep.join([*map(str, sys.path), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        },
        cwd=recipe.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(300)  # two more processes on a busy machine
def test_two_processes_learn_what_one_learns(recipe: Path):
    """The running averages of the codebook, its dead codes and both networks are shared."""
    recipe.write_text(recipe.read_text() + DISCRIMINATOR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start_rank(recipe, rank, port) for rank in (0, 1)]
    train_image_tokenizer(read_options(recipe))
    try:
        printed = [process.communicate(timeout=250)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "image_tokenizer.safetensors" in printed[0] and "safetensors" not in printed[1]
    one, two = (
        load_file(recipe.parent / name / "image_tokenizer.safetensors")
        for name in ("out", "shared")
    )
    apart = {name: (one[name] - two[name]).abs().max().item() for name in one}
    assert max(apart.values()) < 1e-4, apart
