"""Speed on a GPU, in one command of under ten minutes; correctness is scripts/check_gpu.py's.

    pip install '.[cuda,baselines]'
    python scripts/bench_gpu.py
    python scripts/bench_gpu.py --only 1B --write docs/benchmarks_gpu.md
    python scripts/bench_gpu.py --device cpu --rehearse  # toy sizes: does it run?

1B, 7B: Janus-Pro's decoders with random bf16 weights; 1, 16 and 64 guided drawings at once.
  step: in the middle of a drawing, against the time that its memory takes to be read; with CUDA
  graphs and without, with torch's attention over gathered K/V, and beside transformers' Llama.
  pictures: whole drawings of 576 ids, engine alone. first id: of one request on an idle engine.
attention: one layer's, paged by xformers, gathered by torch, and torch's on contiguous K/V.
pixels: VQ-16's decoder, from codes to pictures of 384 x 384.
embedded: the embedded model from prompt to picture.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, StaticCache

import unitok
from unitok.baselines.transformers_peer import LlamaLoop
from unitok.driver import Driver
from unitok.evaluation import bench
from unitok.evaluation.bench_report import Result, table
from unitok.handles import TokenJob
from unitok.nn.config import DEFAULT, JANUS_PRO_1B, DecoderConfig
from unitok.nn.model import UnifiedModel
from unitok_engine import AttentionMetadata, Engine, EngineConfig, KVShape, Request, make_backend
from unitok_engine.attention.backends import BackendName
from unitok_tokenizers.image import make_image_tokenizer

DECODERS = {
    "1B": JANUS_PRO_1B.decoder,
    "7B": dataclasses.replace(
        JANUS_PRO_1B.decoder,
        hidden_size=4096,
        intermediate_size=11008,
        layers=30,
        heads=32,
        kv_heads=32,
    ),
}
TOY = dataclasses.replace(
    JANUS_PRO_1B.decoder,
    hidden_size=256,
    intermediate_size=512,
    layers=2,
    heads=2,
    kv_heads=2,
    vocab_size=1000,
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured: full size, or a rehearsal."""

    counts: tuple[int, ...] = (1, 16, 64)  # drawings at once
    context: int = 304  # ids of a line in the middle of a drawing
    prompt: int = 16
    ids: int = 576  # of a drawing
    question: int = 608  # a picture to read, and words about it
    rounds: int = 20
    codebook: int = 16384
    read: int = 2**32  # bytes


SMALL = Sizes((1, 2), context=40, ids=6, question=48, rounds=2, codebook=64, read=2**22)


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where and at which sizes."""

    device: torch.device
    sizes: Sizes
    rehearse: bool

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def finished(self, run: Callable[[], object]) -> Callable[[], None]:
        """`run`, and then wait for the device."""

        def timed() -> None:
            run()
            self.wait()

        return timed

    def median(self, contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Seconds of each, side by side; the first rounds compile and record, and do not count."""
        runs = {name: self.finished(run) for name, run in contenders.items()}
        seconds = bench.paired(runs, rounds, warm_up=3)
        return {name: statistics.median(times) for name, times in seconds.items()}

    def bandwidth(self) -> float:
        """Bytes per second that the device reads, best of ten."""
        with self.device:
            reader = bench.ImageEncoderBatch(self.sizes.read)
        return reader.bandwidth(bench.paired({"read": self.finished(reader)}, 10)["read"])

    def model(self, decoder: DecoderConfig) -> UnifiedModel:
        with self.device:
            model = bench.random_model(
                TOY if self.rehearse else decoder, self.sizes.codebook, torch.bfloat16
            )
        return model.to(self.device)  # its table of positions is made on the host


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="some of them")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench_gpu: no GPU here; --device cpu --rehearse runs it at toy sizes")
    transformers.utils.logging.set_verbosity_error()
    here = Bench(torch.device(args.device), SMALL if args.rehearse else Sizes(), args.rehearse)
    lines: list[Result] = []
    began = time.perf_counter()
    for name in args.only or PARTS:
        for line in PARTS[name](here):
            lines.append(line)
            print(line.row(), flush=True)
    took = time.perf_counter() - began
    text = f"{machine(here)}\n\n{table(lines)}\n"
    print(f"\n{text}\n{took:.0f} s in all")
    if args.write:
        command = " ".join(["python", "scripts/bench_gpu.py", *sys.argv[1:]])
        args.write.write_text(f"# Benchmarks on a GPU\n\n    {command}\n\n{text}", encoding="utf-8")


def machine(here: Bench) -> str:
    """Hardware and versions, in a line."""
    name = torch.cuda.get_device_name() if here.device.type == "cuda" else "a CPU, as a rehearsal"
    return f"{name}; torch {torch.__version__}, transformers {transformers.__version__}"


# --- Janus-Pro's shapes --------------------------------------------------------------------------


def shape(here: Bench, name: str) -> Iterator[Result]:
    bandwidth = here.bandwidth()
    yield Result("reading memory", bandwidth / 1e9, "GB/s")
    model = here.model(DECODERS[name])
    with here.device:
        theirs = (LlamaLoop(model), StaticLoop(model))
    for count in here.sizes.counts:
        yield from step(here, name, model, theirs, count, bandwidth)
    for count in here.sizes.counts:
        yield pictures(here, name, model, count)
    yield from first_id(here, name, model)


def step(
    here: Bench,
    name: str,
    model: UnifiedModel,
    theirs: Sequence[LlamaLoop],
    count: int,
    bandwidth: float,
) -> Iterator[Result]:
    """A step in the middle of `count` guided drawings, in five ways."""
    context = here.sizes.context
    dynamic, static = theirs
    ways: dict[str, Callable[[], Callable[[], object]]] = {
        "ours": lambda: drawings(here, model, count),
        "no graphs": lambda: drawings(here, model, count, cuda_graphs=False),
        "gathered": lambda: drawings(here, model, count, attention="torch-gather"),
        "dynamic": lambda: their_drawings(here, dynamic, count),
        "static": lambda: their_drawings(here, static, count),
    }
    # One after the other: the caches of all would not fit at 64 drawings of 7B.
    seconds = {
        way: here.median({way: make()}, here.sizes.rounds)[way] for way, make in ways.items()
    }
    ours = seconds["ours"]
    floor = bench.decode_floor(model, 2 * count, context, image=True) / bandwidth
    title = f"{name}, {count} at once"
    detail = (
        f"{1e3 * ours:.2f} ms a step, floor {1e3 * floor:.2f}; without graphs "
        f"{1e3 * seconds['no graphs']:.2f}, torch's attention {1e3 * seconds['gathered']:.2f}"
    )
    bar = 60 if count == 1 else None
    yield Result(f"{title}: floor over a step", 100 * floor / ours, "%", bar, detail=detail)
    ratio = min(seconds["dynamic"], seconds["static"]) / ours
    detail = (
        f"DynamicCache {1e3 * seconds['dynamic']:.2f} ms, "
        f"StaticCache {1e3 * seconds['static']:.2f} ms"
    )
    bar = 10 if (name, count) == ("1B", 1) else None
    yield Result(f"{title}: a step faster than transformers'", ratio, "x", bar, detail=detail)


class StaticLoop(LlamaLoop):
    """transformers with a cache of fixed size, filled by a forward over zeros."""

    def filled_cache(self, rows: int, context: int) -> DynamicCache:
        cache = StaticCache(config=self.llama.config, max_cache_len=context + 64)
        size = self.ours.config.decoder.hidden_size
        for start in range(0, context, 16):  # little at a time: activations of all rows are large
            zeros = torch.zeros(rows, min(16, context - start), size, dtype=self.ours.dtype)
            self.llama(inputs_embeds=zeros, past_key_values=cache, use_cache=True)
        return cache  # type: ignore[return-value]  # the Llama takes either


def their_drawings(here: Bench, theirs: LlamaLoop, count: int) -> Callable[[], object]:
    with here.device:  # where its tensors are made
        return theirs.guided_steps(count, here.sizes.context)


def drawings(
    here: Bench,
    model: UnifiedModel,
    count: int,
    attention: BackendName | None = None,
    cuda_graphs: bool = True,
) -> Callable[[], object]:
    """The step of an engine in the middle of `count` drawings."""
    context = here.sizes.context
    requests = [bench.guided(model, context, here.sizes.rounds + 40, seed) for seed in range(count)]
    machine = engine(model, requests, attention, cuda_graphs)
    waiting = {machine.add(request) for request in requests}
    while waiting:
        waiting -= {output.request_id for output in machine.step()}
    return machine.step


def engine(
    model: UnifiedModel,
    requests: Sequence[Request],
    attention: BackendName | None = None,
    cuda_graphs: bool = True,
) -> Engine:
    """With room for these requests and no more: several engines are on the device at once."""
    longest = max(len(r.branches[0].token_ids) + r.plan.max_length for r in requests)
    lines = sum(len(request.branches) for request in requests)
    memory = lines * (longest + 64) * model.kv_shape.bytes_per_id(model.dtype)
    config = EngineConfig(
        memory=memory,
        max_running=lines,
        max_context=longest,
        max_batch_tokens=8192,
        prefix_caching=False,
        attention=attention,
        cuda_graphs=cuda_graphs,
    )
    return Engine(model, config)


def pictures(here: Bench, name: str, model: UnifiedModel, count: int) -> Result:
    """Whole drawings, from prompts to ids."""
    sizes = here.sizes
    if here.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    requests = [bench.guided(model, sizes.prompt, sizes.ids, seed) for seed in range(count)]
    driver = Driver(engine(model, requests))
    driver.complete([bench.guided(model, sizes.prompt, 4, seed) for seed in range(count)])
    began = time.perf_counter()
    driver.complete(requests)
    seconds = time.perf_counter() - began
    detail = f"{seconds:.2f} s for {sizes.ids} ids each, without pixels"
    if here.device.type == "cuda":
        detail += f"; peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    bar = 20 if (name, count) == ("1B", 64) else None
    return Result(f"{name}, {count} at once: pictures", count / seconds, "/s", bar, detail=detail)


def first_id(here: Bench, name: str, model: UnifiedModel) -> Iterator[Result]:
    """From a request to its first id, on an engine that has nothing else to do."""
    sizes = here.sizes
    for what, make, length in (
        ("a drawing", bench.guided, sizes.prompt),
        ("an answer about a picture", bench.text, sizes.question),
    ):
        requests = [make(model, length, 2, seed) for seed in range(5)]
        driver = Driver(engine(model, requests))
        run = requests.__iter__()
        seconds = here.median({what: lambda d=driver, r=run: first_of(d, next(r))}, rounds=2)
        detail = f"a prompt of {length} ids"
        yield Result(f"{name}, first id of {what}", 1e3 * seconds[what], "ms", detail=detail)


def first_of(driver: Driver, request: Request) -> None:
    handle = driver.submit(TokenJob(request), stream=True)
    next(iter(handle))
    handle.cancel()
    driver.wait_until_idle()


# --- the parts alone -----------------------------------------------------------------------------


def attention(here: Bench) -> Iterator[Result]:
    """Decode attention over all layers' K/V in turn: more than the device's cache holds."""
    decoder = TOY if here.rehearse else JANUS_PRO_1B.decoder
    bandwidth, context = here.bandwidth(), here.sizes.context
    shape = KVShape(decoder.layers, decoder.kv_heads, decoder.head_dim)
    own = "xformers" if here.device.type == "cuda" else "torch"
    for count in here.sizes.counts:
        rows = 2 * count
        q, k, v = (
            torch.randn(rows, n, decoder.head_dim, dtype=torch.bfloat16, device=here.device)
            for n in (decoder.heads, decoder.kv_heads, decoder.kv_heads)
        )
        contenders: dict[str, Callable[[], object]] = {
            backend: attend(here, shape, backend, rows, context, q, k, v)
            for backend in (own, "torch-gather")
        }
        size = (shape.layers, rows, shape.kv_heads, context, shape.head_dim)
        keys, values = torch.zeros(2, *size, dtype=torch.bfloat16, device=here.device)

        def contiguous(keys=keys, values=values, q=q) -> None:
            for layer in range(len(keys)):
                scaled_dot_product_attention(q[:, :, None], keys[layer], values[layer])

        seconds = here.median({**contenders, "contiguous": contiguous}, here.sizes.rounds)
        floor = keys.nbytes * 2 / bandwidth
        layers = 1e6 / shape.layers
        yield Result(
            f"attention of 1B, {rows} rows: time of {own}'s paged over the contiguous one's",
            seconds[own] / seconds["contiguous"], "x", detail=
            f"{layers * seconds[own]:.0f} µs a layer, gathered "
            f"{layers * seconds['torch-gather']:.0f}, contiguous "
            f"{layers * seconds['contiguous']:.0f}, floor {layers * floor:.0f}",
        )  # fmt: skip


def attend(here: Bench, shape: KVShape, name: BackendName, rows: int, context: int, q, k, v):
    """All layers' attention of rows of one length, each in blocks of its own."""
    block = 64
    width = -(-context // block)
    backend = make_backend(shape, rows * width, block, q.dtype, here.device, name)
    tables = [tuple(range(row * width, (row + 1) * width)) for row in range(rows)]
    slots = torch.tensor([table[-1] * block + (context - 1) % block for table in tables])
    metadata = AttentionMetadata(slots, (1,) * rows, (context,) * rows, tuple(tables))
    view = backend.view(metadata.to(here.device))

    def run() -> None:
        for layer in range(shape.layers):
            view.attend(layer, q, k, v)

    return run


def pixels(here: Bench) -> Iterator[Result]:
    config = DEFAULT.image_tokenizer if here.rehearse else JANUS_PRO_1B.image_tokenizer
    tokenizer = make_image_tokenizer(config).to(here.device, torch.bfloat16).eval()
    for count in here.sizes.counts:
        codes = torch.zeros(count, config.grid**2, dtype=torch.int64, device=here.device)
        seconds = here.median({"decode": lambda codes=codes: tokenizer.decode(codes)}, 5)["decode"]
        side = config.image_size
        yield Result(
            f"VQ-16, {count} at once: from codes to pixels", 1e3 * seconds / count, "ms a picture",
            detail=f"{side} x {side}, bf16",
        )  # fmt: skip


def embedded(here: Bench) -> Iterator[Result]:
    dtype = "bfloat16" if here.device.type == "cuda" else "float32"
    model = unitok.load(device=here.device.type, dtype=dtype)
    model.draw("a cat")
    for count in here.sizes.counts:
        prompts = ["a cat left of a house"] * count
        model.draw(prompts, seed=0)  # records its shapes
        began = time.perf_counter()
        model.draw(prompts, seed=1)
        rate = count / (time.perf_counter() - began)
        what = f"embedded model, {count} at once: pictures"
        yield Result(what, rate, "/s", detail="with pixels")


PARTS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "1B": lambda here: shape(here, "1B"),
    "7B": lambda here: shape(here, "7B"),
    "attention": attention,
    "pixels": pixels,
    "embedded": embedded,
}

if __name__ == "__main__":
    main()
