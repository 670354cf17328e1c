"""What is known of a file that the server keeps."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from unitok.strict_json import JsonObject

FILE_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredFile:
    """What is known of a file.

    Attributes:
        id: Its id, which cannot be guessed.
        owner: The id of the owner.
        bytes: Its size.
        created: The time, in nanoseconds since 1970.
        filename: What its owner calls it. It is never a path here.
        purpose: What it is for.
    """

    id: str
    owner: str
    bytes: int
    created: int
    filename: str
    purpose: str

    @property
    def body(self) -> JsonObject:
        """The object that tells of it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created // 10**9,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": None,
        }


def new_id() -> str:
    """An id for a file."""
    return f"file-{secrets.token_hex(16)}"


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file into a second path, where it stays even if it is deleted in the first one.

    Raises:
        OSError: The disk does not take it.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # this disk has no hard links
        shutil.copyfile(source, target)
