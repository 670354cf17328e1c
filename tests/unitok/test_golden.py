"""Recorded requests to all families give what they gave when they were recorded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unitok.golden.comparison import compare
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.golden.recording import Pixels, Recorded, Recordings, Sample, load, save
from tests.unitok.golden.requests import CAPTION_OPTIONS, DRAW_OPTIONS, Case, family_cases
from tests.unitok.golden.runner import record
from unitok_engine import sampler

RECORDING = Path(__file__).parent / "golden" / "families.json"
STRIDE = 3


@pytest.fixture(scope="module")
def recording() -> Recordings:
    return load(RECORDING)


def of_family(recording: Recordings, family: str) -> tuple[Recordings, list[Case]]:
    """What was recorded of a family, and its cases that it was recorded of."""
    before = {name: each for name, each in recording.items() if name.startswith(f"{family}:")}
    return before, [case for case in family_cases() if case.name in before]


@pytest.mark.parametrize("family", FOLDERS)
def test_a_family_gives_what_was_recorded(family: str, recording: Recordings, tmp_path: Path):
    before, cases = of_family(recording, family)
    tally = compare(before, record(cases, tmp_path, STRIDE))
    assert tally.differences == []
    assert tally.requests >= 10 and tally.ids >= 150, "the rest was cut off by doubtful choices"


def test_all_ways_to_sample_and_to_talk_are_recorded(recording: Recordings):
    kinds = {name.split(": ")[1] for name in recording}
    assert kinds >= {f"caption, {way}" for way in CAPTION_OPTIONS}
    assert kinds >= {f"drawing, {way}" for way in DRAW_OPTIONS}
    assert kinds >= {"conversation, seeing", "conversation, drawing"}
    assert sum(len(each) for each in recording.values()) >= 60


def test_scores_that_are_off_by_a_thousandth_are_seen(
    recording: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mix = sampler.mix
    monkeypatch.setattr(sampler, "mix", lambda *given: 1.001 * mix(*given))
    before, cases = of_family(recording, "janus")
    tally = compare(before, record(cases[:6], tmp_path, STRIDE))
    assert any("logprobs" in what for what in tally.differences)


# --- the comparison ------------------------------------------------------------------------------


def pixels(value: int) -> Pixels:
    return Pixels.of(Image.fromarray(np.full((4, 6, 3), value, np.uint8)), stride=2)


def sample(**changes: Any) -> Sample:
    made = Sample(
        ids=(5, 6, 7),
        margins=(0.5, None, 0.25),
        logprobs=(-1.0, 0.0, -20.0),
        branch_logprobs=(-1.5, 0.0, -2.0),
        pixels=pixels(100),
    )
    return replace(made, **changes)


def one(first: Sample | None = None, **changes: Any) -> Recorded:
    made = Recorded({"words": "a cat"}, "stop", 9, 3, (first or sample(), sample()), "a cat")
    return replace(made, **changes)


def differences(before: Recorded, after: Recorded) -> list[str]:
    return compare({"case": [before]}, {"case": [after]}).differences


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (one(sample(ids=(5, 6, 8))), "sample 0: id 2 is 8, not 7, which was ahead by 0.25"),
        (one(sample(ids=(5, 6))), "sample 0: only 2 ids, not 3"),
        (one(sample(logprobs=(-1.0, 0.0, -20.001))), "logprobs: that of id 2 is -20.001, not -20"),
        (one(sample(branch_logprobs=(-1.4998, 0.0, -2.0))), "branch_logprobs: that of id 0"),
        (one(sample(logprobs=None)), "logprobs are None"),
        (one(sample(logprobs=(-1.0, 0.0))), "2 logprobs, not 3"),
        (one(sample(pixels=pixels(102))), "pixels differ by 2"),
        (one(sample(pixels=None)), "in one recording only"),
        (one(samples=(sample(),)), "1 samples, not 2"),
        (one(text="a dog"), "text is 'a dog', not 'a cat'"),
        (one(finish_reason="length"), "finish_reason is 'length'"),
        (one(prompt_tokens=10), "prompt_tokens is 10"),
        (one(completion_tokens=4), "completion_tokens is 4"),
        (one(asked={"words": "a dog"}), "record it again"),
    ],
)
def test_a_difference_is_told(after: Recorded, message: str):
    (found,) = differences(one(), after)
    assert found.startswith("case, request 0: ") and message in found


def test_what_rounding_does_is_no_difference():
    after = sample(logprobs=(-1.00009, 0.0, -20.0002), pixels=pixels(101))
    assert differences(one(), one(after)) == []
    assert differences(one(), one(sample(margins=(0.4, None, 0.3)))) == []
    mixed = sample(slack=5.0)
    assert differences(one(mixed), one(sample(logprobs=(-1.0004, 0.0, -20.0)))) == []
    assert differences(one(mixed), one(sample(branch_logprobs=(-1.5004, 0.0, -2.0))))


@pytest.mark.parametrize("slack", [1.0, 7.0])
def test_nothing_is_compared_from_a_doubtful_choice_on(slack: float):
    doubtful = sample(margins=(0.5, 0.00009 * slack, 0.25), slack=slack)
    other = sample(ids=(5, 9, 9), logprobs=(-1.0, -3.0, -4.0), pixels=pixels(0))
    before, after = one(doubtful), one(other, text="a dog", completion_tokens=4)
    tally = compare({"case": [before]}, {"case": [after]})
    assert tally.differences == []
    assert (tally.samples, tally.ids, tally.doubtful, tally.cut) == (2, 4, 1, 1)
    assert differences(before, one(replace(other, ids=(4, 9, 9)), text="a dog"))
    assert differences(before, replace(after, prompt_tokens=10))


@pytest.mark.parametrize(
    ("change", "unheard"),
    [
        (lambda turn: turn, 0),
        (lambda turn: replace(turn, samples=(sample(pixels=pixels(101)), sample())), 1),
        (lambda turn: replace(turn, samples=(sample(ids=(5, 8, 7)), sample())), 1),
    ],
    ids=["the same", "pixels", "ids"],
)
def test_a_conversation_is_compared_while_its_history_is_the_same(
    change: Callable[[Recorded], Recorded], unheard: int
):
    first = one(sample(margins=(0.5, 0.0, 0.5)))
    tally = compare({"talk": [first, one()]}, {"talk": [change(first), one()]})
    assert (tally.differences, tally.requests, tally.unheard) == ([], 2 - unheard, unheard)


def test_a_case_that_is_gone_or_has_other_turns_is_told():
    assert compare({"case": [one()]}, {}).differences == ["case: there is no such case any more"]
    tally = compare({"case": [one()]}, {"case": [one(), one()]})
    assert tally.differences == ["case: 2 requests, not 1"]


def test_a_file_holds_all_of_a_recording(tmp_path: Path):
    recordings = {"a case": [one(), one(sample(pixels=None), text=None)], "другой": [one()]}
    save(recordings, tmp_path / "deep" / "file.json")
    assert load(tmp_path / "deep" / "file.json") == recordings
