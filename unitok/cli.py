"""The command line: `unitok demo | caption | draw | chat | batch | info`.

What a user does wrong is one line on stderr and exit code 2; items that failed among others make
exit code 1; Ctrl-C makes 130. The model and all that needs torch are imported inside the commands,
so that help comes quickly.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from unitok.terminal import complain, warnings_in_one_line

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.demo import Demo
    from unitok.results import DrawResult, Result

FAILED, WRONG, STOPPED = 1, 2, 130  # exit codes
TABLE_WIDTH = 120  # columns, where stdout is no terminal


class Commands(TyperGroup):
    """Turns what goes wrong in any command into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings_in_one_line():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("stopped")
            raise typer.Exit(STOPPED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (ValueError, OSError, TypeError, RuntimeError) as error:
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

ModelFolder = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="FOLDER",
        help="A checkpoint's folder, or a hub id such as deepseek-community/Janus-Pro-1B.",
        show_default="embedded",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:1.", show_default="cuda if there is one")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16 or float16.", show_default="float32 on cpu, bfloat16 on cuda"
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Of the K/V pool: bytes, 512MB, 2GB, or 50% of what is free."
    ),
]


@app.callback()
def unitok() -> None:
    """One model that reads pictures and paints them. Try: unitok demo"""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where unitok-demo.png goes.")] = Path(
        "."
    ),
    model: ModelFolder = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
) -> None:
    """Draw a few prompts, read them back, read scenes never seen; one picture shows it all.

    Example: unitok demo --out /tmp
    """
    target = out / "unitok-demo.png"
    make_folder(out)
    from unitok.demo import demo_picture, run_demo

    shown = run_demo(load_model(model, device, dtype, memory))
    print_demo(shown)
    demo_picture(shown).save(target)
    print(f"All of it in one picture: {target.resolve()}")


@app.command()
def caption(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", show_default=False)],
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Answer this, instead of describing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per line.")] = False,
    model: ModelFolder = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
) -> None:
    """Describe pictures, or answer a question about each: one line per file.

    Example: unitok caption cat.png dog.png --question "what colour is the background?"
    """
    loaded = load_model(model, device, dtype, memory)
    from unitok.requests import Caption
    from unitok.results import TextResult

    failed = False
    for result in in_order(loaded.run(Caption(file, question) for file in files)):
        assert isinstance(result, TextResult)
        file = files[result.index]
        if result.error is not None:
            failed = True
            complain(result.error)
        elif as_json:
            names = (
                "text",
                "seed",
                "finish_reason",
                "prompt_tokens",
                "completion_tokens",
                "seconds",
            )
            print_json({"file": str(file)} | {name: getattr(result, name) for name in names})
        else:
            print(f"{file}: {' '.join(result.text.split())}", flush=True)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def draw(
    prompt: Annotated[str, typer.Argument(show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Several get -0, -1, ... before the suffix."
        ),
    ],
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same picture.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="1: none; higher follows the prompt more closely.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many pictures.")] = 1,
    negative_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What guidance steers away from.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest codes; 0: all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only the likeliest codes that make up this share.")
    ] = None,
    min_p: Annotated[
        float, typer.Option(help="Only codes at least this likely beside the likeliest; 0: all.")
    ] = 0.0,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="In pixels, such as 768x512, if the model can choose."),
    ] = None,
    model: ModelFolder = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
) -> None:
    """Draw a prompt; what is left out follows the model's own defaults.

    Example: unitok draw "two apples on a blue background" -o apples.png --seed 7
    """
    check_picture_name(output)
    width, height = parse_size(size)
    make_folder(output.parent)
    result = load_model(model, device, dtype, memory).draw(
        prompt,
        seed=seed,
        guidance=guidance,
        n=n,
        negative_prompt=negative_prompt,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        width=width,
        height=height,
    )
    for path in save_all(result, output):
        print(f"{path}: seed {result.seed}")


@app.command()
def chat(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where drawings go.")] = Path("."),
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="Do not show drawings in the terminal.")
    ] = False,
    model: ModelFolder = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
) -> None:
    """Talk with the model: show it a picture, ask, have one drawn, ask about that.

    Example: unitok chat, then /draw a cat left of a house, then: what is left of the house?
    """
    make_folder(out)
    loaded = load_model(model, device, dtype, memory)
    from unitok.conversation import Conversation, typed_lines

    if sys.stdin.isatty():
        print(f"{loaded.family.name}: /draw PROMPT, /show FILE [QUESTION], /help, /quit")
    try:
        Conversation(loaded, out, sys.stdout.isatty() and not no_preview).talk(typed_lines())
    except KeyboardInterrupt:
        print()


@app.command()
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="For results.jsonl and pictures/.")
    ],
    model: ModelFolder = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
) -> None:
    """Work off JSON lines of captions and drawings; after a kill, go on where it stopped.

    A line is {"caption": "cat.png", "question": "how many cats are there?"}, where the path starts
    from the folder of IN.jsonl, or {"draw": "a cat", "seed": 7, "n": 2}. Further keys: id, system,
    max_tokens, stop, temperature, top_k, top_p, min_p, repetition_penalty, guidance,
    negative_prompt, width, height, logprobs, branch_logprobs.

    Example: unitok batch work.jsonl -o results
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    make_folder(output)
    loaded = load_model(model, device, dtype, memory)
    from unitok.batch import count_lines, model_identity, run_batch
    from unitok.files import find_folder
    from unitok.loading import DEFAULT_FOLDER

    identity = model_identity(find_folder(model or DEFAULT_FOLDER))
    counts = {"new": 0, "kept": 0, "failed": 0}
    try:
        for outcome in progress(run_batch(loaded, source, output, identity), count_lines(source)):
            counts[outcome.status] += 1
            if outcome.error is not None:
                complain(f"line {outcome.line}: {outcome.error}")
    except KeyboardInterrupt:
        complain(f"stopped; {output} keeps what finished, and the same command goes on from there")
        raise typer.Exit(STOPPED) from None
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{output / 'results.jsonl'}: {told}")
    if counts["failed"]:
        raise typer.Exit(FAILED)


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    model: ModelFolder = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = None,
) -> None:
    """Sizes of the model and its K/V pool, and how it draws unless told otherwise.

    Example: unitok info --memory 64MB
    """
    facts = load_model(model, device, dtype, memory).info()
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


# --- what the commands share ---------------------------------------------------------------------


def load_model(
    folder: Path | None, device: str | None, dtype: str | None, memory: str | None
) -> Model:
    """The model the common options name; ValueError for a device that is not here."""
    import torch

    from unitok.loading import load

    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here; leave --device out, or say cpu")
    plain = memory is not None and memory.isdecimal()
    return load(folder, device, dtype, int(memory) if plain and memory else memory)


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
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: name a picture, such as {path.stem or 'picture'}.png")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")


def save_all(result: DrawResult, output: Path) -> list[Path]:
    """Save the pictures of a result, numbered before the suffix if there are several."""
    paths = [output]
    if len(result.images) > 1:
        paths = [
            output.with_stem(f"{output.stem}-{number}") for number in range(len(result.images))
        ]
    for path, image in zip(paths, result.images, strict=True):
        image.save(path)
    return paths


def in_order(results: Iterable[Result]) -> Iterator[Result]:
    """Results by index, each as soon as those before it are there."""
    early: dict[int, Result] = {}
    following = 0
    for result in results:
        early[result.index] = result
        while following in early:
            yield early.pop(following)
            following += 1


def progress(items: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass items on, with a bar on stderr if that is a terminal."""
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield from bar.track(items, total=total, description="batch")


def print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, ensure_ascii=False), flush=True)


def stdout_console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)


def print_demo(shown: Demo) -> None:
    """Two tables, and how many agreed."""
    console = stdout_console()
    drawn = Table(
        "prompt", "drawn", "read back", "agrees", "draw s", "read s", title="Drawn from words"
    )
    for d in shown.drawings:
        verdict = mark(d.ok) if d.ok else f"{mark(d.ok)}: {d.reason}"
        seconds = (f"{d.draw_seconds:.2f}", f"{d.caption_seconds:.2f}")
        drawn.add_row(d.prompt, verdict, brief(d.caption), mark(d.agrees), *seconds)
    read = Table("caption", "true", "read s", title="Read: scenes of combinations never seen")
    for r in shown.readings:
        verdict = mark(r.ok) if r.ok else f"{mark(r.ok)}: it shows {r.truth}"
        read.add_row(brief(r.caption), verdict, f"{r.seconds:.2f}")
    console.print(drawn)
    console.print(read)
    print(
        f"Drawn as asked: {tally(d.ok for d in shown.drawings)}. "
        f"Read back as asked: {tally(d.agrees for d in shown.drawings)}. "
        f"New scenes read right: {tally(r.ok for r in shown.readings)}. "
        f"{shown.seconds:.1f} s in all; each time includes waiting, as all run together."
    )


def brief(text: str, most: int = 80) -> str:
    """A text that fits a table, with none of rich's markup in it."""
    text = " ".join(text.split())
    return escape(text if len(text) <= most else text[: most - 3] + "...")


def mark(ok: bool) -> str:
    return "yes" if ok else "no"


def tally(marks: Iterable[bool]) -> str:
    """ "5 of 6"."""
    counted = list(marks)
    return f"{sum(counted)} of {len(counted)}"


def main() -> None:
    """The entry point of `unitok`."""
    app(prog_name="unitok")


if __name__ == "__main__":
    main()
