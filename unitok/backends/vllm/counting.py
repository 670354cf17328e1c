"""What vLLM tells of its steps, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Counting:
    """The counts of vLLM's steps, over all copies of the model.

    Attributes:
        steps: Steps that told anything.
        preemptions: Samples whose blocks others needed.
        prompt_tokens: Tokens of prompts that were looked for in the prefix cache.
        cached_tokens: Those of them that were found.
        usage: The share of the blocks that are in use, in the copy that told last.
    """

    steps: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    usage: float = 0.0

    def note(self, scheduler: Any, iteration: Any) -> None:
        """Count a step.

        Args:
            scheduler: vLLM's `SchedulerStats`, or None.
            iteration: vLLM's `IterationStats`, or None.
        """
        if iteration is not None:
            self.steps += 1
            self.preemptions += iteration.num_preempted_reqs
        if scheduler is not None:
            found = scheduler.prefix_cache_stats
            self.usage = scheduler.kv_cache_usage
            self.prompt_tokens += found.queries + found.preempted_queries
            self.cached_tokens += found.hits + found.preempted_hits


def logger_of(counting: Counting) -> Any:
    """A factory of loggers, as vLLM's engine takes them, that count what is logged."""
    from vllm.v1.metrics.loggers import (  # pyright: ignore
        StatLoggerBase,
    )

    class Logger(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            counting.note(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return Logger
