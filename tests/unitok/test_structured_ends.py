"""Answers of a form end in time: whole within max_tokens, or refused before any step."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from PIL import Image

import unitok
from benchmarks.json_schemas import TREE, is_answer, random_schema
from unitok import Caption, TextResult, grammar_ends, grammar_plan
from unitok.grammar_ends import Limits, find_end
from unitok.grammar_sizes import regex_size, schema_size
from unitok.requests import TextOptions
from unitok_engine import Allow, Force, Plan, Stop

PICTURE = Image.new("RGB", (64, 64), "red")
TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
ANY: dict[str, Any] = {"type": "object"}


@pytest.fixture(scope="module")
def model() -> Iterator[unitok.Model]:
    with unitok.load() as made:
        yield made


def answers(model: unitok.Model, asked: list[Caption]) -> list[TextResult]:
    found = sorted(model.run(asked), key=lambda result: result.index)
    return [result for result in found if isinstance(result, TextResult)]


def shortest(model: unitok.Model, near: int, most: int = 64, **form: Any) -> str | None:
    grammars, text = model.prepare._grammars, model.family.text_plan(most)
    _, matcher, words = grammars.start(TextOptions(**form), text)
    ids = find_end(matcher, words, Limits(most, 1000, near)).tokens
    return None if ids is None else model.tokenizer.decode(ids).strip()


@pytest.mark.parametrize("schema", [TEXT, TEXTS, ANY, TREE])
def test_what_could_go_on_without_end_is_whole_at_any_limit(model: unitok.Model, schema: Any):
    least = 28 if schema is TREE else 4
    asked = [
        Caption(PICTURE, json_schema=schema, max_tokens=most, seed=most, temperature=2.0)
        for most in range(least, 44, 3)
    ]
    results = answers(model, asked)
    for result, one in zip(results, asked, strict=True):
        assert result.error is None
        assert is_answer(result.text, schema), result.text
        assert result.completion_tokens <= one.max_tokens
    assert any(result.finish_reason == "length" for result in results)


def test_an_answer_that_ends_by_itself_is_as_if_there_were_no_limit(model: unitok.Model):
    choices = ["three apples", "two dogs", "a house"]
    free = model.caption(PICTURE, choice=choices)
    tight = model.caption(PICTURE, choice=choices, max_tokens=free.completion_tokens)
    assert (free.finish_reason, tight.text) == ("stop", free.text)


def test_random_schemas_have_answers_that_fit(model: unitok.Model):
    random = Random(2)
    schemas = [random_schema(random) for _ in range(16)]
    asked = [
        Caption(PICTURE, json_schema=schema, seed=i, temperature=float(i % 2), max_tokens=120)
        for i, schema in enumerate(schemas)
    ]
    for result, schema in zip(answers(model, asked), schemas, strict=True):
        assert result.error is None
        assert is_answer(result.text, schema), (schema, result.text)


def test_a_value_that_does_not_fit_is_seen():
    random = Random(3)
    values = [None, True, 0, -21, 2.5, "", "apple" * 9, [], [[]] * 9, {}, {"a": 1}]
    for schema in (random_schema(random) for _ in range(200)):
        assert not all(is_answer(json.dumps(value), schema) for value in values), schema
    assert is_answer('{"name": "a", "next": null}', TREE)
    assert not is_answer('{"name": "a", "next": {"name": "b"}}', TREE)
    assert not is_answer('{"name": "a"', TREE)


@pytest.mark.parametrize("most", [14, 40])
def test_scores_equal_decoding_near_the_limit(model: unitok.Model, most: int):
    asked = Caption(
        PICTURE, json_schema=TEXTS, max_tokens=most, seed=7, temperature=1.5, logprobs=True
    )
    (answer,) = answers(model, [asked])
    score = model.score_tokens(asked, answer.token_ids or ())
    assert score.logprobs == pytest.approx(answer.logprobs, abs=1e-4)
    first = model.score_tokens(asked, (answer.token_ids or ())[:3])
    assert first.logprobs == pytest.approx((answer.logprobs or ())[:3], abs=1e-4)


def test_a_plan_near_its_limit_depends_on_the_emitted_tokens_alone(model: unitok.Model):
    def plan() -> Plan:
        asked = Caption(PICTURE, json_schema=TEXTS, seed=1, max_tokens=30)
        return model.prepare.job(asked).request.plan

    def step(plan: Plan, emitted: list[int]) -> list[int]:
        found = plan.next(emitted)
        if isinstance(found, Allow):
            assert found.mask is not None
            return (found.mask.nonzero()[:, 0] + found.id_range.start).tolist()
        return [found.id] if isinstance(found, Force) else []

    random, whole, expected, one = Random(5), list[int](), list[list[int]](), plan()
    while allowed := step(one, whole):
        expected.append(allowed)
        whole.append(random.choice(allowed))
    again = plan()
    for _ in range(60):
        length = random.randrange(len(whole))
        assert step(again, whole[:length]) == expected[length]
        astray = [*whole[:length], random.choice(expected[length])]
        step(again, astray)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"json_schema": {"enum": ["a long text that is longer", "b"]}}, '"b"'),
        ({"json_schema": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, '""|null'),
        ({"json_schema": TREE}, r'\{"name": "", "next": null\}'),
        ({"json_schema": {"type": "array", "items": TEXT, "minItems": 2}}, r'\["", ""\]'),
        (
            {"json_schema": {"type": "integer", "multipleOf": 13, "minimum": 1}},
            "13|26|39|52|65|78|91",
        ),
        ({"regex": "[a-z]+ [a-z]+ END"}, "[a-z]+ [a-z]+ END"),
        ({"regex": "(a|b)+c"}, "[ab]+c"),
        ({"regex": "([ab]{2,9}z){4}"}, "([ab]{2,9}z){4}"),
        ({"regex": "x{40}"}, "x{40}"),
        ({"choice": ["three apples and a dog", "two", "three"]}, "two|three"),
    ],
)
@pytest.mark.parametrize("near", [0, 200])
def test_a_short_answer_is_found(
    model: unitok.Model, form: dict[str, Any], expected: str, near: int
):
    found = shortest(model, near, **form)
    assert found is not None
    assert re.fullmatch(expected, found), found


@pytest.mark.parametrize(
    "form",
    [
        {"regex": "(ab){300}"},
        {"json_schema": {"type": "string", "minLength": 900}},
        {"json_schema": {"type": "array", "items": TEXT, "minItems": 90}},
    ],
)
def test_what_has_no_answer_in_time_is_refused_before_anything_is_computed(
    model: unitok.Model, form: dict[str, Any]
):
    before, (name,) = model.stats().forwards, form
    message = f"{name}: no answer of at most 60 tokens was found: raise max_tokens, or ask for less"
    with pytest.raises(ValueError, match=message):
        model.caption(PICTURE, max_tokens=60, **form)
    (result,) = answers(model, [Caption(PICTURE, max_tokens=60, **form)])
    assert (result.finish_reason, result.error) == ("error", message)
    assert model.stats().forwards == before


@pytest.mark.parametrize("regex", [r"[a-z ]*\.", r".*\.", r"[a-z ]+: [0-9]+", r"I see [a-z ]+\."])
def test_what_ends_a_text_of_any_letters_is_found(model: unitok.Model, regex: str):
    result = model.caption(PICTURE, regex=regex, max_tokens=100)
    assert re.fullmatch(regex, result.text), result.text


@pytest.mark.parametrize("form", [{"regex": "\ud800"}, {"choice": ["\ud800"]}])
def test_half_a_character_is_in_no_form(model: unitok.Model, form: Any):
    with pytest.raises(ValueError, match=r"regex|choice"):
        model.caption(PICTURE, **form)


NO_OR_LONG: dict[str, Any] = {"anyOf": [{"const": "no"}, {"type": "string", "minLength": 4000}]}


def walked(model: unitok.Model, seed: int, **form: Any) -> str:
    """An answer of tokens that are chosen at random among those that the plan allows."""
    asked, random, emitted = Caption(PICTURE, seed=1, **form), Random(seed), list[int]()
    plan = model.prepare.job(asked).request.plan
    while not isinstance(step := plan.next(emitted), Stop):
        if isinstance(step, Allow):
            assert step.mask is not None
            ids = step.mask.nonzero()[:, 0] + step.id_range.start
            emitted.append(random.choice(ids.tolist()))
        else:
            emitted.append(step.id)
    return model.tokenizer.decode(emitted[: len(emitted) - step.drop]).strip()


def test_a_constant_beside_what_is_too_long_is_the_answer(model: unitok.Model):
    asked = Caption(PICTURE, json_schema=NO_OR_LONG, max_tokens=120, seed=1, temperature=2.0)
    (result,) = answers(model, [asked])
    assert (result.error, result.text) == (None, '"no"')


@pytest.mark.parametrize("seed", range(3))
def test_a_choice_far_from_the_limit_that_is_too_long_is_not_taken(model: unitok.Model, seed: int):
    assert walked(model, seed, regex="no|[a-w]{3000}END", max_tokens=120) == "no"


def test_a_part_that_takes_many_tokens_is_not_begun_late(model: unitok.Model):
    flags = {"type": "object", "properties": {"fish": {"type": "boolean"}, "bus": {"type": "null"}}}
    flags |= {"required": ["fish", "bus"], "additionalProperties": False}
    schema = {"type": "object", "properties": {"a": flags, "b": flags, "place": {"type": "null"}}}
    schema |= {"required": ["place"], "additionalProperties": False}
    for seed in range(8):
        text = walked(model, seed, json_schema=schema, max_tokens=48)
        assert is_answer(text, schema), text


def test_an_end_is_cut_by_bytes(model: unitok.Model):
    grammars, text = model.prepare._grammars, model.family.text_plan(9)
    _, _, words = grammars.start(TextOptions(regex=".*"), text)
    spelt, ids = model.tokenizer.token_bytes(), tuple(model.tokenizer.encode_plain("dog house"))
    for size in range(12):
        cut = b"".join(spelt[id] for id in words.cut(ids, size))
        assert cut == b"".join(spelt[id] for id in ids)[size:]


def test_searches_of_a_plan_are_bounded(model: unitok.Model, monkeypatch: pytest.MonkeyPatch):
    tries, ends = 0, grammar_plan.find_end

    def counted(*given: Any) -> grammar_ends.End:
        nonlocal tries
        found = ends(*given)
        tries += found.tries
        return found

    monkeypatch.setattr(grammar_plan, "find_end", counted)
    monkeypatch.setattr(grammar_plan, "ALL_TRIES", 50)
    schema = {"anyOf": [{"const": "no"}, {"type": "string", "minLength": 400}]}
    text = walked(model, 1, json_schema=schema, max_tokens=120)
    assert is_answer(text, schema), text
    assert 0 < tries <= 50


def test_where_there_is_no_end_one_is_looked_for_more_often_near_the_limit(
    model: unitok.Model, monkeypatch: pytest.MonkeyPatch
):
    places = list[int]()

    def none(matcher: Any, words: Any, limits: Limits, *_: Any) -> grammar_ends.End:
        places.append(120 - limits.most)
        return grammar_ends.End(None, 1)

    plan = model.prepare.job(Caption(PICTURE, regex="[a-w]*", max_tokens=120)).request.plan
    monkeypatch.setattr(grammar_plan, "find_end", none)
    monkeypatch.setattr(grammar_plan, "CLOSE", 20)
    step, emitted = plan.next([]), list[int]()
    assert isinstance(step, Allow) and step.mask is not None
    emitted = [int(step.mask.nonzero()[-1, 0]) + step.id_range.start]
    step = plan.next(emitted)
    assert isinstance(step, Allow) and step.mask is not None
    emitted += [int(step.mask.nonzero()[-1, 0]) + step.id_range.start] * 118
    for length in range(119):
        plan.next(emitted[:length])
    places = list(dict.fromkeys(places))  # two searches at each
    close = 120 - grammar_plan.CLOSE
    far = [place for place in places if place < close]
    assert len(far) > 2
    assert {after - before for before, after in pairwise(far)} == {grammar_plan.AGAIN}
    assert places[len(far) :] == list(range(close, 119)), "near the limit, behind each token"


def test_a_search_tells_that_it_gave_up(model: unitok.Model):
    grammars, text = model.prepare._grammars, model.family.text_plan(120)
    for regex, tries, settled in (("[a-w]{3000}", 500, True), ("[a-c]{9}z[a-c]{9}z", 1, False)):
        _, matcher, words = grammars.start(TextOptions(regex=regex), text)
        end = find_end(matcher, words, Limits(120, tries))
        assert (end.tokens, end.settled) == (None, settled)
        assert end.tries <= tries


@pytest.mark.parametrize(
    ("regex", "size"),
    [
        ("no|[a-w]{300}END", 303),
        ("([ab]{2,9}z){4}", 12),
        (r"\x{41}\{9\}", 4),
        ("(?:ab|c){2}d*", 5),
        ("a{9999999}", 65_536),
        ("((", 0),
    ],
)
def test_the_size_of_a_regular_expression(regex: str, size: int):
    assert regex_size(regex) == size


def test_the_size_of_a_schema_is_that_of_its_largest_part():
    assert schema_size(NO_OR_LONG) == 4000
    long = {"type": "array", "items": {"type": "string", "minLength": 9}, "minItems": 20}
    assert (
        schema_size({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}], "$defs": {"a": long}})
        == 220
    )
    assert schema_size(TREE) < 60
