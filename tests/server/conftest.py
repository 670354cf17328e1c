"""What tests of the server share: the embedded model, and a server of it."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import unitok
from tests.server.keeping import keeping
from tests.server.live import Live, served
from unitok import Model


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The embedded model."""
    with unitok.load() as loaded:
        yield loaded


@pytest.fixture(scope="session")
def tiny(untrained_folder: Path) -> Iterator[Model]:
    """A tiny model."""
    with unitok.load(untrained_folder) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def live(model: Model) -> Iterator[Live]:
    """A server with two keys."""
    with served(model, aliases={"gpt-image-1": "default"}) as running:
        yield running


@pytest.fixture(scope="module")
def kept(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that keeps batches."""
    with keeping(tmp_path_factory.mktemp("state"), tiny, max_lines=40, max_batches=3) as live:
        yield live


@pytest.fixture
def client(kept: Live) -> openai.OpenAI:
    """OpenAI's client of it."""
    return kept.openai()


@pytest.fixture(autouse=True)
def nothing_is_left(live: Live) -> Iterator[None]:
    """After each test, nothing of it is on its way any more."""
    yield
    live.settle()
