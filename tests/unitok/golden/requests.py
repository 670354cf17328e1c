"""Golden requests: what they ask, and how they are put to a model through the public API.

A case is one request, or a conversation of several. All its seeds are given, and its pictures are
made from whole numbers, so that they are the same bytes on every machine.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

import unitok
from unitok import Caption, Draw, DrawResult, TextResult

Result = TextResult | DrawResult


class Shown(Protocol):
    """A picture that a request shows: a frozen dataclass, so that it says what it is made of."""

    def picture(self) -> Image.Image: ...


@dataclass(frozen=True)
class Pattern:
    """A picture of noise, of a colour ramp, or of a few rectangles."""

    kind: Literal["noise", "ramp", "blocks"]
    width: int
    height: int
    seed: int

    def picture(self) -> Image.Image:
        pixels = {"noise": noise, "ramp": ramp, "blocks": blocks}[self.kind](self)
        return Image.fromarray(pixels.astype(np.uint8))


def noise(pattern: Pattern) -> np.ndarray:
    shape = pattern.height, pattern.width, 3
    return np.random.default_rng(pattern.seed).integers(0, 256, shape)


def ramp(pattern: Pattern) -> np.ndarray:
    """Colours that rise from left to right, from top to bottom, and along the diagonal."""
    rows, columns = np.indices((pattern.height, pattern.width))
    across, down = columns * 255 // pattern.width, rows * 255 // pattern.height
    channels = [across, down, (across + down + 40 * pattern.seed) % 256]
    return np.stack(channels, axis=-1)


def blocks(pattern: Pattern) -> np.ndarray:
    """Four rectangles of one colour each on a ground of another."""
    rng = np.random.default_rng(pattern.seed)
    pixels = np.zeros((pattern.height, pattern.width, 3), int) + rng.integers(0, 256, 3)
    for _ in range(4):
        top, left = rng.integers(0, (pattern.height, pattern.width))
        bottom, right = top + pattern.height // 3 + 1, left + pattern.width // 3 + 1
        pixels[top:bottom, left:right] = rng.integers(0, 256, 3)
    return pixels


@dataclass(frozen=True)
class Ask:
    """One request. words: a question, what is said in a conversation, or a prompt to draw.

    through_run: whether it goes through `Model.run` rather than through its own method.
    """

    verb: Literal["read", "draw"]
    words: str | None
    shown: tuple[Shown, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    through_run: bool = False


@dataclass(frozen=True)
class Case:
    """Requests to one model, each alone. talk: whether they are turns of one conversation."""

    name: str
    model: str
    asks: tuple[Ask, ...]
    talk: bool = False
    system: str | None = None

    def described(self, ask: Ask) -> dict[str, Any]:
        """What one of its requests asks, as JSON holds it."""
        told = asdict(ask) | {"talk": self.talk, "system": self.system}
        stated = {key: value for key, value in told.items() if value not in (None, (), {}, False)}
        return json.loads(json.dumps(stated))


def perform(model: unitok.Model, case: Case) -> Iterator[tuple[Ask, Result]]:
    """Put the requests of a case one after the other, each when the one before is done."""
    chat = model.chat(system=case.system) if case.talk else None
    for ask in case.asks:
        yield ask, one_turn(chat, ask) if chat else one_call(model, ask)


def one_turn(chat: unitok.Chat, ask: Ask) -> Result:
    words = ask.words or ""
    if ask.verb == "draw":
        return chat.draw(words, **ask.options)
    return chat.send(words, [shown.picture() for shown in ask.shown], **ask.options)


def one_call(model: unitok.Model, ask: Ask) -> Result:
    if ask.through_run:
        (result,) = model.run([as_request(ask)])
        return result
    if ask.verb == "draw":
        return model.draw(ask.words or "", **ask.options)
    return model.caption(ask.shown[0].picture(), ask.words, **ask.options)


def as_request(ask: Ask) -> Caption | Draw:
    if ask.verb == "draw":
        return Draw(ask.words or "", **ask.options)
    return Caption(ask.shown[0].picture(), ask.words, **ask.options)


# --- ways to sample ------------------------------------------------------------------------------

TOLD = {"logprobs": True, "branch_logprobs": True}
CAPTION_OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, told": TOLD,
    "warm, told": {"temperature": 1.0, **TOLD},
    "hot": {"temperature": 2.0},
    "top-k": {"temperature": 1.2, "top_k": 7, "logprobs": True},
    "top-p": {"temperature": 0.9, "top_p": 0.8, **TOLD},
    "min-p": {"temperature": 1.5, "min_p": 0.15, "branch_logprobs": True},
    "all filters": {"temperature": 1.1, "top_k": 40, "top_p": 0.95, "min_p": 0.01, **TOLD},
    "greedy, penalty": {"repetition_penalty": 1.4, **TOLD},
    "warm, penalty": {"temperature": 0.8, "repetition_penalty": 1.2, "logprobs": True},
    "warm, echo": {"temperature": 0.9, "repetition_penalty": 0.7, **TOLD},
    "greedy, stop": {"stop": ("e", "a", "o", "1")},
    "warm, stop": {"temperature": 1.0, "stop": " ", **TOLD},
}
FORM_OPTIONS: dict[str, dict[str, Any]] = {
    "schema": {
        "json_schema": {
            "type": "object",
            "properties": {
                "thing": {"enum": ["cat", "dog", 3, None]},
                "note": {"type": "string", "maxLength": 6},
                "sure": {"type": "boolean"},
            },
            "required": ["thing", "note"],
            "additionalProperties": False,
        },
        "temperature": 1.0,
        "max_tokens": 120,
        **TOLD,
    },
    "choice": {"choice": ["two cats", "a dog", "nothing"], **TOLD},
    "regex": {"regex": "(no|yes), [a-f]{2,9}", "temperature": 1.5, "top_k": 5, **TOLD},
    "text without end": {"json_schema": {"type": "string"}, "temperature": 1.0, "max_tokens": 9},
}
DRAW_OPTIONS: dict[str, dict[str, Any]] = {
    "own": {},
    "greedy, unguided": {"temperature": 0.0, "guidance": 1.0, **TOLD},
    "greedy, guided": {"temperature": 0.0, "guidance": 2.5, **TOLD},
    "unguided": {"temperature": 1.0, "guidance": 1.0, "logprobs": True},
    "guided, told": {"temperature": 1.0, "guidance": 4.0, **TOLD},
    "top-k": {"temperature": 1.3, "top_k": 9, "guidance": 1.5, "branch_logprobs": True},
    "top-p": {"temperature": 0.8, "top_p": 0.7, **TOLD},
    "min-p": {"temperature": 1.6, "min_p": 0.05, "guidance": 2.0, "logprobs": True},
    "negative": {"temperature": 1.0, "guidance": 3.0, "negative_prompt": "a dog"},
    "three": {"n": 3},
    "two, told": {"n": 2, "temperature": 1.0, "top_k": 20, "guidance": 1.5, **TOLD},
    "two, greedy": {"n": 2, "temperature": 0.0, "negative_prompt": "two cats", "guidance": 1.8},
}


# --- the families --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Habits:
    """What the tests' tiny model of a family accepts.

    sizes: of drawings; None is its own. shown, said: pictures and ids of an answer at a turn of a
    conversation, few where the context is short.
    """

    takes_system: bool = True
    sizes: tuple[tuple[int, int] | None, ...] = (None,)
    shown: int = 2
    said: int = 6


EMU3_SIZES = ((24, 24), (16, 24), (40, 16), (32, 32))
HABITS = {
    "janus": Habits(),
    "janus-original": Habits(),
    "chameleon": Habits(takes_system=False),
    "chameleon-original": Habits(takes_system=False),
    "anole": Habits(takes_system=False),
    "unitoken-base": Habits(takes_system=False, shown=1, said=2),
    "unitoken-anyres": Habits(takes_system=False),
    "emu3": Habits(sizes=EMU3_SIZES),  # its own size takes more ids than the tiny context holds
    "emu3-original": Habits(sizes=(None, *EMU3_SIZES)),
}
QUESTIONS = (
    None,
    "what is this?",
    "how many cats are there?",
    "Where is the house",
    "is it 12 * 34?",
    "Which colour, if any?",
    "что это?",
)
PROMPTS = (
    "a cat",
    "two apples on a blue background",
    "a red car left of a tree",
    "Three stars!",
    "a café, 3 × 4",
    "  a house  ",
    "snow",
    "a dog above a boat",
    "fire & water\nand air",
)
SYSTEMS = (None, "Be brief.", None, "a dog")
SHAPES = (("noise", 40, 26), ("ramp", 26, 40), ("blocks", 64, 64), ("noise", 30, 30))


def family_cases() -> list[Case]:
    """All cases of all families."""
    makers = (caption_cases, drawing_cases, conversation_cases)
    cases = [
        case
        for number, (model, habits) in enumerate(HABITS.items())
        for maker in makers
        for case in maker(model, habits, 100 * number)
    ]
    return [full_context("janus"), *cases, *form_cases("janus", 900), *form_cases("anole", 910)]


def full_context(model: str) -> Case:
    """An answer that only the context ends."""
    options = {"max_tokens": 10_000, "temperature": 1.0, "seed": 1, "branch_logprobs": True}
    ask = Ask("read", "and then?", (pattern(1),), options)
    return Case(f"{model}: caption, full context", model, (ask,))


# A code of these pictures is so near to another that rounding decides which one it is.
UNDECIDED = {711: 1711, 806: 1806}


def pattern(seed: int) -> Pattern:
    kind, width, height = pick(SHAPES, seed)
    return Pattern(kind, width, height, UNDECIDED.get(seed, seed))


def pick(choices: Sequence[Any], number: int) -> Any:
    """One of the choices, taken in turns."""
    return choices[number % len(choices)]


def caption_cases(model: str, habits: Habits, first: int) -> Iterator[Case]:
    """A caption in each way to sample, half of them of a question, every fifth through `run`."""
    for seed, (way, options) in enumerate(CAPTION_OPTIONS.items(), first):
        extra: dict[str, Any] = {"seed": seed, "max_tokens": 9 + seed % 5 * 3}
        if habits.takes_system and (system := pick(SYSTEMS, seed)):
            extra["system"] = system
        question = pick(QUESTIONS, seed)
        ask = Ask("read", question, (pattern(seed),), options | extra, seed % 5 == 4)
        yield Case(f"{model}: caption, {way}", model, (ask,))


def form_cases(model: str, first: int) -> Iterator[Case]:
    """An answer of each kind of form."""
    for seed, (form, options) in enumerate(FORM_OPTIONS.items(), first):
        ask = Ask("read", pick(QUESTIONS, seed), (pattern(seed),), options | {"seed": seed})
        yield Case(f"{model}: answer of a form, {form}", model, (ask,))


def drawing_cases(model: str, habits: Habits, first: int) -> Iterator[Case]:
    """A drawing in each way to sample, every fifth through `run`."""
    for seed, (way, options) in enumerate(DRAW_OPTIONS.items(), first + 50):
        extra = {"seed": seed, **sized(habits, seed)}
        ask = Ask("draw", pick(PROMPTS, seed), (), options | extra, seed % 5 == 4)
        yield Case(f"{model}: drawing, {way}", model, (ask,))


def sized(habits: Habits, number: int) -> dict[str, int]:
    size = pick(habits.sizes, number)
    return {"width": size[0], "height": size[1]} if size else {}


def conversation_cases(model: str, habits: Habits, first: int) -> Iterator[Case]:
    """Two conversations: one shows pictures, asks, draws and asks again; one begins to draw."""
    seed, brief = first + 80, {"max_tokens": habits.said}
    warm = {"temperature": 1.0, "seed": seed, **brief}
    shown = tuple(pattern(seed + i) for i in range(habits.shown))
    asks = (
        Ask("read", "what is it?", shown, brief),
        Ask("read", "and why?", (), warm | TOLD),
        Ask("draw", "a cat", (), {"seed": seed, **sized(habits, seed)}),
        Ask("read", "a cat?", (), brief | TOLD),
    )
    yield Case(f"{model}: conversation, seeing", model, asks, talk=True)
    drawn = {"seed": seed + 1, "guidance": 1.0, "temperature": 1.0, **TOLD}
    again = {"seed": seed + 2, "guidance": 2.0, "temperature": 0.0, "logprobs": True}
    asks = (
        Ask("draw", "a dog", (), drawn | sized(habits, seed + 1)),
        Ask("read", "what now?", (), warm | {"top_k": 5}),
        Ask("draw", "again", (), again | sized(habits, seed + 2)),
    )
    system = "You see well." if habits.takes_system else None
    yield Case(f"{model}: conversation, drawing", model, asks, talk=True, system=system)
