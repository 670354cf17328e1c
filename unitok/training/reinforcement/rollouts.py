"""Samples of prompts, made by the engine, with the log-probabilities of what was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from unitok.api import Model
from unitok.draw_job import DrawJob
from unitok.handles import TokenJob
from unitok.requests import Caption, Draw, Reply
from unitok.results import DrawResult, Result, TextResult
from unitok.terminal import one_line
from unitok.text_job import TextJob
from unitok.training.data.order import hashed
from unitok.training.data.painted_sequences import emission_of
from unitok.training.reinforcement.prompts import Prompt
from unitok_engine import Allow, Force, Output, Plan, Sampling, Stop

# Jobs that begin in the same step and all end before others begin. So the batches of the steps do
# not depend on time, and neither does the last bit of a log-probability.
AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How prompts are sampled.

    Attributes:
        samples: Of each prompt.
        temperature: Of all samples, above 0.
        top_k: Only the k likeliest tokens are sampled; 0 is off.
        top_p: Only the fewest likeliest tokens that make up this share are sampled; 1 is off.
        guidance: The guidance scale of drawings; None for the model's own.
        max_tokens: The most tokens of an answer, its end included.
    """

    samples: int = 8
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float | None = None
    max_tokens: int = 256


@dataclass(frozen=True, eq=False)
class Rollout:
    """One sample of a prompt.

    Attributes:
        prompt: What was asked.
        request: What the engine was asked for: with this seed, the request alone gives the same.
        result: The answer, or the drawing with its one picture.
        token_ids: What was emitted, the end of an answer included.
        targets: Of each token, whether it was sampled and not forced.
        logprobs: Of each token under the distribution it was sampled from: with guidance,
            temperature and filters. 0 where it was forced.
        branch_logprobs: Of each token under the conditional branch alone.
        sampling: How it was sampled.
        weight_version: Of the weights that it comes from.
    """

    prompt: Prompt
    request: Draw | Caption | Reply
    result: Result
    token_ids: tuple[int, ...]
    targets: tuple[bool, ...]
    logprobs: tuple[float, ...]
    branch_logprobs: tuple[float, ...]
    sampling: Sampling
    weight_version: int

    @property
    def name(self) -> str:
        """Where it comes from, and its seed."""
        return f"{self.prompt.name} (seed {self.result.seed})"

    @property
    def sampled(self) -> int:
        """How many of its tokens were sampled."""
        return sum(self.targets)


@dataclass(frozen=True, eq=False)
class RolloutGroup:
    """The samples of one prompt.

    Attributes:
        prompt: What was asked.
        rollouts: Those that came to their end.
        failed: Why others did not, a line each.
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    failed: tuple[str, ...] = ()


class StopKept:
    """A plan that keeps the stop token, so that its log-probability is told. It is a `Plan`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def max_length(self) -> int:
        """See `Plan.max_length`."""
        return self._plan.max_length

    @property
    def exact(self) -> bool:
        """See `Plan.exact`."""
        return self._plan.exact

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        """See `Plan.next`."""
        step = self._plan.next(emitted)
        return replace(step, drop=0) if isinstance(step, Stop) else step


@dataclass(frozen=True, eq=False)
class _Answer:
    """An answer on its way.

    Attributes:
        asked: The request.
        text: Makes the result of the tokens.
        tokens: Collects them, the end included.
    """

    asked: Caption | Reply
    text: TextJob
    tokens: TokenJob


class RolloutCollector:
    """Samples prompts with a model, all of them at once.

    Attributes:
        model: The model.
        options: How is sampled.
    """

    def __init__(self, model: Model, options: RolloutOptions) -> None:
        """Nothing is sampled yet."""
        self.model, self.options = model, options

    def __call__(self, prompts: Sequence[Prompt], seed: int = 0) -> list[RolloutGroup]:
        """Sample prompts.

        A prompt that cannot be prepared and a sample that the engine gives up are told in the
        group's `failed`.

        Args:
            prompts: What is asked.
            seed: Equal seeds give equal samples, whatever prompts stand beside one.

        Raises:
            RuntimeError: The model is closed.
        """
        collections = [_Collection(self, prompt, seed) for prompt in prompts]
        jobs: list[Any] = [job for each in collections for job in each.jobs]
        for first in range(0, len(jobs), AT_ONCE):
            for _ in self.model.driver.run(jobs[first : first + AT_ONCE], AT_ONCE):
                pass
        return [each.group() for each in collections]

    def requests(self, prompt: Prompt, seed: int) -> list[Draw | Caption | Reply]:
        """The requests of a prompt: one for each answer, and one for all drawings together."""
        options = self.options
        place = PurePath(prompt.name).name  # wherever the folder of the prompts lies
        seeds = [hashed(seed, place, i) for i in range(options.samples)]
        told = {"logprobs": True, "branch_logprobs": True}
        how = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p")}
        asked = prompt.request
        if isinstance(asked, Draw):
            return [replace(asked, seed=tuple(seeds), guidance=options.guidance, **how, **told)]
        most = options.max_tokens
        return [replace(asked, seed=one, max_tokens=most, **how, **told) for one in seeds]


class _Collection:
    """The samples of one prompt on their way."""

    def __init__(self, collector: RolloutCollector, prompt: Prompt, seed: int) -> None:
        self.prompt = prompt
        self._drawing: DrawJob | None = None
        self._answers: list[_Answer] = []
        self._failed: list[str] = []
        try:
            for asked in collector.requests(prompt, seed):
                self._prepare(collector.model, asked)
        except (ValueError, TypeError, OSError) as error:
            self._failed = [one_line(error)] * collector.options.samples
            self._answers = []

    def _prepare(self, model: Model, asked: Draw | Caption | Reply) -> None:
        job = model.prepare.job(asked)
        if isinstance(job, DrawJob):
            self._drawing = job
            return
        assert isinstance(job, TextJob) and not isinstance(asked, Draw)
        request = replace(job.request, plan=StopKept(job.request.plan))
        self._answers.append(_Answer(asked, job, TokenJob(request)))

    @property
    def jobs(self) -> list[DrawJob | TokenJob]:
        """What the driver is to run."""
        drawing = [] if self._drawing is None else [self._drawing]
        return [*drawing, *(answer.tokens for answer in self._answers)]

    def group(self) -> RolloutGroup:
        """The samples, when all jobs have ended."""
        rollouts = [*self._drawn(), *self._answered()]
        return RolloutGroup(self.prompt, tuple(rollouts), tuple(self._failed))

    def _drawn(self) -> Iterator[Rollout]:
        if self._drawing is None:
            return
        result = self._drawing.result
        assert result is not None
        if result.error is not None:
            self._failed += [result.error] * self._drawing.request.n
            return
        targets = emission_of(self._drawing.request.plan).targets
        for i in range(len(result.images)):
            yield self._drawn_one(result, i, targets)

    def _drawn_one(self, result: DrawResult, i: int, targets: tuple[bool, ...]) -> Rollout:
        assert self._drawing is not None and isinstance(result.request, Draw)
        assert result.token_ids and result.logprobs and result.branch_logprobs
        asked = replace(result.request, seed=result.seeds[i])
        token_ids, logprobs = result.token_ids[i], result.logprobs[i]
        branch_logprobs = result.branch_logprobs[i]
        one = replace(
            result,
            images=(result.images[i],),
            seed=result.seeds[i],
            seeds=(result.seeds[i],),
            request=asked,
            completion_tokens=len(token_ids),
            token_ids=(token_ids,),
            logprobs=(logprobs,),
            branch_logprobs=(branch_logprobs,),
        )
        return Rollout(
            self.prompt,
            asked,
            one,
            token_ids,
            targets,
            logprobs,
            branch_logprobs,
            self._drawing.request.sampling,
            result.weight_version or 0,
        )

    def _answered(self) -> Iterator[Rollout]:
        for answer in self._answers:
            assert answer.tokens.result is not None
            (output,) = answer.tokens.result
            if output.error is not None:
                self._failed.append(output.error)
            elif output.token_ids:
                yield self._answered_one(answer, output)

    def _answered_one(self, answer: _Answer, output: Output) -> Rollout:
        answer.text.feed(without_stop(output))
        result = answer.text.result
        assert isinstance(result, TextResult)
        return Rollout(
            self.prompt,
            answer.asked,
            result,
            output.token_ids,
            (True,) * len(output.token_ids),
            output.logprobs or (),
            output.branch_logprobs or (),
            answer.text.request.sampling,
            output.weight_version,
        )


def without_stop(output: Output) -> Output:
    """An output as the engine tells it where the stop token is dropped."""
    if output.finish_reason != "stop" or output.logprobs is None:
        return output
    assert output.branch_logprobs is not None
    return replace(
        output,
        token_ids=output.token_ids[:-1],
        logprobs=output.logprobs[:-1],
        branch_logprobs=output.branch_logprobs[:-1],
    )
