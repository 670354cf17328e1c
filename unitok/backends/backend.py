"""What a driver needs of the engine that it runs: our own fits, and so does vLLM's."""

from collections.abc import Hashable
from typing import Protocol

from unitok_engine import EngineStats, Output, Request


class Sizes(Protocol):
    """The sizes of a backend's K/V pool and of its steps."""

    @property
    def memory(self) -> int:
        """Bytes of the pool."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        ...

    @property
    def max_running(self) -> int:
        """Branches that run at once."""
        ...


class Backend(Protocol):
    """Continues the branches of requests, many at once.

    `check`, `config` and `stats` may be used from any thread; all else belongs to the driver's.
    `unitok_engine.Engine` is one, and `unitok.backends.vllm.engine.VllmEngine`.
    """

    @property
    def config(self) -> Sizes:
        """The sizes of the K/V pool and of a step."""
        ...

    @property
    def stats(self) -> EngineStats:
        """What was done so far, and what is held now."""
        ...

    @property
    def weight_version(self) -> int:
        """The version of the model's weights: 0 when they are loaded."""
        ...

    @property
    def generated_tokens(self) -> int:
        """Tokens that outputs had so far."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether a step would do or report anything."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no request has begun that has not ended, and no output waits for a step."""
        ...

    @property
    def paused(self) -> bool:
        """Whether nothing runs, and so nothing ends, until somebody lets it go on."""
        ...

    def check(self, request: Request) -> None:
        """See whether a request can run when it is alone.

        Raises:
            ValueError: It cannot; the message says why.
        """
        ...

    def add(self, request: Request, share: Hashable | None = None) -> int:
        """Queue a request.

        Args:
            request: What is asked.
            share: Requests of one share together get as much as those of any other share; None is
                a share of the request's own.

        Returns:
            The request's id, which its outputs carry.

        Raises:
            ValueError: The request could never run.
        """
        ...

    def abort(self, request_id: int) -> None:
        """End a request at the next step; nothing if it has ended."""
        ...

    def is_alive(self, request_id: int) -> bool:
        """Whether outputs of a request are still to come from `step`."""
        ...

    def step(self) -> list[Output]:
        """Go on by a step.

        Returns:
            What each sample newly emitted, and how it ended.
        """
        ...

    def hold(self) -> None:
        """Let requests wait that have not begun, until `resume`; the others go on to their end."""
        ...

    def resume(self) -> None:
        """Let requests begin again."""
        ...


class OtherBackend(Backend, Protocol):
    """An engine of others, which has the weights and the K/V in processes of its own."""

    @property
    def name(self) -> str:
        """What people call it, such as "vLLM"."""
        ...

    def close(self) -> None:
        """End its processes. Closing again does nothing."""
        ...
