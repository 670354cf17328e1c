"""Fuzzes `unitok batch`: the JSON lines of its input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from random import Random

from tests.fuzz.command import run_command
from tests.fuzz.mutations import mutated_json
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place, check_message

VALID = "the valid line"
LINES = (
    {"caption": "cat.png", "question": "what is this?", "max_tokens": 4, "id": "a"},
    {"caption": "cat.png", "temperature": 0.5, "top_p": 0.9, "stop": ["x"], "max_tokens": 3},
    {"draw": "two apples", "seed": 7, "n": 2, "guidance": 1.5, "logprobs": True},
    {"draw": "a cat", "negative_prompt": "a dog", "width": 64, "height": 64},
    {"edit": "cat.png", "prompt": "make it night", "freedom": 0.5},
    {"edit": "cat.png", "prompt": "a cat", "box": [0, 0, 8, 8], "tries": 2, "decode_all": True},
    {"edit": "cat.png", "prompt": "a cat", "mask": "cat.png", "margin": [0, 0, 8, 8]},
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


class Lines:
    """Four lines that are nearly valid, run as a batch with a line that is."""

    memory = 400 * 2**20
    permits: Collection[str] = ()

    def __init__(self, place: Place) -> None:
        """Put a picture beside the input."""
        self.folder, self.model = place.folder / "batch", place.model_folder
        self.folder.mkdir()
        picture("RGB").save(self.folder / "cat.png")

    def make(self, random: Random) -> bytes:
        """Lines, perhaps more than four by now."""
        lines = [json.dumps(random.choice(LINES)).encode() for _ in range(4)]
        return b"\n".join(mutated_json(random, line) for line in lines)

    def run(self, case: bytes) -> None:
        """Run the batch, and check what it says and writes."""
        valid = json.dumps(LINES[0] | {"id": VALID})
        (self.folder / "in.jsonl").write_bytes(case + b"\n" + valid.encode())
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        words = ["batch", "in.jsonl", "-o", "out", "--model", str(self.model), "--quiet"]
        _, told = run_command(words, self.folder)
        for line in told.splitlines():
            check_message(line)
        results = (self.folder / "out" / "results.jsonl").read_text(encoding="utf-8")
        read = [json.loads(line, parse_constant=no_json) for line in results.splitlines()]
        assert any(result.get("id") == VALID for result in read), "the valid line has no result"
        if told:
            raise ValueError(told.splitlines()[0])

    def names(self, case: bytes) -> Sequence[str]:
        """None: what an error is about stands in its line."""
        return ()


def no_json(name: str) -> None:
    """Refuse what Python writes, but JSON does not have.

    Raises:
        AssertionError: Always.
    """
    raise AssertionError(f"results.jsonl has {name}, which is no JSON")
