"""GET /health, /ready, /version, /metrics and /v1/models."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unitok import __version__
from unitok.server.endpoint import Services
from unitok.server.errors import ApiError
from unitok.server.metrics import CONTENT_TYPE

STEP_SECONDS = 30.0  # a step, and the prefill of the longest prompt, take far less


class Status:
    """Says how the server is, and what it serves."""

    def __init__(self, services: Services) -> None:
        """Keep what all endpoints share."""
        self.services = services

    async def health(self, request: Request) -> Response:
        """Whether the engines step: each driver's thread has to answer between two steps."""
        for model in self.services.models.models:
            try:
                beat = asyncio.to_thread(model.driver.between_steps, lambda: None)
                await asyncio.wait_for(beat, STEP_SECONDS)
            except TimeoutError:
                raise ApiError(
                    503, f"{model.name} has made no step for {STEP_SECONDS:g} s", code="unhealthy"
                ) from None
            except RuntimeError as error:
                raise ApiError(503, f"{model.name}: {error}", code="unhealthy") from None
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Whether new requests are taken in."""
        if self.services.admission.draining:
            raise ApiError(503, "the server is about to end", code="shutting_down")
        return JSONResponse({"status": "ready"})

    async def version(self, request: Request) -> Response:
        """The version of unitok."""
        return JSONResponse({"version": __version__})

    async def metrics(self, request: Request) -> Response:
        """All numbers, for Prometheus."""
        text = await asyncio.to_thread(self.services.metrics.text)
        return Response(text, media_type=CONTENT_TYPE)

    async def models(self, request: Request) -> Response:
        """All models, adapters and aliases."""
        models = self.services.models
        return JSONResponse(
            {"object": "list", "data": [models.body(name) for name in models.names]}
        )

    async def model(self, request: Request) -> Response:
        """One of them."""
        return JSONResponse(self.services.models.body(request.path_params["name"]))
