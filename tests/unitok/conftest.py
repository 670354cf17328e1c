"""What tests of the command line share."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from unitok.cli import app


@pytest.fixture(scope="session")
def short_folder(untrained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained model with a short context, which ends what it would never end by itself."""
    folder = tmp_path_factory.mktemp("short") / untrained_folder.name
    shutil.copytree(untrained_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 192
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def run(short_folder, tmp_path, monkeypatch):
    """Run a command in an empty folder, with the untrained model."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, model: Path | None = short_folder, typed: str | bytes | None = None):
        words = [*arguments, *(["--model", str(model)] if model else [])]
        return CliRunner().invoke(app, words, input=typed, prog_name="unitok")

    return run


@pytest.fixture
def scene(tmp_path) -> Path:
    path = tmp_path / "scene.png"
    Image.new("RGB", (80, 60), "pink").save(path)
    return path
