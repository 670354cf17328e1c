"""What tests of the page share: a server, and Chromium."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import unitok
from tests.page.visit import CAMERA, WATCH, Faults
from tests.server.live import KEYS, Live, served
from unitok import Model

NewPage = Callable[..., Page]


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The embedded model."""
    with unitok.load() as loaded:
        yield loaded


@pytest.fixture(scope="session")
def live(model: Model) -> Iterator[Live]:
    """A server without keys."""
    with served(model, keys=()) as running:
        yield running


@pytest.fixture
def locked(model: Model) -> Iterator[Live]:
    """A server with keys."""
    with served(model, keys=KEYS) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, with a camera that shows a pattern."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("Chromium is needed: apt-get install chromium", pytrace=False)
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # root has none
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=[*CAMERA, *sandbox])


@pytest.fixture
def new_page(browser: Browser, live: Live) -> Iterator[NewPage]:
    """Opens the page. In the end, nothing may have gone wrong in it unseen."""
    contexts: list[BrowserContext] = []
    faults = Faults()

    def open_page(url: str | None = None, scripts: Sequence[Path] = (), **options: Any) -> Page:
        contexts.append(browser.new_context(permissions=["camera"], **options))
        page = contexts[-1].new_page()
        page.add_init_script(WATCH)
        for script in scripts:  # which the page's policy would not let in otherwise
            page.add_init_script(path=script)
        faults.watch(page)
        page.goto(url or live.url)
        page.get_by_label("What shall I draw?").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults.seen == []
    live.settle()


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """The page, as a first visitor sees it."""
    return new_page()
