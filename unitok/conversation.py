"""`unitok chat`: a conversation in the terminal that shows, asks, draws and asks again."""

import re
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from PIL import Image

from unitok.api import Model
from unitok.results import DrawResult, Event
from unitok.saving import save_whole
from unitok.screen import watched, write_live
from unitok.terminal import complain, half_blocks, uninterrupted

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
    """What the user types goes in line by line; answers go to stdout, errors to stderr.

    preview: show drawings in the terminal. live: write answers as they come. bars: show how far a
    drawing is.
    """

    def __init__(
        self,
        model: Model,
        out: Path,
        preview: bool = False,
        live: bool = False,
        bars: bool = False,
    ) -> None:
        self.model, self.out = model, out
        self.preview, self.live, self.bars = preview, live, bars
        self.chat = model.chat()
        self._commands = {
            "/show": self.show,
            "/draw": self.draw,
            "/new": self.new,
            "/help": lambda _: print(HELP),
        }

    def talk(self, lines: Iterable[str], patient: bool = False) -> None:
        """Answer line after line, until /quit or the last. What fails is told and passed over.

        patient: Ctrl-C stops only what is being answered. At the prompt it always ends the talk.
        """
        for line in map(str.strip, lines):
            if line in ("/quit", "/exit"):
                return
            try:
                self.answer(line)
            except KeyboardInterrupt:
                if not patient:
                    raise
                complain("stopped; the chat goes on")
            except (ValueError, OSError, TypeError, RuntimeError) as error:
                complain(error)

    def answer(self, line: str) -> None:
        """Carry out one line: a command, or words for the model."""
        if not line:
            return
        if not line.startswith("/"):
            self.say(line)
            return
        name, _, rest = line.partition(" ")
        if name not in self._commands:
            raise ValueError(f"there is no {name} here; /help lists what there is")
        self._commands[name](rest.strip())

    def say(self, text: str, images: Sequence[Path] = ()) -> None:
        """Tell the model something, and print what it answers."""
        if self.live:
            write_live(event.text for event in self.chat.stream(text, images=images))
        else:
            print(self.chat.send(text, images=images).text, flush=True)

    def show(self, rest: str) -> None:
        """FILE [QUESTION]"""
        found = _FILE.fullmatch(rest)
        if found is None:
            raise ValueError("/show needs a file: /show FILE [QUESTION]")
        bare = re.sub(r"\\(.)", r"\1", found["bare"]) if found["bare"] else None
        file = Path(found["double"] or found["single"] or bare or "").expanduser()
        self.say(found["rest"] or self.model.family.defaults.question, [file])

    def draw(self, prompt: str) -> None:
        result = last(watched(self.chat.stream_drawing(prompt), 1, self.bars))
        with uninterrupted():  # the model knows of it by now, so people are to see it
            path = save_new(result.image, self.out)
            if self.preview:
                print(half_blocks(result.image, shutil.get_terminal_size().columns))
            print(f"{path} (seed {result.seed})", flush=True)

    def new(self, _: str) -> None:
        self.chat = self.model.chat()


def last(events: Generator[Event]) -> DrawResult:
    """The result of a drawing, when all its events have come."""
    result = None
    with closing(events):
        for event in events:
            result = event.result
    assert isinstance(result, DrawResult)
    return result


def save_new(image: Image.Image, folder: Path) -> Path:
    """Save as chat-1.png, or the first number that is free; no file is ever overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    free = (path for n in count(1) if not (path := folder / f"chat-{n}.png").exists())
    for path in free:
        with suppress(FileExistsError):  # of another chat, meanwhile
            save_whole(image, path, new=True)
            return path
    raise AssertionError("numbers do not end")


def typed_lines() -> Iterator[str]:
    """Lines from stdin, with a prompt and line editing if a person types them.

    Ctrl-C drops a line that is half typed, as shells do; on an empty one it is KeyboardInterrupt.
    """
    prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    if prompt:
        with suppress(ImportError):  # its import gives input() history and editing
            import readline  # noqa: F401
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not half_typed_line():
                raise
            print()


def half_typed_line() -> str:
    """What was typed when Ctrl-C came, if lines are edited here."""
    readline = sys.modules.get("readline")
    return readline.get_line_buffer() if readline else ""
