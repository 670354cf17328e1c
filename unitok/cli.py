"""The command line: `unitok demo | caption | draw | chat | batch | info`.

What a user does wrong is one line on stderr and exit code 2; items that failed among others make
exit code 1; Ctrl-C makes 130. The model and all that needs torch are imported inside the commands,
so that help comes quickly.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from unitok import __version__
from unitok.flags import Common, flag_name, names_of_options, with_flags
from unitok.requests import Caption, Draw, TextOptions, check_ranges
from unitok.screen import (
    after,
    counted,
    in_one_line,
    printable,
    stdout_console,
    watched,
    write_live,
)
from unitok.terminal import STOPPED, complain, hears_ctrl_c, uninterrupted

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.results import Event, Result

FAILED, WRONG = 1, 2  # exit codes, beside STOPPED
WRONG_USE = (ValueError, OSError, TypeError, RuntimeError)
FACTS = ("seed", "finish_reason", "prompt_tokens", "completion_tokens", "seconds")
LOGPROBS = ("logprobs", "branch_logprobs")


class Commands(TyperGroup):
    """Turns what goes wrong in any command into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise stopped() from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except WRONG_USE as error:
            complain(error)
            raise typer.Exit(WRONG) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="JSON instead, with more in it.")]


def tell_version(wanted: bool) -> None:
    """Print the version and end, if that is what was asked for."""
    if wanted:
        print(f"unitok {__version__}")
        raise typer.Exit


@app.callback()
def unitok(
    version: Annotated[
        bool,
        typer.Option("--version", callback=tell_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    """One model that reads pictures and paints them. Try: unitok demo"""


@app.command()
@with_flags()
def demo(
    common: Common,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where unitok-demo.png goes.")] = Path(
        "."
    ),
) -> None:
    """Draw a few prompts, read them back, read scenes never seen; one picture shows it all.

    Example: unitok demo --out /tmp
    """
    target = out / "unitok-demo.png"
    make_folder(out)
    with common.load() as model:
        from unitok.demo import demo_picture, print_demo, run_demo
        from unitok.saving import save_whole

        shown = run_demo(model)
    print_demo(shown)
    save_whole(demo_picture(shown), target)
    print(f"All of it in one picture: {target.resolve()}")


@app.command()
@with_flags(Caption)
def caption(
    common: Common,
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", show_default=False)],
    as_json: Json = False,
    **options: Any,
) -> None:
    """Describe pictures, or answer a question about each: one line per file.

    Example: unitok caption cat.png dog.png --question "what colour is the background?"
    """
    asked = [Caption(file, **options) for file in files]
    check(asked[0], as_json)
    live = len(files) == 1 and not as_json and sys.stdout.isatty()
    with common.load() as model:
        all_told = tell_live(model, asked[0]) if live else tell_all(model, asked, as_json)
    if not all_told:
        raise typer.Exit(FAILED)


@app.command()
@with_flags(Draw, but=("width", "height"))
def draw(
    common: Common,
    prompt: Annotated[str, typer.Argument(show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Several get -0, -1, ... before the suffix."
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="In pixels, such as 768x512, if the model can choose."),
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Draw a prompt; what is left out follows the model's own defaults.

    Example: unitok draw "two apples on a blue background" -o apples.png --seed 7
    """
    check_picture_name(output)
    width, height = parse_size(size)
    asked = Draw(prompt, width=width, height=height, **options)
    check(asked, as_json)
    make_folder(output.parent)
    paths = numbered(output, asked.n)
    saved: dict[int, str] = {}  # number of a picture -> its seed
    try:
        with common.load() as model:
            events = watched(model.stream(asked), asked.n, common.bars)
            result = save_as_painted(events, paths, saved)
    except KeyboardInterrupt:
        raise stopped(f"{len(saved)} of {asked.n} pictures are saved" if saved else "") from None
    finally:
        for number in () if as_json else sorted(saved):
            print(f"{paths[number]}: seed {saved[number]}")
    if as_json:
        print_json({"prompt": prompt, "files": [str(path) for path in paths]} | facts(result))


@app.command()
@with_flags()
def chat(
    common: Common,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where drawings go.")] = Path("."),
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="Do not show drawings in the terminal.")
    ] = False,
) -> None:
    """Talk with the model: show it a picture, ask, have one drawn, ask about that.

    Ctrl-C stops an answer or a drawing, and at the prompt ends the chat.

    Example: unitok chat, then /draw a cat left of a house, then: what is left of the house?
    """
    make_folder(out)
    with common.load() as model:
        from unitok.conversation import Conversation, typed_lines

        live, typed = sys.stdout.isatty(), sys.stdin.isatty()
        if typed:
            print(f"{model.family.name}: /draw PROMPT, /show FILE [QUESTION], /help, /quit")
        conversation = Conversation(model, out, live and not no_preview, live, common.bars)
        try:
            conversation.talk(typed_lines(), patient=typed)
        except KeyboardInterrupt:
            print()


@app.command(
    epilog=f'With "caption" go {names_of_options(Caption)}; '
    f'with "draw" go {names_of_options(Draw)}. Any line may have an "id".'
)
@with_flags()
def batch(
    common: Common,
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="For results.jsonl and pictures/.")
    ],
) -> None:
    """Work off JSON lines of captions and drawings; after a kill, go on where it stopped.

    A line is {"caption": "cat.png", "question": "how many cats are there?"}, where the path starts
    from the folder of IN.jsonl, or {"draw": "a cat", "seed": 7, "n": 2}. Further keys stand below.

    Example: unitok batch work.jsonl -o results
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    make_folder(output)
    with common.load() as model:
        counts = work_off(model, common, source, output)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{output / 'results.jsonl'}: {told}")
    if counts["failed"]:
        raise typer.Exit(FAILED)


@app.command()
@with_flags()
def info(common: Common, as_json: Json = False) -> None:
    """Sizes of the model and its K/V pool, and how it draws unless told otherwise.

    Example: unitok info --memory 64MB
    """
    with common.load() as model:
        facts = model.info()
    width, height = facts.picture_size
    if as_json:
        print_json(dataclasses.asdict(facts))
        return
    table = Table(show_header=False, box=None)
    for name, text in {
        "model": facts.name,
        "parameters": f"{facts.parameters:,}",
        "device": f"{facts.device}, {facts.dtype}",
        "precision": facts.precision,
        "context": f"{facts.context:,} tokens",
        "picture": f"{width} x {height} pixels, {facts.picture_tokens} tokens",
        "K/V pool": f"{facts.kv_memory:,} bytes, {facts.kv_tokens:,} tokens",
        "temperature": f"{facts.temperature:g}",
        "top-k": f"{facts.top_k or 'off'}",
        "top-p": "off" if facts.top_p == 1 else f"{facts.top_p:g}",
        "guidance": f"{facts.guidance:g}",
    }.items():
        table.add_row(name, text)
    stdout_console().print(table)


# --- what is asked -------------------------------------------------------------------------------


def check(asked: TextOptions | Draw, as_json: bool) -> None:
    """ValueError, before a model is loaded, for what no model can do."""
    check_ranges(asked)
    for name in LOGPROBS:
        if getattr(asked, name) and not as_json:
            raise ValueError(f"{flag_name(name)} are told in JSON only: add --json")


def parse_size(size: str | None) -> tuple[int | None, int | None]:
    """Width and height of text such as 768x512."""
    if size is None:
        return None, None
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size is width x height in pixels, such as 768x512, not {size!r}")
    return int(width), int(height)


def make_folder(folder: Path) -> None:
    """Make a folder if need be; OSError, before any work is done, if it cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: cannot be written")


def check_picture_name(path: Path) -> None:
    """ValueError for a name whose suffix is no picture format's."""
    from unitok.saving import picture_format

    if picture_format(path) is None:
        raise ValueError(f"{path}: name a picture, such as {path.stem or 'picture'}.png")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")


# --- work ----------------------------------------------------------------------------------------


def work_off(model: Model, common: Common, source: Path, output: Path) -> dict[str, int]:
    """Run a batch, telling what fails; how many lines became what."""
    from unitok.batch import count_lines, model_identity, run_batch
    from unitok.checkpoints.folders import find_folder
    from unitok.loading import DEFAULT_FOLDER

    counts = {"new": 0, "kept": 0, "failed": 0}
    try:
        identity = model_identity(find_folder(common.model or DEFAULT_FOLDER))
        outcomes = run_batch(model, source, output, identity)
        with closing(counted(outcomes, count_lines(source), "batch", common.bars)) as shown:
            for outcome in shown:
                counts[outcome.status] += 1
                if outcome.error is not None:
                    complain(f"line {outcome.line}: {outcome.error}")
    except KeyboardInterrupt:
        raise stopped(
            f"{output} keeps what finished, and the same command goes on from there"
        ) from None
    return counts


def save_as_painted(
    events: Generator[Event], paths: Sequence[Path], saved: dict[int, str]
) -> Result | None:
    """Save pictures as they come, and note the seed of each; returns the result of all."""
    from unitok.saving import save_whole

    result = None
    with closing(events):
        for event in events:
            if event.image is not None:
                with uninterrupted():
                    save_whole(event.image, paths[event.sample])
                    saved[event.sample] = event.image.info["seed"]
            result = event.result
    return result


# --- what is told --------------------------------------------------------------------------------


def tell_live(model: Model, asked: Caption) -> bool:
    """Write a caption as it comes, in one line; whether there was one."""
    try:
        pieces = in_one_line(event.text for event in model.stream(asked))
        write_live(after(f"{asked.image}: ", pieces))
    except WRONG_USE as error:  # of the picture alone, as among several
        complain(error)
        return False
    return True


def tell_all(model: Model, asked: Sequence[Caption], as_json: bool) -> bool:
    """Print all captions, each as soon as those before it are there; whether none failed."""
    early: dict[int, Result] = {}
    told: list[bool] = []
    try:
        for result in in_order(model.run(asked), early):
            with uninterrupted():
                told.append(tell(asked[result.index], result, as_json))
    except KeyboardInterrupt:
        told += [tell(asked[index], early[index], as_json) for index in sorted(early)]
        raise stopped(f"{len(told)} of {len(asked)} files are done" if told else "") from None
    return all(told)


def tell(asked: Caption, result: Any, as_json: bool) -> bool:
    """Print one caption in one line, or say why there is none; whether there is."""
    if result.error is not None:
        complain(result.error)
    elif as_json:
        print_json({"file": str(asked.image), "text": result.text} | facts(result))
    else:
        line = f"{asked.image}: {' '.join(result.text.split())}"
        print(printable(line) if sys.stdout.isatty() else line, flush=True)
    return result.error is None


def in_order(results: Iterable[Result], early: dict[int, Result] | None = None) -> Iterator[Result]:
    """Results by index, each as soon as those before it are there; `early` holds it until then."""
    early = {} if early is None else early
    following = 0
    for result in results:
        early[result.index] = result
        while following in early:
            yield early.pop(following)
            following += 1


def numbered(output: Path, n: int) -> list[Path]:
    """Names of n pictures, numbered before the suffix if there are several."""
    if n == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(n)]


def facts(result: Result | None) -> dict[str, Any]:
    """What JSON tells of any result."""
    told = {name: getattr(result, name) for name in (*FACTS, *LOGPROBS)}
    return {name: value for name, value in told.items() if value is not None}


def print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, ensure_ascii=False), flush=True)


def stopped(what: str = "") -> typer.Exit:
    """Say that Ctrl-C was heard, and what is not lost; the end that is to be raised."""
    complain(f"stopped; {what}" if what else "stopped")
    return typer.Exit(STOPPED)


def main() -> None:
    """The entry point of `unitok`."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name may hold what is no Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="unitok")
    finally:  # all is said and saved: who cannot wait for a step to end need not see a traceback
        if hears_ctrl_c():
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
