"""A server on a port of this machine, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import httpx2
import openai
from PIL import Image

from unitok import Model
from unitok.server.app import App
from unitok.server.keys import ApiKeys
from unitok.server.listen import Listener, open_socket, url_of
from unitok.server.settings import ServerSettings
from unitok.server.state.folder import State

KEYS = ("first-key-of-the-tests", "second-key-of-the-tests")
PATIENCE = 100


class Live:
    """A server that runs, and clients of it."""

    def __init__(self, app: App, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.app, self.url, self.loop = app, url, loop

    def tasks(self) -> list[str]:
        """What the server's event loop has to do, beside listening."""

        async def others() -> list[str]:
            mine = asyncio.current_task()
            return [repr(task) for task in asyncio.all_tasks() if task is not mine]

        told = asyncio.run_coroutine_threadsafe(others(), self.loop).result(PATIENCE)
        return [task for task in told if "Server._serve" not in task]

    def openai(self, key: str = KEYS[0]) -> openai.OpenAI:
        """OpenAI's client, which tries nothing twice."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def http(self, key: str | None = KEYS[0]) -> httpx2.Client:
        """A plain HTTP client."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def settle(self) -> None:
        """Wait until nothing is on its way, and check that nothing is left."""
        deadline = threading.Event()
        for _ in range(PATIENCE * 20):
            if self.app.idle:
                break
            deadline.wait(0.05)
        assert self.app.idle, f"{self.app.services.admission.admitted} are still on their way"
        for model in self.app.services.models.models:
            assert model.driver.wait_until_idle(PATIENCE)
            stats = model.stats()
            assert (stats.running, stats.waiting) == (0, 0)
            assert stats.free_blocks == stats.num_blocks


@contextmanager
def served(
    *models: Model,
    settings: ServerSettings | None = None,
    keys: tuple[str, ...] = KEYS,
    aliases: dict[str, str] | None = None,
    state: State | None = None,
) -> Iterator[Live]:
    """Serve models while the block runs."""
    app = App(models, settings, ApiKeys(keys), aliases, state)
    with open_socket("127.0.0.1", 0) as opened:
        listener = Listener(app, "127.0.0.1", 0)
        thread = threading.Thread(
            target=lambda: asyncio.run(listener._serve([opened])), name="test-server"
        )
        thread.start()
        try:
            while not listener.started:
                assert thread.is_alive(), "the server did not start"
                thread.join(0.01)
            assert listener._loop is not None
            live = Live(app, url_of(opened), listener._loop)
            yield live
            live.settle()
        finally:
            listener.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def told(answer: httpx2.Response) -> tuple[int, str | None, str | None]:
    """What an error says to programs: its status, its code, and the key that is wrong."""
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def told_raw(answer: bytes) -> tuple[int, str | None, str | None]:
    """As `told`, of bytes: one answer, the last of its connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return told(httpx2.Response(int(head.split()[1]), content=body))


def png(image: Image.Image) -> bytes:
    """A picture as PNG."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_url(image: Image.Image) -> str:
    """A picture as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
