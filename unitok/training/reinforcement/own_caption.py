"""The reward of a drawing that the model itself captions as it was asked: 1, or else 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unitok.api import Model
from unitok.requests import Draw
from unitok.results import DrawResult, Result
from unitok.training.reinforcement.exact_answer import plain
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.rewards import Pair

Alike = Callable[[str, str], bool]
"""Whether a caption says the same as a text that was asked for."""


def reads_alike(caption: str, wanted: str) -> bool:
    """Whether two texts are the same, whatever their case and their last stop."""
    return plain(caption) == plain(wanted)


class OwnCaption:
    """1 for a drawing whose caption says what was asked for.

    That is the prompt, or the "answer" that stands beside it. The caption is the likeliest one of
    the model with its present weights.
    """

    def __init__(self, model: Model, alike: Alike = reads_alike) -> None:
        """Keep the model.

        Args:
            model: Captions the drawings.
            alike: Compares the caption with each text that would be right.
        """
        self._model, self._alike = model, alike

    def __call__(self, prompt: Prompt, result: Result) -> float:
        """The reward of one drawing."""
        return self.many([(prompt, result)])[0]

    def many(self, pairs: Sequence[Pair]) -> list[float]:
        """The reward of each drawing.

        Raises:
            TypeError: A result is no drawing.
            RuntimeError: The model failed.
        """
        captions = self._model.caption([drawing_of(result).image for _, result in pairs])
        return [
            float(any(self._alike(caption.text, wanted) for wanted in wanted_of(prompt)))
            for (prompt, _), caption in zip(pairs, captions, strict=True)
        ]


def drawing_of(result: Result) -> DrawResult:
    """A result that is a drawing; TypeError if it is none."""
    if not isinstance(result, DrawResult):
        raise TypeError("it judges drawings, not answers")
    return result


def wanted_of(prompt: Prompt) -> tuple[str, ...]:
    """The texts that a drawing's caption may be."""
    asked = prompt.request
    return prompt.answers or ((asked.prompt,) if isinstance(asked, Draw) else ())
