"""Scores of given tokens: what decoding them reports, through the engine and beside others."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unitok
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.tiny import save_tiny
from unitok import Caption, Draw, Reply
from unitok.prompt_length import ContextFullError
from unitok.requests import AnyRequest

CLOSE = 1e-4


def load(folder: Path) -> unitok.Model:
    return unitok.load(folder, device="cpu", dtype="float32", memory="8MB")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[unitok.Model]:
    with load(save_tiny(tmp_path_factory.mktemp("tiny"))) as made:
        yield made


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def decoded(model: unitok.Model, asked: AnyRequest) -> tuple[tuple[int, ...], Any, Any]:
    """Token ids and log-probabilities of what a request generates, of its first sample."""
    (result,) = model.run([asked])
    assert result.error is None
    if isinstance(result, unitok.TextResult):
        return result.token_ids or (), result.logprobs, result.branch_logprobs
    assert result.token_ids and result.logprobs and result.branch_logprobs
    return result.token_ids[0], result.logprobs[0], result.branch_logprobs[0]


def check_score(score: unitok.ScoreResult, expected: tuple[tuple[int, ...], Any, Any]) -> None:
    ids, logprobs, branch_logprobs = expected
    assert score.token_ids == ids
    assert score.logprobs == pytest.approx(logprobs, abs=CLOSE)
    assert score.branch_logprobs == pytest.approx(branch_logprobs, abs=CLOSE)
    assert score.logprob == math.fsum(score.logprobs)


HELLO = [{"role": "user", "content": "the cat"}]
REPORTED: dict[str, Any] = {"logprobs": True, "branch_logprobs": True, "seed": 3}


@pytest.mark.parametrize("name", ["janus", "anole", "unitoken-anyres", "emu3"])
def test_scores_equal_decoding_in_every_family(name: str, tmp_path: Path):
    with load(FOLDERS[name](tmp_path / name)) as model:
        caption = Caption(picture(), max_tokens=9, temperature=1.0, **REPORTED)
        expected = decoded(model, caption)
        check_score(model.score_tokens(caption, expected[0]), expected)
        size: dict[str, Any] = {"width": 64, "height": 64} if name == "emu3" else {}
        draw = Draw("two apples", guidance=3.0, top_p=0.9, **size, **REPORTED)
        expected = decoded(model, draw)
        before = model.stats().forwards
        check_score(model.score_tokens(draw, expected[0]), expected)
        assert model.stats().forwards == before + 1


def test_several_requests_are_scored_together(model: unitok.Model):
    asked: list[AnyRequest] = [
        Caption(picture(), "what?", max_tokens=9, **REPORTED),
        Draw("a cat", n=2, guidance=2.0, **REPORTED),
        Reply(HELLO, temperature=0.5, top_k=7, max_tokens=9, **REPORTED),
    ]
    expected = [decoded(model, one) for one in asked]
    before = model.stats().forwards
    for score, one in zip(
        model.score_tokens(asked, [ids for ids, _, _ in expected]), expected, strict=True
    ):
        check_score(score, one)
    assert model.stats().forwards <= before + 2


def test_the_score_of_a_text_is_that_of_its_tokens_with_its_end(model: unitok.Model):
    score = model.score(picture(), "a red dog", question="what?")
    ids = model.family.answer_ids("a red dog")
    assert score.token_ids == tuple(ids)
    assert score.logprob < 0 and len(score.logprobs) == len(ids)
    by_tokens = model.score_tokens(Caption(picture(), "what?"), torch.tensor(ids).tolist())
    assert score.logprobs == pytest.approx(by_tokens.logprobs, abs=CLOSE)
    longer = model.score(picture(), "a red dog", question="what?", max_tokens=1)
    assert longer.logprob == pytest.approx(score.logprob, abs=CLOSE)


def test_pictures_and_texts_are_paired(model: unitok.Model):
    texts, pictures = ["a cat", "two dogs"], [picture(), picture("blue")]
    both = [model.score(i, t).logprob for i, t in zip(pictures, texts, strict=True)]
    together = [score.logprob for score in model.score(pictures, texts)]
    assert together == pytest.approx(both, abs=CLOSE)
    of_one = model.score(pictures[0], texts)
    assert [score.token_ids for score in of_one] == [
        score.token_ids for score in model.score(pictures, texts)
    ]
    assert of_one[0].logprob == pytest.approx(both[0], abs=CLOSE)
    assert model.score(pictures, "a cat")[0].logprob == pytest.approx(both[0], abs=CLOSE)


def test_a_likely_answer_scores_higher_than_others():
    with unitok.load() as model:
        image = model.draw("three apples", seed=3).image
        texts = ["three apples on a white background", "two dogs on a blue background"]
        right, wrong = model.score(image, texts)
        assert right.logprob > wrong.logprob + 5
        answer = model.caption(image, logprobs=True)
        again = model.score_tokens(Caption(image), answer.token_ids or ())
        assert again.logprobs == pytest.approx(answer.logprobs, abs=CLOSE)


def test_what_a_request_cannot_generate_is_refused(model: unitok.Model):
    start = model.family.model.vocabulary.image_start
    with pytest.raises(ValueError, match="token 1 of the given ones is 5, which the plan does not"):
        model.score_tokens(Draw("a cat"), [start, 5])
    with pytest.raises(ValueError, match="the plan ends after 16 of the 17 given tokens"):
        model.score_tokens(Draw("a cat"), [start] * 17)
    with pytest.raises(ValueError, match="there are no token ids to score"):
        model.score_tokens(Caption(picture()), [])
    with pytest.raises(ContextFullError):
        model.score_tokens(Caption(picture()), [5] * 5000)
    assert model.stats().used_blocks == 0


def test_wrong_arguments_are_named(model: unitok.Model):
    with pytest.raises(TypeError, match="token_ids are whole numbers, not text"):
        model.score_tokens(Caption(picture()), "a cat")  # type: ignore
    with pytest.raises(TypeError, match="score_tokens takes a request"):
        model.score_tokens("a cat", [5])  # type: ignore
    with pytest.raises(ValueError, match="there are 2 pictures and 3 texts"):
        model.score([picture(), picture()], ["a", "b", "c"])
    with pytest.raises(TypeError, match="did you mean 'question'"):
        model.score(picture(), "a", questio="what?")


def test_a_score_has_a_timeout(model: unitok.Model):
    with pytest.raises(TimeoutError, match="timeout of 1e-09 s"):
        model.score(picture(), "a cat", timeout=1e-9)


def test_scores_may_be_awaited(model: unitok.Model):
    texts = ["a cat", "two dogs"]

    async def awaited() -> Any:
        return await asyncio.gather(
            model.ascore(picture(), texts),
            model.ascore(picture(), "a cat", question="what?"),
            model.ascore_tokens(Caption(picture()), [5, 6]),
            model.ascore_tokens([Caption(picture()), Draw("a cat")], [[5], [7]]),
            return_exceptions=True,
        )

    several, one, tokens, wrong = asyncio.run(awaited())
    expected = model.score(picture(), texts)
    assert [score.logprob for score in several] == pytest.approx(
        [score.logprob for score in expected], abs=CLOSE
    )
    again = model.score(picture(), "a cat", question="what?")
    assert one.logprobs == pytest.approx(again.logprobs, abs=CLOSE)
    assert tokens.token_ids == (5, 6)
    assert isinstance(wrong, ValueError) and "which the plan does not allow" in str(wrong)


def test_requests_and_token_ids_must_be_as_many(model: unitok.Model):
    with pytest.raises(ValueError, match="there are 1 requests and 2 lists of token ids"):
        model.score_tokens([Caption(picture())], [[5], [6]])
