"""Janus-Pro's shapes on a GPU: steps, whole drawings, and first tokens."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from transformers import DynamicCache, StaticCache

from benchmarks.device import DeviceBench
from benchmarks.engines import FixedWidth
from benchmarks.measure import decode_floor
from benchmarks.peers.transformers_peer import LlamaLoop
from benchmarks.report import Result
from benchmarks.requests import guided, text
from unitok.driver import Driver
from unitok.handles import TokenJob
from unitok.nn.compiled import why_not_compiled
from unitok.nn.config import JANUS_PRO_1B
from unitok.nn.model import UnifiedModel
from unitok_engine import Drafter, Engine, EngineConfig, Request
from unitok_engine.attention.backends import BackendName

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
STEP_TARGETS = {("1B", 1): 60.0, ("7B", 1): 60.0}  # % of a step that reading its memory takes
SPEEDUP_TARGETS = {("1B", 1): 10.0}  # x transformers' step
WAYS = {
    "compiled": "compiled",
    "4 tokens": "4 tokens wide",
    "8 tokens": "8 tokens wide",
    "4 compiled": "4 tokens wide and compiled",
}
PICTURE_TARGETS = {("1B", 64): 20.0}  # pictures per second


def shape(here: DeviceBench, name: str) -> Iterator[Result]:
    """All measurements at one shape, "1B" or "7B"; one that fails leaves the others."""
    bandwidth = here.bandwidth()
    yield Result("reading memory", bandwidth / 1e9, "GB/s")
    model = here.model(DECODERS[name])
    with here.device:
        peers = (LlamaLoop(model), StaticLoop(model))
    for count in here.sizes.counts:
        title = f"{name}, {count} at once"
        yield from here.attempt(f"{title}: step", step(here, name, model, peers, count, bandwidth))
    for count in here.sizes.counts:
        title = f"{name}, {count} at once"
        yield from here.attempt(f"{title}: pictures", pictures(here, name, model, count))
    yield from here.attempt(f"{name}: first token", first_tokens(here, name, model))


def step(
    here: DeviceBench,
    name: str,
    model: UnifiedModel,
    peers: Sequence[LlamaLoop],
    count: int,
    bandwidth: float,
) -> Iterator[Result]:
    """A step in the middle of `count` guided drawings, in several ways.

    Args:
        here: The device.
        name: Of the shape.
        model: A random model of that shape.
        peers: transformers' loops with a dynamic and with a static cache.
        count: Drawings at once.
        bandwidth: Bytes per second that the device reads.
    """
    context = here.sizes.context
    dynamic, static = peers
    ways: dict[str, Callable[[], Callable[[], object]]] = {
        "ours": lambda: drawings(here, model, count),
        "no graphs": lambda: drawings(here, model, count, cuda_graphs=False),
        "compiled": lambda: compiled_drawings(here, model, count),
        "gathered": lambda: drawings(here, model, count, attention="torch-gather"),
        "4 tokens": lambda: drawings(here, model, count, drafter=FixedWidth(4)),
        "8 tokens": lambda: drawings(here, model, count, drafter=FixedWidth(8)),
        "4 compiled": lambda: compiled_drawings(here, model, count, FixedWidth(4)),
        "dynamic": lambda: baseline_drawings(here, dynamic, count),
        "static": lambda: baseline_drawings(here, static, count),
    }
    # One after the other: the caches of all would not fit at 64 drawings of 7B.
    seconds = {
        way: here.median({way: make()}, here.sizes.rounds)[way] for way, make in ways.items()
    }
    ours = seconds["ours"]
    floor = decode_floor(model, 2 * count, context, image=True) / bandwidth
    title, case = f"{name}, {count} at once", (name, count)
    detail = (
        f"{1e3 * ours:.2f} ms a step, floor {1e3 * floor:.2f}; compiled "
        f"{1e3 * seconds['compiled']:.2f}, without graphs "
        f"{1e3 * seconds['no graphs']:.2f}, torch's attention {1e3 * seconds['gathered']:.2f}"
    )
    target = STEP_TARGETS.get(case)
    yield Result(f"{title}: floor over a step", 100 * floor / ours, "%", target, detail=detail)
    ratio = min(seconds["dynamic"], seconds["static"]) / ours
    detail = (
        f"DynamicCache {1e3 * seconds['dynamic']:.2f} ms, "
        f"StaticCache {1e3 * seconds['static']:.2f} ms"
    )
    target = SPEEDUP_TARGETS.get(case)
    yield Result(f"{title}: a step faster than transformers'", ratio, "x", target, detail=detail)
    for way, words in WAYS.items():
        yield Result(
            f"{title}: a step, {words}, over a plain one", seconds[way] / ours, "x",
            detail=f"{1e3 * seconds[way]:.2f} ms",
        )  # fmt: skip


class StaticLoop(LlamaLoop):
    """transformers with a cache of fixed size, filled by a forward over zeros."""

    def filled_cache(self, rows: int, context: int) -> DynamicCache:
        """A static cache whose K/V are those of zeros."""
        cache = StaticCache(config=self.llama.config, max_cache_len=context + 64)
        size = self.model.config.decoder.hidden_size
        for start in range(0, context, 16):  # little at a time: activations of all rows are large
            zeros = torch.zeros(rows, min(16, context - start), size, dtype=self.model.dtype)
            self.llama(inputs_embeds=zeros, past_key_values=cache, use_cache=True)
        return cache  # type: ignore[return-value]  # the Llama takes either


def baseline_drawings(here: DeviceBench, peer: LlamaLoop, count: int) -> Callable[[], object]:
    """transformers' step in the middle of `count` drawings."""
    with here.device:  # where its tensors are made
        return peer.guided_steps(count, here.sizes.context)


def drawings(
    here: DeviceBench,
    model: UnifiedModel,
    count: int,
    attention: BackendName | None = None,
    cuda_graphs: bool = True,
    drafter: Drafter | None = None,
) -> Callable[[], object]:
    """The step of an engine in the middle of `count` drawings.

    Args:
        here: The device.
        model: The model, on that device.
        count: Drawings at once.
        attention: The attention backend; the device's own if it is left out.
        cuda_graphs: Whether steps are recorded as CUDA graphs.
        drafter: Guesses tokens.
    """
    context = here.sizes.context
    requests = [guided(model, context, here.sizes.rounds + 40, seed) for seed in range(count)]
    made = engine(model, requests, attention, cuda_graphs, drafter)
    waiting = {made.add(request) for request in requests}
    while waiting:
        waiting -= {output.request_id for output in made.step()}
    return made.step


def compiled_drawings(
    here: DeviceBench, model: UnifiedModel, count: int, drafter: Drafter | None = None
) -> Callable[[], object]:
    """As `drawings`, through torch.compile; as it is where nothing can be compiled."""
    step = drawings(here, model, count, drafter=drafter)
    if (missing := why_not_compiled(here.device)) is not None:
        print(f"nothing is compiled: {missing}", flush=True)
        return step
    model.decoder.compile_blocks()
    compiled, model.decoder.compiled = model.decoder.compiled, None

    def compiled_step() -> None:
        model.decoder.compiled = compiled
        try:
            step()
        finally:
            model.decoder.compiled = None

    return compiled_step


def engine(
    model: UnifiedModel,
    requests: Sequence[Request],
    attention: BackendName | None = None,
    cuda_graphs: bool = True,
    drafter: Drafter | None = None,
) -> Engine:
    """An engine with room for these requests and no more: several are on the device at once."""
    longest = max(len(r.branches[0].token_ids) + r.plan.max_length for r in requests)
    branches = sum(len(request.branches) for request in requests)
    memory = branches * (longest + 64) * model.kv_shape.bytes_per_token(model.dtype)
    config = EngineConfig(
        memory=memory,
        max_running=branches,
        max_context=longest,
        max_batch_tokens=8192,
        prefix_caching=False,
        attention=attention,
        cuda_graphs=cuda_graphs,
    )
    return Engine(model, config, drafter=drafter)


def pictures(here: DeviceBench, name: str, model: UnifiedModel, count: int) -> Iterator[Result]:
    """Whole drawings, from prompts to image tokens."""
    sizes = here.sizes
    if here.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    requests = [guided(model, sizes.prompt, sizes.tokens, seed) for seed in range(count)]
    driver = Driver(engine(model, requests))
    driver.complete([guided(model, sizes.prompt, 4, seed) for seed in range(count)])
    began = time.perf_counter()
    driver.complete(requests)
    seconds = time.perf_counter() - began
    detail = f"{seconds:.2f} s for {sizes.tokens} tokens each, without pixels"
    if here.is_cuda:
        detail += f"; peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    target = PICTURE_TARGETS.get((name, count))
    what = f"{name}, {count} at once: pictures"
    yield Result(what, count / seconds, "/s", target, detail=detail)


def first_tokens(here: DeviceBench, name: str, model: UnifiedModel) -> Iterator[Result]:
    """From a request to its first token, on an engine that has nothing else to do."""
    sizes = here.sizes
    for what, make, length in (
        ("a drawing", guided, sizes.prompt),
        ("an answer about a picture", text, sizes.question),
    ):
        requests = [make(model, length, 2, seed) for seed in range(5)]
        driver = Driver(engine(model, requests))
        run = iter(requests)
        seconds = here.median({what: lambda d=driver, r=run: first_of(d, next(r))}, rounds=2)
        detail = f"a prompt of {length} tokens"
        yield Result(f"{name}, first token of {what}", 1e3 * seconds[what], "ms", detail=detail)


def first_of(driver: Driver, request: Request) -> None:
    """Wait for the first token of a request, then cancel it."""
    handle = driver.submit(TokenJob(request), stream=True)
    next(iter(handle))
    handle.cancel()
    driver.wait_until_idle()
