"""Mutation testing: which tests a module has, and how a run of them is read."""

from pathlib import Path

import pytest

from scripts import mutate

ROOT = Path(__file__).resolve().parents[1]


def test_every_module_of_the_engine_and_the_api_has_tests():
    files = mutate.mutated_files()
    assert len(files) > 40 and set(mutate.CLOSEST) <= set(files)
    for file in files:
        closest, others = mutate.tests_of(file)
        assert len(closest) >= 1 and len(others) > 10
        assert not set(closest) & set(others)
        assert [path for path in (file, *closest, *others) if not (ROOT / path).is_file()] == []


def test_a_module_of_the_engine_is_tried_on_all_tests_of_the_engine():
    tests = [test for stage in mutate.tests_of("engine/unitok_engine/ids.py") for test in stage]
    assert {mutate.relative(path) for path in ROOT.glob("tests/engine/test_*.py")} <= set(tests)


def test_a_change_is_told_by_the_lines_that_differ():
    before = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    assert mutate.difference(before, before.replace("1", "0")) == "return 1 -> return 0"
    assert mutate.difference(before, before.replace("if x", "if not x")) == "if x: -> if not x:"


@pytest.mark.parametrize(
    ("body", "limit", "outcome"),
    [
        ("assert True", 100, ("survived", "")),
        ("assert False", 100, ("noticed", "test_it.py::test_it")),
        ("import os; os.kill(os.getpid(), 11)", 100, ("noticed", "")),
        ("import time; time.sleep(100)", 1, ("hung", "")),
    ],
    ids=["passes", "fails", "crashes", "hangs"],
)
def test_a_run_of_tests_tells_what_became_of_it(
    body: str, limit: float, outcome: tuple[str, str], tmp_path: Path
):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    run = mutate.run_tests(tree, ["test_it.py"], limit)
    assert (run.verdict, run.test) == outcome


def test_the_report_names_who_survived_and_fails_below_the_target(
    capsys: pytest.CaptureFixture[str],
):
    def tried(line: int, verdict: str) -> tuple[mutate.Mutant, mutate.Outcome]:
        mutant = mutate.Mutant("unitok/api.py", line, "NumberReplacer", "1 -> 2", "")
        return mutant, mutate.Outcome(verdict, "", 1.0)

    results = [tried(3, "noticed"), tried(7, "survived"), tried(9, "hung"), tried(12, "noticed")]
    assert (mutate.report(results, 75), mutate.report(results, 76)) == (0, 1)
    survivor, rate = capsys.readouterr().out.splitlines()[:2]
    assert survivor == "survived: unitok/api.py:7: 1 -> 2"
    assert rate == "3 of 4 mutants were noticed: 75.0 %"
