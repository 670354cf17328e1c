"""Who guesses the tokens that come next, so that a step may run several of a sequence at once."""

from collections.abc import Sequence
from typing import Protocol

from unitok_engine.request import Request


class Drafter(Protocol):
    """Guesses the next tokens of samples.

    Guesses change no result: a token is emitted only if it is what would have been sampled one by
    one. They cost rows of a step, and save steps where they are right.
    """

    def propose(self, request: Request, emitted: Sequence[int], /) -> Sequence[int]:
        """Guesses at the next tokens of a sample; there may be none.

        It is called before each step for each sample that decodes, in the thread that steps. What
        it raises, the step raises.

        Args:
            request: Whose sample it is.
            emitted: What the sample emitted so far; it must not be changed.

        Returns:
            The tokens that may be sampled next, in order. Those that the plan forces are left out.
        """
        ...
