"""How many tokens are generated in a second, while there is work."""

from collections import deque

WINDOW = 10.0  # seconds that are looked back at
SPACING = 1.0  # seconds between marks, at least


class Throughput:
    """Measures generated tokens over the last seconds in which there was work.

    Its marks lie one second apart, and the oldest one is about ten seconds old.
    """

    def __init__(self) -> None:
        """Nothing was generated yet."""
        self._marks: deque[tuple[float, int]] = deque()  # times and tokens, the oldest first
        self._last = (0.0, 0)
        self._resting = True

    def begin(self, now: float, tokens: int) -> None:
        """Note that a step begins. After a rest, all earlier ones are forgotten.

        Args:
            now: The time in seconds.
            tokens: The tokens that were ever generated.
        """
        if self._resting:
            self._resting = False
            self._last = (now, tokens)
            self._marks = deque([self._last])

    def note(self, now: float, tokens: int) -> None:
        """Note that a step has ended; the arguments are those of `begin`."""
        self._last = (now, tokens)
        if now - self._marks[-1][0] >= SPACING:
            self._marks.append(self._last)
        while len(self._marks) > 1 and now - self._marks[1][0] >= WINDOW:
            self._marks.popleft()

    def rest(self) -> None:
        """Note that there is no more work. The rate stays as it is until there is some again."""
        self._resting = True

    @property
    def rate(self) -> float:
        """Tokens per second: over the last 10 seconds, or since the work began if that is less."""
        marks = self._marks
        if not marks:
            return 0.0
        (start, before), (end, after) = marks[0], self._last
        return (after - before) / (end - start) if end > start else 0.0
