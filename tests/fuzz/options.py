"""Fuzzes the API: calls with options of random types and values.

A case is an expression of Python. Its names are those of `Options.known`.
"""

from __future__ import annotations

import decimal
import inspect
import io
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy
import torch
from PIL import Image

import unitok
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place

VALUES = (
    "None",
    "True",
    "False",
    "0",
    "1",
    "2",
    "-1",
    "0.5",
    "2.5",
    "float('nan')",
    "float('inf')",
    "10 ** 30",
    "-10 ** 30",
    "10 ** 5000",
    "1e308",
    "'text'",
    "''",
    "' '",
    "'\\ud800'",
    "'\\x00'",
    "'x' * 1_000_000",
    "'http://127.0.0.1/cat.png'",
    "'data:image/png;base64,AAAA'",
    "'nowhere.png'",
    "b''",
    "b'bytes'",
    "[]",
    "['a', 1]",
    "['a', 'b']",
    "[[]]",
    "[1, 2]",
    "()",
    "{}",
    "{'a': 1}",
    "range(3)",
    "iter([])",
    "object()",
    "int",
    "len",
    "...",
    "1j",
    "decimal.Decimal('0.5')",
    "Path('nowhere.png')",
    "Path('.')",
    "io.BytesIO()",
    "io.BytesIO(b'x')",
    "io.StringIO('x')",
    "numpy.int64(2)",
    "numpy.float32(0.5)",
    "numpy.bool_(True)",
    "numpy.array([1, 2])",
    "numpy.zeros((0, 3, 3))",
    "numpy.zeros((4, 4, 3), 'uint8')",
    "numpy.zeros((4, 4), 'complex64')",
    "numpy.full((4, 4, 3), numpy.nan)",
    "numpy.array('text')",
    "torch.tensor(1)",
    "torch.zeros(3, 4, 4)",
    "torch.zeros(3, 4, 4, dtype=torch.int64)",
    "torch.empty(3, 4, 4, device='meta')",
    "torch.zeros(3, 4, 4).to_sparse()",
    "torch.int8",
    "torch.bfloat16",
    "Image.new('RGB', (0, 0))",
    "Image.new('RGB', (1, 5000))",
    "Image.new('F', (4, 4), float('nan'))",
    "picture('LA')",
    "picture('RGB')",
)
MESSAGES = (
    "[{'role': 'user', 'content': 'what is this?'}]",
    "[{'role': 'user', 'content': [{'type': 'text', 'text': 'what?'}, "
    "{'type': 'image', 'image': picture('RGB')}]}]",
    "[{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'hello'}, "
    "{'role': 'assistant', 'content': 'yes'}, {'role': 'user', 'content': [{'type': 'image_url', "
    "'image_url': {'url': 'nowhere.png'}}]}]",
)
# What is called, and what is given by place there.
CALLS: dict[str, tuple[str, ...]] = {
    "model.caption": ("picture('RGB')",),
    "model.draw": ("'two apples'",),
    "model.edit": ("picture('RGB')", "'make it night'"),
    "model.chat().send": ("'hello'",),
    "model.chat().draw": ("'a cat'",),
    "model.chat": ("'Be brief.'",),
    "unitok.load": ("folder",),
}
# Answers are short, so that valid calls are quick.
SHORT = {"model.caption": ("max_tokens=2",), "model.chat().send": ("max_tokens=2",)}


class Options:
    """Calls of the API with one to three values that are drawn at random."""

    memory = 600 * 2**20
    permits: Collection[str] = ()

    def __init__(self, place: Place) -> None:
        """Collect what a case may name."""
        self.known = {
            "Image": Image,
            "Path": Path,
            "decimal": decimal,
            "folder": place.model_folder,
            "io": io,
            "model": place.model,
            "numpy": numpy,
            "picture": picture,
            "torch": torch,
            "unitok": unitok,
        }

    def make(self, random: Random) -> bytes:
        """A call of which something is likely to be wrong."""
        if random.random() < 0.2:
            return f"model.chat(messages={self._messages(random)}, max_tokens=2)".encode()
        called = random.choice(list(CALLS))
        places = list(CALLS[called])
        if places and random.random() < 0.3:
            places[random.randrange(len(places))] = random.choice(VALUES)
        named = self._options(called)
        names = random.sample(named, min(len(named), random.choice((0, 1, 1, 2))))
        options = [f"{name}={random.choice(VALUES)}" for name in names]
        short = [text for text in SHORT.get(called, ()) if text.split("=")[0] not in names]
        return f"{called}({', '.join([*places, *options, *short])})".encode()

    def _options(self, called: str) -> list[str]:
        function: Callable[..., Any] = eval(called, self.known)
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = list(inspect.signature(function).parameters.values())[len(CALLS[called]) :]
        return [*[p.name for p in parameters if p.kind in named], "unknown"]

    def _messages(self, random: Random) -> str:
        """Messages in the form of chat APIs, with a part that is another."""
        text = random.choice(MESSAGES)
        part = random.choice(re.findall(r"'[^']*'|\[\{|picture\('RGB'\)", text))
        value = (
            "[" if part == "[{" else random.choice((*VALUES, "'type'", "'image'", "'assistant'"))
        )
        place = random.choice([found.start() for found in re.finditer(re.escape(part), text)])
        changed = text[:place] + value + text[place + len(part) :]
        try:
            eval(changed, dict(self.known))
        except (SyntaxError, ValueError, TypeError):  # it is no Python, or no key
            return random.choice((text, *VALUES))
        return changed

    def run(self, case: bytes) -> None:
        """Evaluate the call."""
        with warnings.catch_warnings(action="ignore"):
            made = eval(case.decode(), dict(self.known))
        if isinstance(made, unitok.Model):
            made.close()

    def names(self, case: bytes) -> Sequence[str]:
        """The options of the call, and words for what is given by place."""
        things = (
            "request picture prompt question message text model folder file device URL URI".split()
        )
        return *re.findall(r"(\w+)=", case.decode()), *things
