"""The job of an edit that is tried several times: the likeliest try of each picture is taken."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from math import fsum

from torch import Tensor

from unitok.draw_job import DrawJob
from unitok.handles import FailReason
from unitok.results import DrawResult, Event
from unitok_engine import GridPlan, Output, Request


class BestJob:
    """Collects the tries of n pictures, and hands the best of each to the job of the pictures.

    The best try is the one in which all together is likeliest: what was painted, and what stays
    behind it. It is a `unitok.handles.Job`.

    Attributes:
        request: The engine's request, for all tries.
        tells_progress: As of a `DrawJob`.
    """

    tells_progress = True

    def __init__(self, job: DrawJob, tries: int) -> None:
        """Nothing has been generated yet.

        Args:
            job: The job of the pictures, whose plan scores what stays.
            tries: Of each picture.
        """
        self.request = tried(job.request, tries)
        self._job, self._tries = job, tries
        self._outputs: dict[int, list[Output]] = {}  # of each try whose picture goes on
        self._done = self._reported = 0  # tokens of all tries

    @property
    def timeout(self) -> float | None:
        """The most seconds until the result; None for no limit."""
        return self._job.timeout

    @property
    def index(self) -> int:
        """The request's place among those that were given together."""
        return self._job.index

    @property
    def pictures(self) -> tuple[Future[Tensor], ...]:
        """The pictures that were handed to the image decoder."""
        return self._job.pictures

    @property
    def ended(self) -> bool:
        """Whether every picture has its best try, or the job has failed."""
        return self._job.ended

    @property
    def result(self) -> DrawResult | None:
        """The best pictures; None while one of them is still to be decoded."""
        return self._job.result

    def feed(self, output: Output) -> None:
        """Add the tokens of a try. When all tries of a picture are complete, the best goes on."""
        self._done += len(output.token_ids)
        self._outputs.setdefault(output.sample, []).append(output)
        if not output.finished:
            return
        picture = output.sample % self._job.request.n
        samples = [picture + self._job.request.n * number for number in range(self._tries)]
        tries = [self._outputs.get(sample, []) for sample in samples]
        if all(outputs and outputs[-1].finished for outputs in tries):
            for sample in samples:
                del self._outputs[sample]
            self._hand_on(picture, self._best(picture, tries))

    def _best(self, picture: int, tries: Sequence[list[Output]]) -> list[Output]:
        """The outputs of the likeliest try; those of one that failed, if any did.

        Where nothing stays behind what was painted, it is the first, which is what the picture is
        where it is asked for alone.
        """
        failed = [outputs for outputs in tries if outputs[-1].finish_reason != "complete"]
        if failed:
            return failed[0]
        plan = self._plan(picture)
        return max(tries, key=log_likelihood) if plan is None or plan.goes_on else tries[0]

    def _plan(self, picture: int) -> GridPlan | None:
        plan = self._job.request.plan_of(picture)
        return plan if isinstance(plan, GridPlan) else None

    def _hand_on(self, picture: int, outputs: Sequence[Output]) -> None:
        asked = self._job.request.branch_logprobs
        for output in outputs:
            told = output.branch_logprobs if asked else None
            own = replace(
                output, sample=picture, branch_logprobs=told, logprobs=self._own(picture, output)
            )
            self._job.feed(own)

    def _own(self, picture: int, output: Output) -> tuple[float, ...] | None:
        """The log-probabilities of what was painted; 0 for what stays, as if it were tried once."""
        plan = self._plan(picture)
        if output.logprobs is None or plan is None:
            return output.logprobs
        places = zip(range(output.start, output.stop), output.logprobs, strict=True)
        return tuple(0.0 if plan.is_known(place) else logprob for place, logprob in places)

    def fail(self, reason: FailReason, error: str) -> None:
        """End the job without pictures, unless it has its result."""
        self._job.fail(reason, error)

    def new_events(self) -> list[Event]:
        """The progress of all tries, and the pictures and the result that no event had yet."""
        done, total = self._done, self.request.n * self.request.plan.max_length
        events = [replace(e, done=done, total=total) for e in self._job.new_events()]
        events = [event for event in events if event.kind != "tokens"]
        if done > self._reported and (self.tells_progress or not self._reported):
            self._reported = done
            events.insert(0, Event("tokens", done=done, total=total))
        return events

    def merge(self, unread: Event, new: Event) -> Event | None:
        """The newer of two events of progress; None for other events."""
        return self._job.merge(unread, new)


def log_likelihood(outputs: Sequence[Output]) -> float:
    """The log-probability of all tokens of a try that the model has a say in."""
    return fsum(fsum(output.branch_logprobs or ()) for output in outputs)


def tried(request: Request, tries: int) -> Request:
    """A request for so many tries of each of its samples.

    The first n samples are those of the request, so that the first try of a picture is what it is
    without other tries. The second tries follow, and so on.
    """
    return replace(
        request,
        n=request.n * tries,
        tries=tries,
        seeds=request.seeds * tries,
        plans=request.plans * tries,
        branch_logprobs=True,
    )
