"""The page for everybody: axe finds no fault, the keyboard suffices, and it fits on a phone."""

from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import NewPage
from tests.page.visit import dialog, ended, painted, send, settings, turns

AXE = Path(__file__).parents[2] / "page" / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"width": 360, "height": 740}
LAPTOP = {"width": 1200, "height": 800}


def faults(page: Page) -> list[str]:
    """What axe finds: each rule, and what breaks it."""
    found: dict[str, list[dict[str, Any]]] = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [
        f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_axe_finds_no_fault(
    new_page: NewPage, scheme: Literal["light", "dark"], viewport: dict[str, int]
):
    assert AXE.exists(), "make page installs axe-core, which this test needs"
    page = new_page(scripts=[AXE], color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    assert faults(page) == []
    settings(page, Pictures="2")
    pictures = painted(send(page, "Draw", "a dog"), 2)
    ended(send(page, "Ask", "how many dogs are there?"))
    settings_and_failure(page)
    assert faults(page) == []
    pictures.first.click()
    assert faults(page) == []
    dialog(page).get_by_role("button", name="Change it").click()
    dialog(page).get_by_role("button", name="Mark the box").click()
    assert faults(page) == []
    dialog(page).get_by_role("button", name="Use this part").click()
    expect(dialog(page)).to_have_count(0)
    assert faults(page) == []
    page.get_by_role("link", name="Gallery").click()
    assert faults(page) == []


def settings_and_failure(page: Page) -> None:
    """Let a turn fail, with the settings open."""
    page.get_by_role("radio", name="Draw").check()
    settings(page, Size="1x1")
    expect(ended(send(page, "Draw", "a cat"))).to_contain_text("Failed: ")


def test_all_is_done_with_the_keyboard(new_page: NewPage):
    page = new_page(reduced_motion="reduce")
    press(page, "Tab", page.get_by_label("What shall I draw?"))
    page.keyboard.type("a dog")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("on a pink background")
    page.keyboard.press("Enter")
    picture = painted(turns(page).first).locator("xpath=..")
    assert picture.get_by_role("img").get_attribute("alt") == "a dog\non a pink background"
    press(page, "Shift+Tab", picture)
    page.keyboard.press("Enter")
    expect(dialog(page)).to_be_visible()
    press(page, "Tab", dialog(page).get_by_role("button", name="Change it"))
    page.keyboard.press("Enter")
    press(page, "Tab", dialog(page).get_by_label("left"))
    page.keyboard.type("8")
    press(page, "Tab", dialog(page).get_by_role("button", name="Mark the box"))
    page.keyboard.press("Enter")
    expect(dialog(page)).to_contain_text("88 % of the picture is marked")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)
    press(page, "Tab", page.get_by_role("radio", name="Change"))
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="Ask")).to_be_checked()


def press(page: Page, key: str, target: Any) -> None:
    """Press a key until something has the focus."""
    for _ in range(40):
        page.keyboard.press(key)
        if target.evaluate("(node) => node === document.activeElement"):
            return
    raise AssertionError(f"{key} does not lead to {target}")


def test_the_focus_goes_back_when_a_dialog_closes(page: Page):
    frame = painted(send(page, "Draw", "a dog")).locator("xpath=..")
    frame.focus()
    page.keyboard.press("Enter")
    expect(dialog(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(frame).to_be_focused()


def test_it_fits_on_a_phone(new_page: NewPage):
    page = new_page(viewport=PHONE)
    settings(page, Pictures="4")
    painted(send(page, "Draw", "a dog"), 4)
    for name in ("Gallery", "Conversation"):
        page.get_by_role("link", name=name).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_theme_is_that_of_the_system_until_one_chooses(new_page: NewPage):
    page = new_page(color_scheme="dark")
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(colour)
    switch = page.get_by_role("switch", name="Dark mode")
    expect(switch).to_be_checked()
    switch.click()
    expect(switch).not_to_be_checked()
    light = page.evaluate(colour)
    assert light != dark
    page.reload()
    expect(switch).not_to_be_checked()
    assert page.evaluate(colour) == light


def test_nothing_moves_if_one_wants_that(new_page: NewPage):
    page = new_page(reduced_motion="reduce")
    painted(send(page, "Draw", "a dog"))
    assert page.evaluate("document.getAnimations().length") == 0
