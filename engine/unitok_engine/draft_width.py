"""How many tokens of each row a step runs, so that guesses pay."""

WIDTHS = (1, 2, 4, 8, 16)
FREE_ROWS = 24.0
MARGIN = 1.05  # wider steps must promise so much more: what they cost is only estimated
MEMORY = 256.0  # guesses after which an old one counts little
PRIOR = 16.0  # guesses that are taken as tried before the first one
PRIOR_RIGHT = 14.0  # of them: one picture alone begins with wide steps, which learn most


class DraftWidth:
    """One width for all rows of a step, by its load and by how often guesses were right.

    If a guess is right with probability p, a row of w tokens emits 1 + p + ... + p^(w - 1) of them
    (https://arxiv.org/abs/2211.17192). A step of r tokens takes a time proportional to f + r, where
    f is how many tokens compute as long as the weights take to read. The width is taken with which
    a step emits most tokens in its time.

    Args:
        free_rows: f above. On CPUs it was found between 15 (a large model) and 40 (a small one).
    """

    def __init__(self, free_rows: float = FREE_ROWS) -> None:
        self._free_rows = free_rows
        self._tried, self._right = PRIOR, PRIOR_RIGHT

    @property
    def acceptance(self) -> float:
        """The share of guesses that were right of late."""
        return self._right / self._tried

    def note(self, tried: int, right: int) -> None:
        """Note how guesses turned out, run or not, up to the first wrong one of a sample.

        Args:
            tried: How many there were, the wrong one included.
            right: How many of them were right.
        """
        kept = (1 - 1 / MEMORY) ** tried
        self._tried = self._tried * kept + tried
        self._right = self._right * kept + right

    def choose(self, drafted: int, others: int) -> int:
        """The width of the next step.

        Args:
            drafted: Rows that may have guesses.
            others: Rows of one token beside them.
        """
        plain = self._worth(1, drafted, others)
        best = max(WIDTHS, key=lambda width: self._worth(width, drafted, others))
        return best if self._worth(best, drafted, others) > MARGIN * plain else 1

    def _worth(self, width: int, drafted: int, others: int) -> float:
        """Tokens that a step of a width emits, by its time."""
        emitted = sum(self.acceptance**i for i in range(width))
        return (drafted * emitted + others) / (self._free_rows + others + drafted * width)
