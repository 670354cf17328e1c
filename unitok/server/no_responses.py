"""Stands in for the store of responses where none are kept: behind an address of many replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from unitok.openai_wire.responses_input import Item
from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.strict_json import JsonObject

CODE = "responses_not_kept"


class NoResponses:
    """Keeps no responses, and refuses what asks for one.

    The next request of a client may reach another replica, which would know nothing of what this
    one keeps.
    """

    def add(self, owner: Owner, body: JsonObject, read: Sequence[Item], written: Item) -> None:
        """Keep nothing."""

    def find(self, owner: Owner, id: str, param: str | None = None) -> NoReturn:
        """Refuse; see `ResponseStore.find`."""
        raise not_kept(param)

    def item(self, owner: Owner, id: str, param: str) -> NoReturn:
        """Refuse; see `ResponseStore.item`."""
        raise not_kept(param)

    def remove(self, owner: Owner, id: str) -> NoReturn:
        """Refuse; see `ResponseStore.remove`."""
        raise not_kept(None)


def not_kept(param: str | None) -> ApiError:
    """The error of what needs a response that was kept.

    Args:
        param: The key of the body that asks for it; None if the path does.
    """
    told = (
        "this address has several replicas, which keep no responses: send the whole conversation "
        "as input, each time"
    )
    return ApiError(404 if param is None else 400, told, param=param, code=CODE)
