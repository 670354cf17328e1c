"""What tests of evaluation share: runs of the colours, and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.evaluation.colours import ColourSuite
from unitok.cli import app
from unitok.evaluation.journal import Identity
from unitok.evaluation.run import Run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Make a run of the colours in a folder; with other words, of another identity."""

    def make(folder: str = "run", suite: Any = None, **identity: Any) -> Run:
        suite = suite or ColourSuite()
        told = {"model": "colourist", "digest": "0" * 64, "options": {}} | identity
        own = Identity(suite=suite.name, settings=suite.settings, **told)
        return Run(suite, suite.items(), tmp_path / folder, own)

    return make


@pytest.fixture
def evaluate(untrained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `unitok eval` in an empty folder, with the untrained model."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, model: bool = True):
        words = ["eval", *arguments, *(["--model", str(untrained_folder)] if model else [])]
        return CliRunner().invoke(app, words, prog_name="unitok")

    return run
