"""Answers of a form: a JSON schema, a regular expression, a choice."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import unitok
from tests.unitok.golden.folders import FOLDERS
from unitok import Caption, Reply
from unitok.cli import app
from unitok.openai_wire.body import WireError
from unitok.openai_wire.chat import reply_of
from unitok_engine import Allow, Force, Plan

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "thing": {"enum": ["apple", "dog"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
        "note": {"type": "string", "maxLength": 6},
    },
    "required": ["thing", "count", "note"],
    "additionalProperties": False,
}
FORMS: list[dict[str, Any]] = [
    {"json_schema": SCHEMA},
    {"regex": " ?(red|blue)/[0-9]{1,3}"},
    {"choice": ["red", "red apple", 'a "quoted" \n line', "naïve ☃"]},
]


def fits(text: str, form: dict[str, Any]) -> bool:
    if "regex" in form:
        return re.fullmatch(form["regex"], text) is not None
    if "choice" in form:
        return text in form["choice"]
    value = json.loads(text)
    assert json.dumps(value, ensure_ascii=False) == text or "\\" in text
    return (
        list(value) == list(SCHEMA["properties"])
        and value["thing"] in ("apple", "dog")
        and 0 <= value["count"] <= 20
        and len(value["note"]) <= 6
    )


@pytest.fixture(scope="module")
def model() -> Iterator[unitok.Model]:
    with unitok.load() as made:
        yield made


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


@pytest.mark.parametrize("name", ["janus", "anole", "emu3"])
def test_answers_have_their_form_in_every_family(name: str, tmp_path: Path):
    with unitok.load(FOLDERS[name](tmp_path / name), device="cpu", memory="8MB") as model:
        asked = [
            Caption(picture(), seed=seed, temperature=2.0, max_tokens=150, **form)
            for form in FORMS
            for seed in range(3)
        ]
        for result in model.run(asked):
            assert result.error is None
            assert isinstance(result, unitok.TextResult)
            assert fits(result.text, FORMS[result.index // 3]), result.text
            assert result.finish_reason == "stop"


def test_an_answer_is_the_same_alone_and_beside_others(model: unitok.Model):
    asked = [
        Caption(picture(), seed=4, temperature=1.0, logprobs=True, **form)
        for form in [*FORMS, {"max_tokens": 9}]
    ]
    alone = [next(model.run([one])) for one in asked]
    beside = sorted(model.run(asked), key=lambda result: result.index)
    for one, other in zip(alone, beside, strict=True):
        assert isinstance(one, unitok.TextResult) and isinstance(other, unitok.TextResult)
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_the_answer_is_chosen_by_what_the_model_sees(model: unitok.Model):
    image = model.draw("three apples", seed=3).image
    assert model.caption(image, choice=["two dogs", "three apples"]).text == "three apples"
    dogs, apples = model.score(
        image, ["two dogs", "three apples"], choice=["two dogs", "three apples"]
    )
    assert apples.logprob > dogs.logprob
    assert apples.logprob > -1  # among the two alone


def test_scores_of_a_form_equal_decoding(model: unitok.Model):
    asked = Caption(picture(), json_schema=SCHEMA, seed=5, temperature=1.0, logprobs=True)
    answer = next(model.run([asked]))
    assert isinstance(answer, unitok.TextResult)
    score = model.score_tokens(asked, answer.token_ids or ())
    assert score.logprobs == pytest.approx(answer.logprobs, abs=1e-4)
    with pytest.raises(ValueError, match="given ones is"):
        model.score_tokens(asked, (answer.token_ids or ())[1:])


def test_a_plan_depends_on_the_emitted_tokens_alone(model: unitok.Model):
    def plan() -> Plan:
        asked = Caption(picture(), json_schema=SCHEMA, seed=1)
        return model.prepare.job(asked).request.plan

    def step(plan: Plan, emitted: list[int]) -> list[int]:
        found = plan.next(emitted)
        if isinstance(found, Allow):
            assert found.mask is not None
            return (found.mask.nonzero()[:, 0] + found.id_range.start).tolist()
        return [found.id] if isinstance(found, Force) else []

    random, asked_before, whole = Random(3), plan(), list[int]()
    expected: list[list[int]] = []
    one = plan()
    while allowed := step(one, whole):
        expected.append(allowed)
        whole.append(random.choice(allowed))
    for _ in range(60):
        length = random.randrange(len(whole))
        assert step(asked_before, whole[:length]) == expected[length]


def test_text_that_must_come_takes_no_steps(model: unitok.Model):
    model.caption(picture())  # in the prefix cache from here on
    before = model.stats().forwards
    result = model.caption(picture(), json_schema={"enum": ["one long text that is the only one"]})
    assert result.text == '"one long text that is the only one"'
    assert model.stats().forwards == before


def test_events_have_the_text_as_it_comes(model: unitok.Model):
    *events, last = model.stream(Caption(picture(), json_schema=SCHEMA, seed=6, temperature=1.0))
    assert isinstance(last.result, unitok.TextResult)
    assert "".join(event.text for event in events) == last.result.text
    assert fits(last.result.text, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "("}, "regex cannot be used: unclosed group"),
        ({"regex": "(?=a)b"}, "regex cannot be used: look-around"),
        ({"regex": "a" * 70_000}, "regex has more than 65,536 characters"),
        ({"regex": "a{300}"}, "regex: no answer of at most 256 tokens was found"),
        ({"regex": "a", "choice": "b"}, "give regex or choice, not both"),
        ({"regex": "a", "stop": "b"}, "stop would cut an answer off that regex asks for"),
        ({"choice": ["a" * 40_000, "b" * 40_000]}, "choice has more than 65,536 characters"),
        ({"json_schema": {"const": "a" * 2**17}}, "json_schema has 131,085 characters, and at"),
        ({"json_schema": '{"not": ' * 70 + "{" + "}" * 71}, "json_schema is nested deeper than 64"),
        ({"json_schema": {"enum": [float("nan")]}}, "json_schema cannot be written as JSON"),
        ({"json_schema": "[" * 9999}, "json_schema is nested deeper than 64"),
        ({"choice": []}, "choice is empty"),
        ({"choice": ["a", ""]}, "choice holds an empty text"),
        ({"json_schema": "{"}, "json_schema is no JSON"),
        ({"json_schema": "[1]"}, "json_schema must be an object, not"),
        ({"json_schema": {"a": {1, 2}}}, "json_schema cannot be written as JSON"),
        ({"json_schema": {"type": "strin"}}, "json_schema cannot be used: Invalid type: strin"),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "Unimplemented keys"),
        ({"json_schema": {"$ref": "http://a.b/c"}}, "does not fetch resources"),
        ({"json_schema": {"type": "string", "minLength": 2, "maxLength": 1}}, "Unsatisfiable"),
        (
            {"json_schema": SCHEMA, "max_tokens": 5},
            "json_schema: no answer of at most 5 tokens was found",
        ),
        (
            {
                "json_schema": {
                    "type": "object",
                    "properties": {"a": {"$ref": "#"}},
                    "required": ["a"],
                }
            },
            "json_schema: no answer can be found: Too many items",
        ),
    ],
)
def test_what_no_answer_can_be_is_refused(model: unitok.Model, options: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        model.caption(picture(), **options)


def test_a_schema_of_a_wrong_type_is_named():
    with pytest.raises(TypeError, match="json_schema must be a JSON schema, not 5"):
        Caption(picture(), json_schema=5)  # type: ignore


def test_the_command_line_takes_a_file(tmp_path: Path):
    file, image = tmp_path / "schema.json", tmp_path / "a.png"
    picture().save(image)
    file.write_text(json.dumps(SCHEMA))

    def said(*flags: str) -> str:
        done = CliRunner().invoke(app, ["caption", str(image), *flags])
        assert done.exit_code == 0
        return done.stdout.strip().removeprefix(f"{image}: ")

    assert fits(said("--json-schema", str(file)), {})
    assert said("--choice", "red", "--choice", "blue") in ("red", "blue")
    assert re.fullmatch("[0-9]{2}", said("--regex", "[0-9]{2}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "json_schema is no JSON"), (b"\xff", "it is no text in UTF-8"), (None, "No such file")],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, content: bytes | None, message: str):
    file, image = tmp_path / "schema.json", tmp_path / "a.png"
    picture().save(image)
    if content is not None:
        file.write_bytes(content)
    done = CliRunner().invoke(app, ["caption", str(image), "--json-schema", str(file)])
    assert done.exit_code == 2
    assert str(file) in done.stderr and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def test_a_response_format_is_a_schema():
    form = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}}
    assert reply_of(HELLO | {"response_format": form}) == Reply(
        HELLO["messages"], json_schema=SCHEMA
    )
    plain = reply_of(HELLO | {"response_format": {"type": "json_object"}})
    assert json.loads(str(plain.json_schema)) == {"type": "object"}
    assert reply_of(HELLO | {"response_format": {"type": "text"}}).json_schema is None


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "xml"}, '"response_format.type" must be "text", "json_object" or "json_schema"'),
        ({"type": "text", "json_schema": {}}, '"response_format.json_schema" is not supported'),
        ({"type": "json_schema"}, '"response_format.json_schema" must be an object'),
        (
            {"type": "json_schema", "json_schema": {"name": "a"}},
            '"response_format.json_schema.schema" must be an object',
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {}}},
            '"response_format.json_schema.name" must be text; it is missing',
        ),
    ],
)
def test_a_wrong_response_format_is_named(form: dict[str, Any], message: str):
    with pytest.raises(WireError, match=re.escape(message)):
        reply_of(HELLO | {"response_format": form})
