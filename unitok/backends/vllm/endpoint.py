"""`POST /v1/images/generations` in `vllm serve`, by the entry point `vllm.endpoint_plugins`.

The endpoint is that of our own server: the same bodies, limits, errors and streams, over a model
that runs on the server's own engine. Pictures are decoded in the server's process, beside vLLM's
steps.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from unitok.api import Model
from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.backends.vllm.opening import PLUGIN, make_engine, make_model
from unitok.checkpoints.weights import ImageTokenizerOnly
from unitok.extras import need
from unitok.families import open_folder
from unitok.loading import check_device

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from unitok.server.app import App

HANDLERS = "starlette.exception_handlers"  # of the app around a route
PATH = "/v1/images/generations"


class ImagesEndpoint:
    """An `EndpointPlugin` of vLLM's, and the ASGI app of its only route.

    Attributes:
        name: What VLLM_PLUGINS calls it.
        required_tasks: What vLLM must do for it to be loaded.
    """

    name = PLUGIN
    required_tasks = ("generate",)

    def __init__(self) -> None:
        """No engine is there yet."""
        self._app: App | None = None

    def attach_router(self, app: Any) -> None:
        """Add the route to vLLM's app (`fastapi.FastAPI`)."""
        routing = need("starlette.routing", "serve")
        app.router.routes.append(routing.Route(PATH, self, methods=["POST"]))

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Make a model over the server's engine.

        Args:
            engine_client: Its client (`vllm.engine.protocol.EngineClient`).
            state: The app's, which is left alone.
            args: The command line of `vllm serve`.

        Raises:
            ValueError: vLLM serves a model that unitok does not know.
        """
        self.serve(open_served(engine_client), args.served_model_name or [args.model])

    def serve(self, model: Model, names: Sequence[str]) -> None:
        """Answer requests with a model.

        Args:
            model: The model.
            names: What vLLM calls it.
        """
        from unitok.server.app import App

        self._app = App([model], aliases={name: model.name for name in names if name != model.name})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        assert self._app is not None  # vLLM takes no requests before
        # vLLM's handlers would take our errors for its own, before our app sees them.
        inner = {name: value for name, value in scope.items() if name != HANDLERS}
        await self._app.asgi(inner, receive, send)


def open_served(client: Any) -> Model:
    """A model over an engine that serves already, on the running loop.

    Args:
        client: The engine's client.

    Raises:
        ValueError: It serves a model that unitok does not know.
    """
    served = client.model_config
    folder = open_checkpoint(served.model, served.revision).folder
    device = check_device(None)
    family = open_folder(folder, device, ImageTokenizerOnly(served.dtype))
    # What a client's prompt holds is nobody else's, so nobody is warned of it.
    family.defaults = replace(family.defaults, known_words=None)
    engine = make_engine(client, asyncio.get_running_loop(), family)
    return make_model(family, engine, torch.device(device))
