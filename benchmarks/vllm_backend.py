"""What drawings cost in vLLM through our plugin, beside vLLM's own texts and beside our engine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import torch

from benchmarks import requests
from benchmarks.engines import DecodeSteps
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.models import TOY, random_model
from benchmarks.peers.vllm_peer import VllmSteps, of_janus, of_llama
from benchmarks.report import Result
from benchmarks.setting import CODEBOOK, Setting
from unitok.nn.config import DEFAULT, JANUS_PRO_1B, JanusConfig

LAYERS = 4
DRAWINGS = 16


def vllm_backend(setting: Setting) -> Iterator[Result]:
    """16 guided drawings, 560 tokens of context each, in vLLM with our plugin: the median over
    pairs of a step over that of plain vLLM on 32 texts of a Llama, and over that of our engine on
    the same drawings. Four layers of Janus-Pro-1B's shape, bf16, random weights, constant K/V; each
    vLLM in a process of its own that sleeps while the others run, one thread each."""
    sizes = janus_sizes(setting)
    context, rounds, warm_up = setting.either(560, 64), setting.rounds(11), 2
    with ExitStack() as stack:
        seconds = paired(
            contenders(setting, sizes, context, rounds + warm_up, stack),
            rounds,
            warm_up,
            pause=0.05,
        )
    step = {name: median * 1000 for name, median in medians(seconds).items()}
    words = ", ".join(f"{name} {ms:.0f} ms" for name, ms in step.items())
    yield Result(
        "16 drawings in vLLM with our plugin: step over plain vLLM's on 32 texts",
        median_ratio(seconds, "plugin", "plain"), "x", 1.25, False, f"a step: {words}",
    )  # fmt: skip
    yield Result(
        "16 drawings in vLLM with our plugin: step over our engine's",
        median_ratio(seconds, "plugin", "ours"), "x", None, False, f"a step: {words}",
    )  # fmt: skip


def janus_sizes(setting: Setting) -> JanusConfig:
    """A Janus of the 1B shape with few layers; its two vision paths are the embedded model's."""
    decoder = replace(JANUS_PRO_1B.decoder, layers=LAYERS)
    codes = replace(DEFAULT.image_tokenizer, codebook_size=setting.either(CODEBOOK, 64))
    return JanusConfig(TOY if setting.rehearse else decoder, DEFAULT.vision, codes)


def contenders(
    setting: Setting, sizes: JanusConfig, context: int, steps: int, stack: ExitStack
) -> dict[str, Callable[[], object]]:
    """The three sides, in the middle of decoding."""
    model = random_model(sizes.decoder, sizes.image_tokenizer.codebook_size, torch.bfloat16)
    model.prepare(at_once=True)
    drawings = [requests.guided(model, context, steps + 16, seed) for seed in range(DRAWINGS)]
    of = {
        "plugin": (of_janus(sizes), DRAWINGS),
        "plain": (of_llama(sizes.decoder), 2 * DRAWINGS),
    }
    peers = {
        name: stack.enter_context(VllmSteps(setting.vllm, write, rows, context, steps, threads=1))
        for name, (write, rows) in of.items()
    }
    return {"ours": DecodeSteps(model, drawings, context + steps + 32), **peers}
