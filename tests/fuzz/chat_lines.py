"""Fuzzes `unitok chat`: what a user types, line by line."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from random import Random

from tests.fuzz.guard import WRITE
from tests.fuzz.mutations import mutated_bytes
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place, check_message
from unitok.conversation import Conversation

LINES = (
    "what is this?",
    "/show cat.png",
    "/show cat.png what is this?",
    '/show "a cat.png" how many?',
    "/show a\\ cat.png",
    "/show 'cat.png",
    "/show ~/cat.png",
    "/show nowhere.png",
    "/show .",
    "/show /dev/null",
    "/show http://127.0.0.1/cat.png",
    "/show",
    "/draw two apples",
    "/draw",
    "/draw " + "x " * 3000,
    "/new",
    "/new now",
    "/undo",
    "/save chat.json",
    "/load chat.json",
    "/load nowhere.json",
    "/load cat.png",
    "/help",
    "/nothing",
    "/",
    "//",
    "\x1b[A",
    "\udcff",
    "日本語",
    "<image_placeholder> <|end|> </s>",
)


class ChatLines:
    """Some lines of a conversation, a few of them damaged."""

    memory = 400 * 2**20
    permits: Collection[str] = (WRITE,)  # `/save` says where

    def __init__(self, place: Place) -> None:
        """Make the pictures that the lines name."""
        self.model, self.folder = place.model, place.folder / "chat"
        self.folder.mkdir()
        for name in ("cat.png", "a cat.png"):
            picture("RGB").save(self.folder / name)

    def make(self, random: Random) -> bytes:
        """One to four lines."""
        lines = [random.choice(LINES) for _ in range(random.choice((1, 1, 2, 4)))]
        text = "\n".join(lines).encode("utf-8", "surrogateescape")
        return mutated_bytes(random, text) if random.random() < 0.5 else text

    def run(self, case: bytes) -> None:
        """Hold the conversation, and check what it says on stderr."""
        lines = case.decode("utf-8", "surrogateescape").split("\n")
        out, errors = self.folder / "out", StringIO()
        hushed = warnings.catch_warnings(action="ignore")
        with chdir(self.folder), redirect_stdout(StringIO()), redirect_stderr(errors), hushed:
            Conversation(self.model, out).talk(lines)
        for line in errors.getvalue().splitlines():
            check_message(line, self.names(case))
        if errors.getvalue():
            raise ValueError(errors.getvalue()[:500])

    def names(self, case: bytes) -> Sequence[str]:
        """The words of the lines, and what else a message may be about."""
        words = [word for word in case.decode("utf-8", "replace").split() if len(word) > 1]
        things = "chat context file help message picture prompt question stopped text".split()
        return *words, *things
