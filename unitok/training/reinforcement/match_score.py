"""The reward of a drawing that matches its prompt, by a CLIP (https://arxiv.org/abs/2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence

from unitok.baselines.protocols import ImageTextScorer
from unitok.results import Result
from unitok.training.reinforcement.own_caption import drawing_of, wanted_of
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.rewards import Pair


class MatchScore:
    """The cosine between a drawing and its prompt, or the first "answer" beside it, in [-1, 1]."""

    def __init__(self, scorer: ImageTextScorer) -> None:
        """scorer: Embeds pictures and texts."""
        self._scorer = scorer

    def __call__(self, prompt: Prompt, result: Result) -> float:
        """The reward of one drawing."""
        return self.many([(prompt, result)])[0]

    def many(self, pairs: Sequence[Pair]) -> list[float]:
        """The reward of each drawing; TypeError if a result is none."""
        texts = [wanted_of(prompt)[0] for prompt, _ in pairs]
        seen = self._scorer.image_features([drawing_of(result).image for _, result in pairs])
        read = self._scorer.text_features(texts)
        return (seen * read).sum(1).tolist()
