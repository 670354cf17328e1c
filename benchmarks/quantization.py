"""What weights of few bits save and cost: memory, step time and quality, beside bfloat16."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

import unitok
from benchmarks import requests
from benchmarks.engines import DecodeSteps
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.emoji.evaluation import EmojiSuite, judge_all
from unitok.evaluation.suite import SuiteOptions
from unitok.nn.linear import LinearReplacement
from unitok.nn.model import UnifiedModel
from unitok.quantization.weights import QUANTIZATIONS, quantize_model
from unitok_engine import FreePlan, Request

WAYS = ("bf16", *QUANTIZATIONS)
MEMORY_TARGETS = {"int8": 0.6}
STEP_TARGETS = {("int8", 2): 0.7}
QUALITY_TARGETS = {"int8": 1.0}
PROMPTS = 150  # of each kind of the emoji suite, which has 14


def quantization(setting: Setting) -> Iterator[Result]:
    """Weights of 8 and of 4 bits beside bf16, the same random weights at Janus-Pro-1B's shape:
    bytes of the language model (layers, embeddings, heads); the median over pairs of a step's
    seconds over bf16's in the middle of guided drawings (2 and 16 rows) and of one text (1 row),
    300 tokens of context each; and of a prompt of 576 tokens. Then the embedded model: the share of
    the emoji suite's drawings, captions and answers that are right, beside its own fp32."""
    models = {"bf16": setting.big}
    for way in QUANTIZATIONS:
        models[way] = setting.random()
        quantize_model(models[way], way)
        models[way].prepare(at_once=True)
    yield from memory(models)
    for rows in (2, 1, 16):
        yield from steps(setting, models, rows)
    yield from prompts(setting, models)
    yield from quality(setting)


def memory(models: Mapping[str, UnifiedModel]) -> Iterator[Result]:
    """Bytes of the language models' weights."""
    sizes = {way: language_bytes(model) for way, model in models.items()}
    for way in QUANTIZATIONS:
        yield Result(
            f"{way}, 1B shape: memory over bf16's", sizes[way] / sizes["bf16"], "x",
            MEMORY_TARGETS.get(way), False,
            f"{sizes[way] / 1e9:.2f} GB, bf16 {sizes['bf16'] / 1e9:.2f} GB",
        )  # fmt: skip


def language_bytes(model: UnifiedModel) -> int:
    """Bytes of a model's decoder, embeddings and heads."""
    parts = (model.decoder, model.text_embedding, model.image_embedding, model.image_aligner)
    return sum(weight_bytes(part) for part in (*parts, model.text_head, model.image_head))


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and of what replaced its linear layers."""
    replaced = [part for part in module.modules() if isinstance(part, LinearReplacement)]
    plain = sum(parameter.nbytes for parameter in module.parameters())
    return plain + sum(layer.nbytes for layer in replaced)


def steps(setting: Setting, models: Mapping[str, UnifiedModel], rows: int) -> Iterator[Result]:
    """Steps of so many rows: of one text, or of guided drawings."""
    context, rounds, warm_up = setting.either(300, 64), setting.rounds(15), 3
    contenders = {
        way: DecodeSteps(model, asked(model, rows, context, rounds + warm_up + 2), context + 40)
        for way, model in models.items()
    }
    seconds = paired(contenders, rounds, warm_up)
    what = "one text" if rows == 1 else f"{rows // 2} guided drawing{'s' * (rows > 2)}"
    yield from ratios(seconds, f"a step of {what} ({rows} rows)", rows)


def asked(model: UnifiedModel, rows: int, context: int, length: int) -> list[Request]:
    """A text of one row, or guided drawings of two rows each."""
    if rows == 1:
        return [requests.text(model, context, length, 0)]
    return [requests.guided(model, context, length, seed) for seed in range(rows // 2)]


def ratios(
    seconds: Mapping[str, Sequence[float]], what: str, rows: int = 0
) -> Iterator[Result]:
    """How long each way takes over bf16."""
    took = medians(seconds)
    for way in QUANTIZATIONS:
        yield Result(
            f"{way}, 1B shape: {what} over bf16's", median_ratio(seconds, way, "bf16"), "x",
            STEP_TARGETS.get((way, rows)), False,
            f"{1000 * took[way]:.0f} ms, bf16 {1000 * took['bf16']:.0f} ms",
        )  # fmt: skip


def prompts(setting: Setting, models: Mapping[str, UnifiedModel]) -> Iterator[Result]:
    """A prompt, whose tokens run in one forward."""
    length = setting.either(576, 48)
    contenders = {way: Prefill(model, length) for way, model in models.items()}
    yield from ratios(paired(contenders, setting.rounds(5)), f"a prompt of {length} tokens")


class Prefill:
    """A driver that gets one prompt after another, and answers each with a token."""

    def __init__(self, model: UnifiedModel, length: int) -> None:
        """Nothing is cached between prompts."""
        config = EngineConfig(memory=2**28, max_context=length + 16, prefix_caching=False)
        self._driver = Driver(Engine(model, config))
        self._request = requests.text(model, length, 1, 0)

    def __call__(self) -> None:
        """Run the prompt."""
        self._driver.complete([self._request])


def quality(setting: Setting) -> Iterator[Result]:
    """The emoji suite of the embedded model in each way, beside its own precision."""
    count = setting.either(PROMPTS, 1)
    expected = scores(setting.api, count)
    step = {}
    for way in WAYS:
        given = {"dtype": "bf16"} if way == "bf16" else {"quantize": way}
        with unitok.load(device="cpu", **given) as model:
            right = scores(model, count)
            size = language_bytes(model.family.model)
    
