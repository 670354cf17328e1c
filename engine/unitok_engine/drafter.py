"""Who guesses the tokens that come next, so that a step may run several of a sequence at once."""

from collections.abc import Sequence
from typing import Protocol

from unitok_engine.request import Request


class SampleDrafter(Protocol):
    """Guesses the next tokens of one sample of a request."""

    def propose(self, emitted: Sequence[int], most: int, /) -> Sequence[int]:
        """Guesses at the next tokens.

        It is called before each step in which the sample may decode, even if none may be run.

        Args:
            emitted: What the sample emitted so far; it must not be changed.
            most: How many guesses may be run.

        Returns:
            The tokens that may be sampled next, in order. Those that the plan forces or gives are
            left out.
        """
        ...

    def sampled(
        self, emitted: Sequence[int], guesses: Sequence[int], tokens: Sequence[int], /
    ) -> None:
        """Be told what a step sampled, right or wrong guesses before it, without given tokens.

        Args:
            emitted: What the sample had emitted before the step; it must not be changed.
            guesses: Those that ran.
            tokens: Of the model: the token at index i follows on `guesses[:i]`. So the first one is
                emitted, and each next one as long as the guesses before it are what was sampled.
        """
        ...


class Drafter(Protocol):
    """Guesses the next tokens of samples.

    Guesses change no result: a token is emitted only if it is what would have been sampled one by
    one. They cost rows of a step, and save steps where they are right. All methods are called in
    the thread that steps. What they raise, the step raises.
    """

    def begin(self, request: Request, /) -> SampleDrafter | None:
        """Who guesses the tokens of a new sample; None if nobody does."""
        ...

    def width(self, drafted: int, others: int, /) -> int:
        """How many tokens of each branch the next step may run, one of them no guess.

        Args:
            drafted: Branches that decode, of samples with a drafter.
            others: The other branches that decode.
        """
        ...


def agreeing(guesses: Sequence[int], tokens: Sequence[int]) -> int:
    """How many guesses are what was sampled, up to the first that is not."""
    right = 0
    for guess, token in zip(guesses, tokens, strict=False):
        if guess != token:
            break
        right += 1
    return right
