"""The engine: add, step, run, stream, abort."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from queue import Empty, SimpleQueue

import torch

from unitok_engine.batch import Batch, DecodesAhead, build_batch, lay_out_ahead
from unitok_engine.block_pool import BlockPool
from unitok_engine.config import EngineConfig
from unitok_engine.features import FeatureStore, compute_features
from unitok_engine.kv_cache import KVCache
from unitok_engine.request import Output, Request
from unitok_engine.runner import Model, Runner
from unitok_engine.sampler import Choice, collect, draw
from unitok_engine.scheduler import Chunk, Scheduler
from unitok_engine.sequence import Sequence, one_line


@dataclass(frozen=True)
class EngineStats:
    """What the engine did and holds.

    forwards: of the model so far. preemptions: sequences whose blocks others needed; they are
    computed again. prompt_ids: to be cached at admission, recomputed ones included; cached_ids:
    those of them that were found computed. running and waiting: sequences.
    memory: bytes of the K/V pool, in num_blocks blocks: free_blocks are nobody's, cached_blocks, in
    use or free, can be found by lines that begin alike.
    """

    forwards: int
    preemptions: int
    prompt_ids: int
    cached_ids: int
    running: int
    waiting: int
    memory: int
    num_blocks: int
    free_blocks: int
    cached_blocks: int


@dataclass(frozen=True)
class _Added:
    request_id: int
    sequences: tuple[Sequence, ...]


@dataclass(frozen=True)
class _Aborted:
    request_id: int


class Engine:
    """Continues lines of ids with a model, many at once.

    `add` and `abort` may be called from any thread; all else belongs to the one that steps.
    """

    def __init__(self, model: Model, config: EngineConfig | None = None) -> None:
        config = config or EngineConfig()
        self.config = config.resolve(model.kv_shape, model.dtype, model.device)
        self._device = model.device
        self._id_ranges = tuple(model.id_ranges)
        self._looks_ahead = model.device.type == "cuda"  # else there is no wait to do it in
        self._ahead: DecodesAhead | None = None
        self._pool = BlockPool(self.config.num_blocks)
        self._cache = KVCache(
            model.kv_shape,
            self.config.num_blocks,
            self.config.block_size,
            model.dtype,
            model.device,
            self.config.attention,
        )
        self.runner = Runner(model, self._cache, self.config.cuda_graphs)
        self._scheduler = Scheduler(self.config, self._pool)
        self._orders: SimpleQueue[_Added | _Aborted] = SimpleQueue()
        self._request_ids = count()
        self._arrivals = count()
        self._alive: dict[int, list[Sequence]] = {}  # request id -> its unfinished sequences
        self._boxes: dict[int, deque[Output]] = {}  # request id -> outputs a caller waits for
        self._unclaimed: list[Output] = []

    def add(self, request: Request) -> int:
        """Queue a request; its id. ValueError for one that could never run here."""
        self.check(request)
        request_id = next(self._request_ids)
        features = FeatureStore()
        sequences = (
            Sequence(request_id, sample, next(self._arrivals), request, features, self._id_ranges)
            for sample in range(request.n)
        )
        self._orders.put(_Added(request_id, tuple(sequences)))
        return request_id

    def check(self, request: Request) -> None:
        """ValueError if the request does not fit the engine even when it runs alone."""
        config, branches = self.config, request.branches
        if len(branches) > config.max_running:
            raise ValueError(f"{len(branches)} branches exceed max_running ({config.max_running})")
        emitted, ids_end = request.plan.max_length, max(r.stop for r in self._id_ranges)
        for branch in branches:
            for id in (min(branch.ids), max(branch.ids)):
                if not 0 <= id < ids_end:
                    raise ValueError(f"id {id} is none of the model's, 0 to {ids_end - 1}")
            prompt = branch.first_position + len(branch.ids)
            if prompt + emitted > config.max_context:
                raise ValueError(
                    f"a prompt of {prompt} ids and up to {emitted} new ones exceed "
                    f"max_context ({config.max_context})"
                )
        lengths = [len(branch.ids) + max(emitted, 1) - 1 for branch in branches]
        blocks = sum(map(config.blocks_for, lengths))
        if blocks > config.num_blocks:
            raise ValueError(
                f"the request needs up to {blocks} K/V blocks and the pool has "
                f"{config.num_blocks}: give the engine more memory"
            )

    def abort(self, request_id: int) -> None:
        """End a request at the next step, with outputs "abort"; nothing if it has ended."""
        self._orders.put(_Aborted(request_id))

    @property
    def has_work(self) -> bool:
        """Whether a step would do or report anything."""
        return bool(self._alive or self._unclaimed or not self._orders.empty())

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            forwards=self.runner.forwards,
            preemptions=self._scheduler.preemptions,
            prompt_ids=self._scheduler.prompt_ids,
            cached_ids=self._scheduler.cached_ids,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            memory=self.config.memory,
            num_blocks=self.config.num_blocks,
            free_blocks=self._pool.free_count,
            cached_blocks=self._pool.cached_count,
        )

    def step(self) -> list[Output]:
        """Run the model once over everything that is ready.

        Returns what each sequence newly emitted and how it ended, but for the requests that
        `run` and `stream` wait for: those get their outputs there. What the model raises is raised
        here; all that ran is then computed again by the next step, unless it is aborted.
        """
        self._pump()
        outputs, self._unclaimed = self._unclaimed, []
        return outputs

    def run(self, requests: Iterable[Request]) -> Generator[Output]:
        """Finished outputs as they finish, n per request.

        Requests are taken lazily, so that about as many are in flight as may run at once; their
        ids count up in the order taken. One that `check` refuses comes back as an error.
        """
        source = iter(requests)
        box: deque[Output] = deque()
        left: dict[int, int] = {}  # request id -> its samples in flight
        try:
            while True:
                while sum(left.values()) < self.config.max_running:
                    if (request := next(source, None)) is None:
                        break
                    try:
                        left[self._subscribe(request, box)] = request.n
                    except Exception as error:  # a plan is its caller's code
                        yield from self._refused(request, error)
                if not left:
                    return
                self._pump()
                while box:
                    output = box.popleft()
                    if output.finished:
                        _settle(output, left)
                        yield output
        finally:
            for request_id in left:
                self.abort(request_id)

    def stream(self, request: Request) -> Generator[Output]:
        """Every output of one request, step by step.

        Closing the iterator aborts the request at the next step.
        """
        box: deque[Output] = deque()
        left = {self._subscribe(request, box): request.n}
        try:
            while left:
                self._pump()
                while box:
                    output = box.popleft()
                    if output.finished:
                        _settle(output, left)
                    yield output
        finally:
            for request_id in left:
                self.abort(request_id)

    @torch.inference_mode()
    def _step(self) -> list[Output]:
        batch, chunks = self._schedule()
        if batch is None:
            return []
        logits = self.runner.run(batch)
        drawn = [
            draw(rows, group.id_range, [s.pick(rows.device) for s in group.sequences])
            for group, rows in zip(batch.groups, logits, strict=True)
        ]
        # On CUDA all this is only queued so far: the host goes on until `collect`, which waits.
        self._scheduler.commit(chunks)
        if self._looks_ahead:
            self._ahead = lay_out_ahead(chunks, self.config.block_size)
        return self._postprocess(batch, collect(drawn))

    def _take_orders(self) -> list[Output]:
        """Carry out what was queued by `add` and `abort`, in order."""
        outputs = []
        while True:
            try:
                order = self._orders.get_nowait()
            except Empty:
                return outputs
            if isinstance(order, _Added):
                outputs += self._enqueue(order)
            else:
                outputs += self._abort(order)

    def _enqueue(self, order: _Added) -> list[Output]:
        self._alive[order.request_id] = list(order.sequences)
        outputs = []
        for sequence in order.sequences:
            self._scheduler.add(sequence)
            self._advance(sequence)
            if sequence.finished:
                outputs.append(self._end(sequence))
        return outputs

    def _abort(self, order: _Aborted) -> list[Output]:
        outputs = []
        for sequence in list(self._alive.get(order.request_id, ())):
            sequence.finish_reason = "abort"
            outputs.append(self._end(sequence))
        return outputs

    def _schedule(self) -> tuple[Batch | None, list[Chunk]]:
        """The next step's batch and its chunks, without sequences whose features failed."""
        schedule = self._scheduler.schedule()
        self._cache.copy(schedule.copies)
        self._cache.clear(schedule.fresh)
        compute_features(schedule.chunks, self._width)
        failed = dict.fromkeys(c.sequence for c in schedule.chunks if c.sequence.finished)
        chunks = [chunk for chunk in schedule.chunks if not chunk.sequence.finished]
        self._deliver([self._end(sequence) for sequence in failed])
        ahead, self._ahead = self._ahead, None
        batch = build_batch(chunks, self.config.block_size, ahead) if chunks else None
        return batch, chunks

    @cached_property
    def _width(self) -> int:
        """Of the model's embeddings, and so of features."""
        id = torch.tensor([self._id_ranges[0].start], device=self._device)
        return self.runner.model.embed(id).shape[1]

    def _postprocess(self, batch: Batch, choices: list[Choice]) -> list[Output]:
        """Emit what was sampled, end what is done."""
        outputs = []
        sequences = [sequence for group in batch.groups for sequence in group.sequences]
        for sequence, choice in zip(sequences, choices, strict=True):
            if choice.id is None:
                sequence.fail("the model gave logits that are not finite")
            else:
                sequence.emit(choice)
                self._advance(sequence)
            outputs.append(self._end(sequence) if sequence.finished else sequence.report())
        return outputs

    def _advance(self, sequence: Sequence) -> None:
        try:
            sequence.advance()
        except Exception as error:  # a plan is its caller's code: only its own request fails
            sequence.fail(error)

    def _end(self, sequence: Sequence) -> Output:
        self._scheduler.remove(sequence)
        alive = self._alive[sequence.request_id]
        alive.remove(sequence)
        if not alive:
            del self._alive[sequence.request_id]
        return sequence.report()

    def _subscribe(self, request: Request, box: deque[Output]) -> int:
        request_id = self.add(request)
        self._boxes[request_id] = box
        return request_id

    def _refused(self, request: Request, error: Exception) -> Iterator[Output]:
        """The outputs of a request that could not be added."""
        request_id, prompt = next(self._request_ids), len(request.branches[0].ids)
        for index in range(request.n):
            yield Output(request_id, index, (), (), prompt, "error", one_line(error))

    def _pump(self) -> None:
        """One step; outputs go to those who wait for them, also if the model raises."""
        self._deliver(self._take_orders())
        try:
            self._deliver(self._step())
        except BaseException:
            self._scheduler.preempt_all()
            raise

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._boxes.get(output.request_id, self._unclaimed).append(output)
        # An iterator that was closed left its box behind, to swallow the outputs of its abort.
        for request_id in {output.request_id for output in outputs} - self._alive.keys():
            self._boxes.pop(request_id, None)


def _settle(output: Output, left: dict[int, int]) -> None:
    """Count one sample of a request as ended."""
    left[output.request_id] -= 1
    if left[output.request_id] == 0:
        del left[output.request_id]
