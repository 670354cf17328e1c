"""What drafts save: fewer steps for the same tokens, and what wider steps cost."""

import random
from collections.abc import Callable, Iterator, Sequence

import unitok
from benchmarks import requests
from benchmarks.engines import DecodeSteps, FixedWidth
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.drafts import KeptTable, drafter_of
from unitok.driver import Driver
from unitok.emoji import captions
from unitok.emoji.sampler import SceneSampler
from unitok.requests import Draw
from unitok_engine import DraftTable, Engine, EngineConfig, Output, Request

FASTER = {1: 3.0, 8: 1.6, 16: 1.3, 64: 0.97}  # x, by how many drawings there are at once
COST = {4: 1.4, 8: 1.9}  # x a plain step, by tokens of a row
WARM, COLD = 6.4, 4.0  # tokens a step
ALL_TOLD = 6.0  # x transformers


def speculation(setting: Setting) -> Iterator[Result]:
    """Guided drawings of the embedded model, fp32, with and without drafts: held-out prompts, no
    two of which are alike, on both sides the same, from tokens to tokens. Drafts begin with the
    table that is in the package, which was learned from training prompts. Tokens a step are those
    of one drawing at a time: warm with that table, cold over the first drawings of a model of which
    nothing is known. Wide steps run guesses that are all wrong, so that each emits one token, at
    Janus-Pro-1B's shape, bf16, one guided drawing, 300 tokens of context. All told is from a prompt
    to a picture through the API, beside transformers with the same folder. In bfloat16, roundings
    depend on the rows of a step: how many drawings are the same for all that is told beside."""
    yield from faster(setting)
    yield tokens_per_step(setting, "warm", kept_table(setting.api), WARM, setting.either(100, 2))
    yield tokens_per_step(setting, "cold", DraftTable(), COLD, setting.either(50, 2))
    yield from cost(setting)
    yield all_told(setting)
    yield agreement(setting)


class Drawings:
    """Drawings on an engine of their own, with drafts or without.

    Attributes:
        outputs: What was drawn, in order.
    """

    def __init__(self, model: Model, table: DraftTable | None, asked: Sequence[Sequence[Request]]):
        """Take over what is asked.

        Args:
            model: The embedded model.
            table: Where guesses come from; None draws without drafts.
            asked: The requests of each call.
        """
        config = EngineConfig(max_context=model.family.max_context)
        drafter = None if table is None else drafter_of(model.family.model, table)
        self._driver = Driver(Engine(model.family.model, config, drafter=drafter))
        self._asked = iter(asked)
        self.outputs: list[Output] = []

    def __call__(self) -> None:
        """Draw what is asked next, at once."""
        self.outputs += self._driver.complete(next(self._asked))

    @property
    def tokens_per_step(self) -> float:
        """The tokens that a step brought a drawing, on average."""
        return self._driver.engine.stats.tokens_per_step


def faster(setting: Setting) -> Iterator[Result]:
    """Seconds without drafts over those with them, for several numbers of drawings at once."""
    for count in (1, 2) if setting.rehearse else FASTER:
        rounds, warm_up = setting.rounds(31 if count == 1 else 9), 1
        asked = drawings(setting.api, count * (rounds + warm_up), seed=count)
        batches = [asked[i : i + count] for i in range(0, len(asked), count)]
        plain = Drawings(setting.api, None, batches)
        drafted = Drawings(setting.api, kept_table(setting.api), batches)
        seconds = paired({"plain": plain, "drafted": drafted}, rounds, warm_up)
        took = medians(seconds)
        yield Result(
            f"embedded model, {count} at once: faster with drafts",
            median_ratio(seconds, "plain", "drafted"), "x", FASTER.get(count), True,
            f"{took['drafted']:.3f} s, without {took['plain']:.3f} s; "
            f"{drafted.tokens_per_step:.2f} tokens a step; {alike(plain, drafted)}",
        )  # fmt: skip


def tokens_per_step(
    setting: Setting, name: str, table: DraftTable, target: float, count: int
) -> Result:
    """The tokens that a step brings, one drawing at a time."""
    drawn = Drawings(setting.api, table, [[one] for one in drawings(setting.api, count, seed=100)])
    for _ in range(count):
        drawn()
    detail = f"the first {count} drawings; then {len(table)} pairs of neighbours are known"
    value = drawn.tokens_per_step
    return Result(f"embedded model, {name}: tokens a step", value, "", target, detail=detail)


def cost(setting: Setting) -> Iterator[Result]:
    """Seconds of wide steps at the 1B shape over those of plain ones."""
    model, context = setting.big, setting.either(300, 64)
    rounds, warm_up, drafter = setting.rounds(15), 2, FixedWidth()
    length = (1 + len(COST)) * (rounds + warm_up) + 2 * max(COST)
    drawing = requests.guided(model, context, length, seed=0)
    steps = DecodeSteps(model, [drawing], context + length + 8, drafter)

    def of_width(tokens: int) -> Callable[[], None]:
        def step() -> None:
            drafter.tokens = tokens
            steps()

        return step

    contenders = {str(tokens): of_width(tokens) for tokens in (1, *COST)}
    seconds = paired(contenders, rounds, warm_up)
    took = medians(seconds)
    for tokens, target in COST.items():
        yield Result(
            f"one guided drawing, 1B shape: a step of width {tokens} over a plain one",
            median_ratio(seconds, str(tokens), "1"), "x", target, False,
            f"{1000 * took[str(tokens)]:.0f} and {1000 * took['1']:.0f} ms",
        )  # fmt: skip


def all_told(setting: Setting) -> Result:
    """One drawing from its prompt to its picture, beside transformers."""
    rounds, warm_up = setting.rounds(15), 1
    prompts = held_out_prompts(rounds + warm_up, seed=200)
    peer, ours, theirs = setting.janus, iter(prompts), iter(prompts)
    with unitok.load(device="cpu", dtype="float32") as model:
        contenders = {
            "ours": lambda: model.draw(next(ours), seed=1),
            "baseline": lambda: peer.draw(next(theirs)),
        }
        seconds = paired(contenders, rounds, warm_up)
    took = medians(seconds)
    return Result(
        "embedded model, one drawing all told: faster than transformers",
        median_ratio(seconds, "baseline", "ours"), "x", ALL_TOLD, True,
        f"{1000 * took['ours']:.0f} ms, transformers {1000 * took['baseline']:.0f} ms",
    )  # fmt: skip


def agreement(setting: Setting) -> Result:
    """How many drawings are the same with drafts in bfloat16."""
    count = setting.either(100, 2)
    with unitok.load(device="cpu", dtype="bfloat16", drafts=False) as model:
        asked = [[one] for one in drawings(model, count, seed=300)]
        plain = Drawings(model, None, asked)
        drafted = Drawings(model, kept_table(model), asked)
        for _ in range(count):
            plain()
            drafted()
    same = [a == b for a, b in zip(ids(plain), ids(drafted), strict=True)]
    tokens = [
        a == b
        for one, other in zip(ids(plain), ids(drafted), strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    return Result(
        "embedded model, bf16: drawings that drafts leave as they are",
        100 * sum(same) / count, "%",
        detail=f"{sum(same)} of {count}; {100 * sum(tokens) / len(tokens):.1f}% of all tokens",
    )  # fmt: skip


def alike(one: Drawings, other: Drawings) -> str:
    """How many drawings are the same, in words."""
    same = sum(a == b for a, b in zip(ids(one), ids(other), strict=True))
    return f"the same tokens in {same} of {len(one.outputs)}"


def ids(drawn: Drawings) -> list[tuple[int, ...]]:
    """The token ids of what was drawn."""
    return [output.token_ids for output in drawn.outputs]


def drawings(model: Model, count: int, seed: int) -> list[Request]:
    """So many held-out drawings, with the model's own guidance and temperature."""
    prompts = held_out_prompts(count, seed)
    return [model.prepare.job(Draw(p, seed=i)).request for i, p in enumerate(prompts)]


def held_out_prompts(count: int, seed: int) -> list[str]:
    """So many prompts of scenes that the embedded model never saw."""
    scenes, chance = SceneSampler(seed, "heldout").batch(count), random.Random(seed)
    return [captions.prompt(scene, chance) for scene in scenes]


def kept_table(model: Model) -> DraftTable:
    """What is known of a model's pictures at first."""
    return KeptTable.of(model.family.model).table
