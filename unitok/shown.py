"""How a caller's value is shown in a message: on one line, and briefly, whatever it is."""

from reprlib import Repr

_DIGITS = 40  # of a whole number that is shown whole


class _Brief(Repr):
    """A repr of bounded length, which Python's limit on the digits of a number does not stop."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_int(self, x: int, level: int) -> str:
        """A whole number or, if it is huge, its size."""
        if abs(x) < 10**_DIGITS:
            return super().repr_int(x, level)
        return f"a number of more than {_DIGITS} digits"


_BRIEF = _Brief()


def shown(value: object) -> str:
    """A value in at most a few dozen characters, on one line."""
    return " ".join(_BRIEF.repr(value).split())
