"""What one does on the page, and what one sees there."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# Notes what comes and goes too quickly for a look, and what the policy forbids.
WATCH = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`forbidden: ${event.violatedDirective} ${event.blockedURI}`);
});
window.seen = [];
new MutationObserver(() => {
  const preview = document.querySelector(".unfinished img[alt]:not([alt=''])");
  if (preview && window.seen.at(-1) !== preview.src) {
    window.seen.push(preview.src);
    window.doneAtPreview ??= document.querySelectorAll("img.done").length;
  }
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
PATIENCE = 60_000  # milliseconds, on a busy machine


class Faults:
    """What goes wrong in pages without a person seeing it.

    Attributes:
        seen: The faults, in words.
        allowed: Parts of faults that a test expects.
    """

    def __init__(self) -> None:
        """Nothing has gone wrong yet."""
        self.seen: list[str] = []

    def watch(self, page: Page) -> None:
        """Note the faults of a page."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.seen.append(str(error)))
        page.on("requestfailed", self._failed)

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium reports every answer of 400 and more, which the page tells in words.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.seen.append(message.text)

    def _failed(self, request: Request) -> None:
        # A request that the person has cancelled is aborted.
        if request.failure != "net::ERR_ABORTED":
            self.seen.append(f"{request.url}: {request.failure}")


def send(page: Page, mode: str, text: str) -> Locator:
    """Write something and press Enter. Gives its turn."""
    page.get_by_role("radio", name=mode).check()
    count = turns(page).count()
    field = page.get_by_role("form", name="Your turn").get_by_role("textbox").first
    field.fill(text)
    field.press("Enter")
    turn = turns(page).nth(count)
    turn.wait_for()
    return turn


def turns(page: Page) -> Locator:
    """The turns of the conversation."""
    return page.get_by_role("list", name="Conversation").locator("> li")


def painted(turn: Locator, n: int = 1) -> Locator:
    """The n pictures of a turn, when they are done."""
    pictures = ended(turn).locator("button.frame img")
    assert pictures.count() == n, turn.inner_text()
    return pictures


def ended(turn: Locator) -> Locator:
    """A turn that has ended."""
    turn.get_by_role("button", name="Reword").wait_for(timeout=PATIENCE)
    return turn


def settings(page: Page, **values: str) -> None:
    """Fill in settings, by their names."""
    button = page.get_by_role("button", name="Settings")
    if button.get_attribute("aria-expanded") == "false":
        button.click()
    for name, value in values.items():
        page.get_by_label(name, exact=name != "Without").fill(value)


def dialog(page: Page, name: str | None = None) -> Locator:
    """The dialog that is open."""
    return page.get_by_role("dialog", name=name) if name else page.get_by_role("dialog")


def pixels_of(picture: Locator) -> bytes:
    """The pixels of a picture: red, green, blue and alpha of each."""
    return bytes(picture.evaluate(PIXELS))


def drop(page: Page, file: dict[str, Any]) -> None:
    """Drop a file on the page: its name and its bytes in base64."""
    page.evaluate(TRANSFER.format(event="drop"), file)


def paste(page: Page, file: dict[str, Any]) -> None:
    """Paste a file: its name and its bytes in base64."""
    page.evaluate(TRANSFER.format(event="paste"), file)


PIXELS = """(img) => {
  const canvas = new OffscreenCanvas(img.naturalWidth, img.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(img, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""
TRANSFER = """({{ name, data }}) => {{
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {{ type: "image/png" }}));
  const given = {{ bubbles: true, cancelable: true }};
  document.body.dispatchEvent(
    "{event}" === "drop"
      ? new DragEvent("drop", {{ ...given, dataTransfer: transfer }})
      : new ClipboardEvent("paste", {{ ...given, clipboardData: transfer }}),
  );
}}"""
