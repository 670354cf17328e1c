"""Fuzzes `unitok batch`: the JSON lines of its input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any

from tests.fuzz.mutations import mutated_json
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place, check_message
from unitok.batch import run_batch
from unitok.requests import AnyRequest, Draw, Edit
from unitok.results import Result, failure

MOST_TOKENS, MOST_PICTURES = 8, 2
LINES = (
    {"caption": "cat.png", "question": "what is this?", "max_tokens": 4, "id": "a"},
    {"caption": "cat.png", "temperature": 0.5, "top_p": 0.9, "stop": ["x"], "max_tokens": 3},
    {"draw": "two apples", "seed": 7, "n": 2, "guidance": 1.5, "logprobs": True},
    {"draw": "a cat", "negative_prompt": "a dog", "width": 64, "height": 64},
    {"edit": "cat.png", "prompt": "make it night", "freedom": 0.5},
    {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "unitok",
            "max_tokens": 4,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is this?"},
                        {"type": "image_url", "image_url": {"url": "cat.png"}},
                    ],
                },
            ],
        },
    },
    {
        "custom_id": "two",
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"model": "unitok", "prompt": "two apples", "n": 1, "size": "auto", "seed": 3},
    },
)


class Sparing:
    """A model that refuses requests which are valid, but would take long."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def run(self, requests: Iterable[AnyRequest]) -> Iterator[Result]:
        """Results of all requests that are small."""
        for index, asked in enumerate(requests):
            if is_small(asked):
                for result in self.model.run([asked]):
                    yield result.__class__(**{**vars(result), "index": index})
            else:
                yield failure(asked, index, ValueError("this would take long"))


def is_small(asked: AnyRequest) -> bool:
    """Whether a request is done quickly. What is wrong in it is for the model to find."""
    if isinstance(asked, Draw | Edit):
        return not isinstance(asked.n, int) or asked.n <= MOST_PICTURES
    return asked.max_tokens <= MOST_TOKENS


class Lines:
    """Lines that are nearly valid, each run as a batch of its own with a line that is."""

    memory = 400 * 2**20
    names_files = False

    def __init__(self, place: Place) -> None:
        """Put a picture beside the input."""
        self.model: Any = Sparing(place.model)
        self.folder = place.folder / "batch"
        self.folder.mkdir()
        picture("RGB").save(self.folder / "cat.png")

    def make(self, random: Random) -> bytes:
        """A line, perhaps of several lines by now."""
        return mutated_json(random, json.dumps(random.choice(LINES)).encode())

    def run(self, case: bytes) -> None:
        """Run the batch, and check what it says and writes."""
        source, out = self.folder / "in.jsonl", self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        source.write_bytes(case + b"\n" + json.dumps(LINES[0]).encode() + b"\n")
        outcomes = list(run_batch(self.model, source, out, "fuzz"))
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        for error in errors:
            check_message(error)
        results = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
        for result in results:
            json.loads(result, parse_constant=no_json)
        assert outcomes[-1].status == "new", "the valid line has no result"
        if errors:
            raise ValueError(errors[0])

    def names(self, case: bytes) -> Sequence[str]:
        """None: what an error is about stands in the line."""
        return ()


def no_json(name: str) -> None:
    """Refuse what Python writes, but JSON does not have.

    Raises:
        AssertionError: Always.
    """
    raise AssertionError(f"results.jsonl has {name}, which is no JSON")
