"""The app: which path leads to which endpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from unitok.api import Model
from unitok.server import completions
from unitok.server.admission import Admission
from unitok.server.endpoint import Services, admitted
from unitok.server.gate import Gate
from unitok.server.keys import ApiKeys
from unitok.server.metrics import Metrics
from unitok.server.running import Runner
from unitok.server.served import ServedModels
from unitok.server.settings import ServerSettings
from unitok.server.status import Status


class App:
    """The server as an ASGI app, without a socket.

    Attributes:
        services: What its endpoints share.
        asgi: The app, for an ASGI server.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: ServerSettings | None = None,
        keys: ApiKeys | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Serve models.

        Args:
            models: The models. There is at least one.
            settings: The limits and the times.
            keys: Who may use the server; by default everybody.
            aliases: Further names of models, and the names that they stand for.

        Raises:
            ValueError: Two models, adapters or aliases have one name.
        """
        settings = settings or ServerSettings()
        named, admission = ServedModels(models, int(time.time()), aliases), Admission(settings)
        metrics = Metrics(named, admission)
        runner = Runner(settings, metrics)
        self.services = Services(named, settings, admission, runner, metrics)
        router = Router(self._routes())
        self.asgi: ASGIApp = Gate(router, keys or ApiKeys(), settings, metrics.ended)
        if settings.allowed_origins:
            self.asgi = CORSMiddleware(
                self.asgi,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type", "x-request-id"],
                expose_headers=["x-request-id", "retry-after"],
            )

    def _routes(self) -> list[Route]:
        status, services = Status(self.services), self.services
        return [
            Route("/health", status.health),
            Route("/ready", status.ready),
            Route("/version", status.version),
            Route("/metrics", status.metrics),
            Route("/v1/models", status.models),
            Route("/v1/models/{name:path}", status.model),
            Route("/v1/chat/completions", admitted(completions.create, services), methods=["POST"]),
        ]

    def drain(self) -> None:
        """Take nothing new in. What runs goes on."""
        self.services.admission.draining = True

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return self.services.admission.admitted == 0
