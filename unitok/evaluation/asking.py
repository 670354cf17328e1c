"""Which items of a suite are asked, and with which options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from unitok.evaluation.matching import Match
from unitok.evaluation.run import with_options
from unitok.evaluation.suite import Item
from unitok.requests import check_ranges, options_of, unknown_option

FIXED = ("n", "question", "prompt")  # options of requests that the items decide


def fitting(items: Sequence[Item], takes: tuple[type, ...], who: str) -> list[Item]:
    """The items that a model can be asked.

    Raises:
        ValueError: There are none.
    """
    found = [item for item in items if isinstance(item.request, takes)]
    if not found:
        raise ValueError(f"the suite asks nothing that {who} does; name another one by --model")
    return found


def takeable(
    items: Sequence[Item], can_take: Callable[[Any], bool], who: str
) -> tuple[list[Item], list[str]]:
    """The items that an opened model can be asked, and a note on those that are left out.

    Raises:
        ValueError: There are none.
    """
    found = [item for item in items if can_take(item.request)]
    if not found:
        raise ValueError(f"the suite asks nothing that {who} does; name another one by --model")
    left_out = len(items) - len(found)
    return found, [left_out_note(left_out, who)] if left_out else []


def left_out_note(count: int, who: str) -> str:
    """What a report says of items that a model is not asked."""
    return f"{count:,} items are left out, as {who} cannot do them."


def only_groups(items: Sequence[Item], patterns: Sequence[str]) -> list[Item]:
    """The items of some groups, or all if there are no patterns.

    Raises:
        ValueError: A pattern fits no group.
    """
    groups = list(dict.fromkeys(item.group for item in items))
    for pattern in patterns:
        if not any(fnmatchcase(group, pattern) for group in groups):
            raise ValueError(f"--only {pattern}: the groups are {', '.join(groups)}")
    if not patterns:
        return list(items)
    return [i for i in items if any(fnmatchcase(i.group, pattern) for pattern in patterns)]


def split_options(
    items: Sequence[Item], given: dict[str, Any], baseline: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of requests, and those of a baseline, which are all others.

    Raises:
        ValueError: An option is decided by the items, or it is unknown and there is no baseline.
    """
    known = {name for kind in {type(i.request) for i in items} for name in options_of(kind)}
    for name in given:
        if name in FIXED:
            raise ValueError(f"--set {name}: the suite decides this")
        if name not in known and not baseline:
            raise ValueError(f"--set: there is {unknown_option(name, sorted(known - {*FIXED}))}")
    of_requests = {name: value for name, value in given.items() if name in known}
    return of_requests, {name: value for name, value in given.items() if name not in known}


def with_checked_options(items: Sequence[Item], options: dict[str, Any]) -> list[Item]:
    """The items with options of their requests.

    Raises:
        TypeError: An option is of a wrong type.
        ValueError: It is out of its range.
    """
    made = with_options(items, options)
    for request in {type(item.request): item.request for item in made}.values():
        if not isinstance(request, Match):  # it has no options
            check_ranges(request)
    return made
