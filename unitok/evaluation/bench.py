"""Measuring speed: paired runs, the floor that memory sets, and our side of each comparison.

A machine's speed drifts, so only what ran side by side is compared: every measurement alternates
the contenders, one short run each, and gives medians. The other sides are in `unitok/baselines`,
what is compared in `comparisons.py`.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue

import torch
from torch import Tensor

import unitok
from unitok.driver import Driver
from unitok.emoji.scenes import SceneSampler, render, to_pil
from unitok.families import ImageOptions
from unitok.families.janus import Janus
from unitok.handles import TokenJob
from unitok.nn.config import DEFAULT, DecoderConfig, ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import Message
from unitok_engine import (
    Branch,
    CacheView,
    Embeddings,
    Engine,
    EngineConfig,
    FixedPlan,
    FreePlan,
    IdRange,
    KVShape,
    Output,
    Request,
    Sampling,
)

GUIDANCE = 5.0
CAPTION_LENGTH = 32  # ids, at most


def paired(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each contender, `rounds` times, side by side, in alternating order.

    pause: seconds before each run, in which the threads of the one before go to sleep.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        for name in sorted(contenders, reverse=bool(turn % 2)):
            time.sleep(pause)
            start = time.perf_counter()
            contenders[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(seconds: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Median over the rounds of one contender's time over the other's."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


class ImageEncoderBatch:
    """Reads memory from end to end, as fast as torch can: the best time tells the bandwidth."""

    def __init__(self, size: int = 2**30) -> None:
        self._data = torch.ones(size // 8, dtype=torch.int64)

    def __call__(self) -> None:
        self._data.sum()

    def bandwidth(self, seconds: Sequence[float]) -> float:
        """Bytes per second."""
        return self._data.nbytes / min(seconds)


# --- models --------------------------------------------------------------------------------------


class Costless:
    """A model that costs nothing: what is left is the engine's own work."""

    kv_shape = KVShape(layers=0, kv_heads=1, head_dim=1)
    hidden_size = 1
    dtype = torch.float32
    device = torch.device("cpu")
    id_ranges = (IdRange(0, 2**31),)

    def embed(self, ids: Tensor) -> Tensor:
        return torch.zeros(1, 1).expand(len(ids), 1)

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        return hidden

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        return torch.zeros(1, 1).expand(len(hidden), id_range.size)


def random_model(decoder: DecoderConfig, codebook: int, dtype: torch.dtype) -> UnifiedModel:
    """A decoder of any size with its embeddings and heads; its two vision paths are tiny."""
    codes = DEFAULT.image_tokenizer.__class__(
        **{**vars(DEFAULT.image_tokenizer), "codebook_size": codebook}
    )
    config = ModelConfig(decoder, DEFAULT.vision, codes)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        return UnifiedModel(config).to(dtype).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)


def id_range(model: UnifiedModel, image: bool) -> IdRange:
    chosen = model.vocabulary.image_range if image else model.vocabulary.text_range
    return IdRange(chosen.start, chosen.stop)


# --- requests ------------------------------------------------------------------------------------


def guided(model: UnifiedModel, context: int, length: int, seed: int) -> Request:
    """A drawing of two lines of `context` ids each, no two alike, and `length` ids to come."""
    lines = tuple(
        Branch(prompt_ids(model, context, 2 * seed + i), weight)
        for i, weight in enumerate((GUIDANCE, 1 - GUIDANCE))
    )
    return Request(lines, FixedPlan(id_range(model, image=True), length), Sampling(seed=seed))


def text(model: UnifiedModel, context: int, length: int, seed: int) -> Request:
    """A line of `context` ids and exactly `length` ids of text to come."""
    plan = FreePlan(id_range(model, image=False), frozenset(), length)
    return Request((Branch(prompt_ids(model, context, seed)),), plan, Sampling(temperature=0))


def prompt_ids(model: UnifiedModel, length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, model.config.decoder.vocab_size, (length,), generator=generator)
    return tuple(ids.tolist())


def geometric_lengths(count: int, low: int = 8, high: int = 128, seed: int = 0) -> list[int]:
    """Output lengths from a geometric distribution, clamped: many short, few long."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    steps = (uniform.log() / torch.tensor(1 - 1 / 32, dtype=torch.float64).log()).ceil()
    return (low + steps).clamp(low, high).int().tolist()


# --- our side ------------------------------------------------------------------------------------


class DecodeSteps:
    """An engine in the middle of decoding: each call is one step over all its rows.

    Contexts are not computed: their K/V is a constant, which is read at the same cost.
    """

    def __init__(self, model: UnifiedModel, requests: Sequence[Request], max_context: int) -> None:
        lines = sum(len(request.branches) for request in requests)
        config = EngineConfig(
            memory=0.6, max_running=lines, max_context=max_context, prefix_caching=False
        )
        shortened = _Shortened(model)
        self.engine = Engine(shortened, config)
        waiting = {self.engine.add(request) for request in requests}
        while waiting:
            waiting -= {output.request_id for output in self.engine.step()}
        shortened.whole()

    def __call__(self) -> list[Output]:
        return self.engine.step()


class _Shortened:
    """A model that fills contexts with a constant, until it is `whole`."""

    def __init__(self, model: UnifiedModel) -> None:
        self._model = model
        self.kv_shape, self.dtype, self.device = model.kv_shape, model.dtype, model.device
        self.hidden_size, self.id_ranges = model.hidden_size, model.id_ranges
        self.embed = model.embed

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        shape = self.kv_shape
        constant = hidden.new_full((len(hidden), shape.kv_heads, shape.head_dim), 0.01)
        for layer in range(shape.layers):
            cache.attend(layer, constant, constant, constant)
        return hidden

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        return hidden.new_zeros(1, 1).expand(len(hidden), id_range.size)

    def whole(self) -> None:
        """From here on it is the model itself."""
        self.forward, self.logits = self._model.forward, self._model.logits


class Shipped:
    """The embedded model's requests, from ids to ids: pictures are encoded before."""

    def __init__(self) -> None:
        family = unitok.load(device="cpu").family
        assert isinstance(family, Janus)
        self.family, self.model = family, family.model
        self.driver = Driver(Engine(family.model, EngineConfig(max_context=family.max_context)))
        scenes = [to_pil(pixels) for pixels in render(SceneSampler(0, "heldout").batch(16))]
        self.pixels = torch.stack([family.preprocess(scene) for scene in scenes])
        self.features = family.features(self.pixels)
        picture = family.encode_image(scenes[0])  # any: for its places
        self.asked = family.chat_prompt(
            [Message("user", family.defaults.question, (picture,))], None
        )
        self.drawn = family.generation_spec(
            [Message("user", "two apples on a table")], ImageOptions(GUIDANCE)
        )

    def drawing(self, seed: int) -> Request:
        branches = self.drawn.branches
        return Request(branches, self.drawn.plan, Sampling(seed=seed))

    def caption(self, seed: int) -> Request:
        vectors = self.features[seed % len(self.features)]
        # A digest for each: an answer of the cache would be no work at all.
        slots = tuple(
            Embeddings(
                place.start, len(vectors), f"{time.perf_counter_ns()} {seed}", lambda: vectors
            )
            for place in self.asked.embeddings
        )
        branch = Branch(self.asked.token_ids, embeddings=slots)
        plan = self.family.text_plan(CAPTION_LENGTH)
        return Request((branch,), plan, Sampling(temperature=0))

    def run(self, drawings: int, captions: int) -> list[Output]:
        requests = [self.drawing(seed) for seed in range(drawings)]
        requests += [self.caption(seed) for seed in range(captions)]
        return self.driver.complete(requests)

    def latencies(self, drawings: Sequence[bool], at: Sequence[float]) -> Iterator[float]:
        """Seconds that requests take which arrive at given seconds from now; all but drawings
        are captions."""
        requests = [
            self.drawing(seed) if is_drawing else self.caption(seed)
            for seed, is_drawing in enumerate(drawings)
        ]
        return arrivals(self.driver, requests, at)


def decode_floor(model: UnifiedModel, rows: int, context: int, image: bool) -> int:
    """Bytes a decode step must read: the layers, the head it uses, and the live K/V.

    The model must not be prepared: packed layers show no parameters.
    """
    head = model.image_head if image else model.text_head
    weights = sum(p.nbytes for part in (model.decoder, head) for p in part.parameters())
    return weights + rows * context * model.kv_shape.bytes_per_id(model.dtype)


def bookkeeping(branches: int, guided: bool = True, steps: int = 60) -> float:
    """Median seconds per branch and step of an engine whose model costs nothing."""
    config = EngineConfig(
        num_blocks=8 * branches + 8,
        block_size=32,
        max_running=branches,
        max_batch_tokens=64 * branches,
    )
    engine = Engine(Costless(), config)
    plan = FixedPlan(IdRange(100, 116), steps + 4)
    weights = (3.0, -2.0) if guided else (1.0,)
    for seed in range(branches // len(weights)):
        lines = tuple(Branch((seed % 50, *range(29)), weight) for weight in weights)
        engine.add(Request(lines, plan, Sampling(seed=seed)))
    seconds = paired({"step": engine.step}, steps, warm_up=2)["step"]
    return statistics.median(seconds) / branches


def arrivals(driver: Driver, requests: Sequence[Request], at: Sequence[float]) -> Iterator[float]:
    """Latencies of requests that arrive at given seconds from now, once all have ended."""
    start, latencies = time.perf_counter(), SimpleQueue()
    handles = []
    for request, due in zip(requests, at, strict=True):
        time.sleep(max(due - (time.perf_counter() - start), 0))
        handles.append(driver.submit(TokenJob(request)))
        handles[-1].when_done(lambda d=due: latencies.put(time.perf_counter() - start - d))
    for _ in requests:
        yield latencies.get()
