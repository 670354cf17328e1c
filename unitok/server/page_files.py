"""GET /: the page, and the files that it consists of. `page/` has their sources.

The files are read when the server starts, and nothing else of the disk can be reached. They hold no
secret, so they need no key; what the page asks the API for does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
ASSETS = "/assets/"  # where the files are whose names have a hash of what they hold
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# https://www.w3.org/TR/CSP3/. Pictures are shown from the memory of the page, as blobs.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
SECURITY = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
ASK_AGAIN = "no-cache"  # whether it has changed
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        content: Its bytes.
        headers: Of the response that has it.
    """

    content: bytes
    headers: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, kind: str, cached: str) -> PageFile:
        """Read a file.

        Args:
            path: Where it is.
            kind: Its type.
            cached: How long browsers may keep it.
        """
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(
            content, {**SECURITY, "content-type": kind, "cache-control": cached, "etag": etag}
        )

    def response(self, request: Request) -> Response:
        """The response that has the file, or says that the browser has it already."""
        known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if self.headers["etag"] in known:
            return Response(status_code=304, headers=self.headers)
        return Response(self.content, headers=self.headers)


class PageFiles:
    """Answers for the page.

    Attributes:
        page: The page itself.
        assets: Its other files, by name.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read the files.

        Args:
            folder: What `make page` has built.
        """
        self.page = PageFile.read(folder / "index.html", "text/html; charset=utf-8", ASK_AGAIN)
        self.assets = {
            path.name: PageFile.read(path, TYPES[path.suffix], FOR_EVER)
            for path in sorted((folder / "assets").iterdir())
        }

    async def index(self, request: Request) -> Response:
        """The page."""
        return self.page.response(request)

    async def asset(self, request: Request) -> Response:
        """One of its other files."""
        file = self.assets.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        return file.response(request)
