"""The fuzzer sees what an input must not do, and its inputs are what they should be."""

import json
from contextlib import suppress
from random import Random

import pytest

from tests.fuzz import __main__ as fuzzing
from tests.fuzz.mutations import mutated_bytes, mutated_json, mutated_value
from tests.fuzz.pictures import MODES, picture, valid_file, valid_files, with_checksums
from tests.fuzz.worker import Worker
from unitok.pictures import FORMATS, open_picture

# The deed of an input, whether it is taken, and how the problem begins.
JUDGED = {
    "take": (True, ""),
    "refuse": (False, ""),
    "name nothing": (
        False,
        "ValueError, but the message names nothing: it is wrong",
    ),
    "say nothing": (False, "OSError, but the message is empty"),
    "say much": (False, "ValueError, but the message is long: the thing"),
    "be python": (False, "TypeError, but the message is Python's own, \"'NoneType' \": the thing"),
    "be undocumented": (False, "KeyError: 'the thing'"),
    "be wrong": (True, "two is one"),
    "start a process": (True, "it makes the program start a process: subprocess.Popen"),
    "use the network": (True, "it makes the program use the network: socket."),
    "write outside": (True, "it makes the program write elsewhere: "),
    "write inside": (True, ""),
    "take memory": (True, "memory: it takes 6"),
    "hang": (False, "hang: it takes longer than 3 seconds"),
    "crash": (False, "crash: the process ends with code 3"),
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    worker = Worker("tests.fuzz.naughty", tmp_path_factory.mktemp("fuzz"), seed=0, case_seconds=3)
    yield worker
    worker.close()


@pytest.mark.parametrize("deed", JUDGED)
def test_what_an_input_must_not_do_is_seen(worker, deed):
    accepted, begins = JUDGED[deed]
    verdict = worker.judge("naughty", deed.encode())
    assert (verdict.accepted, bool(verdict.problem)) == (accepted, bool(begins))
    assert verdict.problem.startswith(begins)


def test_findings_are_counted_by_kind_and_saved_and_run_first_the_next_time(
    worker, tmp_path, monkeypatch
):
    monkeypatch.setattr(fuzzing, "FINDINGS", tmp_path)
    monkeypatch.setattr(fuzzing, "REGRESSIONS", tmp_path / "none")
    row = fuzzing.fuzz(worker, "naughty", 0, seed=3)
    assert (row.inputs, row.findings) == (0, {})
    case = tmp_path / "naughty" / "3-7"
    for _ in range(2):
        row.add(worker.judge("naughty", b"be wrong"), fuzzing.saving(b"be wrong", case))
    assert [(f.inputs, f.path) for f in row.findings.values()] == [(2, case)]
    again = fuzzing.fuzz(worker, "naughty", 0, seed=4)
    assert (again.inputs, list(again.findings)) == (1, list(row.findings))


def test_a_seed_and_an_index_give_the_same_input_again(worker):
    cases = [worker.random_case("naughty", index) for index in range(20)]
    assert cases == [worker.random_case("naughty", index) for index in range(20)]
    assert len(set(cases)) > 5


# --- inputs --------------------------------------------------------------------------------------


def test_mutations_are_changes_that_a_seed_repeats():
    data = bytes(range(200))
    changed = [mutated_bytes(Random(seed), data, [b"other" * 9]) for seed in range(200)]
    assert changed == [mutated_bytes(Random(seed), data, [b"other" * 9]) for seed in range(200)]
    assert sum(case == data for case in changed) < 20
    assert mutated_bytes(Random(1), b"") == b""


def test_mutated_values_leave_the_original_alone():
    value = {"a": [1, {"b": "text"}], "c": 0.5}
    changed = [mutated_value(Random(seed), value) for seed in range(200)]
    assert value == {"a": [1, {"b": "text"}], "c": 0.5}
    assert len({repr(case) for case in changed}) > 100


def test_mutated_json_is_mostly_json():
    cases = [mutated_json(Random(seed), b'{"a": 1, "b": [2, "x"]}') for seed in range(200)]
    read = 0
    for case in cases:
        try:
            json.loads(case)
            read += 1
        except (ValueError, RecursionError):
            pass
    assert 100 < read < 200


@pytest.mark.parametrize("format", MODES)
def test_the_pictures_that_are_mutated_are_valid(format):
    data = valid_file(format, MODES[format][0], {})
    if format in FORMATS:
        assert open_picture(data).size == (17, 13)
    else:
        with pytest.raises(ValueError, match="the picture"):
            open_picture(data)


def test_all_valid_files_of_allowed_formats_are_read():
    taken = 0
    for data in valid_files():
        with suppress(ValueError):
            taken += open_picture(data).size == (17, 13)
    assert taken >= 40


def test_the_checksums_of_a_damaged_png_can_be_made_right():
    data = bytearray(valid_file("PNG", "RGB", {}))
    assert with_checksums(bytes(data)) == bytes(data)
    data[data.index(b"IHDR") + 4 + 3] = 9  # the width
    assert with_checksums(bytes(data)) != bytes(data)
    assert picture("RGB").size == (17, 13)
