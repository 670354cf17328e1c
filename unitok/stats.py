"""What a model did and holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from unitok_engine import EngineStats


@dataclass(frozen=True, repr=False)
class Stats(EngineStats):
    """The counts of a model's engine, and its speed. `unitok_engine.EngineStats` has the others.

    Attributes:
        tokens_per_second: Generated tokens per second, of all requests together: over the last 10
            seconds, or since the first of the requests that now follow on each other began, if that
            is less. While nothing runs, it is the rate at the end of the last request.
    """

    tokens_per_second: float

    def __repr__(self) -> str:
        return (
            f"<unitok.Stats: requests: {self.running_requests} running, {self.waiting_requests} "
            f"waiting; generated: {self.generated_tokens:,} tokens, {self.tokens_per_second:,.0f} "
            f"per second; prompts: {self.prompt_tokens:,} tokens, {self.hit_rate:.0%} from the "
            f"cache; blocks: {self.used_blocks:,} used, {self.free_blocks:,} free>"
        )
