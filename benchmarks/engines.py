"""Our side of the comparisons: engines in the middle of decoding, and streams of arrivals."""

import statistics
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

from torch import Tensor

from benchmarks.measure import paired
from benchmarks.models import NullModel
from unitok.driver import Driver
from unitok.handles import TokenJob
from unitok.nn.model import UnifiedModel
from unitok_engine import (
    AdapterRows,
    Branch,
    CacheView,
    Drafter,
    Engine,
    EngineConfig,
    FixedPlan,
    IdRange,
    Output,
    Request,
    Sampling,
)


class DecodeSteps:
    """An engine in the middle of decoding: each call is one step over all its rows.

    Contexts are not computed: their K/V are a constant, which costs the same to read.
    """

    def __init__(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        max_context: int,
        drafter: Drafter | None = None,
    ) -> None:
        """Prefill all requests.

        Args:
            model: The model that the steps run.
            requests: Requests that go on for as many steps as will be called.
            max_context: Tokens of the longest sequence, prompt and answer.
            drafter: Guesses tokens.
        """
        branches = sum(len(request.branches) for request in requests)
        config = EngineConfig(
            memory=0.6, max_running=branches, max_context=max_context, prefix_caching=False
        )
        filler = ContextFiller(model)
        self.engine = Engine(filler, config, drafter=drafter)
        waiting = {self.engine.add(request) for request in requests}
        while waiting:
            waiting -= {output.request_id for output in self.engine.step()}
        filler.finish()

    def __call__(self) -> list[Output]:
        """Run one step."""
        return self.engine.step()


class FixedWidth:
    """Drafts the same tokens for every request, which are hardly ever right.

    Attributes:
        tokens: How many tokens of a row the next step runs.
    """

    def __init__(self, tokens: int = 1) -> None:
        self.tokens = tokens

    def begin(self, request: Request) -> "FixedWidth":
        """See `Drafter.begin`."""
        return self

    def width(self, drafted: int, others: int) -> int:
        """See `Drafter.width`."""
        return self.tokens

    def propose(self, emitted: Sequence[int], most: int) -> Sequence[int]:
        """See `SampleDrafter.propose`: the last token again and again."""
        return [emitted[-1]] * most

    def sampled(
        self, emitted: Sequence[int], guesses: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """See `SampleDrafter.sampled`: nothing is learned."""


class ContextFiller:
    """A model that fills contexts with a constant, and then becomes the model itself."""

    def __init__(self, model: UnifiedModel) -> None:
        self._model = model
        self.kv_shape, self.dtype, self.device = model.kv_shape, model.dtype, model.device
        self.id_ranges, self.hidden_size = model.id_ranges, model.hidden_size
        self.embed, self.adapters = model.embed, model.adapters

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        cache: CacheView,
        adapters: AdapterRows | None = None,
    ) -> Tensor:
        """Write constant keys and values [n, heads, head size] to all layers of the cache."""
        shape = self.kv_shape
        constant = hidden.new_full((len(hidden), shape.kv_heads, shape.head_dim), 0.01)
        for layer in range(shape.layers):
            cache.attend(layer, constant, constant, constant)
        return hidden

    def logits(
        self, hidden: Tensor, id_range: IdRange, adapters: AdapterRows | None = None
    ) -> Tensor:
        """Zeros [n, size of the range]."""
        return hidden.new_zeros(1, 1).expand(len(hidden), id_range.size)

    def finish(self) -> None:
        """From here on, compute what the model computes."""
        self.forward, self.logits = self._model.forward, self._model.logits


def bookkeeping(branches: int, guided: bool = True, steps: int = 60) -> float:
    """Median seconds per branch and step of an engine with a null model.

    Args:
        branches: How many are in flight.
        guided: Whether two branches form a request; else each is a request of its own.
        steps: How many steps are timed.
    """
    config = EngineConfig(
        num_blocks=8 * branches + 8,
        block_size=32,
        max_running=branches,
        max_batch_tokens=64 * branches,
    )
    engine = Engine(NullModel(), config)
    plan = FixedPlan(IdRange(100, 116), steps + 4)
    weights = (3.0, -2.0) if guided else (1.0,)
    for seed in range(branches // len(weights)):
        prompts = tuple(Branch((seed % 50, *range(29)), weight) for weight in weights)
        engine.add(Request(prompts, plan, Sampling(seed=seed)))
    seconds = paired({"step": engine.step}, steps, warm_up=2)["step"]
    return statistics.median(seconds) / branches


def seconds_of_an_answer(length: int) -> float:
    """Seconds of processor time that an engine with a null model takes for one answer.

    Args:
        length: Tokens of the answer.
    """
    engine = Engine(NullModel(), EngineConfig(num_blocks=256, block_size=32, max_context=4096))
    plan = FixedPlan(IdRange(100, 116), length)
    engine.add(Request((Branch(tuple(range(30))),), plan, Sampling(seed=length)))
    start = time.process_time()
    while engine.has_work:
        engine.step()
    return time.process_time() - start


def arrivals(driver: Driver, requests: Sequence[Request], at: Sequence[float]) -> Iterator[float]:
    """Latencies, in seconds, of requests that arrive one after another.

    Args:
        driver: Where they are submitted.
        requests: What arrives.
        at: When each arrives, in seconds from now.
    """
    start, latencies = time.perf_counter(), SimpleQueue()
    handles = []
    for request, due in zip(requests, at, strict=True):
        time.sleep(max(due - (time.perf_counter() - start), 0))
        handles.append(driver.submit(TokenJob(request)))
        handles[-1].when_done(lambda d=due: latencies.put(time.perf_counter() - start - d))
    for _ in requests:
        yield latencies.get()
