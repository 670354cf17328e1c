"""What the documentation names exists: files, headings that links lead to, classes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "docs", "engine", "examples", "scripts", "tests", "tokenizers", "unitok")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*+(?![<*])")  # not test_*.py
PYTHON_FILE = re.compile(r"(?<![\w./<>*-])[\w/]+\.py\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")
CLASS = re.compile(r"`([A-Z][a-z]\w*)(?:\.(\w+))?[(.`]")  # `Engine`, `Engine.step()`
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made by the sites that show Markdown."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_files(text: str) -> list[str]:
    """Paths from the root that lead nowhere, and names of Python files that no folder has."""
    paths = {path.rstrip("./") for path in PATH.findall(text)}
    files = {f"/{name}" for name in PYTHON_FILE.findall(text)}
    known = [f"/{path.relative_to(ROOT).as_posix()}" for path in SOURCES]
    return sorted(
        [path for path in paths if not (ROOT / path).exists()]
        + [name for name in files if not any(path.endswith(name) for path in known)]
    )


def broken_links(page: Path, text: str) -> list[str]:
    """Links to files that do not exist, or to headings that their page does not have."""
    broken = []
    for target, heading in LINK.findall(text):
        path = page.parent / target if target else page
        if not path.exists() or (heading and heading not in headings(path)):
            broken.append(f"{target}#{heading}")
    return broken


def missing_classes(text: str) -> list[str]:
    """Classes and type aliases that no file defines, and members that no such file mentions."""
    sources = [path.read_text(encoding="utf-8") for path in SOURCES]
    return [
        f"{name}.{member}" if member else name
        for name, member in CLASS.findall(text)
        if not any(
            re.search(rf"^(class {name}\b|{name} =)", source, re.MULTILINE)
            and re.search(rf"\b{member}\b", source)
            for source in sources
        )
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_headings_that_a_page_names_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    assert missing_files(text) == []
    assert broken_links(page, text) == []


def test_classes_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(CLASS.findall(text)) > 30
    assert missing_classes(text) == []


def test_what_is_missing_is_seen():
    text = "`unitok/api.py`, `unitok/nowhere.md`, `api.py`, `nowhere.py`, `tests/test_*.py`"
    assert missing_files(text) == ["/nowhere.py", "unitok/nowhere.md"]
    text = "[a](CHANGELOG.md), [b](nowhere.md), [c](CONTRIBUTING.md#tests), [d](#nothing)"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md#", "#nothing"]
    assert missing_classes("`Engine.step()`, `Engine.leap`, `Nothing`") == [
        "Engine.leap",
        "Nothing",
    ]
