"""vLLM's engine behind the protocol of our own: requests go to it, and its outputs come back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from unitok.backends.vllm.counting import Counting
from unitok.backends.vllm.outputs import OutputReader
from unitok.backends.vllm.request import Translator
from unitok.terminal import one_line
from unitok_engine import EngineStats, Output, Request

WAIT = 0.02  # seconds that a step waits for an output; so late may an order or a time-out be


@dataclass(frozen=True)
class VllmSizes:
    """The sizes of vLLM's K/V pool and of its steps, over all copies of the model.

    Attributes:
        memory: Bytes of the pool.
        num_blocks: Blocks of the pool.
        block_size: Tokens in a block.
        max_running: Branches that run at once: two for each sample.
    """

    memory: int
    num_blocks: int
    block_size: int
    max_running: int


class VllmEngine:
    """A `unitok.backends.backend.OtherBackend` over a client of vLLM's engine.

    The client belongs to an event loop, which may be that of `vllm serve`. Each sample is a request
    of vLLM's, which a task of that loop follows. vLLM steps by itself: `step` waits for what it
    tells.

    Attributes:
        name: What people call it.
        config: The sizes of the pool and of a step.
        weight_version: 0, as vLLM's weights stay.
        paused: False, as `Model.pause` is for our own engine alone.
    """

    name = "vLLM"
    weight_version = 0
    paused = False

    def __init__(
        self,
        client: Any,
        loop: asyncio.AbstractEventLoop,
        translator: Translator,
        config: VllmSizes,
        counting: Counting | None = None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        """Take a client over, or share it with others.

        Args:
            client: A client of vLLM's engine (`vllm.engine.protocol.EngineClient`).
            loop: Where it runs.
            translator: Makes vLLM's requests of ours.
            config: The sizes of the pool and of a step.
            counting: What vLLM told of its steps; without it, `stats` has only what is seen here.
            end: Ends vLLM's processes.
        """
        self.config = config
        self._client, self._loop, self._translator = client, loop, translator
        self._counting, self._end = counting or Counting(), end
        self._arrived: SimpleQueue[Output] = SimpleQueue()
        self._alive: dict[int, dict[int, Future[None]]] = {}  # request id -> samples not ended
        self._begun: set[int] = set()  # requests of which outputs came
        self._ids = count()
        self._prefix = f"unitok-{secrets.token_hex(4)}"
        self._generated_tokens = 0
        self._steps = 0  # of samples

    def check(self, request: Request) -> None:
        """See `Backend.check`."""
        self._translator.check(request)

    def add(self, request: Request, share: Hashable | None = None) -> int:
        """See `Backend.add`. vLLM takes requests in the order of their priority and their arrival.

        Raises:
            ValueError: The request could never run.
            RuntimeError: vLLM's loop has ended.
        """
        self.check(request)
        request_id, prompt = next(self._ids), self._translator.prompt(request)
        self._alive[request_id] = {
            sample: asyncio.run_coroutine_threadsafe(
                self._follow(request, prompt, request_id, sample), self._loop
            )
            for sample in range(request.n)
        }
        return request_id

    async def _follow(
        self, request: Request, prompt: dict[str, Any], request_id: int, sample: int
    ) -> None:
        """Hand a sample to vLLM, and put what it tells into the queue of outputs."""
        reader = OutputReader(request, request_id, sample)
        try:
            outputs = self._client.generate(
                prompt,
                self._translator.sampling(request, sample),
                f"{self._prefix}-{request_id}-{sample}",
                priority=request.priority,
            )
            async for told in outputs:
                self._arrived.put(reader.read(told))
        except Exception as error:  # vLLM's: of this request, or of an engine that is dead
            self._arrived.put(reader.failed(one_line(error.__cause__ or error)))

    def abort(self, request_id: int) -> None:
        """End a request; no output of it comes any more."""
        self._begun.discard(request_id)
        for following in self._alive.pop(request_id, {}).values():
            following.cancel()

    def is_alive(self, request_id: int) -> bool:
        """See `Backend.is_alive`."""
        return request_id in self._alive

    @property
    def has_work(self) -> bool:
        """See `Backend.has_work`."""
        return bool(self._alive) or not self._arrived.empty()

    @property
    def idle(self) -> bool:
        """See `Backend.idle`."""
        return not self.has_work

    def hold(self) -> None:
        """Do nothing: vLLM has no way to let requests wait, and nothing here asks for it."""

    def resume(self) -> None:
        """Do nothing, as nothing was held."""

    def step(self) -> list[Output]:
        """Wait a moment for outputs of vLLM's.

        Returns:
            Those that have come; none if there are none yet.
        """
        outputs: list[Output] = []
        with suppress(Empty):
            outputs.append(self._arrived.get(timeout=WAIT))
            while True:
                outputs.append(self._arrived.get_nowait())
        return [output for output in outputs if self._take(output)]

    def _take(self, output: Output) -> bool:
        """Count an output; false if its request was aborted meanwhile."""
        samples = self._alive.get(output.request_id)
        if samples is None:
            return False
        self._begun.add(output.request_id)
        self._generated_tokens += len(output.token_ids)
        self._steps += bool(output.token_ids)
        if output.finished:
            samples.pop(output.sample, None)
        if not samples:
            self.abort(output.request_id)
        return True

    @property
    def generated_tokens(self) -> int:
        """See `Backend.generated_tokens`."""
        return self._generated_tokens

    @property
    def stats(self) -> EngineStats:
        """What vLLM told of its steps, and what was handed to it here."""
        told, alive = self._counting, {i: len(s) for i, s in tuple(self._alive.items())}
        running = {i: samples for i, samples in alive.items() if i in self._begun}
        free = round((1 - told.usage) * self.config.num_blocks)
        return EngineStats(
            forwards=told.steps,
            preemptions=told.preemptions,
            prompt_tokens=told.prompt_tokens,
            cached_tokens=told.cached_tokens,
            generated_tokens=self._generated_tokens,
            running=sum(running.values()),
            waiting=sum(alive.values()) - sum(running.values()),
            running_requests=len(running),
            waiting_requests=len(alive) - len(running),
            memory=self.config.memory,
            num_blocks=self.config.num_blocks,
            free_blocks=free,
            cached_blocks=0,
            sampling_steps=self._steps,
            drafted_tokens=0,
            accepted_tokens=0,
        )

    def close(self) -> None:
        """End what runs, and vLLM's processes if they are the model's own."""
        for request_id in tuple(self._alive):
            with suppress(RuntimeError):  # the loop has ended before
                self.abort(request_id)
        self._end()
