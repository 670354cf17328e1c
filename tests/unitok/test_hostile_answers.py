"""Hostile schemas, regular expressions and choices neither hang nor end a model."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

import unitok
from tests.fuzz.forms import Forms
from tests.fuzz.pictures import picture
from tests.fuzz.target import DOCUMENTED, Place, check_message
from tests.unitok.tiny import save_tiny
from unitok import grammars
from unitok.grammar_ends import End


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = save_tiny(tmp_path_factory.mktemp("tiny"))
    with unitok.load(folder, device="cpu", memory="8MB") as model:
        yield Place(folder, folder, model)


def test_random_forms_are_answered_or_refused_by_name(place: Place):
    target, taken = Forms(place), 0
    for index in range(150):
        case = target.make(Random(f"answers-{index}"))
        try:
            target.run(case)
            taken += 1
        except DOCUMENTED as error:
            check_message(str(error), target.names(case))
    assert 30 < taken < 120
    assert place.model.stats().used_blocks == 0


def test_the_automaton_of_an_answer_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch):
    model, image = place.model, picture("RGB")
    assert len(model.caption(image, regex="[a-d]{9}x").text) == 10
    monkeypatch.setattr(grammars, "MAX_STATES", 5)
    with pytest.raises(ValueError, match="regex: no answer can be found: too many states"):
        model.caption(image, regex="[a-d]{9}x")


def test_the_search_for_a_short_answer_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch):
    model, image, schema = place.model, picture("RGB"), {"type": "array", "minItems": 3}
    assert len(json.loads(model.caption(image, json_schema=schema, seed=1).text)) >= 3
    monkeypatch.setattr(grammars, "TRIES", 1)
    found, search = list[End](), grammars.find_end

    def noted(*given: Any) -> End:
        found.append(search(*given))
        return found[-1]

    monkeypatch.setattr(grammars, "find_end", noted)
    assert len(json.loads(model.caption(image, json_schema=schema, seed=1).text)) >= 3
    assert found == [End(None, 1, settled=False)]  # it gave up, and the answer ended all the same
