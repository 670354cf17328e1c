"""Speed against transformers, in one run: pairs of short runs side by side, and their medians.

    python scripts/bench.py                       # every comparison, on an otherwise idle machine
    python scripts/bench.py --only shipped bookkeeping
    python scripts/bench.py --rehearse            # toy sizes: does it run?
    python scripts/bench.py --write docs/benchmarks.md

one: a guided drawing at Janus-Pro-1B's shape, bf16, against the time its memory takes to be read.
eight: eight of them at once, 560 ids of context, a step against transformers'.
ragged: 64 texts of 8 to 128 ids, 16 at once, against static batches of 16.
shipped: the embedded model, as transformers opens it: drawings, captions, all arriving at once.
stream: the same arriving at random, at 70% of what transformers sustains.
bookkeeping: the engine's own work, with a model that costs nothing.
"""

import argparse
import dataclasses
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    JanusForConditionalGeneration,
    LlamaConfig,
    LlamaModel,
)

import unitok
from unitok.api import DEFAULT_FOLDER
from unitok.config import JANUS_PRO_1B, DecoderConfig
from unitok.evaluation import bench
from unitok.evaluation.bench import Result
from unitok.families import Wish
from unitok.families.janus import Janus
from unitok.model import UnifiedModel
from unitok.prompt import Message
from unitok_engine import Branch, Engine, EngineConfig, Features, Request, Sampling

CODEBOOK = 16384
SCALE = 5.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(COMPARISONS), help="some of them")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    parser.add_argument("--rounds", type=int, default=7, help="of each pair")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse()
    transformers.utils.logging.set_verbosity_error()
    results: list[Result] = []
    for name in args.only or COMPARISONS:
        for result in COMPARISONS[name](args):
            results.append(result)
            print(result.row(), flush=True)
    text = f"{machine()}\n\n{bench.table(results)}\n"
    print(text)
    if args.write:
        command = " ".join(["python", "scripts/bench.py", *sys.argv[1:]])
        args.write.write_text(f"# Benchmarks\n\n    {command}\n\n{text}", encoding="utf-8")


def machine() -> str:
    """Hardware and versions, in a line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return (
        f"{model}, {torch.get_num_threads()} threads; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )


# --- Janus-Pro-1B's shape ------------------------------------------------------------------------


def big_model(args: argparse.Namespace) -> UnifiedModel:
    decoder, codebook = JANUS_PRO_1B.decoder, CODEBOOK
    if args.rehearse:
        decoder = dataclasses.replace(
            decoder, layers=2, hidden_size=256, intermediate_size=512, heads=2, kv_heads=2,
            vocab_size=1000,
        )  # fmt: skip
        codebook = 64
    return bench.random_model(decoder, codebook, torch.bfloat16)


class Theirs:
    """transformers' Llama with our weights, and the loop that its Janus runs around it."""

    def __init__(self, model: UnifiedModel) -> None:
        self.ours = model
        self.llama = LlamaModel(llama_config(model.config.decoder)).eval()
        self.llama.load_state_dict(llama_weights(model), assign=True)
        self.llama.requires_grad_(False)

    def filled_cache(self, rows: int, context: int) -> DynamicCache:
        """A cache of constant K/V, which costs the same to read as any other."""
        c = self.ours.config.decoder
        cache = DynamicCache(config=self.llama.config)
        shape = (rows, c.kv_heads, context, c.head_dim)
        for layer in range(c.layers):
            constant = torch.full(shape, 0.01, dtype=self.ours.dtype)
            cache.update(constant, constant.clone(), layer)
        return cache

    def hidden(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """ids [rows, n] -> the last one's hidden state [rows, d]."""
        embedded = self.ours.embed(ids)
        out = self.llama(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
        return out.last_hidden_state[:, -1]

    def guided_steps(self, drawings: int, context: int) -> Callable[[], None]:
        """One step of drawings with two lines each, conditional ones first."""
        cache = self.filled_cache(2 * drawings, context)
        start = self.ours.vocabulary.image_start
        ids = torch.full((2 * drawings, 1), start)

        def step() -> None:
            scores = self.ours.image_head(self.hidden(ids, cache)).float()
            given, free = scores.chunk(2)
            chosen = (free + SCALE * (given - free)).softmax(-1).multinomial(1)
            ids.copy_(chosen.repeat(2, 1) + start)

        return step

    def text_batches(self, requests: Sequence[Request], size: int) -> None:
        """Static batches of equal prompts: each runs until its longest line ends."""
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            ids = torch.tensor([request.branches[0].ids for request in batch])
            cache = DynamicCache(config=self.llama.config)
            for _ in range(max(request.plan.max_length for request in batch)):
                logits = self.ours.text_head(self.hidden(ids, cache))
                ids = logits.argmax(-1, keepdim=True)


def llama_config(c: DecoderConfig) -> LlamaConfig:
    options: dict[str, Any] = {"attn_implementation": "sdpa"}
    return LlamaConfig(
        vocab_size=8,  # ids are embedded by us
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.max_positions,
        rms_norm_eps=c.norm_eps,
        **options,
    )


def llama_weights(model: UnifiedModel) -> dict[str, Tensor]:
    """Our decoder's tensors under transformers' names; nothing is copied."""
    names = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    weights: dict[str, Tensor] = {"norm.weight": model.decoder.norm.weight}
    weights["embed_tokens.weight"] = torch.zeros(8, model.config.decoder.hidden_size)
    for key, tensor in model.decoder.state_dict().items():
        if not key.startswith("blocks."):
            continue
        _, layer, part, *rest = key.split(".")
        if part in names:
            name = f"{names[part]}.weight"
        else:
            name = f"{'self_attn' if part == 'attention' else 'mlp'}.{rest[0]}_proj.weight"
        weights[f"layers.{layer}.{name}"] = tensor
    return {name: tensor.to(model.dtype) for name, tensor in weights.items()}


def one(args: argparse.Namespace) -> Iterator[Result]:
    model, context = big_model(args), 64 if args.rehearse else 300
    reader = bench.Reader(2**20 if args.rehearse else 2**30)
    rounds = max(5, args.rounds)
    ours = bench.DecodeSteps(model, [bench.guided(model, context, 60, 0)], context + 80)
    theirs = Theirs(model).guided_steps(1, context)
    seconds = bench.paired({"ours": ours, "theirs": theirs, "read": reader}, rounds, warm_up=3)
    bandwidth = reader.bandwidth(seconds["read"])
    floor = bench.decode_floor(model, 2, context, image=True) / bandwidth
    step, peer = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
    yield Result(
        "one guided drawing, 1B shape: step over the floor", step / floor, "x", 1.18, False,
        f"{step * 1000:.0f} ms a step, floor {floor * 1000:.0f} ms at {bandwidth / 1e9:.1f} GB/s; "
        f"transformers {peer / floor:.2f} x",
    )  # fmt: skip


def eight(args: argparse.Namespace) -> Iterator[Result]:
    model, context = big_model(args), 64 if args.rehearse else 560
    requests = [bench.guided(model, context, 40, seed) for seed in range(8)]
    ours = bench.DecodeSteps(model, requests, context + 60)
    theirs = Theirs(model).guided_steps(8, context)
    seconds = bench.paired({"ours": ours, "theirs": theirs}, args.rounds, warm_up=2)
    step, peer = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
    yield Result(
        "eight guided drawings, 1B shape: faster than transformers",
        bench.median_ratio(seconds, "theirs", "ours"), "x", 2.5, True,
        f"{context} ids of context; {step * 1000:.0f} ms a step, transformers {peer * 1000:.0f} ms",
    )  # fmt: skip


def ragged(args: argparse.Namespace) -> Iterator[Result]:
    model = big_model(args)
    count, size = (8, 4) if args.rehearse else (64, 16)
    lengths = bench.geometric_lengths(count)
    requests = [bench.text(model, 16, length, i) for i, length in enumerate(lengths)]
    engine = Engine(model, EngineConfig(memory=0.3, max_running=size, prefix_caching=False))
    theirs = Theirs(model)
    contenders = {
        "ours": lambda: list(engine.run(requests)),
        "theirs": lambda: theirs.text_batches(requests, size),
    }
    seconds = bench.paired(contenders, 1 if args.rehearse else 3, warm_up=0)
    yield Result(
        f"{count} texts of 8 to 128 ids, {size} at once: faster than transformers",
        bench.median_ratio(seconds, "theirs", "ours"), "x", 2.0, True,
        f"{statistics.median(seconds['ours']):.1f} s, "
        f"transformers {statistics.median(seconds['theirs']):.1f} s",
    )  # fmt: skip


# --- the shipped model ---------------------------------------------------------------------------


class Shipped:
    """The embedded model on both sides, from ids to ids: pixels are encoded before."""

    def __init__(self, pictures: int = 8) -> None:
        family = unitok.load(device="cpu").family
        assert isinstance(family, Janus)
        self.family = family
        self.engine = Engine(self.family.model, EngineConfig(max_context=self.family.max_context))
        opened: Any = JanusForConditionalGeneration.from_pretrained(
            DEFAULT_FOLDER, dtype=torch.float32
        )
        self.theirs = opened.eval()
        size = self.family.model.config.image_tokenizer.image_size
        pixels = torch.rand(pictures, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.features = family.features(pixels * 2 - 1)
        picture = family.read(Image.new("RGB", family.picture_size))  # any: for its places
        self.asked = family.answer([Message("user", family.defaults.question, (picture,))], None)
        self.drawn = family.draw([Message("user", "two apples on a table")], Wish(SCALE))

    def drawing(self, seed: int) -> Request:
        branches = tuple(Branch(line.ids, weight) for line, weight in self.drawn.lines)
        return Request(branches, self.drawn.plan, Sampling(seed=seed))

    def caption(self, seed: int) -> Request:
        vectors = self.features[seed % len(self.features)]
        # A digest for each: an answer of the cache would be no work at all.
        slots = tuple(
            Features(place.start, len(vectors), f"{time.perf_counter_ns()} {seed}", lambda: vectors)
            for place in self.asked.features
        )
        branch = Branch(self.asked.ids, features=slots)
        return Request((branch,), self.family.text_plan(32), Sampling(temperature=0))

    def run(self, drawings: int = 0, captions: int = 0) -> None:
        requests = [self.drawing(seed) for seed in range(drawings)]
        list(self.engine.run([*requests, *(self.caption(seed) for seed in range(captions))]))

    def their_drawings(self, count: int) -> None:
        ids = torch.tensor([self.drawn.lines[0][0].ids]).repeat(count, 1)
        settings = self.theirs.generation_config
        config: Any = GenerationConfig(
            do_sample=True,
            guidance_scale=SCALE,
            pad_token_id=settings.pad_token_id,
            bos_token_id=settings.bos_token_id,
            eos_token_id=settings.eos_token_id,
        )
        config.generation_kwargs = settings.generation_kwargs
        mask = torch.ones_like(ids)
        self.theirs.generate(
            input_ids=ids, attention_mask=mask, generation_mode="image", generation_config=config
        )

    def their_captions(self, count: int) -> None:
        ids = torch.tensor([self.asked.ids]).repeat(count, 1)
        embedded = self.family.model.embed(ids)
        for row in range(count):
            vectors = self.features[row % len(self.features)]
            for place in self.asked.features:
                embedded[row, place.start : place.stop] = vectors
        self.theirs.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=32,
            do_sample=False,
        )

    def run_theirs(self, drawings: int, captions: int, size: int) -> None:
        """All of both kinds, in static batches."""
        for count, run in ((drawings, self.their_drawings), (captions, self.their_captions)):
            for first in range(0, count, size):
                run(min(size, count - first))


def shipped(args: argparse.Namespace) -> Iterator[Result]:
    both = Shipped()
    for count, bar in ((1, 2.0), (16, 1.5)):
        contenders = {
            "ours": lambda count=count: both.run(drawings=count),
            "theirs": lambda count=count: both.their_drawings(count),
        }
        seconds = bench.paired(contenders, 2 if args.rehearse else args.rounds)
        yield Result(
            f"shipped model, {count} drawings at once: faster than transformers",
            bench.median_ratio(seconds, "theirs", "ours"), "x", bar, True,
            f"{statistics.median(seconds['ours']):.2f} s, "
            f"transformers {statistics.median(seconds['theirs']):.2f} s",
        )  # fmt: skip
    count = 4 if args.rehearse else 64
    size = best_batch(both, count)
    contenders = {
        "ours": lambda: both.run(count, count),
        "theirs": lambda: both.run_theirs(count, count, size),
    }
    seconds = bench.paired(contenders, 1 if args.rehearse else 3)
    yield Result(
        f"shipped model, {count} drawings and {count} captions together: time of transformers'",
        bench.median_ratio(seconds, "ours", "theirs"), "x", 0.8, False,
        f"{statistics.median(seconds['ours']):.1f} s, transformers "
        f"{statistics.median(seconds['theirs']):.1f} s in batches of {size}",
    )  # fmt: skip


def best_batch(both: Shipped, count: int) -> int:
    """The static batch size with which transformers ends first."""
    sizes = [size for size in (16, 32, 64) if size <= count] or [count]
    seconds = bench.paired(
        {str(size): lambda size=size: both.run_theirs(count, count, size) for size in sizes}, 1
    )
    return min(sizes, key=lambda size: seconds[str(size)][0])


def stream(args: argparse.Namespace) -> Iterator[Result]:
    both, count = Shipped(), 4 if args.rehearse else 64
    size = best_batch(both, count)
    began = time.perf_counter()
    both.run_theirs(count, count, size)
    sustained = 2 * count / (time.perf_counter() - began)
    chance = random.Random(0)
    at, now = [], 0.0
    for _ in range(2 * count):
        now += chance.expovariate(0.7 * sustained)
        at.append(now)
    drawings = [chance.random() < 0.5 for _ in at]
    requests = [both.drawing(i) if is_drawing else both.caption(i)
                for i, is_drawing in enumerate(drawings)]  # fmt: skip
    ours = statistics.mean(bench.arrivals(both.engine, requests, at))
    theirs = statistics.mean(their_latencies(both, drawings, at, size))
    yield Result(
        "shipped model, a Poisson stream at 70%: mean latency over transformers'",
        ours / theirs, "x", 1 / 3, False,
        f"{0.7 * sustained:.2f} requests/s; {ours:.2f} s, transformers {theirs:.2f} s",
    )  # fmt: skip


def their_latencies(
    both: Shipped, drawings: Sequence[bool], at: Sequence[float], size: int
) -> Iterator[float]:
    """A server of static batches: whatever waits and is of the oldest one's kind runs next."""
    start, waiting = time.perf_counter(), list(range(len(at)))
    while waiting:
        now = time.perf_counter() - start
        if at[waiting[0]] > now:
            time.sleep(at[waiting[0]] - now)
            continue
        here = [i for i in waiting if at[i] <= now and drawings[i] == drawings[waiting[0]]][:size]
        run = both.their_drawings if drawings[here[0]] else both.their_captions
        run(len(here))
        ended = time.perf_counter() - start
        waiting = [i for i in waiting if i not in here]
        yield from (ended - at[i] for i in here)


# --- bookkeeping ---------------------------------------------------------------------------------


def bookkeeping(args: argparse.Namespace) -> Iterator[Result]:
    counts = (16, 64) if args.rehearse else (16, 64, 256, 1024)
    costs = {count: min(bench.bookkeeping(count) for _ in range(3)) for count in counts}
    detail = ", ".join(f"{count}: {1e6 * cost:.1f} µs" for count, cost in costs.items())
    yield Result(
        "bookkeeping per branch and step: the most over that of 16 branches",
        max(costs.values()) / costs[counts[0]], "x", 1.3, False, detail,
    )  # fmt: skip


COMPARISONS: dict[str, Callable[[argparse.Namespace], Iterator[Result]]] = {
    "one": one,
    "eight": eight,
    "ragged": ragged,
    "shipped": shipped,
    "stream": stream,
    "bookkeeping": bookkeeping,
}

if __name__ == "__main__":
    main()
