"""The page of models of others lists every class that is opened, and where each is tested."""

import re
from pathlib import Path

import pytest

from unitok.baselines.opening import ADAPTERS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guide" / "baselines.md"
ROW = re.compile(r"^\| [^|`]+ \| `(\S+)` \| `(\S+)` \| `(\S+)` \| `(\S+)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))
OPENED = [
    (role, kind, adapter.partition(":")[2])
    for role, kinds in ADAPTERS.items()
    for kind, adapter in kinds.items()
]


@pytest.mark.parametrize(("role", "kind", "adapter"), OPENED)
def test_every_class_that_is_opened_has_a_row(role: str, kind: str, adapter: str):
    assert (kind, adapter) in [(kind, adapter) for kind, _, adapter, _ in ROWS]


def test_no_row_is_of_a_class_that_is_not_opened():
    known = [(kind, adapter) for _, kind, adapter in OPENED]
    assert sorted((kind, adapter) for kind, _, adapter, _ in ROWS) == sorted(known)


@pytest.mark.parametrize(("kind", "library", "adapter", "file"), ROWS)
def test_the_file_of_a_row_tests_the_class(kind: str, library: str, adapter: str, file: str):
    text = (ROOT / file).read_text(encoding="utf-8")
    helpers = re.findall(r"^from tests\.(\S+)\.(tiny_\w+) import", text, re.MULTILINE)
    helpers += [
        ("parity", n) for n in re.findall(r"^from tests.parity import (tiny_\w+)", text, re.M)
    ]
    made = [(ROOT / "tests" / place / f"{name}.py").read_text() for place, name in helpers]
    assert re.search(rf"\b{library}\b", "\n".join([text, *made])), f"{file}: no {library}"
    assert "load(" in text
