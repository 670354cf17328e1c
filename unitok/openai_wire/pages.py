"""Lists that are read page by page: what a query asks for, and the body of a page."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from unitok.openai_wire.body import WireError, check_known
from unitok.strict_json import JsonObject, shown_json

_NUMBER = re.compile(r"[0-9]{1,9}")


class Item(Protocol):
    """A thing of a list."""

    @property
    def id(self) -> str:
        """Its id, which no other has."""
        ...


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(frozen=True)
class PageAsked:
    """The page that a query asks for.

    Attributes:
        limit: The most things of it.
        after: The id of the thing before its first one; None for the beginning.
        ascending: Whether the oldest thing comes first.
        purpose: What the things are to be for; None for all.
    """

    limit: int
    after: str | None = None
    ascending: bool = False
    purpose: str | None = None


def page_of(
    query: Iterable[tuple[str, str]], limit: int, most: int, also: Sequence[str] = ()
) -> PageAsked:
    """The page that a query asks for.

    Args:
        query: The keys and values of the query.
        limit: How many things a page has, unless asked otherwise.
        most: How many it may have.
        also: Which of "order" and "purpose" may be there too.

    Raises:
        WireError: A key is unknown, there twice, or wrong.
    """
    given: dict[str, str] = {}
    for name, value in query:
        check_known((name,), ("limit", "after", *also))
        if name in given:
            raise WireError(f'"{name}" is given twice', name)
        given[name] = value
    if (order := given.get("order", "desc")) not in ("asc", "desc"):
        raise WireError(f'"order" must be "asc" or "desc", not {shown_json(order)}', "order")
    return PageAsked(
        _limit(given["limit"], most) if "limit" in given else limit,
        given.get("after"),
        order == "asc",
        given.get("purpose"),
    )


@dataclass(frozen=True)
class Page(Generic[I]):
    """A part of a list.

    Attributes:
        items: Its things.
        more: Whether others follow.
    """

    items: Sequence[I]
    more: bool

    def body(self, body_of: Callable[[I], JsonObject]) -> JsonObject:
        """The body of the page.

        Args:
            body_of: What is told of a thing.
        """
        return {
            "object": "list",
            "data": [body_of(item) for item in self.items],
            "first_id": self.items[0].id if self.items else None,
            "last_id": self.items[-1].id if self.items else None,
            "has_more": self.more,
        }


def page_body(
    items: Sequence[I], asked: PageAsked, body_of: Callable[[I], JsonObject]
) -> JsonObject:
    """The body of a page.

    Args:
        items: All things, the newest one first.
        asked: What was asked for.
        body_of: What is told of a thing.

    Raises:
        WireError: There is no thing that the page is to begin after.
    """
    return page_at(items, asked).body(body_of)


def page_at(items: Sequence[I], asked: PageAsked) -> Page[I]:
    """A page of a list.

    Args:
        items: All things, the newest one first.
        asked: What was asked for.

    Raises:
        WireError: There is no thing that the page is to begin after.
    """
    items = items[::-1] if asked.ascending else items
    start = 0 if asked.after is None else _place(items, asked.after) + 1
    end = start + asked.limit
    return Page(items[start:end], end < len(items))


def _place(items: Sequence[Item], id: str) -> int:
    for place, item in enumerate(items):
        if item.id == id:
            return place
    raise WireError(f'"after": there is no {shown_json(id)} in this list', "after")


def _limit(text: str, most: int) -> int:
    if not (_NUMBER.fullmatch(text) and 1 <= int(text) <= most):
        raise WireError(f'"limit" must be from 1 to {most:,}, not {shown_json(text)}', "limit")
    return int(text)
