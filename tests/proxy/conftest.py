"""Two servers behind nginx, with the configuration in deploy/."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest

import unitok
from tests.server.live import PATIENCE, Live, served
from unitok import Model
from unitok.server.listen import open_socket
from unitok.server.settings import ServerSettings
from unitok.server.state.folder import State

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
KEYS = tuple(f"key-number-{i:02}-of-the-tests" for i in range(8))
# What Debian's /etc/nginx/nginx.conf has around the file.
AROUND = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/unitok.conf;
}}
"""


@dataclass(frozen=True)
class Proxied:
    """Servers, and the address that they share.

    Attributes:
        servers: The servers.
        url: The address of the proxy.
    """

    servers: list[Live]
    url: str

    def openai(self, key: str = KEYS[0]) -> openai.OpenAI:
        """OpenAI's client, which tries nothing twice."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def http(self, key: str = KEYS[0]) -> httpx2.Client:
        """A plain HTTP client."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)


@contextmanager
def keeping(model: Model, folder: Path) -> Iterator[Live]:
    """A server that keeps files and batches."""
    settings = ServerSettings()
    with (
        State(folder, settings, {model.name: lambda: "i"}) as state,
        served(model, settings=settings, keys=KEYS, state=state) as live,
    ):
        yield live


@contextmanager
def nginx(folder: Path, ports: dict[str, int]) -> Iterator[None]:
    """nginx, with the configuration of deploy/ on other ports."""
    text = CONFIGURATION.read_text()
    for port, other in ports.items():
        assert f"127.0.0.1:{port}" in text
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
    (folder / "unitok.conf").write_text(text)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    program = shutil.which("nginx")
    assert program, "install nginx, which stands before the servers: apt-get install nginx"
    running = subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf"])
    try:
        answers(f"http://127.0.0.1:{ports['8000']}/ready", running)
        yield
    finally:
        running.terminate()
        running.wait(PATIENCE)


def answers(url: str, running: subprocess.Popen[bytes]) -> None:
    """Wait until something answers there."""
    for _ in range(PATIENCE * 10):
        try:
            httpx2.get(url, timeout=PATIENCE)
            return
        except httpx2.TransportError:
            assert running.poll() is None, "nginx has ended"
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


def free_port() -> int:
    """A port that nobody uses."""
    with open_socket("127.0.0.1", 0) as opened:
        return opened.getsockname()[1]


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The embedded model."""
    with unitok.load() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def proxied(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Two servers with a folder each, behind one address."""
    folder = tmp_path_factory.mktemp("proxied")
    with ExitStack() as stack:
        servers = [stack.enter_context(keeping(model, folder / str(i))) for i in (1, 2)]
        ports = {f"800{i}": int(s.url.rpartition(":")[2]) for i, s in enumerate(servers, 1)}
        ports["8000"] = free_port()
        stack.enter_context(nginx(folder, ports))
        yield Proxied(servers, f"http://127.0.0.1:{ports['8000']}")
