"""How likely token ids that are given are: one prefill tells it, and nothing is generated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index

from unitok.backends.backend import Backend
from unitok.handles import TokenJob
from unitok.pictures import PictureLike
from unitok.preparer import Preparer
from unitok.prompt_length import ContextFullError
from unitok.requests import AnyRequest, Caption, RequestOptions, TextOptions
from unitok.results import ScoreResult
from unitok.signatures import are_several
from unitok_engine import Request


class ScoreJob(TokenJob):
    """The job of token ids that are scored as what a request generates.

    Attributes:
        asked: The request.
    """

    def __init__(self, asked: AnyRequest, request: Request) -> None:
        """Keep what is asked, and what the engine is asked for."""
        super().__init__(request, asked.timeout)
        self.asked = asked

    @property
    def score(self) -> ScoreResult:
        """The score of a job that has ended.

        Raises:
            TimeoutError: The job's timeout ended it.
            RuntimeError: It failed.
        """
        assert self.result is not None
        (output,) = self.result
        if output.error is not None:
            timed_out = output.finish_reason == "timeout"
            raise (TimeoutError if timed_out else RuntimeError)(output.error)
        return ScoreResult(
            token_ids=output.token_ids,
            logprobs=output.logprobs or (),
            branch_logprobs=output.branch_logprobs or (),
            prompt_tokens=output.prompt_tokens,
            request=self.asked,
            weight_version=output.weight_version,
        )


@dataclass(frozen=True)
class Scorer:
    """Makes jobs that score token ids as what a model may answer to requests.

    Attributes:
        prepare: Makes jobs of requests.
        engine: That of the model.
    """

    prepare: Preparer
    engine: Backend

    def of_tokens(
        self, asked: Sequence[AnyRequest], token_ids: Sequence[Sequence[int]]
    ) -> list[ScoreJob]:
        """The jobs of `Model.score_tokens`, for requests and the token ids of each.

        Raises:
            FileNotFoundError, ValueError, TypeError: As `Model.score_tokens`.
        """
        asked, lists = list(asked), list(map(_as_ids, token_ids))
        if len(asked) != len(lists):
            raise ValueError(
                f"there are {len(asked)} requests and {len(lists)} lists of token ids: give as many"
            )
        jobs = [
            ScoreJob(one, self._request(one, ids)) for one, ids in zip(asked, lists, strict=True)
        ]
        for job in jobs:
            self.engine.check(job.request)
        return jobs

    def of_texts(self, asked: Sequence[Caption], texts: Sequence[str]) -> list[ScoreJob]:
        """The jobs of `Model.score`, for requests and the text of each.

        Raises:
            FileNotFoundError, ValueError, TypeError: As `Model.score`.
        """
        return self.of_tokens(asked, list(map(self.prepare.family.answer_ids, texts)))

    def _request(self, asked: AnyRequest, ids: tuple[int, ...]) -> Request:
        """What the engine is asked for."""
        if isinstance(asked, TextOptions):
            # The limit is for answers that are generated. A form is kept to within it.
            least = asked.max_tokens if asked.is_structured else 0
            asked = replace(asked, max_tokens=max(least, len(ids)))
        request, most = self.prepare.job(asked).request, self.prepare.family.max_context
        prompt = len(request.branches[0].token_ids)
        if prompt + len(ids) > most:
            raise ContextFullError(prompt, len(ids), most)
        return replace(
            request,
            plan=request.plan_of(0),
            plans=(),
            n=1,
            tries=1,
            seeds=(),
            logprobs=True,
            branch_logprobs=True,
            given=ids,
        )


def pairs_of(
    pictures: PictureLike | Iterable[PictureLike], texts: str | Iterable[str]
) -> list[tuple[PictureLike, str]]:
    """Each picture with its text; one alone goes with each of the others.

    Raises:
        ValueError: There are several of both, and not as many.
        TypeError: The texts are a dict.
    """
    several, many = are_several(pictures), are_several(texts)
    left: list[PictureLike] = list(pictures) if several else [pictures]  # type: ignore[arg-type]
    right: list[str] = list(texts) if many else [texts]  # type: ignore[list-item]
    if several and many and len(left) != len(right):
        raise ValueError(f"there are {len(left)} pictures and {len(right)} texts: give as many")
    left = left if several else left * len(right)
    right = right if many else right * len(left)
    return list(zip(left, right, strict=True))


def check_asked(asked: object) -> None:
    """Raise TypeError for what is no request, such as a dict."""
    if isinstance(asked, str | bytes | Mapping) or not isinstance(asked, RequestOptions | Iterable):
        kind = type(asked).__name__
        raise TypeError(
            f"score_tokens takes a request, such as unitok.Caption(...), not one {kind}"
        )


def _as_ids(token_ids: Sequence[int]) -> tuple[int, ...]:
    if isinstance(token_ids, str | bytes):
        raise TypeError("token_ids are whole numbers, not text; score takes text")
    ids = tuple(map(index, token_ids))
    if not ids:
        raise ValueError("there are no token ids to score: give one at least")
    return ids
