"""What weights of few bits save and cost: memory, the time of a step, and quality, beside bf16."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import unitok
from benchmarks import requests
from benchmarks.engines import DecodeSteps
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.driver import Driver
from unitok.emoji.evaluation import EmojiSuite, judge_all
from unitok.evaluation.suite import SuiteOptions
from unitok.nn.linear import memory_of
from unitok.nn.model import UnifiedModel
from unitok.quantization.weights import QUANTIZATIONS, quantize_model
from unitok_engine import Engine, EngineConfig, Request

BF16 = "bf16"
MEMORY_TARGETS = {"int8": 0.6}
STEP_TARGETS = {("int8", 2): 0.7}
QUALITY_TARGETS = {"int8": 1.0}
PROMPTS = 150  # of each of the 14 kinds of the emoji suite


def quantization(setting: Setting) -> Iterator[Result]:
    """Weights of 8 and 4 bits beside bf16. At Janus-Pro-1B's shape, with the same random weights:
    bytes of the language model (embeddings, decoder, heads); and medians over pairs of the seconds
    over bf16's of a step with 300 tokens of context, of one guided drawing (2 rows), one text (1
    row) and eight drawings (16 rows), and of a prompt of 576 tokens. The embedded model: bytes, the
    seconds of a drawing without drafts, and how many points of the emoji suite's drawings, captions
    and answers differ from those of the model in its own precision."""
    models = at_full_size(setting)
    sizes = {way: language_memory(model) for way, model in models.items()}
    yield from memory("1B shape", sizes)
    for rows in (2, 1, 16):
        yield from steps(setting, models, rows)
    yield from prompts(setting, models)
    yield from embedded(setting)


def at_full_size(setting: Setting) -> dict[str, UnifiedModel]:
    """The same random weights in each way, ready for inference."""
    models = {BF16: setting.big}
    for way in QUANTIZATIONS:
        models[way] = setting.random()
        quantize_model(models[way], way)
        models[way].prepare(at_once=True)
    return models


def language_memory(model: UnifiedModel) -> int:
    """Bytes of a model's embeddings, decoder and heads."""
    heads = (model.text_head, model.image_head)
    parts = (model.text_embedding, model.image_embedding, model.image_aligner, model.decoder)
    return sum(map(memory_of, (*parts, *heads)))


def memory(what: str, sizes: Mapping[str, int]) -> Iterator[Result]:
    """The memory of each way over bf16's."""
    for way in QUANTIZATIONS:
        yield Result(
            f"{way}, {what}: memory of the language model over bf16's", sizes[way] / sizes[BF16],
            "x", MEMORY_TARGETS.get(way) if what == "1B shape" else None, False,
            f"{sizes[way] / 1e6:,.0f} MB, bf16 {sizes[BF16] / 1e6:,.0f} MB",
        )  # fmt: skip


def steps(setting: Setting, models: Mapping[str, UnifiedModel], rows: int) -> Iterator[Result]:
    """Steps of so many rows."""
    context, rounds, warm_up = setting.either(300, 64), setting.rounds(15), 3
    longest = rounds + warm_up + 2
    contenders = {
        way: DecodeSteps(model, asked(model, rows, context, longest), context + longest + 8)
        for way, model in models.items()
    }
    names = {1: "one text", 2: "one guided drawing"}
    what = names.get(rows, f"{rows // 2} guided drawings")
    yield from ratios(f"1B shape: a step of {what}", paired(contenders, rounds, warm_up), rows)


def asked(model: UnifiedModel, rows: int, context: int, length: int) -> list[Request]:
    """One text, or guided drawings of two rows each."""
    if rows == 1:
        return [requests.text(model, context, length, 0)]
    return [requests.guided(model, context, length, seed) for seed in range(rows // 2)]


def prompts(setting: Setting, models: Mapping[str, UnifiedModel]) -> Iterator[Result]:
    """A prompt, whose tokens run in one forward, and one token of its answer."""
    length = setting.either(576, 48)
    contenders = {way: prefill(model, length) for way, model in models.items()}
    seconds = paired(contenders, setting.rounds(5))
    yield from ratios(f"1B shape: a prompt of {length} tokens", seconds)


def prefill(model: UnifiedModel, length: int) -> Callable[[], object]:
    """Run a prompt, of which nothing is cached."""
    config = EngineConfig(memory=0.1, max_context=length + 16, prefix_caching=False)
    driver = Driver(Engine(model, config))
    request = requests.text(model, length, 1, 0)
    return lambda: driver.complete([request])


def ratios(what: str, seconds: Mapping[str, Sequence[float]], rows: int = 0) -> Iterator[Result]:
    """The time of each way over bf16's."""
    took = medians(seconds)
    for way in QUANTIZATIONS:
        yield Result(
            f"{way}, {what} over bf16's", median_ratio(seconds, way, BF16), "x",
            STEP_TARGETS.get((way, rows)), False,
            f"{1000 * took[way]:.0f} ms, bf16 {1000 * took[BF16]:.0f} ms",
        )  # fmt: skip


def embedded(setting: Setting) -> Iterator[Result]:
    """The embedded model in each way, beside its own precision."""
    given: dict[str, dict[str, Any]] = {BF16: {"dtype": BF16}}
    given |= {way: {"quantize": way} for way in QUANTIZATIONS}
    models = {w: unitok.load(device="cpu", drafts=False, **g) for w, g in given.items()}
    sizes = {way: language_memory(model.family.model) for way, model in models.items()}
    yield from memory("embedded model", sizes)
    contenders = {w: lambda m=m: m.draw("two apples", seed=0) for w, m in models.items()}
    seconds = paired(contenders, setting.rounds(5))
    yield from ratios("embedded model: a drawing", seconds)
    count = setting.either(PROMPTS, 1)
    expected, items = points(setting.api, count)
    for way, model in models.items():
        found, _ = points(model, count)
        yield Result(
            f"{way}, embedded model: points of the emoji suite that differ", abs(found - expected),
            "", QUALITY_TARGETS.get(way), False,
            f"{found:.2f} of 100 are right, {expected:.2f} in its own fp32; {items} items",
        )  # fmt: skip
        model.close()


def points(model: Model, prompts: int) -> tuple[float, int]:
    """How many of 100 results of the emoji suite are right, and the number of its items."""
    suite = EmojiSuite(SuiteOptions(limit=prompts))
    judged = judge_all(model, suite, suite.items())
    return 100 * sum(bool(one.judgement.ok) for one in judged) / len(judged), len(judged)
