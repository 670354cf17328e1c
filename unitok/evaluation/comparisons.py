"""What `make bench` compares, with whom, and the bars.

A comparison yields lines of the table. Its docstring goes into the document: it says how the
figures are made.
"""

import dataclasses
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

import unitok
from unitok.api import Model
from unitok.baselines.transformers_peer import JanusBatches, LlamaLoop
from unitok.baselines.vllm_peer import VllmSteps
from unitok.driver import Driver
from unitok.emoji.scenes import SceneSampler, render, to_pil
from unitok.evaluation import bench, bench_driver
from unitok.evaluation.bench_report import Result, Throughput
from unitok.nn.config import JANUS_PRO_1B
from unitok.nn.model import UnifiedModel
from unitok.requests import Caption
from unitok_engine import Engine, EngineConfig

CODEBOOK = 16384  # Janus-Pro's


@dataclass(frozen=True)
class Setting:
    """What comparisons share; models are made when first needed, and once.

    vllm: the Python of the environment that has vLLM. rehearse: toy sizes.
    """

    vllm: Path
    rehearse: bool = False

    def either(self, full: int, toy: int) -> int:
        return toy if self.rehearse else full

    def rounds(self, full: int) -> int:
        return self.either(full, 1)

    @cached_property
    def big(self) -> UnifiedModel:
        """Random weights in Janus-Pro-1B's shape, bf16, ready for inference."""
        model = self._random()
        model.prepare(at_once=True)
        return model

    @cached_property
    def llama(self) -> LlamaLoop:
        """transformers with the same weights, as they lie before they are packed for us."""
        return LlamaLoop(self._random())

    def _random(self) -> UnifiedModel:
        decoder = JANUS_PRO_1B.decoder
        if self.rehearse:
            decoder = dataclasses.replace(
                decoder, layers=2, hidden_size=256, intermediate_size=512, heads=2, kv_heads=2,
                vocab_size=1000,
            )  # fmt: skip
        return bench.random_model(decoder, self.either(CODEBOOK, 64), torch.bfloat16)

    @cached_property
    def embedded(self) -> Model:
        return unitok.load(device="cpu", dtype="float32")

    @cached_property
    def scene(self) -> Image.Image:
        """A picture of the embedded model's world that it never saw."""
        return to_pil(render(SceneSampler(1, "heldout").batch(1))[0])

    @cached_property
    def shipped(self) -> bench.Shipped:
        return bench.Shipped()

    @cached_property
    def janus(self) -> JanusBatches:
        return JanusBatches(self.shipped)

    @property
    def crowd(self) -> int:
        """Drawings, and captions, that come together."""
        return self.either(64, 2)

    @cached_property
    def best_batches(self) -> JanusBatches:
        """transformers with the batch sizes that end a crowd first, for each kind."""
        sizes = [size for size in (16, 32, 64) if size <= self.crowd] or [self.crowd]
        best = []
        for kind in ((self.crowd, 0), (0, self.crowd)):

            def run(size: int, kind: tuple[int, int] = kind) -> None:
                self.janus.sizes = (size, size)
                self.janus.run(*kind)

            contenders = {str(size): lambda size=size, run=run: run(size) for size in sizes}
            seconds = bench.paired(contenders, self.rounds(2), warm_up=0)
            best.append(min(sizes, key=lambda size: min(seconds[str(size)])))
        self.janus.sizes = (best[0], best[1])
        return self.janus


Found = Iterator[Result | Throughput]


def one(setting: Setting) -> Found:
    """One guided drawing (two lines, 300 ids of context) at Janus-Pro-1B's shape, bf16: the median
    step over the floor. The floor is the bytes of the layers, of the image head and of the live
    K/V, over the best bandwidth of 1 GiB reads in between. transformers is its Llama with the same
    weights in Janus's loop."""
    model, context = setting.big, setting.either(300, 64)
    reader = bench.ImageEncoderBatch(setting.either(2**30, 2**20))
    ours = bench.DecodeSteps(model, [bench.guided(model, context, 60, 0)], context + 80)
    theirs = setting.llama.guided_steps(1, context)
    contenders = {"ours": ours, "theirs": theirs, "read": reader}
    seconds = bench.paired(contenders, setting.rounds(15), warm_up=3)
    bandwidth = reader.bandwidth(seconds["read"])
    floor = bench.decode_floor(setting.llama.ours, 2, context, image=True) / bandwidth
    step, peer = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
    yield Result(
        "one guided drawing, 1B shape: step over the floor", step / floor, "x", 1.18, False,
        f"{step * 1000:.0f} ms a step, floor {floor * 1000:.0f} ms at {bandwidth / 1e9:.1f} GB/s; "
        f"transformers {peer / floor:.2f} x",
    )  # fmt: skip


def eight(setting: Setting) -> Found:
    """Eight guided drawings at once (16 lines, 560 ids of context each), same shape: the median
    over pairs of transformers' step over ours. No context is computed on either side; the K/V are
    constants, which cost the same to read."""
    model, context = setting.big, setting.either(560, 64)
    requests = [bench.guided(model, context, 40, seed) for seed in range(8)]
    ours = bench.DecodeSteps(model, requests, context + 60)
    theirs = setting.llama.guided_steps(8, context)
    seconds = bench.paired({"ours": ours, "theirs": theirs}, setting.rounds(11), warm_up=2)
    step, peer = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
    yield Result(
        "eight guided drawings, 1B shape: faster than transformers",
        bench.median_ratio(seconds, "theirs", "ours"), "x", 2.5, True,
        f"{context} ids of context; {step * 1000:.0f} ms a step, transformers {peer * 1000:.0f} ms",
    )  # fmt: skip


def vllm(setting: Setting) -> Found:
    """16 greedy texts, 560 ids of context each, same shape, text head of 102,400 ids: the median
    over pairs of our step over vLLM's (its CPU build, random weights, in a process of its own that
    sleeps while we run). vLLM runs with 1 and with 2 threads; the better one counts. K/V are
    constants on both sides."""
    one, two = (beside_vllm(setting, threads) for threads in (1, 2))
    better, other = sorted((one, two), key=lambda found: found.theirs)
    yield Result(
        "16 texts, 1B shape: step over vLLM's", better.ratio, "x", 1.05, False,
        f"{better.ours * 1000:.0f} ms a step, {better.name} {better.theirs * 1000:.0f} ms "
        f"({other.name} {other.theirs * 1000:.0f} ms, {other.ratio:.3g} x)",
    )  # fmt: skip


@dataclass(frozen=True)
class BesideVllm:
    """Median seconds of a step on both sides, and the median of ours over theirs."""

    name: str
    ours: float
    theirs: float
    ratio: float


def beside_vllm(setting: Setting, threads: int) -> BesideVllm:
    model, context = setting.big, setting.either(560, 64)
    rows, rounds, warm_up = 16, setting.rounds(15), 3
    steps = rounds + warm_up
    requests = [bench.text(model, context, steps + 16, seed) for seed in range(rows)]
    ours = bench.DecodeSteps(model, requests, context + steps + 32)
    decoder = model.config.decoder
    with VllmSteps(setting.vllm, decoder, rows, context, steps, threads) as theirs:
        seconds = bench.paired({"ours": ours, "theirs": theirs}, rounds, warm_up, pause=0.05)
    step, peer = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
    name = f"vLLM {theirs.version} with OMP_NUM_THREADS={threads}"
    return BesideVllm(name, step, peer, bench.median_ratio(seconds, "ours", "theirs"))


def ragged(setting: Setting) -> Found:
    """64 texts with prompts of 16 ids and outputs of 8 to 128 ids (geometric), same shape, at most
    16 at once: total seconds of transformers' static batches of 16, in order of arrival, over
    ours."""
    model = setting.big
    count, size = setting.either(64, 8), setting.either(16, 4)
    lengths = bench.geometric_lengths(count)
    requests = [bench.text(model, 16, length, seed) for seed, length in enumerate(lengths)]
    config = EngineConfig(memory=0.3, max_running=size, prefix_caching=False)
    driver = Driver(Engine(model, config))
    theirs = setting.llama
    contenders = {
        "ours": lambda: driver.complete(requests),
        "theirs": lambda: theirs.text_batches(requests, size),
    }
    seconds = bench.paired(contenders, setting.rounds(2), warm_up=0)
    yield Result(
        f"{count} texts of 8 to 128 ids, {size} at once, 1B shape: faster than transformers",
        bench.median_ratio(seconds, "theirs", "ours"), "x", 2.0, True,
        f"{statistics.median(seconds['ours']):.1f} s, "
        f"transformers {statistics.median(seconds['theirs']):.1f} s",
    )  # fmt: skip


def drawings(setting: Setting) -> Found:
    """The embedded model and the same folder opened by transformers, fp32, guided drawings that
    arrive together, from ids to ids: the median over pairs of transformers' seconds over ours, and
    seconds per picture from 1 to 64 at once."""
    ours, theirs = setting.shipped, setting.janus
    bars = {1: 2.0, 16: 1.5}
    for count in (1, 2) if setting.rehearse else (1, 2, 4, 8, 16, 32, 64):
        contenders = {
            "ours": lambda count=count: ours.run(count, 0),
            "theirs": lambda count=count: theirs.drawings(count),
        }
        seconds = bench.paired(contenders, setting.rounds(7 if count <= 16 else 3))
        step, peer = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
        yield Throughput(count, step, peer)
        if count in bars:
            yield Result(
                f"shipped model, {count} at once: faster than transformers",
                bench.median_ratio(seconds, "theirs", "ours"), "x", bars[count], True,
                f"{step:.2f} s, transformers {peer:.2f} s",
            )  # fmt: skip


def together(setting: Setting) -> Found:
    """64 captions and 64 drawings of the embedded model arrive together: our total time over that
    of transformers' static batches, whose size is the best of 16, 32 and 64 for each kind. Embeddings
    of the pictures are given on both sides; no caption finds another's K/V."""
    ours, theirs, count = setting.shipped, setting.best_batches, setting.crowd
    contenders = {
        "ours": lambda: ours.run(count, count),
        "theirs": lambda: theirs.run(count, count),
    }
    seconds = bench.paired(contenders, setting.rounds(5))
    yield Result(
        f"shipped model, {count} drawings and {count} captions together: time over transformers'",
        bench.median_ratio(seconds, "ours", "theirs"), "x", 0.8, False,
        f"{statistics.median(seconds['ours']):.1f} s, transformers "
        f"{statistics.median(seconds['theirs']):.1f} s in batches of {in_words(theirs)}",
    )  # fmt: skip


def stream(setting: Setting) -> Found:
    """128 drawings and captions, half and half by chance, arrive as a Poisson stream at 70% of the
    rate that transformers sustained just before in its best static batches. Its server runs, up to
    that batch size, whatever waits and is of the oldest request's kind. Both sides get the same
    arrivals. The ratio of mean latencies is the median of five streams, in alternating order."""
    ours, theirs, count = setting.shipped, setting.best_batches, setting.crowd
    run = {"theirs": lambda: theirs.run(count, count)}
    sustained = 2 * count / statistics.median(bench.paired(run, setting.rounds(3))["theirs"])
    means: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in range(setting.rounds(5)):
        kinds, at = poisson(2 * count, 0.7 * sustained, seed)
        sides = {"ours": ours, "theirs": theirs}
        for name in sorted(sides, reverse=bool(seed % 2)):
            means[name].append(statistics.mean(sides[name].latencies(kinds, at)))
    yield Result(
        "shipped model, a Poisson stream at 70%: mean latency over transformers'",
        bench.median_ratio(means, "ours", "theirs"), "x", 1 / 3, False,
        f"{0.7 * sustained:.1f} requests/s; {statistics.median(means['ours']):.2f} s, transformers "
        f"{statistics.median(means['theirs']):.2f} s in batches of up to {in_words(theirs)}",
    )  # fmt: skip


def poisson(count: int, rate: float, seed: int) -> tuple[list[bool], list[float]]:
    """Which of `count` requests are drawings, and when they arrive, in seconds; rate per second."""
    chance = random.Random(seed)
    at, now = [], 0.0
    for _ in range(count):
        now += chance.expovariate(rate)
        at.append(now)
    return [chance.random() < 0.5 for _ in at], at


def in_words(theirs: JanusBatches) -> str:
    return f"{theirs.sizes[0]} drawings or {theirs.sizes[1]} captions"


def pixels(setting: Setting) -> Found:
    """What the figures of the embedded model leave out on both sides: 16 pictures at once from
    preprocessed pixels to vectors, and from codes to pixels."""
    ours, theirs = setting.shipped, setting.janus
    outputs = [output.token_ids for output in ours.run(len(ours.pixels), 0)]
    codes = ours.model.vocabulary.id_to_code(torch.tensor(outputs))
    paths: dict[str, dict[str, Callable[[], object]]] = {
        "encoding": {
            "ours": lambda: ours.family.features(ours.pixels),
            "theirs": lambda: theirs.features(ours.pixels),
        },
        "decoding": {
            "ours": lambda: ours.family.decode_images(outputs),
            "theirs": lambda: theirs.paint(codes),
        },
    }
    for name, contenders in paths.items():
        seconds = bench.paired(contenders, setting.rounds(7))
        own, peer = (statistics.median(seconds[side]) / len(outputs) for side in ("ours", "theirs"))
        yield Result(
            f"shipped model, {name} a picture", own * 1000, "ms",
            detail=f"{len(outputs)} at once; transformers {peer * 1000:.3g} ms",
        )  # fmt: skip


def bookkeeping(setting: Setting) -> Found:
    """The engine with a model that costs nothing, guided drawings in flight: median seconds of a
    step, per line; the least of three runs for each number of lines. As a share it is set against
    our own step at Janus-Pro-1B's shape, with a context of only 64 ids: longer ones take longer."""
    counts = (16, 64) if setting.rehearse else (16, 64, 256, 1024)
    repeats, steps = setting.either(3, 1), setting.either(60, 10)
    costs = {
        count: min(bench.bookkeeping(count, steps=steps) for _ in range(repeats))
        for count in counts
    }
    yield Result(
        "bookkeeping per line and step: the most over that of 16 lines",
        max(costs.values()) / costs[counts[0]], "x", 1.3, False,
        ", ".join(f"{count}: {1e6 * cost:.1f} µs" for count, cost in costs.items()),
    )  # fmt: skip
    model, context = setting.big, 64
    for count in (16, 64):
        requests = [bench.guided(model, context, 30, seed) for seed in range(count // 2)]
        contenders = {"ours": bench.DecodeSteps(model, requests, context + 40)}
        step = statistics.median(bench.paired(contenders, setting.rounds(5), 2)["ours"])
        cost = count * costs[count]
        yield Result(
            f"bookkeeping of {count} lines, share of a step at the 1B shape",
            100 * cost / step, "%", 5.0, False,
            f"{1000 * cost:.2f} of {1000 * step:.0f} ms",
        )  # fmt: skip


def driver(setting: Setting) -> Found:
    """What the thread that steps costs its callers, and what one caller feels of another. One
    drawing of the embedded model beside one whose caller steps an engine of its own (pairs). Time
    to submit a request while 8 guided drawings run at Janus-Pro-1B's shape. A caption that comes
    when 600 drawings of another caller (one prompt, n = 600) fill every step, beside one that was
    admitted first; and what the crowd's time becomes by it (the same seeds; medians)."""
    model, count = setting.embedded, setting.either(600, 8)
    seconds = bench_driver.overhead(model, setting.rounds(31))
    yield Result(
        "one drawing: time over that of stepping in place",
        bench.median_ratio(seconds, "driver", "in place"), "x", 1.03, False,
        ", ".join(f"{name} {1000 * statistics.median(x):.1f} ms" for name, x in seconds.items()),
    )  # fmt: skip
    submits = sorted(bench_driver.submitting(setting.big, setting.either(200, 5)))
    detail = f"median of {len(submits)}; the longest {1000 * submits[-1]:.2f} ms"
    median, late = submits[len(submits) // 2], submits[int(0.99 * len(submits))]
    yield Result("submitting amid 1B steps", 1000 * median, "ms", 1.0, False, detail)
    yield Result("submitting amid 1B steps, 99 of 100", 1000 * late, "ms", 10.0, False)
    scene = Caption(setting.scene)
    kinds = {"alone": [], "first": [], "beside": []}
    runs = {
        "alone": lambda seed: bench_driver.crowd_alone(model, count, seed),
        "first": lambda seed: bench_driver.caption_first(model, count, seed, scene),
        "beside": lambda seed: bench_driver.caption_beside(model, count, seed, scene),
    }
    for seed in range(setting.rounds(4)):
        for kind in sorted(runs, reverse=bool(seed % 2)):
            kinds[kind].append(runs[kind](seed))
    alone, first, beside = (bench_driver.medians(found) for found in kinds.values())
    yield Result(
        f"a caption beside {count} drawings: steps to its first token", beside.steps, "", 3, False,
        "the most of all runs",
    )  # fmt: skip
    yield Result(
        f"a caption beside {count} drawings: time over that of one admitted first",
        beside.caption / first.caption, "x", 1.5, False,
        f"{beside.caption:.2f} s, admitted first {first.caption:.2f} s",
    )  # fmt: skip
    yield Result(
        f"{count} drawings with that caption beside them: time over that of the drawings alone",
        beside.crowd / alone.crowd, "x", 1.05, False,
        f"{beside.crowd:.1f} s, alone {alone.crowd:.1f} s",
    )  # fmt: skip


COMPARISONS: dict[str, Callable[[Setting], Found]] = {
    "one": one,
    "eight": eight,
    "vllm": vllm,
    "ragged": ragged,
    "drawings": drawings,
    "together": together,
    "stream": stream,
    "pixels": pixels,
    "bookkeeping": bookkeeping,
    "driver": driver,
}
