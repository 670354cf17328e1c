"""The app: which path leads to which endpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from unitok.api import Model
from unitok.server import completions, edits, generations
from unitok.server.admission import Admission
from unitok.server.batches import Batches
from unitok.server.endpoint import Services, admitted, told
from unitok.server.fetcher import PictureFetcher
from unitok.server.files import Files
from unitok.server.gate import Gate
from unitok.server.keys import ApiKeys
from unitok.server.metrics import Metrics
from unitok.server.no_responses import NoResponses
from unitok.server.page_files import ASSETS, PageFiles
from unitok.server.response_store import ResponseStore
from unitok.server.responses import Responses
from unitok.server.running import Runner
from unitok.server.served import ServedModels
from unitok.server.settings import ServerSettings
from unitok.server.state.folder import State
from unitok.server.status import Status


class App:
    """The server as an ASGI app, without a socket.

    Attributes:
        services: What its endpoints share.
        status: Says how the server is.
        responses: The endpoints of responses, and the responses that are kept.
        asgi: The app, for an ASGI server.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: ServerSettings | None = None,
        keys: ApiKeys | None = None,
        aliases: Mapping[str, str] | None = None,
        state: State | None = None,
    ) -> None:
        """Serve models.

        Args:
            models: The models. There is at least one.
            settings: The limits and the times.
            keys: Who may use the server; by default everybody.
            aliases: Further names of models, and the names that they stand for.
            state: What is kept on disk. Its batches go on. By default nothing is kept.

        Raises:
            ValueError: Two models, adapters or aliases have one name.
        """
        settings = settings or ServerSettings()
        named, admission = ServedModels(models, int(time.time()), aliases), Admission(settings)
        metrics = Metrics(named, admission)
        runner = Runner(settings, metrics)
        fetcher = PictureFetcher(settings.allowed_hosts) if settings.allowed_hosts else None
        self.services = Services(named, settings, admission, runner, metrics, fetcher, state)
        if state is not None:
            state.start(named, partial(metrics.result, live=False))
        file_of = None if state is None else state.files.file_bytes
        store = NoResponses() if settings.shares_address else ResponseStore(settings)
        self.status = Status(self.services)
        self.responses = Responses(self.services, store, file_of)
        router = Router(self._routes(), redirect_slashes=False)
        self.asgi: ASGIApp = Gate(router, keys or ApiKeys(), settings, metrics.ended)
        if settings.allowed_origins:
            self.asgi = CORSMiddleware(
                self.asgi,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],  # OpenAI's client for browsers sends a dozen of its own
                expose_headers=["x-request-id", "retry-after", "x-should-retry"],
            )

    def _routes(self) -> list[Route]:
        services, page = self.services, PageFiles()
        status, responses = self.status, self.responses
        files, batches = Files(services), Batches(services)
        return [
            Route("/", page.index),
            Route(ASSETS + "{name}", page.asset),
            Route("/health", status.health),
            Route("/ready", status.ready),
            Route("/version", status.version),
            Route("/openapi.json", status.openapi),
            Route("/v1/queue", status.queue),
            Route("/metrics", status.metrics),
            Route("/v1/models", status.models),
            Route("/v1/models/{name:path}", status.model),
            Route("/v1/chat/completions", admitted(completions.create, services), methods=["POST"]),
            Route("/v1/responses", admitted(responses.create, services), methods=["POST"]),
            Route("/v1/responses/{id}", told(responses.one, services), methods=["GET"]),
            Route("/v1/responses/{id}", responses.delete, methods=["DELETE"]),
            Route("/v1/responses/{id}/input_items", told(responses.input_items, services)),
            Route("/v1/files", admitted(files.create, services), methods=["POST"]),
            Route("/v1/files", told(files.listed, services)),
            Route("/v1/files/{id}", files.delete, methods=["DELETE"]),
            Route("/v1/files/{id}", files.one),
            Route("/v1/files/{id}/content", told(files.content, services)),
            Route("/v1/batches", admitted(batches.create, services), methods=["POST"]),
            Route("/v1/batches", told(batches.listed, services)),
            Route("/v1/batches/{id}", batches.one),
            Route("/v1/batches/{id}/cancel", batches.cancel, methods=["POST"]),
            Route("/v1/images/edits", admitted(edits.create, services), methods=["POST"]),
            Route(
                "/v1/images/generations", admitted(generations.create, services), methods=["POST"]
            ),
        ]

    def drain(self) -> None:
        """Take nothing new in. What runs goes on, but batches stop at the end of a line."""
        self.services.admission.draining = True
        if self.services.state is not None:
            self.services.state.stopping = True

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        state = self.services.state
        return self.services.admission.admitted == 0 and (state is None or state.idle)
