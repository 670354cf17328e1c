"""`unitok chat`: a conversation in the terminal that shows, asks, draws and asks again."""

import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from PIL import Image

from unitok.api import Model
from unitok.terminal import complain, half_blocks

HELP = """\
Anything that does not begin with a slash is said to the model.
/show FILE [QUESTION]  show a picture; without a question, have it described
/draw PROMPT           have a picture drawn; you may ask about it next
/new                   forget all that was said
/help                  this list
/quit                  end (or Ctrl-D)"""

# A file name in quotes, or one without blanks unless a backslash stands before them; then the rest.
_FILE = re.compile(
    r"""(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<bare>(?:\\.|\S)+))\s*(?P<rest>.*)"""
)


class Conversation:
    """What the user types goes in line by line; answers go to stdout, errors to stderr."""

    def __init__(self, model: Model, out: Path, preview: bool = False) -> None:
        self.model, self.out, self.preview = model, out, preview
        self.chat = model.chat()
        self._commands = {
            "/show": self.show,
            "/draw": self.draw,
            "/new": self.new,
            "/help": lambda _: print(HELP),
        }

    def talk(self, lines: Iterable[str]) -> None:
        """Answer line after line, until /quit or the last. What fails is told and passed over."""
        for line in map(str.strip, lines):
            if line in ("/quit", "/exit"):
                return
            try:
                self.answer(line)
            except (ValueError, OSError, TypeError, RuntimeError) as error:
                complain(error)

    def answer(self, line: str) -> None:
        """Carry out one line: a command, or words for the model."""
        if not line:
            return
        if not line.startswith("/"):
            print(self.chat.send(line).text, flush=True)
            return
        name, _, rest = line.partition(" ")
        if name not in self._commands:
            raise ValueError(f"there is no {name} here; /help lists what there is")
        self._commands[name](rest.strip())

    def show(self, rest: str) -> None:
        """FILE [QUESTION]"""
        found = _FILE.fullmatch(rest)
        if found is None:
            raise ValueError("/show needs a file: /show FILE [QUESTION]")
        bare = re.sub(r"\\(.)", r"\1", found["bare"]) if found["bare"] else None
        file = Path(found["double"] or found["single"] or bare or "").expanduser()
        question = found["rest"] or self.model.family.defaults.question
        print(self.chat.send(question, images=[file]).text, flush=True)

    def draw(self, prompt: str) -> None:
        result = self.chat.draw(prompt)
        path = save_new(result.image, self.out)
        if self.preview:
            print(half_blocks(result.image, shutil.get_terminal_size().columns))
        print(f"{path} (seed {result.seed})", flush=True)

    def new(self, _: str) -> None:
        self.chat = self.model.chat()


def save_new(image: Image.Image, folder: Path) -> Path:
    """Save as chat-1.png, or the first number that is free; no file is ever overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"chat-{number}.png"
        try:
            with path.open("xb") as file:
                image.save(file, "PNG")
            return path
        except FileExistsError:
            number += 1


def typed_lines() -> Iterator[str]:
    """Lines from stdin, with a prompt and line editing if a person types them."""
    prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    if prompt:
        with suppress(ImportError):  # its import gives input() history and editing
            import readline  # noqa: F401
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return
