"""The check of kills: what it takes for wrong, and how it goes on. No Ray runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import check_ray
from scripts.check_ray import Asked, Progress, check, found_in, line_of, pictures_asked

LINES = 45


def result_of(line: int) -> dict[str, Any]:
    names = [f"pictures/{line}-{i}.png" for i in range(pictures_asked(line_of(line)))]
    if "custom_id" not in line_of(line):
        return {"line": line, "pictures": names}
    data = [{"url": name} for name in names]
    return {"line": line, "response": {"body": {"data": data}}}


def leave(out: Path) -> None:
    """Leave what a run that went well leaves."""
    right = [line for line in range(1, LINES + 1) if line % check_ray.WRONG_EVERY]
    write(out / "results", [result_of(line) for line in right])
    write(out / "errors", [{"line": line} for line in range(1, LINES + 1) if line not in right])
    (out / "pictures").mkdir()
    for names in found_in(out).pictures.values():
        for name in names:
            Image.new("RGB", (8, 8)).save(out / name)


def write(folder: Path, records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "lines-1.jsonl").write_text(text)


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a check says of a run that left its results before the command was killed."""
    out, noted = tmp_path / "out", tmp_path / "check.json"
    leave(out)
    Progress(vars(Asked(LINES, 2, 3)), 3, found_in(out).records).save(noted)
    there = len(found_in(out).results)
    monkeypatch.setattr(check_ray, "finished_run", lambda words: f"0 new, {there} kept")
    return lambda lines=LINES: check(tmp_path, lines, 2, 3)


def test_a_check_that_was_stopped_goes_on_behind_the_kills(checked: Any):
    assert checked() == []
    with pytest.raises(ValueError, match=r"check\.json is of another check"):
        checked(LINES + 1)


def test_what_is_wrong_is_told(checked: Any, tmp_path: Path):
    out = tmp_path / "out"
    part = out / "results" / "lines-1.jsonl"
    first, second, *rest = part.read_text().splitlines()
    changed = json.dumps({**json.loads(rest[0]), "seed": 5})
    part.write_text("\n".join([first, first, changed, *rest[1:]]) + "\n")
    drawn = [line for line in (5, 6, 7) if pictures_asked(line_of(line))]
    (out / "pictures" / f"{drawn[0]}-0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (out / "pictures" / "other.png").write_bytes(b"")
    told = "\n".join(checked())
    for line in (json.loads(first)["line"], json.loads(second)["line"]):
        assert f"line {line} is not there exactly once" in told
    assert f"line {json.loads(rest[0])['line']} has changed" in told
    assert f"line {drawn[0]}: cannot identify image file" in told
    assert "no result names other.png" in told
    assert "0 new" not in told, "the number of records is as before"


def test_a_command_that_is_not_killed_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(check_ray.sys, "executable", "true")  # which ends at once
    assert check(tmp_path, 2, 2, 1) == ["the command ended by itself, after 0 of 1 kills"]
