"""Keeps responses in memory, so that conversations can go on from them. Each has an owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unitok.openai_wire.responses_input import Item, size_of
from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.server.settings import ServerSettings
from unitok.strict_json import JsonObject, shown_json

REFERENCE = 8  # bytes


@dataclass(frozen=True)
class StoredResponse:
    """A response that has ended.

    Attributes:
        id: Its id.
        body: Its body, without its output.
        read: The items that the model read: all of the conversation.
        written: The item that it wrote.
        since: When it was stored, on the store's clock.
    """

    id: str
    body: JsonObject
    read: Sequence[Item]
    written: Item
    since: float

    @property
    def told(self) -> JsonObject:
        """Its body."""
        return {**self.body, "output": [self.written.told]}

    @property
    def items(self) -> list[Item]:
        """The conversation, as the next response goes on from it."""
        return [*self.read, self.written]

    @property
    def size(self) -> int:
        """Its own bytes in memory, about, without its items."""
        return size_of(self.body) + REFERENCE * len(self.read)


@dataclass
class Shelf:
    """The responses of one owner, the oldest one first.

    Responses of one conversation share its items, so an item counts as long as one of them is here.

    Attributes:
        responses: The responses, by id.
        size: Their bytes in memory, about.
    """

    responses: dict[str, StoredResponse] = field(default_factory=dict)
    size: int = 0
    _items: dict[str, tuple[Item, int]] = field(default_factory=dict)  # and in how many responses

    def add(self, response: StoredResponse) -> None:
        """Put a response at the end."""
        self.responses[response.id] = response
        self.size += response.size
        for item in unique(response.items):
            _, count = self._items.get(item.id, (item, 0))
            self._items[item.id] = item, count + 1
            self.size += 0 if count else item.size

    def remove(self, id: str) -> None:
        """Take a response away, and those of its items that no other has."""
        response = self.responses.pop(id)
        self.size -= response.size
        for item in unique(response.items):
            kept, count = self._items.pop(item.id)
            if count > 1:
                self._items[item.id] = kept, count - 1
            else:
                self.size -= kept.size

    def item(self, id: str) -> Item | None:
        """An item; None if there is none of this id."""
        return self._items.get(id, (None, 0))[0]


class ResponseStore:
    """The responses of all owners, within limits. The oldest ones make room for new ones.

    If all of them together are too many or too large, the owner who has most makes room. It belongs
    to the event loop's thread.
    """

    def __init__(
        self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep nothing yet.

        Args:
            settings: The limits.
            clock: Tells the time in seconds.
        """
        self.settings, self._clock = settings, clock
        self._shelves: dict[Owner, Shelf] = {}
        self._ages: dict[str, Owner] = {}  # the ids of all responses, the oldest one first

    @property
    def count(self) -> int:
        """How many responses are kept."""
        return len(self._ages)

    @property
    def size(self) -> int:
        """Their bytes in memory, about."""
        return sum(shelf.size for shelf in self._shelves.values())

    def add(self, owner: Owner, body: JsonObject, read: Sequence[Item], written: Item) -> None:
        """Keep a response.

        Args:
            owner: Whose it is.
            body: Its body.
            read: The items that the model read.
            written: The item that it wrote.
        """
        rest = {name: value for name, value in body.items() if name != "output"}
        response = StoredResponse(body["id"], rest, tuple(read), written, self._clock())
        self._shelves.setdefault(owner, Shelf()).add(response)
        self._ages[response.id] = owner
        self._make_room(owner)

    def find(self, owner: Owner, id: str, param: str | None = None) -> StoredResponse:
        """A response of an owner.

        Args:
            owner: Who asks for it.
            id: Its id.
            param: The key that names it, if a body does.

        Raises:
            ApiError: There is none, or it is of another owner.
        """
        self._drop_old()
        shelf = self._shelves.get(owner, Shelf())
        if id not in shelf.responses:
            raise missing(f"there is no response {shown_json(id)}", param, "response_not_found")
        return shelf.responses[id]

    def item(self, owner: Owner, id: str, param: str) -> Item:
        """An item of a response of an owner.

        Args:
            owner: Who asks for it.
            id: Its id.
            param: The key that names it.

        Raises:
            ApiError: There is none, or it is of another owner.
        """
        self._drop_old()
        found = self._shelves.get(owner, Shelf()).item(id)
        if found is None:
            raise missing(f"there is no item {shown_json(id)}", param, "item_not_found")
        return found

    def remove(self, owner: Owner, id: str) -> None:
        """Drop a response of an owner.

        Raises:
            ApiError: There is none, or it is of another owner.
        """
        self._remove(self.find(owner, id).id)

    def _make_room(self, owner: Owner) -> None:
        self._drop_old()
        settings, shelf = self.settings, self._shelves[owner]
        while len(shelf.responses) > settings.max_responses_per_key:
            self._remove(next(iter(shelf.responses)))
        while self.count > settings.max_responses:
            self._remove_oldest(lambda shelf: len(shelf.responses))
        while self.count and self.size > settings.max_response_bytes:
            self._remove_oldest(lambda shelf: shelf.size)

    def _drop_old(self) -> None:
        oldest = self._clock() - self.settings.keep_seconds
        while self._ages:
            id, owner = next(iter(self._ages.items()))
            if self._shelves[owner].responses[id].since > oldest:
                return
            self._remove(id)

    def _remove_oldest(self, most: Callable[[Shelf], int]) -> None:
        """Remove the oldest response of who has most."""
        shelf = max(self._shelves.values(), key=most)
        self._remove(next(iter(shelf.responses)))

    def _remove(self, id: str) -> None:
        owner = self._ages.pop(id)
        shelf = self._shelves[owner]
        shelf.remove(id)
        if not shelf.responses:
            del self._shelves[owner]


def unique(items: Sequence[Item]) -> list[Item]:
    """Items without those that are there again."""
    return list({item.id: item for item in items}.values())


def missing(message: str, param: str | None, code: str) -> ApiError:
    """The error of what is not there, or is another's, which looks the same."""
    told = f"{message}: it was never kept, was deleted, or is too old"
    return ApiError(404, told, param=param, code=code)
