"""The engine: add, step, abort."""

from collections import deque
from collections.abc import Hashable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import cast

import torch

from unitok_engine.attention.backends import make_backend
from unitok_engine.batch import Batch, DecodesAhead, build_batch, lay_out_ahead
from unitok_engine.block_pool import BlockPool
from unitok_engine.caution import Caution
from unitok_engine.config import EngineConfig
from unitok_engine.drafter import Drafter, agreeing
from unitok_engine.embedding_store import EmbeddingStore
from unitok_engine.embeddings import compute_embeddings
from unitok_engine.model import AdaptableModel, Model
from unitok_engine.observer import Observer, StepRecord
from unitok_engine.request import Output, Request
from unitok_engine.runner import Runner
from unitok_engine.sampler import SampledToken, collect, sample
from unitok_engine.scheduler import Chunk, Schedule, Scheduler, rows_of
from unitok_engine.sequence import Sequence, Target


@dataclass(frozen=True)
class EngineStats:
    """What the engine did and holds.

    Attributes:
        forwards: Forwards of the model so far.
        preemptions: Sequences whose blocks others needed, and which are computed again.
        prompt_tokens: Tokens that admitted sequences had, recomputed ones included.
        cached_tokens: Those of them that were found computed.
        generated_tokens: Tokens that outputs had.
        running: Sequences that run. A request has one for each of its samples.
        waiting: Sequences that wait.
        running_requests: Requests with a sequence that runs.
        waiting_requests: Requests all of whose sequences wait.
        memory: Bytes of the K/V pool.
        num_blocks: Blocks of the pool.
        free_blocks: Those of them that are nobody's.
        cached_blocks: Those, in use or free, that can be found by branches that begin alike.
        sampling_steps: How often a step sampled tokens for a sequence, which it emitted.
        drafted_tokens: Guesses that ran, see `Drafter`.
        accepted_tokens: Those of them that were right.
    """

    forwards: int
    preemptions: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    running: int
    waiting: int
    running_requests: int
    waiting_requests: int
    memory: int
    num_blocks: int
    free_blocks: int
    cached_blocks: int
    sampling_steps: int
    drafted_tokens: int
    accepted_tokens: int

    @property
    def tokens_per_step(self) -> float:
        """The tokens that a step sampled for a sequence, on average: 1 without drafts."""
        return 1 + self.accepted_tokens / self.sampling_steps if self.sampling_steps else 0.0

    @property
    def acceptance(self) -> float:
        """The share of the drafted tokens that were right; 0 if there were none."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0

    @property
    def computed_tokens(self) -> int:
        """The prompt tokens that were not found computed."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def hit_rate(self) -> float:
        """The share of the prompt tokens that were found computed; 0 if there were none."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def used_blocks(self) -> int:
        """The blocks that branches hold."""
        return self.num_blocks - self.free_blocks


@dataclass(frozen=True)
class _Added:
    request_id: int
    sequences: tuple[Sequence, ...]


@dataclass(frozen=True)
class _Aborted:
    request_id: int


class Engine:
    """Continues token sequences with a model, many at once.

    `add` and `abort` may be called from any thread; all else belongs to the one that steps.

    Args:
        model: The model to run.
        config: Sizes; None takes the defaults.
        observer: Is told what each step ran.
        drafter: Guesses tokens, to save steps.
    """

    def __init__(
        self,
        model: Model,
        config: EngineConfig | None = None,
        observer: Observer | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        config = config or EngineConfig()
        self.config = config.resolve(model.kv_shape, model.dtype, model.device)
        self._observer = observer
        self._drafter = drafter
        self._device = model.device
        self._id_ranges = tuple(model.id_ranges)
        self._hidden_size = model.hidden_size
        self._looks_ahead = model.device.type == "cuda"  # else there is no wait to do it in
        self._ahead: DecodesAhead | None = None
        self._pool = BlockPool(self.config.num_blocks)
        self._make_cache = partial(
            make_backend,
            model.kv_shape,
            block_size=self.config.block_size,
            dtype=model.dtype,
            device=model.device,
            name=self.config.attention,
        )
        self._cache = self._make_cache(self.config.num_blocks)
        self._paused = self._asleep = False
        self.runner = Runner(model, self._cache, self.config.cuda_graphs)
        self._scheduler = Scheduler(self.config, self._pool)
        self._orders: deque[_Added | _Aborted] = deque()
        self._request_ids = count()
        self._arrivals = count()
        self._alive: dict[int, list[Sequence]] = {}  # request id -> its sequences not ended
        self._unplanned: dict[Sequence, None] = {}  # those of them that do not yet wait or run
        self._untold: list[Output] = []  # not handed over yet
        self._generated_tokens = 0
        self._sampling_steps = self._drafted_tokens = self._accepted_tokens = 0
        self._holds = False  # requests that have not begun
        self._weight_version = 0
        self._broken = False  # a step began and did not end
        self._scheduled: Schedule | None = None  # while it runs
        prefill = self.config.max_batch_tokens
        drafts = prefill if drafter else 0
        self._caution = Caution(prefill + drafts + self.config.max_running)
        self._out_of_memory = False  # the last step that raised was

    def add(self, request: Request, share: Hashable | None = None) -> int:
        """Queue a request.

        Args:
            request: What is asked.
            share: Requests of one share together get as much of the engine as those of any other
                share; None is a share of the request's own.

        Returns:
            The request's id, which its outputs carry.

        Raises:
            ValueError: The request could never run here.
            TypeError: The share has no hash.
        """
        self.check(request)
        hash(share)  # TypeError here, for what has no hash
        request_id = next(self._request_ids)
        common = (request, EmbeddingStore(), self._id_ranges, share)
        sequences = [
            Sequence(request_id, sample, next(self._arrivals), *common)
            for sample in range(request.n)
        ]
        self._orders.append(_Added(request_id, tuple(sequences)))
        return request_id

    def check(self, request: Request) -> None:
        """See whether a request fits the engine when it runs alone.

        Raises:
            ValueError: It does not.
        """
        config, branches = self.config, request.branches
        if len(branches) > config.max_running:
            raise ValueError(f"{len(branches)} branches exceed max_running ({config.max_running})")
        if request.adapter is not None:
            self._check_adapter(request.adapter)
        request.check_given()
        emitted, ids_end = request.max_length, max(r.stop for r in self._id_ranges)
        for branch in branches:
            for id in (min(branch.token_ids), max(branch.token_ids)):
                if not 0 <= id < ids_end:
                    raise ValueError(f"id {id} is none of the model's, 0 to {ids_end - 1}")
            prompt = branch.first_position + len(branch.token_ids)
            if prompt + emitted > config.max_context:
                raise ValueError(
                    f"a prompt of {prompt} ids and up to {emitted} new ones exceed "
                    f"max_context ({config.max_context})"
                )
        lengths = [len(branch.token_ids) + max(emitted, 1) - 1 for branch in branches]
        blocks = sum(map(config.blocks_for, lengths))
        if blocks > config.num_blocks:
            raise ValueError(
                f"the request needs up to {blocks} K/V blocks and the pool has "
                f"{config.num_blocks}: give the engine more memory"
            )

    def _check_adapter(self, name: str) -> None:
        model = self.runner.model
        known = sorted(model.adapters) if isinstance(model, AdaptableModel) else []
        if name not in known:
            loaded = f"loaded: {', '.join(map(repr, known))}" if known else "none is loaded"
            raise ValueError(f"there is no adapter {name[:100]!r}; {loaded}")

    def abort(self, request_id: int) -> None:
        """End a request at the next step, with outputs "abort"; nothing if it has ended."""
        self._orders.append(_Aborted(request_id))

    def pause(self) -> None:
        """Let nothing run any more, until `wake`: steps only take in and end requests."""
        self._paused = True

    def sleep(self) -> None:
        """Pause, and give the memory of keys and values back, until `wake`.

        Nothing is found any more of what was computed so far.

        Raises:
            RuntimeError: The engine is not idle: a request that has begun needs its keys and
                values.
        """
        if not self.idle:
            raise RuntimeError("the engine cannot sleep while requests are computed: see hold")
        self._paused = True
        if not self._asleep:
            self.forget_prefixes()
            self._asleep = True
            self._keep_blocks(1)

    def wake(self) -> None:
        """Go on after `pause` or `sleep`."""
        if self._asleep:
            self._keep_blocks(self.config.num_blocks)
            self._asleep = False
        self._paused = False

    def _keep_blocks(self, num_blocks: int) -> None:
        """Let go of all keys and values, and make room for those of so many blocks."""
        self._ahead = None
        self._cache = self._make_cache(1)  # first, as there may be no room for both
        self.runner.attach(self._cache)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if num_blocks > 1:
            self._cache = self._make_cache(num_blocks)
            self.runner.attach(self._cache)

    @property
    def paused(self) -> bool:
        """Whether nothing runs until `wake`."""
        return self._paused

    @property
    def has_work(self) -> bool:
        """Whether a step would do or report anything."""
        return bool(self._alive or self._orders or self._untold or self._broken)

    def is_alive(self, request_id: int) -> bool:
        """Whether outputs of a request are still to come from `step`.

        A request that is not alive, and whose last outputs did not come, was lost to an interrupt
        at the very moment of handing them over.
        """
        return (
            request_id in self._alive
            or any(output.request_id == request_id for output in self._untold)
            or any(
                isinstance(order, _Added) and order.request_id == request_id
                for order in tuple(self._orders)
            )
        )

    @property
    def generated_tokens(self) -> int:
        """Tokens that outputs had so far."""
        return self._generated_tokens

    @property
    def stats(self) -> EngineStats:
        """What the engine did so far, and what it holds now."""
        running, alive = self._scheduler.running_requests, len(self._alive)
        return EngineStats(
            forwards=self.runner.forwards,
            preemptions=self._scheduler.preemptions,
            prompt_tokens=self._scheduler.prompt_tokens,
            cached_tokens=self._scheduler.cached_tokens,
            generated_tokens=self._generated_tokens,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(self._unplanned),
            running_requests=running,
            waiting_requests=max(alive - running, 0),  # a step may go on meanwhile
            memory=self.config.block_bytes if self._asleep else self.config.memory,
            num_blocks=self.config.num_blocks,
            free_blocks=self._pool.free_count,
            cached_blocks=self._pool.cached_count,
            sampling_steps=self._sampling_steps,
            drafted_tokens=self._drafted_tokens,
            accepted_tokens=self._accepted_tokens,
        )

    def uses(self, adapter: str) -> int:
        """How many requests have an adapter and have not ended."""
        orders = tuple(self._orders)
        aborted = {order.request_id for order in orders if isinstance(order, _Aborted)}
        alive = {sequences[0].request_id: sequences[0] for sequences in self._alive.values()}
        alive |= {o.request_id: o.sequences[0] for o in orders if isinstance(o, _Added)}
        return sum(s.adapter == adapter for id, s in alive.items() if id not in aborted)

    def hold(self) -> None:
        """Let requests wait that have not begun, until `resume`; the others go on to their end."""
        self._holds = True
        for sequence in [s for s in self._scheduler.waiting if not self._has_begun(s)]:
            self._unplanned[sequence] = None  # first: it is in one of both, whatever comes between
            self._scheduler.remove(sequence)

    def resume(self) -> None:
        """Let requests begin again."""
        self._holds = False

    @property
    def idle(self) -> bool:
        """Whether no request has begun that has not ended, and no output waits for a step."""
        begun = any(self._has_begun(sequences[0]) for sequences in self._alive.values())
        return not (begun or self._untold or self._broken)

    def _has_begun(self, sequence: Sequence) -> bool:
        """Whether a sample of the sequence's request was ever admitted."""
        alive = self._alive[sequence.request_id]
        return len(alive) < sequence.request.n or any(s.begun for s in alive)

    @property
    def weight_version(self) -> int:
        """The version of the model's weights: 0 at first, then as `weights_changed` says."""
        return self._weight_version

    def weights_changed(self, version: int | None = None) -> None:
        """Note a change of the model's weights: nothing is found any more that old ones computed.

        The weights may change in place, so that recorded steps follow, while the engine is `idle`.
        `hold` brings that about.

        Args:
            version: What the weights' version is from now on; None for the next number.

        Raises:
            RuntimeError: The engine is not idle.
        """
        if not self.idle:
            raise RuntimeError("weights may not change while requests are computed: see hold")
        self._weight_version = self._weight_version + 1 if version is None else version
        self.forget_prefixes()

    def forget_prefixes(self) -> None:
        """Let new requests find nothing of what was computed so far."""
        self._pool.forget(range(self.config.num_blocks))

    def step(self) -> list[Output]:
        """Run the model once over everything that is ready.

        What the model raises is raised here, and so is an interrupt. The next step goes on from
        what was emitted; if this one had outputs that it could not return, the next step returns
        them before it runs more. After an error of the model's, the next steps are smaller, and a
        sequence that makes its smallest step raise twice is ended with an error.

        Returns:
            What each sequence newly emitted, and how it ended.
        """
        if self._broken:
            self._rebuild()
        outputs: list[Output] = []
        try:
            self._broken, self._scheduled = True, None
            self._free_memory()
            late = bool(self._untold)  # outputs of a step that broke off: this one might, too
            self._carry_out_orders()
            self._plan()
            if not late and not self._paused:
                self._step()
            outputs, self._untold = self._untold, []
            self._broken = False
            return outputs
        except BaseException as error:
            self._broken = True
            if self._untold is not outputs:
                self._untold[:0] = outputs
            self._rebuild()
            if isinstance(error, Exception):
                self._be_cautious(error)
            raise

    @torch.inference_mode()
    def _step(self) -> None:
        batch, chunks = self._schedule()
        if batch is None:
            return
        logits = self.runner.run(batch)
        sampled = [
            sample(rows, g.id_range, [s.sampling_input(t, rows.device) for s, t in g.targets])
            for g, rows in zip(batch.groups, logits, strict=True)
        ]
        # On CUDA all this is only queued so far: the host goes on until `collect`, which waits.
        self._scheduler.commit(chunks)
        if self._looks_ahead:
            self._ahead = lay_out_ahead(chunks, self.config.block_size)
        record = self._record(batch, chunks) if self._observer else None
        self._postprocess(batch, collect(sampled))
        self._scheduled = None  # it is done: what an observer raises is nobody's fault here
        if self._observer and record:
            self._observer.stepped(record)

    def _record(self, batch: Batch, chunks: Seq[Chunk]) -> StepRecord:
        assert self._scheduled is not None
        return StepRecord(
            query_lengths=batch.attention.query_lengths,
            context_lengths=batch.attention.context_lengths,
            sequences=len({chunk.sequence for chunk in chunks}),
            prefill_tokens=rows_of(chunk for chunk in chunks if not chunk.sequence.decoding),
            emitted=len({s for group in batch.groups for s, _ in group.targets}),
            copied_blocks=len(self._scheduled.copy_on_write),
        )

    def _carry_out_orders(self) -> None:
        """What `add` and `abort` queued, in order.

        An order leaves the queue only when it has been carried out: twice does no harm.
        """
        while self._orders:
            order = self._orders[0]
            if isinstance(order, _Added):
                self._alive[order.request_id] = list(order.sequences)
                self._unplanned.update(dict.fromkeys(order.sequences))
            else:
                self._abort(order.request_id)
            self._orders.popleft()

    def _abort(self, request_id: int) -> None:
        for sequence in list(self._alive.get(request_id, ())):
            sequence.finish_reason = sequence.finish_reason or "abort"
            self._end(sequence)

    def _plan(self) -> None:
        """Ask the plans of new sequences what comes first, and let them wait for their turn."""
        for sequence in list(self._unplanned):
            if self._holds and not sequence.finished and not self._has_begun(sequence):
                continue
            if not sequence.finished:
                self._advance(sequence)
            if sequence.finished:
                self._end(sequence)
            else:
                wants_guesses = sequence.drafter is None and not sequence.request.given
                if self._drafter is not None and wants_guesses:
                    sequence.drafter = self._drafter.begin(sequence.alone)
                self._scheduler.add(sequence)
                del self._unplanned[sequence]

    def _schedule(self) -> tuple[Batch | None, list[Chunk]]:
        """The next step's batch and its chunks, without sequences whose embeddings failed."""
        self._draft()
        schedule = self._scheduler.schedule(self._caution.limit, self._caution.suspects)
        self._scheduled = schedule
        self._cache.copy(schedule.copy_on_write)
        self._cache.clear(schedule.new_blocks)
        compute_embeddings(schedule.chunks, self._hidden_size)
        failed = dict.fromkeys(c.sequence for c in schedule.chunks if c.sequence.finished)
        chunks = [chunk for chunk in schedule.chunks if not chunk.sequence.finished]
        for sequence in failed:
            self._end(sequence)
        ahead, self._ahead = self._ahead, None
        batch = build_batch(chunks, self.config.block_size, ahead) if chunks else None
        return batch, chunks

    def _draft(self) -> None:
        """Let guesses join what runs, as many as a step's prefill, unless it must be small."""
        if self._drafter is None or self._caution.limit is not None:
            return
        decoding = [s for s in self._scheduler.running if s.decoding]
        drafted = [(s, s.drafter) for s in decoding if s.drafter]
        if not drafted:
            return
        rows = sum(len(sequence.branches) for sequence, _ in drafted)
        width = self._drafter.width(rows, sum(len(s.branches) for s in decoding) - rows)
        room = self.config.max_batch_tokens
        for sequence, drafter in drafted:
            # Rows of one length attend together, so what is forced or given is part of the width.
            most = width - max(map(sequence.pending, sequence.branches))
            most = max(min(most, room // len(sequence.branches)), 0)
            guesses = drafter.propose(sequence.emitted, most)
            try:
                sequence.draft(guesses, most)
                room -= len(sequence.drafts) * len(sequence.branches)
            except Exception as error:  # a plan is its caller's code: only its own request fails
                sequence.fail(error)
                self._end(sequence)

    def _postprocess(self, batch: Batch, tokens: list[SampledToken]) -> None:
        """Emit what was sampled, end what is done."""
        sampled: dict[Sequence, list[tuple[Target, SampledToken]]] = {}
        targets = chain.from_iterable(group.targets for group in batch.groups)
        for (sequence, target), token in zip(targets, tokens, strict=True):
            sampled.setdefault(sequence, []).append((target, token))
        for sequence, pairs in sampled.items():
            self._emit(sequence, pairs)
            if sequence.finished:
                self._end(sequence)
            else:
                self._tell(sequence)
        self._caution.passed(sampled)

    def _emit(self, sequence: Sequence, sampled: list[tuple[Target, SampledToken]]) -> None:
        """Emit the tokens that were sampled behind drafts that are right."""
        before, right = len(sequence.emitted), 0
        sampled = sorted(sampled, key=_offset) if len(sampled) > 1 else sampled
        self._tell_drafter(
            sequence, [token.id for target, token in sampled if not sequence.is_given(target)]
        )
        for target, token in sampled:
            right = sequence.right_drafts(before, right)
            if not right == target.offset == len(sequence.emitted) - before:
                break
            if token.id is None:
                sequence.fail("the model gave logits that are not finite")
            else:
                sequence.emit(token)
                self._advance(sequence)
            if sequence.finished:
                return
        if sequence.drafts:
            self._scheduler.commit_drafts(sequence, sequence.right_drafts(before, right))

    def _tell_drafter(self, sequence: Sequence, tokens: list[int | None]) -> None:
        """Count guesses that ran, and tell their drafter what was sampled."""
        known = cast(list[int], tokens[: tokens.index(None)] if None in tokens else tokens)
        if not known:
            return
        guesses = sequence.guesses
        self._sampling_steps += 1
        self._drafted_tokens += len(guesses)
        self._accepted_tokens += agreeing(guesses, known)
        if sequence.drafter is not None:
            sequence.drafter.sampled(sequence.emitted, guesses, known)

    def _advance(self, sequence: Sequence) -> None:
        try:
            sequence.advance()
        except Exception as error:  # a plan is its caller's code: only its own request fails
            sequence.fail(error)

    def _end(self, sequence: Sequence) -> None:
        self._tell(sequence)  # first: what broke off after it is known to have ended
        self._scheduler.remove(sequence)
        self._unplanned.pop(sequence, None)
        alive = self._alive[sequence.request_id]
        alive.remove(sequence)
        if not alive:
            del self._alive[sequence.request_id]

    def _tell(self, sequence: Sequence) -> None:
        output = sequence.report(self._weight_version)
        self._untold.append(output)
        sequence.reported = output.stop
        self._generated_tokens += len(output.token_ids)

    def _rebuild(self) -> None:
        """Begin anew, as a step may have broken off anywhere, from what is certain all the same.

        That is what the sequences alive emitted, the queue of orders, and the outputs not handed
        over. If this breaks off too, it is done again.
        """
        self._ahead = None
        self._cache.reset()
        self._scheduler.reset()
        last = {(output.request_id, output.sample): output for output in self._untold}
        alive: dict[int, list[Sequence]] = {}
        for sequence in chain.from_iterable(self._alive.values()):
            told = last.get((sequence.request_id, sequence.sample))
            sequence.reported = told.stop if told else sequence.reported
            sequence.restart()
            if told is None or not told.finished:
                alive.setdefault(sequence.request_id, []).append(sequence)
        self._alive = alive
        self._unplanned = dict.fromkeys(chain.from_iterable(alive.values()))
        self._broken = False

    def _be_cautious(self, error: Exception) -> None:
        """After a step that raised: run less in the next ones, and end whose fault it must be."""
        self._out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        chunks = self._scheduled.chunks if self._scheduled else ()
        self._scheduled = None
        culprit = self._caution.failed(chunks)
        if culprit is None:
            return
        kind = "out of memory" if self._out_of_memory else type(error).__name__
        reason = f"{kind} in a step of {rows_of(chunks)} rows: {error}"
        for sequence in self._alive.get(culprit.request_id, ()):
            # Samples that have emitted the same would run the same ids.
            if sequence.emitted == culprit.emitted and not sequence.finished:
                sequence.fail(reason)

    def _free_memory(self) -> None:
        """Give back what a step that ran out of memory left unused, now that its error is gone."""
        if self._out_of_memory and self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._out_of_memory = False


def _offset(sampled: tuple[Target, SampledToken]) -> int:
    return sampled[0].offset
