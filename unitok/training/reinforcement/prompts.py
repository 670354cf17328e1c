"""What is asked in rollouts: JSON lines, and the order in which they come.

A line is one of `unitok batch`: {"draw": "a cat"}, {"caption": "cat.png", "question": "what is
it?"} or {"messages": [...]}. Beside that it may have "answer", a text or a list of texts, which
rewards compare with. How it is sampled is for the recipe to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from unitok.batch.entries import parse_line
from unitok.batch.own_lines import OwnLines
from unitok.batch.picture_paths import picture_files
from unitok.batch.source import Line, Source
from unitok.requests import Caption, Draw, Edit, Reply
from unitok.shown import shown
from unitok.strict_json import JsonObject
from unitok.terminal import one_line
from unitok.training.data.order import hashed, permutation

Kind = Literal["text", "image"]

MOST = 1_000_000  # prompts of a run
KEYS = {
    "caption": ("question", "system"),
    "draw": ("negative_prompt", "width", "height"),
    "messages": (),
}


@dataclass(frozen=True)
class Prompt:
    """What is asked.

    Attributes:
        name: Where it comes from, such as "prompts.jsonl:12".
        request: The request, which does not say how it is sampled.
        answers: Texts that would be right; () if none is known. Of a drawing, captions.
    """

    name: str
    request: Draw | Caption | Reply
    answers: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Whether it asks for "text" or for an "image"."""
        return "image" if isinstance(self.request, Draw) else "text"


def read_prompts(paths: Sequence[str]) -> list[Prompt]:
    """The prompts of files, in their order. Pictures are opened later.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is wrong, there is none, or there are too many.
    """
    found: list[Prompt] = []
    for path in dict.fromkeys(map(Path, paths)):  # "./a" and "a" are one file
        lines = prompts_in(path)
        found += islice(lines, MOST + 1 - len(found))
    if not found:
        raise ValueError(f"{', '.join(paths)}: there is no prompt in it")
    if len(found) > MOST:
        raise ValueError(f"{', '.join(paths)}: there are more than {MOST:,} prompts")
    return found


def prompts_in(path: Path) -> Iterator[Prompt]:
    """The prompts of one file."""
    source = Source(path)
    if not source.is_file:
        raise FileNotFoundError(f"{path}: prompts are read from a file")
    for line in source.lines():
        name = f"{path}:{line.number}"
        try:
            yield prompt_of(line, name, source.folder)
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{name}: {one_line(error)}") from None


def prompt_of(line: Line, name: str, folder: Path) -> Prompt:
    """The prompt of a line.

    Args:
        line: The line.
        name: What it is called.
        folder: Where relative paths of pictures start.

    Raises:
        ValueError: A key is missing, unknown or of a wrong type.
        OSError: A picture is not there.
    """
    asked = parse_line(line)
    answers = answers_of(asked.pop("answer", None))
    check_keys(asked)
    request = OwnLines().request(line.number, asked, folder)
    if isinstance(request, Edit):
        raise ValueError('"edit" is not learned from: give "draw", "caption" or "messages"')
    picture_files(request)  # which are checked
    return Prompt(name, request, answers)


def answers_of(given: object) -> tuple[str, ...]:
    """The texts of "answer"; ValueError if they are none."""
    answers = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
        raise ValueError(f'"answer" must be a text or a list of texts, not {shown(given)}')
    return tuple(answers)


def check_keys(asked: JsonObject) -> None:
    """Raise ValueError for a key that says how is sampled, which is for the recipe to say."""
    kind = next((kind for kind in KEYS if kind in asked), None)
    others = asked.keys() - {kind, "id", *KEYS.get(kind or "", asked)}
    if kind is not None and others:
        known = ", ".join(["answer", "id", *KEYS[kind]])
        raise ValueError(
            f'unknown key {shown(min(others))}; the keys beside "{kind}" are {known}, and '
            "[rollout] says how is sampled"
        )


class PromptStream:
    """Prompts in a shuffled order, one pass after the other; solved ones come no more.

    Attributes:
        prompts: All of them.
        solved: The places of those that are solved.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        """Begin at the first pass.

        Args:
            prompts: At least one; no two have the same name.
            seed: Decides the orders of all passes.
        """
        self.prompts, self._seed = prompts, seed
        self.solved: set[int] = set()
        self._place = {prompt.name: i for i, prompt in enumerate(prompts)}
        self._pass = self._position = 0
        self._order = self._ordered()

    def take(self, count: int) -> list[Prompt]:
        """The next prompts, each once; fewer if fewer are unsolved."""
        taken: dict[int, None] = {}
        count = min(count, len(self.prompts) - len(self.solved))
        while len(taken) < count:
            place = self._next_place()
            if place not in self.solved:
                taken[place] = None
        return [self.prompts[place] for place in taken]

    def solve(self, prompt: Prompt) -> None:
        """Let a prompt come no more."""
        self.solved.add(self._place[prompt.name])

    def _next_place(self) -> int:
        place = next(self._order, None)
        if place is None:
            self._pass, self._position = self._pass + 1, 0
            self._order = self._ordered()
            place = next(self._order)
        self._position += 1
        return place

    def _ordered(self) -> Iterator[int]:
        """What is left of the present pass."""
        order = permutation(len(self.prompts), hashed(self._seed, self._pass))
        return islice(order, self._position, None)

    @cached_property
    def identity(self) -> str:
        """The number of the prompts and a digest of them."""
        digest = hashlib.blake2b(digest_size=6)
        for prompt in self.prompts:
            digest.update(repr((prompt.name, prompt.request, prompt.answers)).encode())
        return f"{len(self.prompts)} prompts ({digest.hexdigest()})"

    def state_dict(self) -> dict[str, Any]:
        """The place in the order, in plain values."""
        place = {"pass": self._pass, "position": self._position}
        return place | {"solved": sorted(self.solved), "identity": self.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a place.

        Raises:
            ValueError: It is a place among other prompts.
        """
        if state["identity"] != self.identity:
            raise ValueError(
                f"the prompts have changed since the checkpoint was written: there were "
                f"{state['identity']}, and are {self.identity}"
            )
        self._pass, self._position = state["pass"], state["position"]
        self.solved = set(state["solved"])
        self._order = self._ordered()
