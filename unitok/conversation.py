"""`unitok chat`: a conversation in the terminal about pictures that are shown and drawn."""

import re
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.api import Model
from unitok.chat import Chat, ChatFullError, WhenFull
from unitok.results import DrawResult, Dropped, Event, TextResult, shortened
from unitok.saving import expanded, save_whole
from unitok.screen import printable, watched, write_live
from unitok.terminal import complain, half_blocks, one_line, say, uninterrupted

HELP = """\
A line without a slash at its beginning is sent to the model.
/show FILE [QUESTION]  show a picture and ask about it; without a question it is described
/draw PROMPT           draw a picture; you can ask about it afterwards
/undo                  drop the last question and its answer, or the last drawing
/new                   start a new conversation
/save FILE             save the conversation; /save! FILE replaces a file
/load FILE             go on with a conversation that was saved
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
        preview: Whether drawings are shown in the terminal, with `bars` also while they are drawn.
        live: Whether answers are written as they come.
        bars: Whether the progress of a drawing is shown.
        when_full: What happens when the context is full, as in `Chat`.
        chat: The conversation so far.
    """

    def __init__(
        self,
        model: Model,
        out: Path,
        preview: bool = False,
        live: bool = False,
        bars: bool = False,
        when_full: WhenFull = "error",
    ) -> None:
        """Begin a conversation.

        Args:
            model: Who answers.
            out: The folder where drawings are saved.
            preview: Whether to show drawings in the terminal.
            live: Whether to write answers as they come.
            bars: Whether to show the progress of a drawing.
            when_full: What happens when the context is full, as in `Chat`.
        """
        self.model, self.out = model, out
        self.when_full: WhenFull = when_full
        self.preview, self.live, self.bars = preview, live, bars
        self.chat = Chat(model, when_full=when_full)
        self._commands = {
            "/show": self.show,
            "/draw": self.draw,
            "/undo": self.undo,
            "/new": self.new,
            "/save": self.save,
            "/save!": lambda rest: self.save(rest, new=False),
            "/load": self.load,
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
            except ChatFullError as full:
                complain(how_to_go_on(full))
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
            results: list[TextResult] = []
            write_live(texts(self.chat.stream(text, images=images), results))
            self.report(results[0].dropped)
        else:
            result = self.chat.send(text, images=images)
            print(result.text, flush=True)
            self.report(result.dropped)

    def show(self, rest: str) -> None:
        """Show a picture and ask about it. `rest` is FILE [QUESTION]."""
        file, question = parse_file(rest, "/show FILE [QUESTION]")
        self.say(question or self.model.family.defaults.question, [file])

    def draw(self, prompt: str) -> None:
        """Draw a picture and save it."""
        preview = self.preview and self.bars
        result = last(watched(self.chat.stream_drawing(prompt, preview=preview), 1, self.bars))
        with uninterrupted():  # it is in the history by now, so the user should see it
            path = save_new(result.image, self.out)
            if self.preview:
                print(half_blocks(result.image, shutil.get_terminal_size().columns))
            print(f"{path} (seed {result.seed})", flush=True)
        self.report(result.dropped)

    def undo(self, _: str) -> None:
        """Drop the last exchange, and say what it began with."""
        asked, _answer = self.chat.undo()
        print(f"dropped: {quoted(asked)}", flush=True)

    def new(self, _: str) -> None:
        """Start a new conversation."""
        self.chat = Chat(self.model, when_full=self.when_full)

    def save(self, rest: str, new: bool = True) -> None:
        """Save the conversation. `rest` is FILE.

        Args:
            rest: The file.
            new: Whether the file must not exist yet.
        """
        file = only_file(rest, "/save FILE")
        try:
            self.chat.save(file, new)
        except FileExistsError:
            raise FileExistsError(f"{file} exists; /save! FILE replaces it") from None
        print(f"saved in {file}", flush=True)

    def load(self, rest: str) -> None:
        """Go on with a conversation that was saved. `rest` is FILE."""
        file = only_file(rest, "/load FILE")
        self.chat = Chat.load(self.model, file, self.when_full)
        print(f"{file}: {self.chat.size}", flush=True)

    def report(self, dropped: Dropped | None) -> None:
        """Say what the conversation has lost for want of room."""
        if dropped is not None:
            say(f"unitok: the context was full: {dropped} dropped, the oldest first")


def how_to_go_on(full: ChatFullError) -> str:
    """What to say when the context is full."""
    return (
        f"the conversation is full: it takes {full.taken} and needs {full.needed:,} "
        f"more, and the context holds {full.limit:,}. /undo drops the last exchange, /new starts "
        "a new conversation, and unitok chat --when-full drop goes on without the oldest pictures"
    )


def texts(events: Iterable[Event], results: list[TextResult]) -> Iterator[str]:
    """The texts of events. The result is added to a list."""
    for event in events:
        yield event.text
        if isinstance(event.result, TextResult):
            results.append(event.result)


def parse_file(rest: str, usage: str) -> tuple[Path, str]:
    """The file at the beginning of what was typed, and the rest.

    Args:
        rest: What was typed behind the command.
        usage: How the command is used.

    Raises:
        ValueError: There is no file.
    """
    found = _FILE.fullmatch(rest)
    if found is None:
        raise ValueError(f"{usage.split()[0]} needs a file: {usage}")
    bare = re.sub(r"\\(.)", r"\1", found["bare"]) if found["bare"] else None
    return expanded(found["double"] or found["single"] or bare or ""), found["rest"]


def only_file(rest: str, usage: str) -> Path:
    """The file that was typed, and nothing else.

    Raises:
        ValueError: There is no file, or something behind it.
    """
    file, more = parse_file(rest, usage)
    if more:
        raise ValueError(f"{usage}: put a name with blanks in quotes")
    return file


def quoted(message: Mapping[str, Any]) -> str:
    """The text of a message, shortened."""
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = " ".join(part["text"] for part in parts if part["type"] == "text")
    return repr(shortened(one_line(printable(text))))


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
