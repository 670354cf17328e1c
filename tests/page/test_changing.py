"""Changing a part of a picture: marked with the pointer, or by the numbers of a box."""

from PIL import Image, ImageChops
from playwright.sync_api import Locator, Page, expect

from tests.page.visit import dialog, ended, painted, pixels_of, send, settings, turns
from unitok import Model

SIDE = 64  # pixels of a picture of the embedded model


def image_of(picture: Locator) -> Image.Image:
    """A picture of the page."""
    return Image.frombytes("RGBA", (SIDE, SIDE), pixels_of(picture)).convert("RGB")


def mark_box(page: Page, **sides: int) -> None:
    """Mark a box in the open dialog, and use it."""
    for name, value in sides.items():
        dialog(page).get_by_label(name).fill(str(value))
    dialog(page).get_by_role("button", name="Mark the box").click()
    use(page)


def use(page: Page) -> None:
    """Use the part that is marked in the open dialog."""
    dialog(page).get_by_role("button", name="Use this part").click()
    expect(dialog(page)).to_have_count(0)


def test_a_part_that_is_marked_by_numbers_changes_and_the_rest_stays(page: Page, model: Model):
    settings(page, Seed="3")
    before = painted(send(page, "Draw", "a cat left of a dog"))
    before.click()
    dialog(page).get_by_role("button", name="Change it").click()
    mark_box(page, left=32, top=0, right=64, bottom=64)
    after = painted(send(page, "Change", "a cat left of a cake"))
    original = image_of(before)
    expected = model.edit(original, "a cat left of a cake", box=(32, 0, 64, 64), seed=3).image
    assert image_of(after).tobytes() == expected.tobytes()
    left = (0, 0, 16, SIDE)  # away from the seam
    assert image_of(after).crop(left).tobytes() == original.crop(left).tobytes()
    ended(send(page, "Ask", "what is right of the cat?"))
    expect(turns(page).nth(2).get_by_alt_text("a cat left of a cake")).to_be_visible()


def test_a_part_is_painted_with_the_pointer(page: Page):
    before = painted(send(page, "Draw", "a lemon on a blue background"))
    send_change(page, "a lemon and a star on a blue background")
    canvas = dialog(page).locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    expect(dialog(page)).to_contain_text("16 % of the picture is marked")
    dialog(page).get_by_role("button", name="Erase").click()
    page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2)
    expect(dialog(page)).not_to_contain_text("16 % of")
    dialog(page).get_by_role("button", name="Undo").click()
    expect(dialog(page)).to_contain_text("16 % of the picture is marked")
    use(page)
    mask = Image.frombytes("RGBA", (SIDE, SIDE), pixels_of(page.locator(".about .stays")))
    assert mask.getpixel((0, 0)) == (0, 0, 0, 255)
    assert mask.getpixel((44, 32)) == (0, 0, 0, 0)
    page.get_by_label("What shall the picture show now?").press("Enter")
    after = painted(turns(page).nth(1))
    assert ImageChops.difference(image_of(after), image_of(before)).getbbox() is not None


def send_change(page: Page, text: str) -> None:
    """Ask for a change where nothing is marked yet, so that the page asks for the part."""
    page.get_by_role("radio", name="Change").check()
    field = page.get_by_label("What shall the picture show now?")
    field.fill(text)
    field.press("Enter")
    expect(dialog(page, "Which part shall change?")).to_be_visible()


def test_a_change_is_painted_again_from_the_gallery(page: Page):
    painted(send(page, "Draw", "a dog")).click()
    dialog(page).get_by_role("button", name="Change it").click()
    expect(dialog(page).get_by_role("button", name="Use this part")).to_be_disabled()
    mark_box(page, left=24, top=0, right=64, bottom=64)
    changed = pixels_of(painted(send(page, "Change", "a dog and a cat")))
    page.reload()
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("main").get_by_alt_text("a dog and a cat").click()
    page.get_by_role("button", name="Paint it again").click()
    again = turns(page).first
    assert pixels_of(painted(again)) == changed
    expect(again.get_by_alt_text("the picture before")).to_be_visible()


def test_a_change_needs_a_picture(page: Page):
    page.get_by_role("radio", name="Change").check()
    page.get_by_label("What shall the picture show now?").fill("a cat")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Show the picture that is to change first.")
