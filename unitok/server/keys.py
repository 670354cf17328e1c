"""API keys: who may use the server, and whose a response, a file or a batch is."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from unitok.server.errors import ApiError

MIN_KEY = 16  # characters; fewer can be guessed
MAX_KEYS = 10_000


@dataclass(frozen=True)
class Owner:
    """Who sent a request.

    Attributes:
        id: Different for different keys, and no secret; "" if the server has no keys.
    """

    id: str = ""


ANYBODY = Owner()


class ApiKeys:
    """The keys of a server. Only their digests are kept.

    Without any key, everybody may use the server.
    """

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        """Keep the digests of keys."""
        self._digests = tuple(map(_digest, keys))

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """The keys of a file: one on each line. Empty lines and those that begin with # are none.

        Raises:
            OSError: The file cannot be read.
            ValueError: It has no key, or one that is too short, twice there, or not plain text.
        """
        keys: dict[str, int] = {}
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            key = line.strip().decode("latin-1")
            if not key or key.startswith("#"):
                continue
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise ValueError(f"{path}, line {number}: a key is of plain letters, with no blank")
            if len(key) < MIN_KEY:
                raise ValueError(
                    f"{path}, line {number}: the key has fewer than {MIN_KEY} characters"
                )
            if key in keys:
                raise ValueError(f"{path}, line {number}: the key of line {keys[key]} again")
            keys[key] = number
        if not 0 < len(keys) <= MAX_KEYS:
            raise ValueError(f"{path} has {len(keys):,} keys; give 1 to {MAX_KEYS:,}, one a line")
        return cls(tuple(keys))

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: str | None) -> Owner:
        """Whose a request is.

        All keys are compared, each in constant time, so that the time tells nothing of them.

        Args:
            authorization: The request's header of this name.

        Raises:
            ApiError: The server has keys, and the header has none of them.
        """
        if not self._digests:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _refused("give an API key, as in the header: Authorization: Bearer KEY")
        given, found = _digest(key.strip()), None
        for digest in self._digests:
            if hmac.compare_digest(digest, given):
                found = digest
        if found is None:
            raise _refused("this API key is not known")
        return Owner(hashlib.sha256(found).hexdigest()[:24])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _refused(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
