"""Previews of drawings: pictures of the rows that are complete, before the others are."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from unitok.image_decoder import Decode, DecodeJob, ImageDecoder
from unitok.preview_budget import PreviewBudget
from unitok.requests import PREVIEW_SHARE, Draw, Edit
from unitok.terminal import one_line
from unitok_engine import GridPlan, Output, join_outputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preview:
    """A picture of a part of a drawing.

    Attributes:
        sample: The number of the drawing among those of its request.
        rows: How many rows of tokens it shows. The others are made up.
        of: How many rows the drawing will have.
        pixels: Bytes [H, W, 3].
    """

    sample: int
    rows: int
    of: int
    pixels: Tensor


@dataclass
class Shown:
    """What previews have shown of one drawing.

    Attributes:
        marks: How many of the numbers of rows at which a preview is due have been reached.
        rows: The rows of the newest preview.
        job: The newest preview, until it is decoded; None for none.
    """

    marks: int = 0
    rows: int = 0
    job: DecodeJob | None = None


class Previews:
    """Has the unfinished drawings of one request decoded, and collects their previews.

    There is at most one preview of each drawing that waits to be decoded. It always has the newest
    rows.
    """

    def __init__(
        self, asked: Draw | Edit, plan: GridPlan, decode: Decode, image_decoder: ImageDecoder
    ) -> None:
        """Nothing is drawn yet.

        Args:
            asked: Says how many previews are wanted.
            plan: What a drawing emits.
            decode: Decodes drawings, as of a `GenerationSpec`.
            image_decoder: Where they are decoded.
        """
        self._plan, self._decode, self._image_decoder = plan, decode, image_decoder
        self._marks = marks(plan.rows, asked.preview_count)
        self._share = asked.preview_budget
        if self._share is None and asked.preview_count is None:
            self._share = PREVIEW_SHARE
        self._budget: PreviewBudget | None = None  # from the first tokens on
        self._shown: dict[int, Shown] = {}

    def update(self, sample: int, outputs: Sequence[Output]) -> None:
        """Have a drawing decoded if a preview of it is due.

        Args:
            sample: Its number.
            outputs: All that was emitted for it so far.
        """
        cost, plan = self._image_decoder.preview_cost, self._plan
        budget = self._budget = self._budget or PreviewBudget(cost, self._share)
        shown = self._shown.setdefault(sample, Shown())
        rows = plan.finished_rows(outputs[-1].stop)
        due = bisect_right(self._marks, rows) if self._may_begin(rows) else 0
        if rows == shown.rows or (shown.job is None and due <= shown.marks):
            return
        token_ids = filled(plan, join_outputs(outputs).token_ids)
        if shown.job is None:
            shown.job = self._image_decoder.submit_preview(self._decode, token_ids, budget)
        elif not self._image_decoder.renew(shown.job, token_ids):
            return  # it is being decoded
        shown.marks, shown.rows = due, rows

    def _may_begin(self, rows: int) -> bool:
        """Whether a preview of so many rows may be the first.

        While it is not known what a preview costs, the budget allows one at any time. Half of the
        picture is worth more than a row.
        """
        known = self._share is None or self._image_decoder.preview_cost.is_known
        return known or 2 * rows >= self._plan.rows

    def end(self, sample: int) -> None:
        """Drop the preview of a drawing that is finished."""
        shown = self._shown.pop(sample, None)
        if shown is not None and shown.job is not None:
            self._image_decoder.cancel([shown.job.picture])

    def take(self) -> Iterator[Preview]:
        """The previews that are decoded, each once."""
        for sample, shown in self._shown.items():
            if shown.job is not None and shown.job.picture.done():
                picture, shown.job = shown.job.picture, None
                if self._is_whole(picture):
                    yield Preview(sample, shown.rows, self._plan.rows, picture.result())

    @property
    def pictures(self) -> tuple[Future[Tensor], ...]:
        """The previews that are to be decoded."""
        return tuple(shown.job.picture for shown in self._shown.values() if shown.job is not None)

    def _is_whole(self, picture: Future[Tensor]) -> bool:
        """Whether a preview could be decoded. If not, there are no more of them."""
        if picture.cancelled():
            return False
        error = picture.exception()
        if error is not None:
            logger.warning("there are no more previews, as one failed: %s", one_line(error))
            self._marks = ()
        return error is None


def marks(rows: int, count: int | None) -> tuple[int, ...]:
    """After which rows of a picture a preview is due.

    Args:
        rows: How many rows the picture has.
        count: How many previews are wanted, spread evenly; None for one after each row.
    """
    if count is None:
        return tuple(range(1, rows))
    spread = {round(rows * number / (count + 1)) for number in range(1, count + 1)}
    return tuple(sorted(spread - {0, rows}))


def filled(plan: GridPlan, emitted: Sequence[int]) -> list[int]:
    """The tokens of a whole picture, of those that the first rows have.

    In the place of the rest stands what the plan knows of it, else the most frequent of them, which
    is mostly of the background.

    Args:
        plan: The picture's.
        emitted: Its tokens so far; those of a row that is not complete are left out.
    """
    painted = list(emitted[: plan.finished_rows(len(emitted)) * plan.row_length])
    (usual, _), *_ = Counter(plan.image_ids(painted)).most_common(1)
    tokens = painted + [usual] * (plan.max_length - len(painted))
    for row in range(len(painted) // plan.row_length, plan.rows if plan.known else 0):
        here = plan.known[row * plan.columns : (row + 1) * plan.columns]
        start = row * plan.row_length
        tokens[start : start + plan.columns] = [usual if id is None else id for id in here]
    return tokens
