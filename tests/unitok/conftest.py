"""What tests of the command line share."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from unitok.cli import app


@pytest.fixture
def run(untrained_folder, tmp_path, monkeypatch):
    """Run a command in an empty folder, with the untrained model."""
    monkeypatch.chdir(tmp_path)

    def run(
        *arguments: str, model: Path | None = untrained_folder, typed: str | bytes | None = None
    ):
        words = [*arguments, *(["--model", str(model)] if model else [])]
        return CliRunner().invoke(app, words, input=typed, prog_name="unitok")

    return run


@pytest.fixture
def scene(tmp_path) -> Path:
    path = tmp_path / "scene.png"
    Image.new("RGB", (80, 60), "pink").save(path)
    return path
