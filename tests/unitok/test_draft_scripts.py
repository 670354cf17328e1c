"""The scripts around drafts in a small form: the check that they are exact, and the first table."""

import sys
from contextlib import nullcontext
from math import nextafter
from pathlib import Path

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


def result(ids: tuple[int, ...], scores: tuple[float, ...]) -> DrawResult:
    return DrawResult("a cat", (), 1, "complete", 3, 2, 0.1, logprobs=(scores,), token_ids=(ids,))


@pytest.mark.parametrize(
    "other", [result((1, 2), (-0.5, nextafter(-0.25, 0))), result((1, 3), (-0.5, -0.25))]
)
@pytest.mark.parametrize("spoilt", ["one_by_one", "crowded"])
def test_a_token_or_the_last_bit_of_a_score_makes_the_check_fail(monkeypatch, spoilt, other):
    right = result((1, 2), (-0.5, -0.25))

    def drawn(name: str, model: bool) -> list[DrawResult]:
        return [other if model and name == spoilt else right] * 3

    monkeypatch.setattr(check_drafts, "load", lambda drafts: nullcontext(drafts))
    monkeypatch.setattr(check_drafts, "one_by_one", lambda model, *_: drawn("one_by_one", model))
    monkeypatch.setattr(check_drafts, "crowded", lambda model, *_: drawn("crowded", model))
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, check_drafts, "--prompts", "1")


def test_a_table_of_a_few_pictures_is_named_as_that_of_the_package(monkeypatch, tmp_path, capsys):
    run(monkeypatch, draft_table, "--pictures", "3", "--write", str(tmp_path))
    (path,) = tmp_path.iterdir()
    assert [path.name] == [file.name for file in SHIPPED.iterdir()]
    few, shipped = (
        {pair for pair, *_ in read_entries(p)} for p in (path, Path(SHIPPED, path.name))
    )
    assert len(few & shipped) > 0.8 * len(few)
