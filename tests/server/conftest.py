"""What tests of the server share: the embedded model, and a server of it."""

from collections.abc import Iterator

import pytest

import unitok
from tests.server.live import Live, served
from unitok import Model


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The embedded model."""
    with unitok.load() as loaded:
        yield loaded


@pytest.fixture(scope="session")
def live(model: Model) -> Iterator[Live]:
    """A server with two keys."""
    with served(model, aliases={"gpt-image-1": "default"}) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(live: Live) -> Iterator[None]:
    """After each test, nothing of it is on its way any more."""
    yield
    live.settle()
