"""Showing pictures and asking about them, in one conversation with drawing."""

from base64 import b64encode
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import NewPage
from tests.page.visit import dialog, drop, ended, painted, paste, send, settings
from tests.server.live import png
from unitok import Model

QUESTION = "what colour is the background?"


@pytest.fixture(scope="session")
def lemons(model: Model) -> bytes:
    """A picture as PNG."""
    return png(model.draw("three lemons on a pink background", seed=1).image)


def test_one_draws_then_asks_and_asks_on(page: Page, model: Model):
    settings(page, Seed="3")
    painted(send(page, "Draw", "a cat left of a dog"))
    turn = ended(send(page, "Ask", "what is left of the dog?"))
    expect(turn.locator(".answer")).to_have_text("a cat")
    expect(turn.get_by_alt_text("a cat left of a dog")).to_be_visible()
    turn = ended(send(page, "Ask", QUESTION))
    expect(turn.locator(".answer")).to_have_text("white")


@pytest.mark.parametrize("way", ["drop", "paste", "file"])
def test_a_picture_is_shown(page: Page, way: str, lemons: bytes, tmp_path: Path):
    if way == "file":
        path = tmp_path / "lemons.png"
        path.write_bytes(lemons)
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Show a picture").click()
        chooser.value.set_files(path)
    else:
        file = {"name": "lemons.png", "data": b64encode(lemons).decode()}
        (drop if way == "drop" else paste)(page, file)
    expect(page.get_by_role("radio", name="Ask")).to_be_checked()
    expect(page.get_by_alt_text("the picture lemons.png")).to_be_visible()
    turn = ended(send(page, "Ask", QUESTION))
    expect(turn.locator(".answer")).to_have_text("pink")


def test_a_picture_is_taken_with_the_camera(page: Page):
    page.get_by_role("button", name="Take a picture").click()
    dialog(page).get_by_role("button", name="Take it").click()
    expect(page.get_by_alt_text("the picture of the camera")).to_be_visible()
    turn = ended(send(page, "Ask", QUESTION))
    expect(turn.locator(".answer")).not_to_be_empty()


def test_a_file_that_is_no_picture_is_refused_in_words(page: Page):
    drop(page, {"name": "notes.txt", "data": b64encode(b"hello").decode()})
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("notes.txt is no picture that this browser can open.")
    notice.get_by_role("button", name="Close").click()
    expect(notice).to_have_count(0)


def test_answers_are_announced(new_page: NewPage):
    page = new_page()
    painted(send(page, "Draw", "a dog"))
    status = page.locator("[aria-live=polite]")
    expect(status).to_have_text("Painted: a dog")
    turn = ended(send(page, "Ask", "how many dogs are there?"))
    expect(status).to_have_text(turn.locator(".answer").inner_text())
