"""One of several replicas behind one address, as an actor of Ray Serve holds it."""

from __future__ import annotations

import os
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitok.cores import keep_to
from unitok.server.app_spec import AppSpec
from unitok.server.log_lines import logged_to_stderr

HEADER = b"x-unitok-replica"


class Replica:
    """Models of its own, and the app that serves them.

    Ray Serve calls the methods: https://docs.ray.io/en/latest/serve/http-guide.html
    """

    def __init__(self, spec: AppSpec, cores: int) -> None:
        """Load the models.

        Args:
            spec: What the app is made of.
            cores: What Ray reserved for this process.

        Raises:
            OSError: A model cannot be read.
            ValueError: An option is wrong, or two models, adapters or aliases have one name.
        """
        keep_to(cores)
        self._stack = ExitStack()
        try:
            self._stack.enter_context(logged_to_stderr(spec.quiet))
            self._served = spec.make(self._stack)
        except BaseException:
            self._stack.close()
            raise

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app, whose answers tell which replica they are of."""
        return NamedReplica(self._served.asgi, f"{os.uname().nodename}-{os.getpid()}")

    async def check_health(self) -> None:
        """Check that the engines step; Ray Serve replaces a replica where this raises.

        Raises:
            ApiError: One does not.
        """
        await self._served.status.check()

    def __del__(self) -> None:
        """Close the models. What runs has ended by then, or its time is over."""
        self._stack.close()


class NamedReplica:
    """Adds the name of a replica to its answers. It is ASGI middleware."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        """Stand before an app.

        Args:
            app: The app.
            name: Of the replica.
        """
        self.app, self.name = app, name.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, and name the replica in its answer."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (HEADER, self.name)]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, named)
