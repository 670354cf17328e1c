"""The gallery: what was painted stays in the browser."""

from playwright.sync_api import Page, expect

from tests.page.visit import dialog, painted, pixels_of, send, settings, turns


def test_the_gallery_keeps_pictures_that_can_be_drawn_again(page: Page):
    settings(page, Seed="11")
    pixels = pixels_of(painted(send(page, "Draw", "a rocket above a house")))
    page.reload()
    page.get_by_role("link", name="Gallery").click()
    kept = page.get_by_role("main").get_by_alt_text("a rocket above a house")
    expect(kept).to_have_count(1)
    expect(page.get_by_text("seed 11")).to_be_visible()
    assert pixels_of(kept) == pixels
    kept.click()
    page.get_by_role("button", name="Paint it again").click()
    assert pixels_of(painted(turns(page).first)) == pixels


def test_a_picture_is_downloaded_and_deleted(page: Page):
    settings(page, Seed="12")
    painted(send(page, "Draw", "a frog")).click()
    with page.expect_download() as download:
        dialog(page).get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "a-frog-12.png"
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    dialog(page).get_by_role("button", name="Delete").click()
    page.get_by_role("link", name="Gallery").click()
    expect(page.get_by_text("What is painted is kept here")).to_be_visible()
    page.reload()
    expect(page.get_by_text("What is painted is kept here")).to_be_visible()
