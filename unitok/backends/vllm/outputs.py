"""What vLLM tells of a sample, as outputs of our engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unitok_engine import FreePlan, Output, Request
from unitok_engine.plans import FinishReason


class OutputReader:
    """Reads the outputs of one sample, each with the tokens since the one before."""

    def __init__(self, request: Request, request_id: int, sample: int) -> None:
        """Nothing was told yet.

        Args:
            request: What our engine would have been asked for.
            request_id: Its id.
            sample: The number of the sample.
        """
        self._request, self._request_id, self._sample = request, request_id, sample
        self._told = 0  # tokens

    def read(self, told: Any) -> Output:
        """The output for what vLLM tells (`vllm.RequestOutput`, of kind DELTA, of one sample)."""
        (completion,) = told.outputs
        ids = tuple(completion.token_ids)
        reason, error = self._ending(completion.finish_reason)
        if reason == "stop" and self._ends_in_stop(ids):
            ids = ids[:-1]
        return self._output(ids, reason, error, self._logprobs(ids, completion.logprobs))

    def failed(self, error: str) -> Output:
        """The output of a sample that vLLM gave up."""
        return self._output((), "error", error, self._logprobs((), ()))

    def _output(
        self,
        ids: tuple[int, ...],
        reason: FinishReason | None,
        error: str | None,
        logprobs: tuple[float, ...] | None,
    ) -> Output:
        start, self._told = self._told, self._told + len(ids)
        prompt = len(self._request.branches[0].token_ids)
        return Output(
            self._request_id, self._sample, ids, start, prompt, reason, error, logprobs=logprobs
        )

    def _ending(self, reason: str | None) -> tuple[FinishReason | None, str | None]:
        """How the sample ended, in our words, and what went wrong."""
        if reason == "length" and self._request.plan.exact:
            return "complete", None
        if reason in (None, "stop", "length"):
            return reason, None  # type: ignore[return-value]
        return "error", f"vLLM ended the request: {reason}"

    def _ends_in_stop(self, ids: Sequence[int]) -> bool:
        plan = self._request.plan
        return bool(ids) and isinstance(plan, FreePlan) and ids[-1] in plan.stop_ids

    def _logprobs(self, ids: Sequence[int], told: Any) -> tuple[float, ...] | None:
        """The log-probability of each token, if they were asked for."""
        if not self._request.logprobs:
            return None
        return tuple(of_step[id].logprob for id, of_step in zip(ids, told or (), strict=False))
