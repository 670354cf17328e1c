"""What `make bench` compares, with whom, and the targets.

A comparison yields rows of the table. Its docstring goes into the document: it says how the figures
are made.
"""

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks import finetuning as tuning
from benchmarks import requests
from benchmarks.adapters import adapters
from benchmarks.driver import driver
from benchmarks.engines import DecodeSteps, seconds_of_an_answer
from benchmarks.engines import bookkeeping as engine_work
from benchmarks.evaluation import evaluation
from benchmarks.inpainting import inpainting
from benchmarks.measure import MemoryReader, decode_floor, median_ratio, medians, paired
from benchmarks.peers.peft_peer import PeftPeer
from benchmarks.peers.transformers_peer import JanusBatches
from benchmarks.peers.vllm_peer import VllmSteps, of_llama
from benchmarks.previews import previews
from benchmarks.quantization import quantization
from benchmarks.replicas import replicas
from benchmarks.report import Result, Throughput
from benchmarks.rollouts import rollouts
from benchmarks.serving import serving
from benchmarks.setting import Setting
from benchmarks.speculation import speculation
from benchmarks.structured import structured
from benchmarks.vllm_backend import vllm_backend
from unitok.driver import Driver
from unitok.nn.compiled import CompiledBlocks, why_not_compiled
from unitok_engine import Engine, EngineConfig

Found = Iterator[Result | Throughput]


def one(setting: Setting) -> Found:
    """One guided drawing (two branches, 300 tokens of context) at Janus-Pro-1B's shape, bf16: the
    median step over the floor. The floor is the bytes of the layers, of the image head and of the
    live K/V, over the best bandwidth of 1 GiB reads in between. transformers is its Llama with the
    same weights in Janus's loop."""
    model, context = setting.big, setting.either(300, 64)
    reader = MemoryReader(setting.either(2**30, 2**20))
    contenders = {
        "ours": DecodeSteps(model, [requests.guided(model, context, 60, 0)], context + 80),
        "baseline": setting.llama.guided_steps(1, context),
        "read": reader,
    }
    seconds = paired(contenders, setting.rounds(15), warm_up=3)
    bandwidth = reader.bandwidth(seconds["read"])
    floor = decode_floor(setting.llama.model, 2, context, image=True) / bandwidth
    step = medians(seconds)
    yield Result(
        "one guided drawing, 1B shape: step over the floor", step["ours"] / floor, "x", 1.18, False,
        f"{step['ours'] * 1000:.0f} ms a step, floor {floor * 1000:.0f} ms at "
        f"{bandwidth / 1e9:.1f} GB/s; transformers {step['baseline'] / floor:.2f} x",
    )  # fmt: skip


def eight(setting: Setting) -> Found:
    """Eight guided drawings at once (16 branches, 560 tokens of context each), same shape: the
    median over pairs of transformers' step over ours. No context is computed on either side; the
    K/V are constants, which cost the same to read."""
    model, context = setting.big, setting.either(560, 64)
    drawings = [requests.guided(model, context, 40, seed) for seed in range(8)]
    contenders = {
        "ours": DecodeSteps(model, drawings, context + 60),
        "baseline": setting.llama.guided_steps(8, context),
    }
    seconds = paired(contenders, setting.rounds(11), warm_up=2)
    step = medians(seconds)
    yield Result(
        "eight guided drawings, 1B shape: faster than transformers",
        median_ratio(seconds, "baseline", "ours"), "x", 2.5, True,
        f"{context} tokens of context; {step['ours'] * 1000:.0f} ms a step, "
        f"transformers {step['baseline'] * 1000:.0f} ms",
    )  # fmt: skip


def vllm(setting: Setting) -> Found:
    """16 greedy texts, 560 tokens of context each, same shape, text head of 102,400 tokens: the
    median over pairs of our step over vLLM's (its CPU build, random weights, in a process of its
    own that sleeps while we run). vLLM runs with 1 and with 2 threads; the better one counts. K/V
    are constants on both sides."""
    one, two = (beside_vllm(setting, threads) for threads in (1, 2))
    better, other = sorted((one, two), key=lambda found: found.baseline)
    yield Result(
        "16 texts, 1B shape: step over vLLM's", better.ratio, "x", 1.05, False,
        f"{better.ours * 1000:.0f} ms a step, {better.name} {better.baseline * 1000:.0f} ms "
        f"({other.name} {other.baseline * 1000:.0f} ms, {other.ratio:.3g} x)",
    )  # fmt: skip


@dataclass(frozen=True)
class BesideVllm:
    """A comparison with one setting of vLLM.

    Attributes:
        name: vLLM's version and threads.
        ours: Median seconds of our step.
        baseline: Median seconds of vLLM's step.
        ratio: The median over the pairs of ours over the baseline's.
    """

    name: str
    ours: float
    baseline: float
    ratio: float


def beside_vllm(setting: Setting, threads: int) -> BesideVllm:
    """Our steps beside vLLM's with so many threads."""
    model, context = setting.big, setting.either(560, 64)
    rows, rounds, warm_up = 16, setting.rounds(15), 3
    steps = rounds + warm_up
    texts = [requests.text(model, context, steps + 16, seed) for seed in range(rows)]
    ours = DecodeSteps(model, texts, context + steps + 32)
    decoder = model.config.decoder
    with VllmSteps(setting.vllm, of_llama(decoder), rows, context, steps, threads) as peer:
        seconds = paired({"ours": ours, "baseline": peer}, rounds, warm_up, pause=0.05)
    step = medians(seconds)
    name = f"vLLM {peer.version} with OMP_NUM_THREADS={threads}"
    ratio = median_ratio(seconds, "ours", "baseline")
    return BesideVllm(name, step["ours"], step["baseline"], ratio)


def ragged(setting: Setting) -> Found:
    """64 texts with prompts of 16 tokens and outputs of 8 to 128 tokens (geometric), same shape, at
    most 16 at once: total seconds of transformers' static batches of 16, in order of arrival, over
    ours."""
    model, peer = setting.big, setting.llama
    count, size = setting.either(64, 8), setting.either(16, 4)
    lengths = requests.geometric_lengths(count)
    texts = [requests.text(model, 16, length, seed) for seed, length in enumerate(lengths)]
    config = EngineConfig(memory=0.3, max_running=size, prefix_caching=False)
    driver = Driver(Engine(model, config))
    contenders = {
        "ours": lambda: driver.complete(texts),
        "baseline": lambda: peer.text_batches(texts, size),
    }
    seconds = paired(contenders, setting.rounds(2), warm_up=0)
    total = medians(seconds)
    yield Result(
        f"{count} texts of 8 to 128 tokens, {size} at once, 1B shape: faster than transformers",
        median_ratio(seconds, "baseline", "ours"), "x", 2.0, True,
        f"{total['ours']:.1f} s, transformers {total['baseline']:.1f} s",
    )  # fmt: skip


def drawings(setting: Setting) -> Found:
    """The embedded model and the same folder opened by transformers, fp32, guided drawings that
    arrive together, from tokens to tokens, without drafts: the median over pairs of transformers'
    seconds over ours, and seconds per picture from 1 to 64 at once."""
    ours, peer = setting.embedded, setting.janus
    targets = {1: 2.0, 16: 1.5}
    for count in (1, 2) if setting.rehearse else (1, 2, 4, 8, 16, 32, 64):
        contenders = {
            "ours": lambda count=count: ours.run(count, 0),
            "baseline": lambda count=count: peer.drawings(count),
        }
        seconds = paired(contenders, setting.rounds(7 if count <= 16 else 3))
        total = medians(seconds)
        yield Throughput(count, total["ours"], total["baseline"])
        if count in targets:
            yield Result(
                f"embedded model, {count} at once: faster than transformers",
                median_ratio(seconds, "baseline", "ours"), "x", targets[count], True,
                f"{total['ours']:.2f} s, transformers {total['baseline']:.2f} s",
            )  # fmt: skip


def together(setting: Setting) -> Found:
    """64 captions and 64 drawings of the embedded model arrive together: our total time over that
    of transformers' static batches, whose size is the best of 16, 32 and 64 for each kind.
    Embeddings of the pictures are given on both sides; no caption finds another's K/V."""
    ours, peer, count = setting.embedded, setting.best_batches, setting.crowd
    contenders = {
        "ours": lambda: ours.run(count, count),
        "baseline": lambda: peer.run(count, count),
    }
    seconds = paired(contenders, setting.rounds(5))
    total = medians(seconds)
    yield Result(
        f"embedded model, {count} drawings and {count} captions together: time over transformers'",
        median_ratio(seconds, "ours", "baseline"), "x", 0.8, False,
        f"{total['ours']:.1f} s, transformers {total['baseline']:.1f} s in batches of "
        f"{in_words(peer)}",
    )  # fmt: skip


def stream(setting: Setting) -> Found:
    """128 drawings and captions, half and half by chance, arrive as a Poisson stream at 70% of the
    rate that transformers sustained just before in its best static batches. Its server runs, up to
    that batch size, whatever waits and is of the oldest request's kind. Both sides get the same
    arrivals. The ratio of mean latencies is the median of five streams, in alternating order."""
    ours, peer, count = setting.embedded, setting.best_batches, setting.crowd
    run = {"baseline": lambda: peer.run(count, count)}
    sustained = 2 * count / medians(paired(run, setting.rounds(3)))["baseline"]
    means: dict[str, list[float]] = {"ours": [], "baseline": []}
    for seed in range(setting.rounds(5)):
        kinds, at = poisson(2 * count, 0.7 * sustained, seed)
        sides = {"ours": ours, "baseline": peer}
        for name in sorted(sides, reverse=bool(seed % 2)):
            means[name].append(statistics.mean(sides[name].latencies(kinds, at)))
    mean = medians(means)
    yield Result(
        "embedded model, a Poisson stream at 70%: mean latency over transformers'",
        median_ratio(means, "ours", "baseline"), "x", 1 / 3, False,
        f"{0.7 * sustained:.1f} requests/s; {mean['ours']:.2f} s, transformers "
        f"{mean['baseline']:.2f} s in batches of up to {in_words(peer)}",
    )  # fmt: skip


def poisson(count: int, rate: float, seed: int) -> tuple[list[bool], list[float]]:
    """Random arrivals.

    Args:
        count: How many requests arrive.
        rate: Requests per second.
        seed: Equal seeds give equal arrivals.

    Returns:
        Whether each is a drawing, and when each arrives, in seconds.
    """
    chance = random.Random(seed)
    at, now = [], 0.0
    for _ in range(count):
        now += chance.expovariate(rate)
        at.append(now)
    return [chance.random() < 0.5 for _ in at], at


def in_words(peer: JanusBatches) -> str:
    """The sizes of transformers' batches."""
    return f"{peer.sizes[0]} drawings or {peer.sizes[1]} captions"


def pixels(setting: Setting) -> Found:
    """What the figures of the embedded model leave out on both sides: 16 pictures at once from
    preprocessed pixels to embeddings, and from codes to pixels."""
    ours, peer = setting.embedded, setting.janus
    outputs = [output.token_ids for output in ours.run(len(ours.pixels), 0)]
    codes = ours.model.vocabulary.id_to_code(torch.tensor(outputs))
    paths: dict[str, dict[str, Callable[[], object]]] = {
        "encoding": {
            "ours": lambda: ours.family.features(ours.pixels),
            "baseline": lambda: peer.encode(ours.pixels),
        },
        "decoding": {
            "ours": lambda: ours.family.decode_images(outputs),
            "baseline": lambda: peer.decode(codes),
        },
    }
    for name, contenders in paths.items():
        total = medians(paired(contenders, setting.rounds(7)))
        own, other = (1000 * total[side] / len(outputs) for side in ("ours", "baseline"))
        detail = f"{len(outputs)} at once; transformers {other:.3g} ms"
        yield Result(f"embedded model, {name} a picture", own, "ms", detail=detail)


def bookkeeping(setting: Setting) -> Found:
    """The engine with a null model, guided drawings in flight: median seconds of a step, per
    branch; the least of three runs for each number of branches. As a share it is set against our
    own step at Janus-Pro-1B's shape, with a context of only 64 tokens: longer ones take longer."""
    counts = (16, 64) if setting.rehearse else (16, 64, 256, 1024)
    repeats, steps = setting.either(3, 1), setting.either(60, 10)
    costs = {
        count: min(engine_work(count, steps=steps) for _ in range(repeats)) for count in counts
    }
    yield Result(
        "bookkeeping per branch and step: the most over that of 16 branches",
        max(costs.values()) / costs[counts[0]], "x", 1.3, False,
        ", ".join(f"{count}: {1e6 * cost:.1f} µs" for count, cost in costs.items()),
    )  # fmt: skip
    for count in (16, 64):
        yield share_of_a_step(setting, count, count * costs[count])
    yield long_answers(setting)


def long_answers(setting: Setting) -> Result:
    """How the engine's own time grows with an answer, with a null model: medians of five runs."""
    lengths = {"short": setting.either(1000, 10), "long": setting.either(2000, 20)}
    rounds = range(setting.either(5, 1))
    seconds = {name: [seconds_of_an_answer(n) for _ in rounds] for name, n in lengths.items()}
    took = medians(seconds)
    return Result(
        "an answer of 2,000 tokens over one of 1,000, null model",
        took["long"] / took["short"], "x", 2.2, False,
        f"{1000 * took['long']:.0f} and {1000 * took['short']:.0f} ms of processor time",
    )  # fmt: skip


def compiled(setting: Setting) -> Found:
    """A decode step of one guided drawing at Janus-Pro-1B's shape through torch.compile, over the
    same step of the same engine as it is; two rows."""
    if (missing := why_not_compiled(torch.device("cpu"))) is not None:
        print(f"nothing can be compiled here: {missing}", flush=True)
        return
    model, rounds, context = setting.big, setting.rounds(31), setting.either(300, 20)
    model.decoder.compile_blocks()
    blocks, model.decoder.compiled = model.decoder.compiled, None  # the prefill runs as it is
    length = 2 * (rounds + 3) + 8
    drawing = requests.guided(model, context, length, seed=0)
    steps = DecodeSteps(model, [drawing], context + length + 8)

    def side(through: CompiledBlocks | None) -> Callable[[], None]:
        def step() -> None:
            model.decoder.compiled = through
            steps()
            model.decoder.compiled = None

        return step

    seconds = paired({"compiled": side(blocks), "plain": side(None)}, rounds, warm_up=3)
    took = medians(seconds)
    yield Result(
        "a compiled step over one that is not, 1B, 2 rows",
        median_ratio(seconds, "compiled", "plain"), "x", 1.0, False,
        f"{1000 * took['compiled']:.0f} and {1000 * took['plain']:.0f} ms",
    )  # fmt: skip


def share_of_a_step(setting: Setting, branches: int, cost: float) -> Result:
    """So many seconds of bookkeeping as a share of a step of so many branches."""
    model, context = setting.big, 64
    drawings = [requests.guided(model, context, 30, seed) for seed in range(branches // 2)]
    contenders = {"ours": DecodeSteps(model, drawings, context + 40)}
    step = medians(paired(contenders, setting.rounds(5), 2))["ours"]
    return Result(
        f"bookkeeping of {branches} branches, share of a step at the 1B shape",
        100 * cost / step, "%", 5.0, False, f"{1000 * cost:.2f} of {1000 * step:.0f} ms",
    )  # fmt: skip


def finetuning(setting: Setting) -> Found:
    """LoRA tuning (rank 16, all seven projections) at Janus-Pro-1B's shape, bf16, with activation
    checkpointing, of 12 conversations of 64 to 1,024 tokens (geometric), whose second half is
    learned: the median over pairs of the peer's seconds for one update over ours. Ours are packed;
    transformers' Janus with peft and the same weights takes them sorted by length, in the batch
    size of 1, 2 and 4 that is fastest. The losses of both are the same. Ours keeps the products of
    a layer and computes the rest again; the peer, whose library knows all or nothing, computes all
    again. How fast it is without is told beside. Memory is the most that the process had before the
    peer ran, so it counts the models of comparisons that ran before it in one go."""
    with torch.inference_mode(False), torch.enable_grad():
        yield from finetuned(setting)


def finetuned(setting: Setting) -> Found:
    """As `finetuning`, where gradients are on."""
    model = setting.random()
    longest = setting.either(tuning.LONGEST, 2 * tuning.SHORTEST)
    talk = tuning.conversations(setting.either(12, 3), model.config.decoder.vocab_size, longest)
    tokens = sum(len(each.ids) for each in talk)
    peer = PeftPeer(model, talk, tuning.RANK, tuning.ALPHA)
    ours = tuning.OurTuning(model, talk)
    ours.update()
    memory = tuning.peak_memory()
    sizes = setting.either_of((1, 2, 4), (1, 2))
    first = {str(size): lambda size=size: peer.update(size) for size in sizes}
    best = min(first, key=medians(paired(first, 1, warm_up=0)).__getitem__)
    contenders = {"ours": ours.update, "baseline": first[best]}
    seconds = paired(contenders, setting.rounds(3), warm_up=0)
    total = medians(seconds)
    peer.checkpoint_activations(False)
    total |= medians(paired({"without": first[best]}, 1, warm_up=0))
    yield Result(
        "LoRA tuning, 1B shape: faster than transformers and peft",
        median_ratio(seconds, "baseline", "ours"), "x", 1.3, True,
        f"{tokens / total['ours']:.0f} tokens per second; transformers and peft, {best} at once, "
        f"{tokens / total['baseline']:.0f}, or {tokens / total['without']:.0f} without activation "
        "checkpointing",
    )  # fmt: skip
    yield Result(
        "LoRA tuning, 1B shape: memory", memory, "GB", 16.0, False,
        f"{tuning.PACKED} tokens at once, activation checkpointing",
    )  # fmt: skip


COMPARISONS: dict[str, Callable[[Setting], Found]] = {
    "one": one,
    "eight": eight,
    "vllm": vllm,
    "vllm-backend": vllm_backend,
    "ragged": ragged,
    "drawings": drawings,
    "together": together,
    "stream": stream,
    "pixels": pixels,
    "speculation": speculation,
    "bookkeeping": bookkeeping,
    "compiled": compiled,
    "driver": driver,
    "finetuning": finetuning,
    "rollouts": rollouts,
    "adapters": adapters,
    "evaluation": evaluation,
    "quantization": quantization,
    "previews": previews,
    "inpainting": inpainting,
    "structured": structured,
    "serving": serving,
    "ray": replicas,
}

NEED_VLLM = ("vllm", "vllm-backend")
"""Those that run vLLM in its own environment."""
