"""The reward of an answer that is right: 1, or else 0."""

from unitok.results import Result, TextResult
from unitok.training.reinforcement.prompts import Prompt


class ExactAnswer:
    """1 for an answer that is one of those of its prompt, whatever its case and its last stop."""

    def __call__(self, prompt: Prompt, result: Result) -> float:
        """See the class.

        Raises:
            TypeError: The result is no text.
            ValueError: The prompt has no "answer".
        """
        if not isinstance(result, TextResult):
            raise TypeError("it judges answers, not drawings")
        if not prompt.answers:
            raise ValueError(f'{prompt.name}: there is no "answer" to compare with')
        return float(plain(result.text) in map(plain, prompt.answers))


def plain(text: str) -> str:
    """A text in lower case, with single spaces and without its last stop."""
    return " ".join(text.lower().split()).removesuffix(".")
