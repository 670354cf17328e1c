"""What adapters beside the weights cost: steps without, with one, and with several in a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from benchmarks import requests
from benchmarks.engines import DecodeSteps
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.nn.linear import linear_shapes
from unitok.nn.lora import LoraAdapter, LowRank
from unitok.nn.model import UnifiedModel

NAMES = ("a", "b", "c", "d")
RANK = 16
ROWS = 16


def adapters(setting: Setting) -> Iterator[Result]:
    """16 greedy texts, 300 tokens of context each, at Janus-Pro-1B's shape, bf16: the median over
    pairs of a step with adapters of rank 16 on all layers of the decoder over the same step without
    any. Either all rows have one adapter, or four rows each have one of four."""
    model, context = setting.big, setting.either(300, 64)
    for seed, name in enumerate(NAMES):
        model.put_adapter(random_adapter(model, name, seed))
    rounds, warm_up = setting.rounds(15), 2
    contenders = {
        "base": steps(model, context, rounds + warm_up, (None,)),
        "one": steps(model, context, rounds + warm_up, NAMES[:1]),
        "four": steps(model, context, rounds + warm_up, NAMES),
    }
    seconds = paired(contenders, rounds, warm_up)
    step = medians(seconds)
    for name, words in (("one", "one adapter"), ("four", "four adapters")):
        yield Result(
            f"16 texts with {words}, 1B shape: step over that without",
            median_ratio(seconds, name, "base"), "x", None, False,
            f"rank {RANK}; {step[name] * 1000:.0f} ms a step, without {step['base'] * 1000:.0f} ms",
        )  # fmt: skip


def steps(
    model: UnifiedModel, context: int, count: int, names: Sequence[str | None]
) -> DecodeSteps:
    """Steps of 16 texts, whose adapters take turns."""
    texts = [requests.text(model, context, count + 16, seed) for seed in range(ROWS)]
    adapted = [replace(text, adapter=names[i % len(names)]) for i, text in enumerate(texts)]
    return DecodeSteps(model, adapted, context + count + 32)


def random_adapter(model: UnifiedModel, name: str, seed: int) -> LoraAdapter:
    """An adapter of all linear layers of the decoder, with small random numbers."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        layer: LowRank(
            torch.randn(RANK, width, generator=generator) * 0.01,
            torch.randn(out, RANK, generator=generator) * 0.01,
            1.0,
        )
        for layer, (out, width) in linear_shapes(model).items()
        if layer.startswith("decoder.blocks.")
    }
    return LoraAdapter.of(name, layers, {})
