"""The examples of the README and of the guides run as they stand, in order, page by page.

Blocks of Python run here, each with names of its own. Blocks of shell run with `unitok` on the
path, and end at the first command that fails. Other blocks are not run, and neither are the shell
commands of the README, which need make or a model that is not here.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_server import PATHS, command_server

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
ALL_GUIDES = [*sorted((ROOT / "docs" / "guide").glob("*.md")), ROOT / "docs" / "finetuning.md"]
OF_EVALUATION = [p for p in ALL_GUIDES if p.stem in ("baselines", "evaluation", "metrics")]
OF_TRAINING = [p for p in ALL_GUIDES if p.stem in ("finetuning", "image_tokenizer")]
OF_RAY = [p for p in ALL_GUIDES if p.stem == "ray"]
# The others are run in tests/evaluation, tests/training and tests/ray.
GUIDES = [page for page in ALL_GUIDES if page not in (*OF_EVALUATION, *OF_TRAINING, *OF_RAY)]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What the shell knows: `unitok` of this repository, `python` and `torchrun` of the tests."""
    with tempfile.TemporaryDirectory() as folder, command_server(Path(folder)) as programs:
        python = shlex.quote(sys.executable)
        for name, words in (("python", ""), ("torchrun", "-m torch.distributed.run")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {python} {words} "$@"\n')
            program.chmod(0o755)
        yield os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(PATHS),
        }


def blocks_of(page: Path, *kinds: str) -> list[tuple[str, str, str]]:
    """The runnable blocks of a page: where each begins, its kind, and its code."""
    text = page.read_text(encoding="utf-8")
    return [
        (f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[1], found[2])
        for found in BLOCK.finditer(text)
        if found[1] in kinds
    ]


def run_page(page: Path, environment: dict[str, str], *kinds: str) -> None:
    """Run the blocks of a page in the working directory.

    Raises:
        AssertionError: The page has no block to run, or a block of shell failed.
        Exception: What a block of Python raised.
    """
    blocks = blocks_of(page, *kinds)
    assert blocks, f"{page.name} has no example"
    for place, kind, code in blocks:
        if kind == "python":
            exec(compile(code, place, "exec"), {"__name__": "example"})
        else:
            run_shell(place, code, environment)


def run_shell(place: str, code: str, environment: dict[str, str]) -> None:
    """Run a block of shell, and show what it printed if it fails."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{place} ends with code {done.returncode}:\n{code}\n{done.stdout}"


def test_the_readme_has_examples():
    assert len(blocks_of(README, "python")) >= 4


@pytest.mark.timeout(300)  # a page may start many processes
@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, environment):
    monkeypatch.chdir(tmp_path)
    run_page(page, environment, *(["python"] if page == README else ["python", "sh"]))
    if page == README:
        assert (tmp_path / "apples.png").is_file()


# --- the runner itself ---------------------------------------------------------------------------


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_a_page_without_an_example_is_seen(tmp_path, environment):
    page = page_of(tmp_path, "# Title\n\n```text\nunitok draw\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md has no example"):
        run_page(page, environment, "python", "sh")


def test_a_block_of_python_that_fails_is_seen(tmp_path, environment):
    page = page_of(tmp_path, "```python\nname = 1\n```\n\n```python\nprint(name)\n```\n")
    with pytest.raises(NameError, match="name"):
        run_page(page, environment, "python")


def test_a_block_of_shell_that_fails_in_the_middle_is_seen(tmp_path, environment):
    page = page_of(tmp_path, "# Title\n\n```sh\necho before\nfalse\necho after\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 ends with code 1:") as caught:
        run_page(page, environment, "sh")
    said = str(caught.value).partition("echo after")[2]
    assert "before" in said and "after" not in said.partition("assert")[0]


def test_blocks_share_a_folder_and_find_the_command(tmp_path, monkeypatch, environment):
    monkeypatch.chdir(tmp_path)
    text = (
        "```python\nopen('said.txt', 'w').write('unitok')\n```\n\n"
        "```sh\nunitok --version | grep $(cat said.txt) > version.txt\n```\n"
    )
    run_page(page_of(tmp_path, text), environment, "python", "sh")
    assert (tmp_path / "version.txt").read_text().startswith("unitok 0")
