"""Answers of a JSON schema: whether they fit it, and what it costs; and scores beside decoding."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import cast

import torch

from benchmarks import requests
from benchmarks.engines import DecodeSteps
from benchmarks.json_schemas import Schema, is_answer, random_schema
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok import Caption, Draw, DrawResult, Model, TextResult
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.grammar_plan import GrammarPlan
from unitok.grammars import Grammars
from unitok.nn.model import UnifiedModel
from unitok.requests import AnyRequest, TextOptions
from unitok_engine import Branch, FreePlan, Plan, Request, Sampling
from unitok_tokenizers.text import TextTokenizer

QUESTIONS = (
    None,
    "how many apples are there?",
    "what is in the picture?",
    "is there a dog?",
    "what colour is the background?",
)
PICTURES = 20
ITEM: Schema = {
    "type": "object",
    "properties": {
        "object": {"enum": ["apple", "banana", "cat", "dog", "house"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
        "colour": {"enum": ["red", "green", "blue", "white"]},
        "sure": {"type": "boolean"},
        "note": {"type": "string", "maxLength": 12},
    },
    "required": ["object", "count", "colour", "sure", "note"],
    "additionalProperties": False,
}
FORMS = {
    "objects": TextOptions(json_schema={"type": "array", "items": ITEM, "minItems": 1000}),
    "choices": TextOptions(regex='([a-z]{1,8}[ ,.;:!?-]|[0-9]{1,4}[ %/]|"[a-z ]{0,20}"[ ,])*'),
}
PAIRS = ('"}', '",', ', "', '": ', '": "', "},", '{"', '["', "],", "[{", "}]")
STEPS = 8  # that are timed at once


def structured(setting: Setting) -> Iterator[Result]:
    """JSON: 500 answers of the embedded model, each of a random schema of its own, about held-out
    pictures, half of them at temperature 0 and half at 1; a check that shares no code with the
    grammars counts those that fit. A step: eight steps of answers over eight of free text, at
    temperature 1, the median over pairs, which alternate. The answers are of a grammar that leaves
    a choice at every token, so that both sides run one token a row and step. A schema of objects
    has text that must come, which takes no steps but makes them longer: it is compared by the time
    of a token. No answer ends meanwhile. At Janus-Pro-1B's shape, bf16, the tokenizer is made up,
    of 102,400 tokens. Scores: the greatest difference to the log-probabilities that decoding
    told, over captions and guided drawings of the embedded model."""
    yield valid_answers(setting)
    for rows in setting.either_of((1, 8, 32), (1, 2)):
        yield from steps_of_answers(setting, EmbeddedAnswers(setting.api), rows)
    for rows in setting.either_of((1, 8, 32), (1, 2)):
        yield from steps_of_answers(setting, BigAnswers(setting.big), rows)
    yield from scores(setting)


def valid_answers(setting: Setting) -> Result:
    """The share of answers that fit their schemas."""
    count, random = setting.either(500, 6), Random(0)
    schemas = [random_schema(random) for _ in range(count)]
    pictures = [to_pil(pixels) for pixels in render(SceneSampler(5, "heldout").batch(PICTURES))]
    asked = [
        Caption(
            pictures[i % PICTURES], random.choice(QUESTIONS), json_schema=schema, seed=i,
            temperature=float(i % 2),
        )
        for i, schema in enumerate(schemas)
    ]  # fmt: skip
    fit, cut, tokens = 0, 0, 0
    for result in setting.api.run(asked):
        assert isinstance(result, TextResult)
        fit += result.error is None and is_answer(result.text, schemas[result.index])
        cut += result.finish_reason == "length"
        tokens += result.completion_tokens
    return Result(
        f"{count} JSON answers, embedded model: those that fit their schemas",
        100 * fit / count, "%", 100.0, True,
        f"{tokens / count:.0f} tokens each; {cut} ended for want of tokens",
    )  # fmt: skip


@dataclass(frozen=True)
class EmbeddedAnswers:
    """Answers of the embedded model.

    Attributes:
        model: The model as users open it.
    """

    model: Model
    name = "embedded model"
    context = 64

    @property
    def unified(self) -> UnifiedModel:
        """The model alone."""
        return self.model.family.model

    def text(self, most: int) -> FreePlan:
        """Free text of so many tokens."""
        return self.model.family.text_plan(most)

    @cached_property
    def grammars(self) -> Grammars:
        """Of its tokenizer."""
        return Grammars(self.model.tokenizer, self.model.family.answer_ids("a"))


@dataclass(frozen=True)
class BigAnswers:
    """Answers at Janus-Pro-1B's shape, with a tokenizer that is made up.

    Attributes:
        unified: The model.
    """

    unified: UnifiedModel
    name = "1B shape"
    context = 300

    def text(self, most: int) -> FreePlan:
        """Free text of so many tokens."""
        ids = requests.id_range(self.unified, image=False)
        return FreePlan(ids, frozenset({ids.stop - 1}), most)

    @cached_property
    def grammars(self) -> Grammars:
        """Of a tokenizer of as many tokens as the model has."""
        return Grammars(cast(TextTokenizer, MadeUpTokenizer(self.text(1).id_range.stop)), ())


class MadeUpTokenizer:
    """What grammars need of a tokenizer: all bytes, and words of syllables, half with a blank.

    Args:
        size: How many tokens it has. The last one is no text.
    """

    def __init__(self, size: int) -> None:
        random = Random(0)
        tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
        tokens |= dict.fromkeys(pair.encode() for pair in PAIRS)
        tokens |= dict.fromkeys(str(number).encode() for number in range(1000))
        syllables = [a + b for a in "bcdfghklmnprstvw" for b in "aeiou"]
        while len(tokens) < size - 1:
            word = "".join(random.choices(syllables, k=random.randint(1, 4)))
            tokens[random.choice(("", " ")).encode() + word.encode()] = None
        self._tokens = [*list(tokens)[: size - 1], b""]

    def token_bytes(self) -> list[bytes]:
        """The bytes of each token."""
        return self._tokens

    def encode_plain(self, text: str) -> list[int]:
        """None: the grammars take the longest tokens from left to right."""
        return []


Answers = EmbeddedAnswers | BigAnswers


class Steps:
    """An engine in the middle of some answers: each call is a few steps.

    Attributes:
        tokens: That were emitted so far.
    """

    def __init__(self, answers: Answers, rows: int, form: TextOptions | None, most: int) -> None:
        """Begin the answers.

        Args:
            answers: Whose they are.
            rows: How many.
            form: What they must be; None for free text.
            most: Tokens of an answer, at most.
        """
        self.tokens = 0
        asked = [self._request(answers, form, most, seed) for seed in range(rows)]
        self._steps = DecodeSteps(answers.unified, asked, answers.context + most)

    def _request(self, answers: Answers, form: TextOptions | None, most: int, seed: int) -> Request:
        text = answers.text(most)
        plan: Plan = FreePlan(text.id_range, frozenset(), most)
        if form is not None:
            ids = range(text.id_range.start, text.id_range.stop)
            goes_on = torch.tensor([id not in text.stop_ids for id in ids])
            _, matcher, words = answers.grammars.start(form, replace(text, mask=goes_on))
            plan = GrammarPlan(text, matcher, words, shortest=())
        prompt = requests.prompt_ids(answers.unified, answers.context, seed)
        return Request((Branch(prompt),), plan, Sampling(temperature=1.0, seed=seed))

    def __call__(self) -> None:
        """Run a few steps."""
        for _ in range(STEPS):
            self.tokens += sum(len(output.token_ids) for output in self._steps())


def steps_of_answers(setting: Setting, answers: Answers, rows: int) -> Iterator[Result]:
    """A step with a grammar over one without, and a token of objects over one of free text."""
    rounds, warm_up, most = setting.rounds(15), 2, setting.either(3000, 1000)
    forms: dict[str, TextOptions | None] = {**FORMS, "free": None}
    sides = {name: Steps(answers, rows, form, most) for name, form in forms.items()}
    seconds = paired(sides, rounds, warm_up)
    step = {name: 1000 * took / STEPS for name, took in medians(seconds).items()}
    each = sides["objects"].tokens / sides["free"].tokens
    yield Result(
        f"{rows} answers of a grammar, {answers.name}: step over that of free text",
        median_ratio(seconds, "choices", "free"), "x", 1.15, False,
        f"{step['choices']:.1f} and {step['free']:.1f} ms a step",
    )  # fmt: skip
    yield Result(
        f"{rows} answers of a JSON schema, {answers.name}: token over that of free text",
        median_ratio(seconds, "objects", "free") / each, "x", 1.15, False,
        f"{step['objects']:.1f} ms for {each:.1f} tokens a row",
    )  # fmt: skip


def scores(setting: Setting) -> Iterator[Result]:
    """Scores of token ids beside the log-probabilities that generating them told."""
    model, asked = setting.api, list(_scored(setting))
    answers = [
        _tokens_of(result) for result in sorted(model.run(asked), key=lambda result: result.index)
    ]
    told = model.score_tokens(asked, [ids for ids, _ in answers])
    worst = max(
        abs(one - other)
        for score, (_, logprobs) in zip(told, answers, strict=True)
        for one, other in zip(score.logprobs, logprobs, strict=True)
    )
    yield Result(
        "scores of tokens: the most that they differ from decoding, fp32", worst, "nats", 1e-4,
        False, f"{sum(len(ids) for ids, _ in answers):,} tokens of {len(asked)} requests",
    )  # fmt: skip
    one, (ids, _) = asked[-1], answers[-1]
    sides = {
        "decoding": lambda: list(model.run([one])),
        "scoring": lambda: model.score_tokens(one, ids),
    }
    seconds = paired(sides, setting.rounds(7))
    took = medians(seconds)
    yield Result(
        "scores of a guided drawing: faster than drawing it",
        median_ratio(seconds, "decoding", "scoring"), "x", None, True,
        f"{1000 * took['scoring']:.0f} and {1000 * took['decoding']:.0f} ms",
    )  # fmt: skip


def _scored(setting: Setting) -> Iterator[AnyRequest]:
    for seed in range(setting.either(20, 1)):
        common = {"seed": seed, "logprobs": True}
        yield Caption(setting.scene, temperature=float(seed % 2), **common)
        yield Caption(setting.scene, json_schema=ITEM, temperature=1.0, **common)
        yield Draw("two apples and a dog", top_p=0.9, **common)


def _tokens_of(result: TextResult | DrawResult) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The token ids and log-probabilities of an answer, or of a picture."""
    assert result.token_ids is not None and result.logprobs is not None
    if isinstance(result, TextResult):
        return result.token_ids, result.logprobs
    return result.token_ids[0], result.logprobs[0]
