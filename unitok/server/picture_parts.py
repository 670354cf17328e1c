"""Pictures in bodies: data URLs, and addresses of hosts that the server may fetch from.

A path would be one of the server's own files, so only what carries its pixels in the body is read,
unless hosts are allowed by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from unitok.openai_wire.body import WireError
from unitok.picture_sources import is_data_uri
from unitok.strict_json import shown_json

PARTS = {"image_url": "image_url", "input_image": "image_url"}  # types, and the key of the source


class Fetcher(Protocol):
    """Fetches pictures from hosts that are allowed."""

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes of a picture.

        Raises:
            ApiError: The host is not allowed, or the picture cannot be had.
        """
        ...


async def with_pictures(
    messages: object,
    fetcher: Fetcher | None,
    file_of: Callable[[str, str], bytes] | None = None,
    name: str = "messages",
) -> object:
    """Messages in which every picture is a data URL, or its bytes.

    What is wrong in another way stays, for `unitok.messages` to refuse.

    Args:
        messages: The messages.
        fetcher: Fetches addresses; None if no host is allowed.
        file_of: The bytes of an uploaded file, by its id and the place of the part; None if there
            are no files.
        name: What the messages are called in errors.

    Raises:
        WireError: A picture is given in another way.
        ApiError: A picture cannot be fetched.
    """
    if not isinstance(messages, list):
        return messages
    made = []
    for i, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            parts = [
                await _part(part, fetcher, file_of, f"{name}[{i}].content[{j}]")
                for j, part in enumerate(content)
            ]
            message = {**message, "content": parts}
        made.append(message)
    return made


async def _part(
    part: object,
    fetcher: Fetcher | None,
    file_of: Callable[[str, str], bytes] | None,
    place: str,
) -> object:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "image":
        raise WireError(
            f'{place}: a picture is of type "image_url", or "input_image" in responses',
            f"{place}.type",
        )
    if not isinstance(kind, str) or kind not in PARTS:
        return part
    if file_of is not None and kind == "input_image" and part.get("file_id") is not None:
        return _from_file(part, file_of, place)
    source, param = source_of(part, place)
    if not isinstance(source, str) or is_data_uri(source):
        return part
    return {"type": "image", "image": await fetched(source, fetcher, param)}


def _from_file(
    part: Mapping[str, Any], file_of: Callable[[str, str], bytes], place: str
) -> dict[str, Any]:
    if part.get("image_url") is not None:
        raise WireError(f"{place}: give image_url or file_id, not both", place)
    file_id = part["file_id"]
    if not isinstance(file_id, str):
        raise WireError(f"{place}: file_id must be text, not {shown_json(file_id)}", place)
    return {"type": "image", "image": file_of(file_id, f"{place}.file_id")}


def source_of(part: Mapping[str, Any], place: str) -> tuple[object, str]:
    """Where the picture of a part is, and the place of that in the body."""
    source, param = part.get("image_url"), f"{place}.image_url"
    if isinstance(source, dict):
        return source.get("url"), f"{param}.url"
    return source, param


async def fetched(source: str, fetcher: Fetcher | None, param: str) -> bytes:
    """The bytes of a picture that is given by its address.

    Raises:
        WireError: It is no address, or no host is allowed.
        ApiError: It cannot be fetched.
    """
    if fetcher is None or not source.lower().startswith(("http://", "https://")):
        wanted = "a data URL (data:image/png;base64,...)"
        if fetcher is not None:
            wanted += " or an https address of an allowed host"
        raise WireError(
            f"{param}: a picture must be {wanted}, not {shown_json(source)}",
            param,
            "invalid_image_url",
        )
    return await fetcher.fetch(source, param)
