"""The examples of the page about serving run as they stand, with curl and with OpenAI's client."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.server.live import png, served
from tests.test_guides import ROOT, environment, run_page
from unitok import Model
from unitok.server.settings import limit_flags

__all__ = ["environment"]  # the fixture

PAGE = ROOT / "docs" / "serving.md"
ADDRESS = "http://127.0.0.1:8000"


def test_the_page_tells_the_default_of_every_limit():
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {row[3].strip(): row[2].strip() for row in rows if len(row) > 4 and "`--" in row[3]}
    assert told == {
        f"`--{flag.name.replace('_', '-')}`": flag.limit.shown(flag.default)
        for flag in limit_flags()
    }


def test_the_page_shows_every_screenshot():
    shown = set(re.findall(r"\(images/(page_\w+\.png)\)", PAGE.read_text()))
    assert shown == {path.name for path in (PAGE.parent / "images").glob("page_*.png")}


def test_the_examples_of_serving_run(
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
):
    assert shutil.which("curl"), "install curl, which the page uses"
    monkeypatch.chdir(tmp_path)
    with served(model, keys=(), aliases={"gpt-image-1": "default"}) as live:
        text = PAGE.read_text()
        assert text.count(ADDRESS) > 5
        copy = tmp_path / "serving.md"
        copy.write_text(text.replace(ADDRESS, live.url))
        run_page(copy, environment, "python", "sh")
    first, second = (model.draw("a red apple", seed=seed).image for seed in (7, 8))
    told = json.loads((tmp_path / "answer.json").read_text())["data"]
    assert [one["seed"] for one in told] == [7, 8]
    assert (tmp_path / "apple-0.png").read_bytes() == png(first)
    assert (tmp_path / "apple-1.png").read_bytes() == png(second)
    assert (tmp_path / "apple.png").read_bytes() == png(first)
    edited = json.loads((tmp_path / "edited.json").read_text())["data"][0]["b64_json"]
    expected = model.edit(first, "a green apple", box=(16, 16, 48, 48), seed=1).image
    assert base64.b64decode(edited) == png(expected)
    said = capsys.readouterr().out
    assert said.startswith(model.caption(first, "what is this?").text)
    assert "apple" in said.rpartition("apple")[0], "it is asked about what it painted, too"
