"""The gate that every request passes: its id, its headers, its key, its log line, its errors."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitok.openai_wire.body import WireError
from unitok.server.errors import ApiError, ClientGone, of_status, of_wire
from unitok.server.keys import ANYBODY, ApiKeys, Owner
from unitok.server.page_files import ASSETS
from unitok.server.settings import ServerSettings

logger = logging.getLogger(__name__)

# What anybody may ask for. All else needs a key, if the server has any.
OPEN = ("/", "/health", "/ready")
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class Passage:
    """What the server knows of one request, from its first byte to its last.

    Attributes:
        id: The request's id, which the response's x-request-id has.
        owner: Whose it is.
        log: What its log line says beside the usual: numbers and names, never what was said.
    """

    id: str
    owner: Owner = ANYBODY
    log: dict[str, Any] = field(default_factory=dict)


class Gate:
    """Checks requests before they reach the app, and answers for what the app raises.

    It is ASGI middleware, https://asgi.readthedocs.io.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, settings: ServerSettings) -> None:
        """Stand before an app.

        Args:
            app: The app.
            keys: Who may use it.
            settings: The limits.
        """
        self.app, self.keys, self.settings = app, keys, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        passage = Passage(given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}")
        scope.setdefault("state", {})["passage"] = passage
        scope["app"] = self.app  # so that the router raises for paths that do not exist
        response = _Response(send, passage)
        start = time.monotonic()
        try:
            self._check_headers(scope["headers"])
            if scope["path"] not in OPEN and not scope["path"].startswith(ASSETS):
                authorization = headers.get(b"authorization")
                passage.owner = self.keys.owner(
                    None if authorization is None else authorization.decode("latin-1")
                )
            await self.app(scope, receive, response.send)
        except ClientGone:
            passage.log["aborted"] = True
        except ApiError as error:
            await self._answer(error, scope, receive, response)
        except WireError as error:
            await self._answer(of_wire(error), scope, receive, response)
        except HTTPException as error:
            await self._answer(
                of_status(error.status_code, error.headers), scope, receive, response
            )
        except Exception:
            logger.exception("request %s failed", passage.id)
            told = f"the server failed; its log tells more of request {passage.id}"
            await self._answer(ApiError(500, told, code="internal_error"), scope, receive, response)
        finally:
            self._log(scope, passage, response.status, time.monotonic() - start)

    async def _answer(
        self, error: ApiError, scope: Scope, receive: Receive, response: _Response
    ) -> None:
        response.passage.log["error"] = error.code or "invalid_request"
        if response.status is None:  # else the response has begun, and can only break off
            await error.response()(scope, receive, response.send)

    def _check_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        settings = self.settings
        if len(headers) > settings.max_headers:
            raise _headers(f"more than {settings.max_headers} headers")
        if sum(len(name) + len(value) for name, value in headers) > settings.max_header_bytes:
            raise _headers(f"headers of more than {settings.max_header_bytes:,} bytes")

    def _log(self, scope: Scope, passage: Passage, status: int | None, seconds: float) -> None:
        route = scope.get("route")
        line = {
            "request": passage.id,
            "method": scope["method"],
            # The route and not the path, which may hold anything.
            "route": getattr(route, "path", None),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "key": passage.owner.id or None,
            **passage.log,
        }
        logger.info("%s", json.dumps({name: v for name, v in line.items() if v is not None}))


class _Response:
    """Adds the request's id to a response, and notes its status."""

    def __init__(self, send: Send, passage: Passage) -> None:
        self._send, self.passage = send, passage
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = [
                (b"x-request-id", self.passage.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await self._send(message)


def _headers(what: str) -> ApiError:
    return ApiError(
        431, f"the request has {what}", code="headers_too_large", headers={"connection": "close"}
    )
