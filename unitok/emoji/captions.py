"""The grammar of the emoji world: captions, drawing prompts, questions, and reading them back.

A picture of two objects has several true captions ("a cat left of a house", "a house right of a
cat", "a cat and a house"); `caption` picks one, `equivalent` accepts them all.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import BACKGROUNDS, RELATIONS, WHITE, Scene, canonical
from unitok.emoji.sprites import ALL_NAMES, NAMES

NUMBERS = ("zero", "one", "two", "three", "four")
PREFIXES = ("", "", "draw ", "paint ", "a picture of ", "a drawing of ", "an image of ")
SUFFIXES = (" on a {} background", ", {} background", " in front of a {} background")
WHITE_MENTIONED = 0.2  # share of white prompts that say so
ASKED_AFTER_ABSENT = 0.2  # share of number questions whose answer is zero
RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below",),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

NUMBER_QUESTIONS = ("how many {} are there?", "how many {} do you see?")
COLOUR_QUESTIONS = ("what colour is the background?", "what color is the background?")
WHAT_QUESTIONS = ("what is {} the {}?",)
WHERE_QUESTIONS = ("where is the {}?",)
PRESENCE_QUESTIONS = ("is there {}?", "do you see {}?")
DESCRIBE_QUESTIONS = ("what is this?", "what do you see?", "describe the picture.")
QUESTION_KINDS = ("number", "colour", "place", "presence")
DESCRIBE = "describe"  # a fifth kind, whose answer is the caption


@dataclass(frozen=True)
class Claim:
    """What a text says of a picture: nothing but these objects, on this background.

    Attributes:
        objects: (name, count), in order of name.
        background: The name of its colour.
        relation: (first, "left of" or "above", second), if the text states one.
    """

    objects: tuple[tuple[str, int], ...]
    background: str = WHITE
    relation: tuple[str, str, str] | None = None


class QuestionAnswer(NamedTuple):
    """A question about a picture, and its one true answer."""

    question: str
    answer: str


def article(name: str) -> str:
    """ "an apple", "a cat"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """ "apples", "cats"."""
    return f"{name}s"


def counted(name: str, count: int) -> str:
    """ "an apple", "two apples"."""
    return article(name) if count == 1 else f"{NUMBERS[count]} {plural(name)}"


def caption(scene: Scene) -> str:
    """The one caption a model should give; of two different objects it states the relation."""
    relation = scene.relation()
    if relation is not None:
        first, word, second = relation
        subject = f"{article(first)} {word} {article(second)}"
    else:
        subject = _listing(scene)
    return subject + ("" if scene.background == WHITE else SUFFIXES[0].format(scene.background))


def prompt(scene: Scene, rng: random.Random) -> str:
    """A request to draw the scene in one of many phrasings; no background means white."""
    relation = scene.relation() if scene.kind == "position" else None
    if relation is not None:
        first, word, second = relation
        if rng.random() < 0.5:
            first, word, second = second, OPPOSITE[word], first
        subject = f"{article(first)} {rng.choice(RELATION_PHRASES[word])} {article(second)}"
    else:
        subject = _listing(scene, rng)
    suffix = rng.choice(SUFFIXES).format(scene.background)
    if scene.background == WHITE and rng.random() >= WHITE_MENTIONED:
        suffix = ""
    return rng.choice(PREFIXES) + subject + suffix


def _listing(scene: Scene, rng: random.Random | None = None) -> str:
    parts = [counted(name, count) for name, count in scene.counts.items()]
    if rng is not None:
        rng.shuffle(parts)
    return " and ".join(parts)


def question_kinds(scene: Scene) -> tuple[str, ...]:
    """The kinds of question that have one true answer for this scene."""
    placed = scene.relation() is not None
    return tuple(kind for kind in QUESTION_KINDS if placed or kind != "place")


def questions(scene: Scene, rng: random.Random, kind: str | None = None) -> QuestionAnswer:
    """A question with one true answer.

    Args:
        scene: What the picture shows.
        rng: Chooses among phrasings.
        kind: One of `QUESTION_KINDS` or "describe"; a random one that fits if it is left out.

    Raises:
        ValueError: There is no such kind, or a place is asked for where there are not two
            different objects.
    """
    if kind is None:
        kind = rng.choice((*question_kinds(scene), DESCRIBE))
    match kind:
        case "number":
            return _number(scene, rng)
        case "colour":
            return QuestionAnswer(rng.choice(COLOUR_QUESTIONS), scene.background)
        case "place":
            return _place(scene, rng)
        case "presence":
            return _presence(scene, rng)
        case "describe":
            return QuestionAnswer(rng.choice(DESCRIBE_QUESTIONS), caption(scene))
    raise ValueError(f"no question kind {kind!r}; kinds are {', '.join(QUESTION_KINDS)}, describe")


def _number(scene: Scene, rng: random.Random) -> QuestionAnswer:
    absent = rng.random() < ASKED_AFTER_ABSENT
    name = _absent(scene, rng) if absent else rng.choice(sorted(scene.counts))
    question = rng.choice(NUMBER_QUESTIONS).format(plural(name))
    return QuestionAnswer(question, NUMBERS[scene.counts[name]])


def _presence(scene: Scene, rng: random.Random) -> QuestionAnswer:
    present = rng.random() < 0.5
    name = rng.choice(sorted(scene.counts)) if present else _absent(scene, rng)
    question = rng.choice(PRESENCE_QUESTIONS).format(article(name))
    return QuestionAnswer(question, "yes" if present else "no")


def _place(scene: Scene, rng: random.Random) -> QuestionAnswer:
    first, word, second = _relation(scene)
    if rng.random() < 0.5:
        first, word, second = second, OPPOSITE[word], first
    if rng.random() < 0.5:
        phrase = rng.choice(RELATION_PHRASES[word])
        return QuestionAnswer(rng.choice(WHAT_QUESTIONS).format(phrase, second), article(first))
    return _where(first, word, second, rng)


def places(scene: Scene, rng: random.Random) -> tuple[QuestionAnswer, QuestionAnswer]:
    """Where each of a scene's two things is, seen from the other.

    Args:
        scene: What the picture shows.
        rng: Chooses among phrasings.

    Raises:
        ValueError: There are not two different objects.
    """
    first, word, second = _relation(scene)
    return _where(first, word, second, rng), _where(second, OPPOSITE[word], first, rng)


def _where(first: str, word: str, second: str, rng: random.Random) -> QuestionAnswer:
    return QuestionAnswer(rng.choice(WHERE_QUESTIONS).format(first), f"{word} the {second}")


def _relation(scene: Scene) -> tuple[str, str, str]:
    relation = scene.relation()
    if relation is None:
        raise ValueError("a place question needs a scene of two different objects")
    return relation


def _absent(scene: Scene, rng: random.Random) -> str:
    while True:
        name = rng.choice(NAMES)
        if name not in scene.counts:
            return name


_OBJECTS = {f"{a} {name}": (name, 1) for name in ALL_NAMES for a in ("a", "an", "one")} | {
    f"{NUMBERS[count]} {plural(name)}": (name, count) for name in ALL_NAMES for count in (2, 3, 4)
}
_PREFIX = re.compile("|".join(sorted({re.escape(p) for p in PREFIXES if p}, key=len)[::-1]))
_SUFFIX = re.compile(
    "(?:{})$".format("|".join(SUFFIXES).format(*[f"({'|'.join(BACKGROUNDS)})"] * len(SUFFIXES)))
)
_RELATION = re.compile(f" (?:to the )?({'|'.join(RELATIONS)}) ")


def parse(text: str) -> Claim | None:
    """Read a caption or prompt of the grammar back; any other text gives None.

    Case, outer spaces and a final full stop do not matter.
    """
    text = text.strip().lower().removesuffix(".")
    start = _PREFIX.match(text)
    if start:
        text = text[start.end() :]
    background = WHITE
    suffix = _SUFFIX.search(text)
    if suffix:
        background = next(filter(None, suffix.groups()))
        text = text[: suffix.start()]
    return _parse_subject(text, background)


def _parse_subject(text: str, background: str) -> Claim | None:
    word = _RELATION.search(text)
    parts = [text[: word.start()], text[word.end() :]] if word else text.split(" and ")
    if any(part not in _OBJECTS for part in parts):
        return None
    objects = [_OBJECTS[part] for part in parts]
    if len({name for name, _ in objects}) < len(objects):
        return None  # "a cat and a cat": the grammar counts instead
    relation = None
    if word:
        (first, one), (second, other) = objects
        if (one, other) != (1, 1):
            return None
        relation = canonical(first, word[1], second)
    return Claim(tuple(sorted(objects)), background, relation)


def claim(scene: Scene) -> Claim:
    """All that is true of a scene."""
    return Claim(tuple(sorted(scene.counts.items())), scene.background, scene.relation())


def equivalent(text: str, scene: Scene) -> bool:
    """Whether a caption is true of the scene and complete.

    Same objects and counts, same background, and if a relation is stated, it is true, said either
    way round. A caption of two objects that states no relation ("a cat and a dog") is complete.
    """
    return _agrees(text, claim(scene))


def says_the_same(text: str, truth: str) -> bool:
    """As `equivalent`, of a scene that is given by its caption, as `caption` gives it."""
    said = parse(truth)
    return said is not None and _agrees(text, said)


def _agrees(text: str, truth: Claim) -> bool:
    said = parse(text)
    return (
        said is not None
        and (said.objects, said.background) == (truth.objects, truth.background)
        and said.relation in (None, truth.relation)
    )


def vocabulary_words() -> list[str]:
    """Every word the grammar can produce, sorted."""
    phrases = [
        *PREFIXES,
        *SUFFIXES,
        *NUMBER_QUESTIONS,
        *COLOUR_QUESTIONS,
        *WHAT_QUESTIONS,
        *WHERE_QUESTIONS,
        *PRESENCE_QUESTIONS,
        *DESCRIBE_QUESTIONS,
        *NUMBERS,
        *BACKGROUNDS,
        *(phrase for phrases in RELATION_PHRASES.values() for phrase in phrases),
        *(article(name) for name in NAMES),
        *(plural(name) for name in NAMES),
        "and yes no",
    ]
    return sorted(set(words(" ".join(phrases))))


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def corpus(n: int, seed: int) -> Iterator[str]:
    """Yield n lines of text from training scenes: prompts, captions, questions and answers."""
    sampler, rng = SceneSampler(seed, "train"), random.Random(f"corpus {seed}")
    made = 0
    while made < n:
        scene = sampler.sample()
        lines = (prompt(scene, rng), caption(scene), *questions(scene, rng))
        yield from lines[: n - made]
        made += len(lines)
