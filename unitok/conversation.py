"""`unitok chat`: a conversation in the terminal about pictures that are shown and drawn."""

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
A line without a slash at its beginning is sent to the model.
/show FILE [QUESTION]  show a picture and ask about it; without a question it is described
/draw PROMPT           draw a picture; you can ask about it afterwards
/new                   start a new conversation
/help                  show this list
/quit                  end the chat (or Ctrl-D)"""

# A file name in quotes, or one whose blanks are escaped by backslashes; then the rest of the line.
_FILE = re.compile(
    r"""(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<bare>(?:\\.|\S)+))\s*(?P<rest>.*)"""
)


class Conversation:
    """Answers what a user types, line by line: on stdout, with errors on stderr.

    Attributes:
        model: Who answers.
        out: The folder where drawings are saved.
        preview: Whether drawings are shown in the terminal.
        live: Whether answers are written as they come.
        bars: Whether the progress of a drawing is shown.
        chat: The conversation so far.
    """

    def __init__(
        self,
        model: Model,
        out: Path,
        preview: bool = False,
        live: bool = False,
        bars: bool = False,
    ) -> None:
        """Begin a conversation.

        Args:
            model: Who answers.
            out: The folder where drawings are saved.
            preview: Whether to show drawings in the terminal.
            live: Whether to write answers as they come.
            bars: Whether to show the progress of a drawing.
        """
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
        """Answer lines until /quit or the last one. A line that fails is reported and skipped.

        Args:
            lines: What the user types.
            patient: Whether Ctrl-C during an answer stops only that answer. At the prompt it always
                ends the conversation.
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
        """Answer one line, which is a command or a message to the model.

        Raises:
            ValueError: There is no such command, or it lacks something.
        """
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
        """Send the model a message, with pictures if you like, and print its answer."""
        if self.live:
            write_live(event.text for event in self.chat.stream(text, images=images))
        else:
            print(self.chat.send(text, images=images).text, flush=True)

    def show(self, rest: str) -> None:
        """Show a picture and ask about it. `rest` is FILE [QUESTION]."""
        found = _FILE.fullmatch(rest)
        if found is None:
            raise ValueError("/show needs a file: /show FILE [QUESTION]")
        bare = re.sub(r"\\(.)", r"\1", found["bare"]) if found["bare"] else None
        file = Path(found["double"] or found["single"] or bare or "").expanduser()
        self.say(found["rest"] or self.model.family.defaults.question, [file])

    def draw(self, prompt: str) -> None:
        """Draw a picture and save it."""
        result = last(watched(self.chat.stream_drawing(prompt), 1, self.bars))
        with uninterrupted():  # it is in the history by now, so the user should see it
            path = save_new(result.image, self.out)
            if self.preview:
                print(half_blocks(result.image, shutil.get_terminal_size().columns))
            print(f"{path} (seed {result.seed})", flush=True)

    def new(self, _: str) -> None:
        """Start a new conversation."""
        self.chat = self.model.chat()


def last(events: Generator[Event]) -> DrawResult:
    """The result of a drawing, after all its events."""
    result = None
    with closing(events):
        for event in events:
            result = event.result
    assert isinstance(result, DrawResult)
    return result


def save_new(image: Image.Image, folder: Path) -> Path:
    """Save a picture as chat-1.png, or with the first number that is free.

    No file is ever overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = (path for n in count(1) if not (path := folder / f"chat-{n}.png").exists())
    for path in free:
        with suppress(FileExistsError):  # another chat has made it meanwhile
            save_whole(image, path, new=True)
            return path
    raise AssertionError("numbers do not end")


def typed_lines() -> Iterator[str]:
    """Lines from stdin, with a prompt and line editing if stdin is a terminal.

    Ctrl-C drops a half-typed line, as in a shell.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed on an empty line.
    """
    prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    if prompt:
        with suppress(ImportError):  # importing it gives input() history and editing
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
    """What was typed before Ctrl-C; "" if lines are not edited here."""
    readline = sys.modules.get("readline")
    return readline.get_line_buffer() if readline else ""
