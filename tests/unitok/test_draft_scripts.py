"""The scripts around drafts in a small form: the check that they are exact, and the first table."""

import sys
from dataclasses import replace
from math import nextafter
from pathlib import Path
from typing import Any

import pytest

from scripts import check_drafts, draft_table
from unitok import DrawResult
from unitok.drafts import SHIPPED, read_entries


def run(monkeypatch: pytest.MonkeyPatch, script, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    script.main()


def test_a_held_out_prompt_has_the_same_tokens_and_scores_alone_and_in_a_crowd(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, check_drafts, "--prompts", "1", "--first", "7")
    assert "to prompt 8: the same 3 alone and 3 in a crowd of 3 drawings" in capsys.readouterr().out


def test_a_score_that_differs_in_its_last_bit_makes_the_check_fail(monkeypatch, capsys):
    crowded = check_drafts.crowded

    def spoilt(*arguments: Any) -> list[DrawResult]:
        first, *others = crowded(*arguments)
        assert first.logprobs is not None
        score, *scores = first.logprobs[0]
        return [replace(first, logprobs=((nextafter(score, 0), *scores),)), *others]

    monkeypatch.setattr(check_drafts, "crowded", spoilt)
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, check_drafts, "--prompts", "1")
    assert "the same 3 alone and 2 in a crowd" in capsys.readouterr().out


def test_a_table_of_a_few_pictures_is_named_as_that_of_the_package(monkeypatch, tmp_path, capsys):
    run(monkeypatch, draft_table, "--pictures", "3", "--write", str(tmp_path))
    (path,) = tmp_path.iterdir()
    assert [path.name] == [file.name for file in SHIPPED.iterdir()]
    few, shipped = (
        {pair for pair, *_ in read_entries(p)} for p in (path, Path(SHIPPED, path.name))
    )
    assert len(few & shipped) > 0.8 * len(few)
