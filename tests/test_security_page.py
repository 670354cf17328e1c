"""The limits in docs/security.md are those of the code, and the tests it names exist."""

import ast
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from unitok.checkpoints.settings import MAX_FIELDS
from unitok.checkpoints.weights import SEARCHED
from unitok.requests import MAX_SAMPLES, Draw, check_ranges

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
# | limit | 1,000 | `package.module.NAME["key"]` | `tests/file.py::test` |
ROW = re.compile(r'^\| (.+) \| ([\d,]+) \| `([\w.]+)\.(\w+)(?:\["(\w+)"\])?` \| `(\S+)::(\w+)` \|$')
LIMITS = [found.groups() for found in map(ROW.match, PAGE.splitlines()) if found]


def test_every_row_of_a_table_of_limits_is_read():
    section = PAGE.partition("## Limits")[2]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(LIMITS) == len(rows) - 2 * section.count("| limit | default |") > 10


@pytest.mark.parametrize("limit", LIMITS, ids=[limit[0] for limit in LIMITS])
def test_a_limit_is_that_of_the_code_and_its_test_exists(limit: tuple[str, ...]):
    _, default, module, name, key, file, test = limit
    value = resolve_name(f"{module}.{name}")
    assert (value[key] if key else value) == int(default.replace(",", ""))
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_drawing_has_at_most_so_many_pictures():
    check_ranges(Draw("a cat", n=MAX_SAMPLES))
    with pytest.raises(ValueError, match="n must be"):
        check_ranges(Draw("a cat", n=MAX_SAMPLES + 1))


def test_limits_of_a_checkpoint_are_all_on_the_page():
    listed = {key for *_, key, _, _ in LIMITS if key}
    assert f"fewer than {SEARCHED:,} numbers" in PAGE
    assert MAX_FIELDS.keys() - listed == {"min_pixels"}, "which is bounded as max_pixels is"
