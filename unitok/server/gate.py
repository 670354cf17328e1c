"""The gate that every request passes: its id, its headers, its key, its log line, its errors."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitok.openai_wire.body import WireError
from unitok.server.errors import ApiError, ClientGone, internal, of_status, of_wire
from unitok.server.keys import ANYBODY, ApiKeys, Owner
from unitok.server.loopback import is_loopback
from unitok.server.page_files import ASSETS
from unitok.server.settings import ServerSettings
from unitok.server.tracing import describe, span_of

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
        answered: When all of the response was sent, if more was waited for behind it; else None.
    """

    id: str
    owner: Owner = ANYBODY
    log: dict[str, Any] = field(default_factory=dict)
    answered: float | None = None


@dataclass(frozen=True)
class Ended:
    """A request that has ended.

    Attributes:
        passage: Its id and its log.
        method: The HTTP method.
        route: The route that it took, and not its path, which may hold anything; None for none.
        status: Of the response; None if there was none.
        seconds: From its first byte to the last of the response.
    """

    passage: Passage
    method: str
    route: str | None
    status: int | None
    seconds: float


class Gate:
    """Checks requests before they reach the app, and answers for what the app raises.

    It is ASGI middleware, https://asgi.readthedocs.io.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys,
        settings: ServerSettings,
        ended: Callable[[Ended], None],
    ) -> None:
        """Stand before an app.

        Args:
            app: The app.
            keys: Who may use it.
            settings: The limits.
            ended: Is told of each request that has ended.
        """
        self.app, self.keys, self.settings, self.ended = app, keys, settings, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        passage = Passage(given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}")
        scope.setdefault("state", {})["passage"] = passage
        scope["app"] = self.app  # so that the router raises for paths that do not exist
        response = _Response(send, passage)
        start = time.monotonic()
        with span_of(scope["method"], headers) as span:
            try:
                await self._pass(scope, receive, response, headers)
            finally:
                route = getattr(scope.get("route"), "path", None)
                seconds = (passage.answered or time.monotonic()) - start
                end = Ended(passage, scope["method"], route, response.status, seconds)
                describe(span, end.method, route, end.status, passage.log)
                self.ended(end)
                _log(end)

    async def _pass(
        self, scope: Scope, receive: Receive, response: _Response, headers: Mapping[str, str]
    ) -> None:
        """Let a request pass, or answer it; what the app raises becomes an answer."""
        passage = response.passage
        try:
            self._check_headers(scope["headers"])
            self._check_host(headers)
            if scope["path"] not in OPEN and not scope["path"].startswith(ASSETS):
                self._check_site(headers)
                passage.owner = self.keys.owner(headers.get("authorization"))
            await self.app(scope, receive, response.send)
        except ClientGone:
            passage.log["aborted"] = True
        except ApiError as error:
            await self._answer(error, scope, receive, response)
        except WireError as error:
            await self._answer(of_wire(error), scope, receive, response)
        except HTTPException as error:
            told = of_status(error.status_code, error.headers)
            await self._answer(told, scope, receive, response)
        except Exception:
            logger.exception("request %s failed", passage.id)
            await self._answer(internal(passage.id), scope, receive, response)

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
        # A proxy that goes by one of two lengths would take a part of the body for a request.
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            raise ApiError(
                400,
                "give content-length or transfer-encoding, not both",
                code="invalid_header",
                headers={"connection": "close"},
            )

    def _check_site(self, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another site sends by a visitor's browser, such as a form.

        Browsers say where a request comes from, and other clients do not.
        https://www.w3.org/TR/fetch-metadata
        """
        own = headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        if not own and headers.get("origin") not in self.settings.allowed_origins:
            raise ApiError(
                403,
                "pages of other sites may not use this server: start it with --allow-origin ORIGIN",
                code="origin_not_allowed",
            )

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse a name that a foreign page has been given for this machine (DNS rebinding)."""
        if self.settings.local_only and not is_loopback(_name_of(headers.get("host", ""))):
            raise ApiError(
                403,
                "this server answers as localhost alone: use http://localhost and its port, or "
                "start it with --api-key-file",
                code="host_not_allowed",
            )


def _log(end: Ended) -> None:
    """A line for a request: numbers and names, never what was said."""
    line = {
        "request": end.passage.id,
        "method": end.method,
        "route": end.route,
        "status": end.status,
        "ms": round(end.seconds * 1000, 1),
        "key": end.passage.owner.id or None,
        **end.passage.log,
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


def _name_of(host: str) -> str:
    """The name or the address of a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _headers(what: str) -> ApiError:
    return ApiError(
        431, f"the request has {what}", code="headers_too_large", headers={"connection": "close"}
    )
