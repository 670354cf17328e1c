"""Take pictures of the server's page, for the documentation.

unitok serve --port 8000 &
python scripts/page_screenshots.py --url http://127.0.0.1:8000 --out docs/images
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Locator, Page, sync_playwright

PATIENCE = 120_000  # milliseconds
MOST = 200_000  # bytes of a picture
SCENES = (
    "two apples on a blue background",
    "a rocket above a house",
    "three lemons on a pink background",
    "a frog right of a mushroom",
    "a turtle on a green background",
)
LAPTOP, PHONE = (1000, 860), (390, 760)


@contextmanager
def opened(
    browser: Browser,
    url: str,
    viewport: tuple[int, int],
    scheme: Literal["light", "dark"] = "light",
) -> Iterator[Page]:
    """The page, where nothing moves."""
    width, height = viewport
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("What shall I draw?").wait_for()
        yield page


def settings(page: Page, **values: str) -> None:
    """Set how pictures are made, and fold the settings again."""
    page.get_by_role("button", name="Settings").click()
    for name, value in values.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Settings").click()


def send(page: Page, mode: str, text: str) -> Locator:
    """Send something, and wait until its turn has ended."""
    turns = page.get_by_role("list", name="Conversation").locator("> li")
    count = turns.count()
    page.get_by_role("radio", name=mode).check()
    field = page.get_by_role("form", name="Your turn").get_by_role("textbox").first
    field.fill(text)
    field.press("Enter")
    turn = turns.nth(count)
    turn.get_by_role("button", name="Reword").wait_for(timeout=PATIENCE)
    return turn


def take(page: Page, path: Path) -> None:
    """Take a picture.

    Raises:
        SystemExit: It is too large for the documentation.
    """
    page.screenshot(path=path)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes")
    if size > MOST:
        sys.exit(f"{path} is larger than {MOST:,} bytes: make its window smaller")


def mark(page: Page, picture: Locator) -> None:
    """Mark the right half of a picture."""
    picture.click()
    page.get_by_role("button", name="Change it").click()
    page.get_by_role("button", name="Mark the box").click()


def take_all(browser: Browser, url: str, out: Path) -> None:
    """Take all pictures: of a conversation, of a change, of the gallery, and of a phone."""
    with opened(browser, url, LAPTOP) as page:
        settings(page, Pictures="2", Seed="3")
        drawn = send(page, "Draw", "a cat left of a dog")
        send(page, "Ask", "what is left of the dog?")
        take(page, out / "page_draw_light.png")
        mark(page, drawn.locator("button.frame").first)
        take(page, out / "page_change.png")
        page.get_by_role("button", name="Use this part").click()
        page.get_by_role("dialog").wait_for(state="hidden")
        send(page, "Change", "a cat left of a cake")
        take(page, out / "page_changed.png")
    with opened(browser, url, LAPTOP, "dark") as page:
        settings(page, Pictures="3", Seed="20")
        for prompt in SCENES:
            send(page, "Draw", prompt)
        page.get_by_role("link", name="Gallery").click()
        take(page, out / "page_gallery_dark.png")
    with opened(browser, url, PHONE) as page:
        settings(page, Seed="8")
        send(page, "Draw", "three lemons on a pink background")
        take(page, out / "page_phone.png")


def main() -> None:
    """Take pictures of a server that runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    path = shutil.which("chromium")
    if path is None:
        sys.exit("Chromium is needed: apt-get install chromium")
    given.out.mkdir(parents=True, exist_ok=True)
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # root has none
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        take_all(browser, given.url, given.out)
        browser.close()


if __name__ == "__main__":
    main()
