"""Answers of a form beside all else: chats, batches, adapters, samples, a pool that is small."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unitok
from tests.unitok.adapters import opened, random_adapter
from tests.unitok.batches import by_line, runner, write
from tests.unitok.tiny import save_tiny
from unitok import Caption, Reply, TextResult
from unitok_engine import Engine, EngineConfig

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "thing": {"enum": ["apple", "dog"]},
        "note": {"type": "string", "minLength": 2, "maxLength": 9},
    },
    "required": ["thing", "note"],
    "additionalProperties": False,
}
FITTING = r'\{"thing": "(apple|dog)", "note": "([^"\\]|\\.)+"\}'
PICTURE = Image.new("RGB", (64, 64), "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[unitok.Model]:
    with unitok.load(folder, device="cpu", memory="8MB") as made:
        yield made


def answers(model: unitok.Model, asked: list[Any]) -> list[TextResult]:
    found = sorted(model.run(asked), key=lambda result: result.index)
    return [result for result in found if isinstance(result, TextResult)]


def caption(seed: int, **options: Any) -> Caption:
    return Caption(
        PICTURE, json_schema=SCHEMA, seed=seed, temperature=1.0, logprobs=True, **options
    )


def test_a_chat_has_turns_of_a_form(model: unitok.Model):
    chat = model.chat()
    first = chat.send("what is this?", images=PICTURE, json_schema=SCHEMA, seed=1, temperature=1.0)
    assert re.fullmatch(FITTING, first.text)
    assert chat.send("yes or no?", choice=["yes", "no"]).text in ("yes", "no")
    *events, last = chat.stream("how many?", regex="[0-9]{2}")
    assert last.result is not None and isinstance(last.result, TextResult)
    assert "".join(event.text for event in events) == last.result.text
    assert re.fullmatch("[0-9]{2}", last.result.text)


def test_a_reply_has_a_form(model: unitok.Model):
    messages = [{"role": "user", "content": "the cat"}]
    assert model.chat(messages=messages, choice=["a", "b"]).text in ("a", "b")
    (result,) = answers(model, [Reply(messages, json_schema=SCHEMA, seed=2)])
    assert re.fullmatch(FITTING, result.text)


def test_lines_of_a_batch_have_forms(folder: Path, tmp_path: Path):
    PICTURE.save(tmp_path / "a.png")
    lines = [
        {"caption": "a.png", "json_schema": SCHEMA, "seed": 1, "temperature": 1.0},
        {"caption": "a.png", "choice": ["red", "blue"]},
        {"caption": "a.png", "regex": "[0-9]{3}"},
        {"caption": "a.png", "json_schema": {"type": "strin"}},
        {"caption": "a.png", "regex": "x{99}", "max_tokens": 9},
    ]
    done = runner(folder, tmp_path)(write(tmp_path / "in.jsonl", lines))
    assert done.exit_code == 1
    texts = [result["text"] for result in by_line(tmp_path / "out")]
    assert re.fullmatch(FITTING, texts[0])
    assert texts[1] in ("red", "blue") and re.fullmatch("[0-9]{3}", texts[2])
    errors = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    said = [json.loads(line)["error"] for line in errors]
    assert "json_schema cannot be used: Invalid type" in said[0]
    assert "regex: no answer of at most 9 tokens was found" in said[1]


def test_samples_of_one_request_are_those_of_requests_of_their_own(model: unitok.Model):
    def request(seed: int) -> Any:
        return model.prepare.job(caption(seed)).request

    engine = Engine(model.family.model, EngineConfig(max_context=512, num_blocks=64))

    def emitted(*requests: Any) -> dict[tuple[int, int], tuple[int, ...]]:
        found: dict[tuple[int, int], tuple[int, ...]] = {}
        ids = [engine.add(one) for one in requests]
        while engine.has_work:
            for output in engine.step():
                key = ids.index(output.request_id), output.sample
                found[key] = found.get(key, ()) + output.token_ids
        return found

    together = emitted(replace(request(0), n=3, seeds=(4, 5, 6)))
    apart = emitted(request(4), request(5), request(6))
    assert [together[0, i] for i in range(3)] == [apart[i, 0] for i in range(3)]
    assert len({*together.values()}) > 1


def test_answers_are_the_same_where_sequences_are_preempted(folder: Path, model: unitok.Model):
    asked = [caption(seed, max_tokens=60) for seed in range(6)]
    alone = [answers(model, [one])[0] for one in asked]
    longest = max(result.prompt_tokens for result in alone) + 60
    config = EngineConfig(max_context=512, block_size=16, num_blocks=-(-longest // 16) + 3)
    with unitok.Model(opened(folder), config) as small:
        crowd = answers(small, asked)
        assert small.stats().preemptions > 0
    for one, other in zip(alone, crowd, strict=True):
        assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_a_prompt_is_found_computed_whatever_the_form(model: unitok.Model):
    model.caption(PICTURE, "a question of its own?")
    before = model.stats()
    model.caption(PICTURE, "a question of its own?", choice=["red", "blue"])
    after = model.stats()
    assert after.cached_tokens > before.cached_tokens


def test_an_adapter_may_answer_in_a_form(folder: Path, model: unitok.Model):
    model.load_adapter("one", random_adapter(opened(folder).model, seed=1, name="one"))
    plain, adapted = answers(model, [caption(3), caption(3, adapter="one")])
    assert re.fullmatch(FITTING, plain.text) and re.fullmatch(FITTING, adapted.text)
    assert plain.logprobs != adapted.logprobs
    model.unload_adapter("one")


def test_the_library_of_grammars_is_imported_when_it_is_needed():
    asked = "import sys, unitok; unitok.Caption('a.png', regex='a')"
    code = f"{asked}; sys.exit('llguidance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
