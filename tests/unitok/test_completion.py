"""A shell completes the commands and options of `unitok`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def unitok(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    command = [sys.executable, "-c", "from unitok.cli import main; main()", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("unitok dr", {"draw"}),
        (
            "unitok ",
            {"demo", "caption", "draw", "edit", "chat", "batch", "info", "save", "data", "train"},
        ),
        ("unitok data ", {"check", "make"}),
        ("unitok baseline tr", {"transcribe"}),
        ("unitok draw --no-", {"--no-clobber"}),
        ("unitok caption a.png --top", {"--top-k", "--top-p"}),
    ],
)
def test_bash_is_offered_what_can_follow(typed: str, offered: set[str]):
    last = str(len(typed.split(" ")) - 1)
    done = unitok(COMP_WORDS=typed, COMP_CWORD=last, _UNITOK_COMPLETE="complete_bash")
    assert offered <= set(done.stdout.split())
    assert done.stderr == ""


def test_a_script_for_a_shell_is_printed():
    done = unitok("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "_UNITOK_COMPLETE=complete_bash" in done.stdout and "unitok" in done.stdout


def test_completion_can_be_installed(tmp_path: Path):
    done = unitok(
        "--install-completion",
        "bash",
        HOME=str(tmp_path),
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    assert done.returncode == 0
    assert "bash completion installed" in done.stdout
    assert "unitok" in (tmp_path / ".bashrc").read_text()


def test_help_offers_it():
    told = unitok("--help", COLUMNS="100").stdout
    assert "--install-completion" in told and "--show-completion" in told
