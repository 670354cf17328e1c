"""Errors of requests: their status, and the body that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from unitok.openai_wire.body import WireError, error_body
from unitok.openai_wire.refusals import picture_refusal, refusal_of
from unitok.picture_sources import Refused
from unitok.requests import AnyRequest
from unitok.server.last_response import LastResponse

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """A request that is refused or failed.

    Attributes:
        status: The HTTP status.
        message: What is wrong, and what to do.
        param: The key that is wrong, if one is.
        code: A word for programs, such as "model_not_found".
        headers: Of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what is wrong."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        server, kind = self.status >= 500, KINDS.get(self.status)
        return error_body(self.message, self.param, server, kind, self.code)

    def response(self) -> JSONResponse:
        """The response that reports the error."""
        last = self.headers.get("connection") == "close"
        return (LastResponse if last else JSONResponse)(self.body, self.status, self.headers)


class ClientGone(Exception):
    """The client has closed its connection, so nobody waits for a response."""


def overloaded(message: str, seconds: int, status: int = 503) -> ApiError:
    """The error of a request that may be tried again later.

    Args:
        message: Why it is refused.
        seconds: When to try again.
        status: 503 if the server has no room, 429 if the key has used up its own.
    """
    code = "rate_limit_exceeded" if status == 429 else "overloaded"
    return ApiError(status, message, code=code, headers={"retry-after": str(seconds)})


def timed_out(message: str) -> ApiError:
    """The error of a request whose time is over: another try would take as long."""
    return ApiError(504, message, code="timeout", headers={"x-should-retry": "false"})


def internal(request_id: str) -> ApiError:
    """The error of a request that the server failed, whose traceback is in the log."""
    told = f"the server failed; its log tells more of request {request_id}"
    return ApiError(500, told, code="internal_error")


def of_wire(error: WireError) -> ApiError:
    """The error of a body that is refused."""
    return ApiError(400, str(error), param=error.param, code=error.code)


def of_library(error: ValueError | TypeError, asked: AnyRequest) -> ApiError:
    """The error of a request that the model's library refuses.

    Args:
        error: The library's.
        asked: The request.
    """
    return of_wire(refusal_of(error, type(asked)))


def of_picture(error: Refused, param: str | None) -> ApiError:
    """The error of a picture that cannot be read.

    Args:
        error: Why it cannot.
        param: The picture's key, if the error has no place.
    """
    return of_wire(picture_refusal(error, param))


def of_status(status: int, headers: Mapping[str, str] | None = None) -> ApiError:
    """The error of a path or a method that does not exist."""
    known = HTTPStatus(status)
    return ApiError(status, known.phrase, code=known.name.lower(), headers=headers)
