"""GET /health, /ready, /version, /openapi.json, /metrics, /v1/models and /v1/queue."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unitok import __version__
from unitok.api import Model
from unitok.server.endpoint import Services
from unitok.server.errors import ApiError
from unitok.server.metrics import CONTENT_TYPE
from unitok.server.openapi import document

STEP_SECONDS = 30.0  # a step, and the prefill of the longest prompt, take far less


class Status:
    """Says how the server is, and what it serves."""

    def __init__(self, services: Services) -> None:
        """Keep what all endpoints share."""
        self.services = services
        self._steps: dict[str, asyncio.Future[None]] = {}  # that are waited for, by model

    def _step(self, model: Model) -> asyncio.Future[None]:
        """The end of a model's step. All who ask meanwhile wait for the same one, in one thread."""
        step = self._steps.get(model.name)
        if step is None or step.done():
            waiting = asyncio.to_thread(model.driver.between_steps, lambda: None)
            self._steps[model.name] = step = asyncio.ensure_future(waiting)
        return step

    async def health(self, request: Request) -> Response:
        """Whether the engines step."""
        await self.check()
        return JSONResponse({"status": "ok"})

    async def check(self) -> None:
        """Check that the engines step: each driver's thread has to answer between two steps.

        Raises:
            ApiError: One does not.
        """
        for model in self.services.models.models:
            try:
                await asyncio.wait_for(asyncio.shield(self._step(model)), STEP_SECONDS)
            except TimeoutError:
                raise ApiError(
                    503, f"{model.name} has made no step for {STEP_SECONDS:g} s", code="unhealthy"
                ) from None
            except RuntimeError as error:
                raise ApiError(503, f"{model.name}: {error}", code="unhealthy") from None

    async def ready(self, request: Request) -> Response:
        """Whether new requests are taken in."""
        if self.services.admission.draining:
            raise ApiError(503, "the server is about to end", code="shutting_down")
        return JSONResponse({"status": "ready"})

    async def version(self, request: Request) -> Response:
        """The version of unitok."""
        return JSONResponse({"version": __version__})

    async def openapi(self, request: Request) -> Response:
        """What each endpoint takes."""
        return JSONResponse(document())

    async def queue(self, request: Request) -> Response:
        """How many requests run, and how many wait for their turn, of all models and keys."""
        stats = [model.stats() for model in self.services.models.models]
        return JSONResponse(
            {
                "object": "queue",
                "running": sum(one.running_requests for one in stats),
                "waiting": sum(one.waiting_requests for one in stats),
            }
        )

    async def metrics(self, request: Request) -> Response:
        """All numbers, for Prometheus.

        Raises:
            ApiError: They would be those of whichever replica the request has reached.
        """
        if self.services.settings.shares_address:
            raise ApiError(
                404,
                "this address has several replicas, each with numbers of its own: none is shown",
                code="metrics_not_shared",
            )
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
