"""Runs the command line in this process, and checks how it ends."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner

from unitok.cli import app

ENDS = (0, 1, 2)  # exit codes


def run_command(words: list[str], folder: Path, typed: str = "") -> tuple[int, str]:
    """Run a command.

    Args:
        words: The command, its flags and its arguments.
        folder: The working folder.
        typed: What stands on stdin.

    Returns:
        The exit code, and what is on stderr.

    Raises:
        AssertionError: The exit code is another one, or there is a traceback.
        Exception: What the command let through.
    """
    with chdir(folder):
        result = CliRunner().invoke(app, words, input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in ENDS, f"the exit code is {result.exit_code}"
    assert "Traceback" not in result.output, f"there is a traceback: {result.output[-500:]}"
    return result.exit_code, result.stderr.strip()
