"""Weights of few bits on a GPU: memory, and steps beside those of bf16."""

from collections.abc import Iterator

from benchmarks.device import DeviceBench
from benchmarks.gpu_shapes import DECODERS, compiled_drawings, drawings
from benchmarks.report import Result
from unitok.nn.linear import memory_of
from unitok.nn.model import UnifiedModel
from unitok.quantization.weights import QUANTIZATIONS, quantize_model


def quantization(here: DeviceBench) -> Iterator[Result]:
    """Each shape and way; one that fails leaves the others."""
    for name, decoder in DECODERS.items():
        model = here.model(decoder)
        for way in QUANTIZATIONS:
            few = here.model(decoder)
            quantize_model(few, way)
            yield from here.attempt(f"{name}, {way}", beside(here, f"{name}, {way}", few, model))


def beside(
    here: DeviceBench, title: str, few: UnifiedModel, model: UnifiedModel
) -> Iterator[Result]:
    """The memory of a quantised model, and its steps, over those of the same model in bf16."""
    size, whole = memory_of(few), memory_of(model)
    detail = f"{size / 1e9:.2f} GB, bf16 {whole / 1e9:.2f} GB"
    yield Result(f"{title}: memory over bf16's", size / whole, "x", detail=detail)
    for count in here.sizes.counts:
        ways = {
            "few": drawings(here, few, count),
            "bf16": drawings(here, model, count),
            "compiled": compiled_drawings(here, few, count) if here.is_cuda else lambda: None,
        }
        seconds = here.median(ways, here.sizes.rounds)
        yield Result(
            f"{title}, {count} at once: a step over bf16's", seconds["few"] / seconds["bf16"], "x",
            detail=f"{1e3 * seconds['few']:.2f} ms, compiled {1e3 * seconds['compiled']:.2f}, "
            f"bf16 {1e3 * seconds['bf16']:.2f}",
        )  # fmt: skip
