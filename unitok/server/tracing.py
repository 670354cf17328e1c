"""OpenTelemetry traces, if its API is installed: a span for each request.

Where spans go is the matter of OpenTelemetry's SDK: start the server by `opentelemetry-instrument`,
or set the SDK up in a process that uses `App`. https://opentelemetry.io/docs/languages/python
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:  # then there are no traces
    propagate = trace = None

# OpenTelemetry's names of what a log line has, where it has some.
NAMES = {
    "model": "gen_ai.request.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "tokens": "gen_ai.usage.output_tokens",
}


@contextmanager
def span_of(method: str, headers: dict[str, str]) -> Iterator[Any]:
    """The span of a request, which belongs to the trace that its headers name.

    Args:
        method: The HTTP method.
        headers: The request's.

    Yields:
        The span; None without OpenTelemetry.
    """
    if trace is None or propagate is None:
        yield None
        return
    tracer = trace.get_tracer("unitok.server")
    context = propagate.extract(headers)
    with tracer.start_as_current_span(method, context, trace.SpanKind.SERVER) as span:
        yield span


def describe(
    span: Any, method: str, route: str | None, status: int | None, log: dict[str, Any]
) -> None:
    """Say in a span what became of its request.

    Args:
        span: The span; None without OpenTelemetry.
        method: The HTTP method.
        route: The route; None for a path that does not exist.
        status: Of the response; None if there was none.
        log: What the log line says beside.
    """
    if span is None or not span.is_recording():
        return
    span.update_name(f"{method} {route}" if route else method)
    span.set_attribute("http.request.method", method)
    if route:
        span.set_attribute("http.route", route)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    for name, value in log.items():
        span.set_attribute(NAMES.get(name, f"unitok.{name}"), value)
