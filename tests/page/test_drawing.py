"""Drawing on the page: previews, several pictures, settings, waiting, cancelling, and errors."""

from typing import Any

from playwright.sync_api import Page, Request, expect

from tests.page.conftest import NewPage
from tests.page.visit import ended, painted, pixels_of, send, settings, turns
from tests.server.live import Live
from unitok import Model

APPLES = "two apples on a blue background"


def test_the_first_paint_is_quick(page: Page):
    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    milliseconds = page.evaluate(script)
    print(f"first paint: {milliseconds:.0f} ms")
    assert milliseconds < 1000


def test_a_preview_appears_before_the_picture_is_done(page: Page):
    settings(page, Pictures="8")  # of which a busy machine finds time to show some
    painted(send(page, "Draw", APPLES), 8)
    assert page.evaluate("window.seen.length") >= 1
    assert page.evaluate("window.doneAtPreview") == 0


def test_a_picture_is_that_of_the_library(page: Page, model: Model):
    settings(page, Seed="7", Guidance="2")
    picture = painted(send(page, "Draw", APPLES))
    assert picture.get_attribute("alt") == APPLES
    expected = model.draw(APPLES, seed=7, guidance=2).image.convert("RGBA")
    assert pixels_of(picture) == expected.tobytes()


def test_several_pictures_have_a_seed_each(page: Page, model: Model):
    settings(page, Pictures="3", Seed="5", Without="a dog", Size="64x64")
    pictures = painted(send(page, "Draw", "a cat left of a dog"), 3)
    assert pictures.count() == 3
    expected = model.draw("a cat left of a dog", seed=7, negative_prompt="a dog").image
    assert pixels_of(pictures.nth(2)) == expected.convert("RGBA").tobytes()


def test_an_error_is_told_in_the_words_of_the_server(page: Page):
    settings(page, Size="128x128")
    turn = ended(send(page, "Draw", "a cat"))
    expect(turn).to_contain_text("this model draws 64 x 64 pixels only, not 128 x 128")
    turn.get_by_role("button", name="Reword").click()
    assert page.get_by_label("What shall I draw?").input_value() == "a cat"
    settings(page, Size="")
    page.get_by_label("What shall I draw?").press("Enter")
    painted(turns(page).nth(1))


def test_escape_cancels_and_a_waiting_turn_says_how_many_are_ahead(page: Page):
    page.route("**/v1/queue", lambda route: route.fulfill(json={"waiting": 3, "running": 8}))
    page.route("**/v1/images/generations", lambda route: None)  # it is never answered
    turn = send(page, "Draw", APPLES)
    expect(turn).to_contain_text("Waiting, 3 requests are ahead")
    page.keyboard.press("Escape")
    expect(turn).to_contain_text("Cancelled.")
    assert turn.locator("img").count() == 0


def test_cancelling_ends_the_work_of_the_server(page: Page, live: Live):
    settings(page, Pictures="8")
    turn = send(page, "Draw", APPLES)
    turn.get_by_role("button", name="Cancel").click()
    expect(turn).to_contain_text("Cancelled.")
    live.settle()


def test_a_picture_is_drawn_again_and_varied(page: Page):
    asked: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if "/images/" in request.url:
            asked.append(request.post_data_json or {})

    page.on("request", note)
    first = painted(send(page, "Draw", "a dog"))
    first.click()
    page.get_by_role("button", name="Paint it again").click()
    assert pixels_of(painted(turns(page).nth(1))) == pixels_of(first)
    first.click()
    page.get_by_role("button", name="Vary").click()
    painted(turns(page).nth(2))
    # Two seeds may give one picture, as the model knows few dogs.
    assert asked[1]["seed"] is not None and asked[2].get("seed") != asked[1]["seed"]
    turns(page).nth(2).get_by_role("button", name="Other seeds").click()
    painted(turns(page).nth(3))


def test_a_server_that_is_gone_is_told(new_page: NewPage):
    page = new_page()
    page.route("**/v1/**", lambda route: route.abort("aborted"))
    turn = ended(send(page, "Draw", "a dog"))
    expect(turn).to_contain_text("The server cannot be reached")
