"""Which of several texts is true of a picture: what a CLIP can be asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from unitok.baselines.asking import run_in_batches
from unitok.baselines.protocols import ImageTextScorer
from unitok.results import Result, TextResult

BATCH = 32  # pictures that are scored at once, with the texts of all of them


@dataclass(frozen=True)
class Match:
    """A picture and texts, of which the one that matches best is wanted.

    Attributes:
        image: The picture.
        texts: What it is matched with, each once.
    """

    image: Image.Image = field(repr=False)
    texts: tuple[str, ...]


class ScorerRunner:
    """Lets a CLIP answer `Match` requests with the text of the highest score. It is a `Runner`."""

    def __init__(self, scorer: ImageTextScorer) -> None:
        """Keep the scorer."""
        self.scorer = scorer

    @property
    def name(self) -> str:
        """See `Runner`."""
        return self.scorer.name

    def run(self, requests: Iterable[Match]) -> Iterator[Result]:
        """Results with the text that was chosen, in batches.

        They carry no `request`, as a `Match` is none that a model of ours takes.
        """
        return run_in_batches(self._answer, requests, BATCH, _alike)

    def close(self) -> None:
        """There is nothing to free that does not go with the scorer."""

    def _answer(self, asked: Sequence[Match]) -> list[TextResult]:
        before = time.perf_counter()
        texts = list(dict.fromkeys(text for one in asked for text in one.texts))
        place = {text: index for index, text in enumerate(texts)}
        scores = self.scorer.score([one.image for one in asked], texts)
        seconds = (time.perf_counter() - before) / len(asked)
        chosen = [
            max(one.texts, key=lambda text, row=row: float(row[place[text]]))
            for one, row in zip(asked, scores, strict=True)
        ]
        return [TextResult(text, 0, "stop", 0, 0, seconds) for text in chosen]


def _alike(asked: object) -> None:
    """All requests go together; TypeError for one of another kind."""
    if not isinstance(asked, Match):
        raise TypeError(f"a CLIP takes Match requests, not {type(asked).__name__}")
