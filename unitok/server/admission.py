"""Admission: how much is on its way at once. What has no room is refused at once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from unitok.server.errors import ApiError, overloaded
from unitok.server.keys import Owner
from unitok.server.settings import ServerSettings

MEMORY = 256  # ends of requests that the rate is made of
LONGEST = 120  # seconds; OpenAI's clients wait no longer


class Admission:
    """Counts the answers and pictures that are on their way, and the bytes of their bodies.

    It belongs to the event loop's thread.

    Attributes:
        admitted: How many are on their way.
        rejected: How many requests were refused so far.
        draining: Whether nothing new is taken in.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Nothing is on its way yet."""
        self.settings = settings
        self.admitted = self.rejected = 0
        self.draining = False
        self._bytes = 0
        self._of_owner: Counter[Owner] = Counter()
        self._ends: deque[tuple[float, int]] = deque(maxlen=MEMORY)

    def enter(self, owner: Owner) -> Ticket:
        """Take a request in, as one answer or picture.

        Raises:
            ApiError: There is no room, or the server is about to end.
        """
        if self.draining:
            self.rejected += 1
            raise ApiError(
                503,
                "the server is about to end",
                code="shutting_down",
                headers={"retry-after": "5", "connection": "close"},
            )
        ticket = Ticket(self, owner)
        ticket.count(1)
        return ticket

    def visit(self, owner: Owner) -> Ticket:
        """Take in a request that makes no answer and no picture. Only its bytes count."""
        return Ticket(self, owner)

    @property
    def retry_after(self) -> int:
        """The seconds after which there is likely to be room, by the rate of the last ends."""
        if len(self._ends) < 2:
            return 1
        seconds = time.monotonic() - self._ends[0][0]
        rate = sum(units for _, units in self._ends) / max(seconds, 1e-3)
        return max(1, min(LONGEST, round(self.admitted / 2 / rate)))

    def _add(self, owner: Owner, units: int) -> None:
        settings = self.settings
        if self.admitted + units > settings.max_requests:
            self.rejected += 1
            raise overloaded(
                f"the server has {self.admitted} of {settings.max_requests} answers and pictures "
                "on their way, and no room for more: try again later",
                self.retry_after,
            )
        mine, most = self._of_owner[owner], settings.max_per_key
        if most is not None and mine + units > most:
            self.rejected += 1
            raise overloaded(
                f"{mine} answers and pictures of this key are on their way, and it may have {most} "
                "at once: try again later",
                self.retry_after,
                429,
            )
        self.admitted += units
        self._of_owner[owner] += units

    def _remove(self, owner: Owner, units: int) -> None:
        self.admitted -= units
        self._of_owner[owner] -= units
        if not self._of_owner[owner]:
            del self._of_owner[owner]
        self._ends.append((time.monotonic(), units))


@dataclass
class Ticket:
    """The admission of one request. Leaving gives its room back.

    Attributes:
        admission: Who gave it.
        owner: Whose the request is.
    """

    admission: Admission
    owner: Owner
    _units: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _last: list[Callable[[], object]] = field(default_factory=list, init=False)

    def count(self, units: int) -> None:
        """Note that the request is for so many answers or pictures in all.

        Raises:
            ApiError: There is no room for so many.
        """
        if units > self._units:
            self.admission._add(self.owner, units - self._units)
            self._units = units

    def hold(self, size: int) -> None:
        """Note that so many more bytes of the request are in memory.

        Raises:
            ApiError: All requests together have too many.
        """
        admission = self.admission
        if admission._bytes + size > admission.settings.max_bodies:
            admission.rejected += 1
            raise overloaded(
                "the bodies of other requests fill the memory for them: try again later",
                admission.retry_after,
            )
        admission._bytes += size
        self._bytes += size

    def answer(self, size: int) -> None:
        """Note that the request was answered: its own bytes are gone, and the answer's are there.

        Args:
            size: The bytes of the answer, which is made already and so finds room in any case.
        """
        if size:
            self.admission._bytes += size - self._bytes
            self._bytes = size

    def at_leaving(self, call: Callable[[], object]) -> None:
        """Have something called when the request leaves."""
        self._last.append(call)

    def leave(self) -> None:
        """Give the room back. Leaving again does nothing."""
        while self._last:
            self._last.pop()()
        if self._units:
            self.admission._remove(self.owner, self._units)
        self.admission._bytes -= self._bytes
        self._units = self._bytes = 0
