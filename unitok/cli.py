"""The command line: `unitok demo | caption | draw | edit | chat | batch | info | save | data |
eval | baseline | train | serve`.

A user's mistake is reported in one line on stderr, with exit code 2. If some items of several fail,
the exit code is 1. After Ctrl-C it is 130. Whatever imports torch is imported inside the commands,
so that the help appears quickly.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from contextlib import closing
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from typer.core import TyperGroup

from unitok import __version__
from unitok.batch.source import Source
from unitok.captioning import print_all, print_live
from unitok.commands.baseline import baseline
from unitok.commands.batch_on_ray import OnRay, batch_on_ray
from unitok.commands.data import data
from unitok.commands.evaluate import evaluation
from unitok.commands.serve import serve
from unitok.commands.train import train
from unitok.drawing import Target, generate, parse_size
from unitok.extras import missing_is_wrong_use
from unitok.flags import (
    ON_RAY,
    Common,
    CpusPerReplica,
    GpusPerReplica,
    Replicas,
    names_of_options,
    with_flags,
)
from unitok.reporting import (
    WRONG_USE,
    check,
    from_stdin,
    print_counts,
    print_json,
    stopped,
    with_stdin,
)
from unitok.requests import Caption, Draw, Edit, Reply
from unitok.saving import MAX_SCALE, make_folder, save_whole
from unitok.screen import counted, stdout_console
from unitok.terminal import complain, hears_ctrl_c

if TYPE_CHECKING:
    from unitok.api import Info, Model

FAILED, WRONG = 1, 2  # exit codes


class Commands(TyperGroup):
    """The group of all commands. An error in one of them becomes a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            typer.Exit: The command was interrupted, or used wrongly.
        """
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
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data, name="data")
app.add_typer(evaluation, name="eval")
app.add_typer(baseline, name="baseline")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, with more details.")]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Several get -0, -1, ... before the suffix."
    ),
]


Scale = Annotated[
    int,
    typer.Option(
        metavar="K",
        min=1,
        max=MAX_SCALE,
        help="Save every pixel as a square of K x K pixels.",
    ),
]
NoClobber = Annotated[
    bool, typer.Option("--no-clobber", help="Replace no file: it is an error if one exists.")
]


def print_version(wanted: bool) -> None:
    """Print the version and exit, if that is wanted."""
    if wanted:
        print(f"unitok {__version__}")
        raise typer.Exit


@app.callback()
def unitok(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """One model that describes pictures and draws them. Try: unitok demo"""


@app.command()
@with_flags()
def demo(
    common: Common,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for unitok-demo.png.")
    ] = Path("."),
) -> None:
    """Draw prompts, caption the drawings and new scenes, and show all in one picture.

    Example: unitok demo --out /tmp
    """
    target = out / "unitok-demo.png"
    make_folder(out)
    with common.load() as model:
        from unitok.demo import demo_picture, print_demo, run_demo

        shown = run_demo(model)
    print_demo(shown)
    save_whole(demo_picture(shown), target)
    print(f"All of it in one picture: {target.resolve()}")


@app.command()
@with_flags(Caption)
def caption(
    common: Common,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", show_default=False, help="Pictures; - is stdin."),
    ],
    as_json: Json = False,
    **options: Any,
) -> None:
    """Describe pictures, or answer a question about each, in one line per file.

    Example: unitok caption cat.png dog.png --question "what colour is the background?"
    """
    asked, names = [Caption(file, **options) for file in files], [str(file) for file in files]
    check(asked[0], as_json)
    asked = [with_stdin(one) for one in asked]
    live = len(files) == 1 and not as_json and sys.stdout.isatty()
    with common.load() as model:
        if live:
            complete = print_live(model, asked[0], names[0])
        else:
            complete = print_all(model, asked, names, as_json)
    if not complete:
        raise typer.Exit(FAILED)


@app.command()
@with_flags(Draw, but=("width", "height"))
def draw(
    common: Common,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", show_default=False)],
    output: Output,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="In pixels, such as 768x512, if the model offers sizes."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A picture that the prompts speak of, if the model can; - is stdin. May be given "
            "several times.",
            show_default=False,
        ),
    ] = None,
    scale: Scale = 1,
    no_clobber: NoClobber = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Generate pictures of prompts. Options left out have the model's own defaults.

    Several prompts are drawn together. Their files are numbered in their order.

    Example: unitok draw "two apples on a blue background" -o apples.png --seed 7
    """
    width, height = parse_size(size)
    images = tuple(map(from_stdin, image or ()))
    options |= {"images": images, "width": width, "height": height}
    asked = [Draw(prompt, **options) for prompt in prompts]
    given = [{"prompt": prompt} for prompt in prompts]
    if not generate(common, asked, given, Target(output, scale, no_clobber), as_json):
        raise typer.Exit(FAILED)


@app.command()
@with_flags(Edit, but=("prompt",))
def edit(
    common: Common,
    image: Annotated[Path, typer.Argument(show_default=False, help="A picture; - is stdin.")],
    prompt: Annotated[str, typer.Argument(show_default=False)],
    output: Output,
    scale: Scale = 1,
    no_clobber: NoClobber = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Paint a part of a picture anew, or change a picture as a prompt says.

    With --mask, --box, --margin or --strength, a part is painted anew, and the rest stays. The
    prompt then says what the whole picture is to show. Without them, the prompt is an instruction,
    for a model that takes some, such as Janus-4o.

    Example: unitok edit cat.png "a cat and a dog" -o both.png --box 32,0,64,64
    """
    asked = with_stdin(Edit(image, prompt, **options))
    given = {"image": str(image), "prompt": prompt}
    if not generate(common, [asked], [given], Target(output, scale, no_clobber), as_json):
        raise typer.Exit(FAILED)


@app.command()
@with_flags()
def chat(
    common: Common,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for drawings.")] = Path("."),
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="Do not show drawings in the terminal.")
    ] = False,
    when_full: Annotated[
        Literal["error", "drop"],
        typer.Option(
            help="When the context is full: an error, or go on without the oldest pictures "
            "and then the oldest exchanges."
        ),
    ] = "error",
) -> None:
    """Chat with the model about pictures that you show it, or that it draws for you.

    Ctrl-C stops an answer or a drawing. At the prompt it ends the chat.

    Example: unitok chat, then /draw a cat left of a house, then: what is left of the house?
    """
    make_folder(out)
    with common.load() as model:
        from unitok.conversation import Conversation, typed_lines

        live, typed = sys.stdout.isatty(), sys.stdin.isatty()
        if typed:
            print(f"{model.family.name}: /draw PROMPT, /show FILE [QUESTION], /help, /quit")
        preview = live and not no_preview
        conversation = Conversation(model, out, preview, live, common.bars, when_full)
        try:
            conversation.talk(typed_lines(), patient=typed)
        except KeyboardInterrupt:
            print()


@app.command(
    epilog=f'The keys beside "caption" are {names_of_options(Caption)}. '
    f'Beside "messages" they are {names_of_options(Reply)}. '
    f'Beside "draw" they are {names_of_options(Draw)}. '
    f'Beside "edit" they are {names_of_options(Edit)}. Any line may have an "id".'
)
@with_flags()
def batch(
    common: Common,
    source: Annotated[str, typer.Argument(metavar="IN.jsonl", show_default=False)],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The folder for results.jsonl and pictures/."
        ),
    ],
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on a Ray cluster: HOST:PORT; auto for the one that this machine is part of; "
            "local to start Ray here.",
            rich_help_panel=ON_RAY,
        ),
    ] = None,
    replicas: Replicas = None,
    cpus_per_replica: CpusPerReplica = None,
    gpus_per_replica: GpusPerReplica = None,
    format: Annotated[
        Literal["jsonl", "parquet"] | None,
        typer.Option(
            help="Of the results: jsonl, or parquet with pictures in a column.",
            show_default="that of the input",
            rich_help_panel=ON_RAY,
        ),
    ] = None,
) -> None:
    """Run the requests of JSON lines. An interrupted run can be resumed.

    A line is {"caption": "cat.png", "question": "how many cats are there?"}, or {"draw": "a cat",
    "seed": 7, "n": 2}, or {"messages": [...]}, or, for a model that can edit, {"edit": "cat.png",
    "prompt": "make it night"}. Further keys are listed below. Lines of OpenAI's Batch API,
    {"custom_id": ..., "method": "POST", "url": ..., "body": ...}, are taken too.

    Paths of pictures are relative to the folder of IN.jsonl. With - for IN.jsonl, lines are read
    from stdin, and paths are relative to the working folder.

    With --ray, several replicas of the model share the lines, on this machine or on a cluster.
    IN.jsonl may then be a file or folder of Parquet too, whose columns are the keys, and IN.jsonl
    and DIR may lie in an object store, such as s3://bucket/work.jsonl. DIR has the results in
    files of 64 lines, in results/ and errors/.

    Example: unitok batch work.jsonl -o results

    Example: unitok batch work.jsonl -o results --ray local --replicas 4
    """
    asked = (replicas, cpus_per_replica, gpus_per_replica)
    if ray is not None:
        with missing_is_wrong_use():
            failed = batch_on_ray(common, source, output, OnRay(ray, *asked, format))
    elif any(one is not None for one in (*asked, format)):
        raise ValueError("--replicas and its like need --ray: add --ray local")
    else:
        failed = batch_here(common, Source(Path(source)), Path(output))
    if failed:
        raise typer.Exit(FAILED)


@app.command()
@with_flags()
def info(common: Common, as_json: Json = False) -> None:
    """Print the sizes of the model and its K/V pool, and its defaults for drawing.

    Example: unitok info --memory 64MB
    """
    with common.load() as model:
        what = model.info()
    if as_json:
        print_json(dataclasses.asdict(what))
    else:
        print_info(what)


@app.command()
@with_flags()
def save(
    common: Common,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="A new folder, or an empty one."),
    ],
    layout: Annotated[
        str | None,
        typer.Option(
            help="Whose names of files and tensors: for a Janus, transformers or original.",
            show_default="the usual one of the family",
        ),
    ] = None,
) -> None:
    """Write the model into a folder, with its adapter merged if there is one.

    The weights are written in the type that they were loaded in.

    Example: unitok save -o merged --adapter dragons --dtype bf16
    """
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; name a new folder")
    make_folder(output)
    with common.load() as model:
        model.save(output, layout)
    print(f"{output}: {model.name} in {model.info().dtype}")


app.command()(train)
app.command()(serve)


def print_info(info: Info) -> None:
    """Print a model's sizes and defaults as a table."""
    width, height = info.picture_size
    table = Table(show_header=False, box=None)
    for name, text in {
        "model": info.name,
        "parameters": f"{info.parameters:,}",
        "device": f"{info.device}, {info.dtype}",
        "precision": info.precision,
        **({"quantization": info.quantization} if info.quantization else {}),
        **({"adapter": info.adapter} if info.adapter else {}),
        "context": f"{info.context:,} tokens",
        "picture": f"{width} x {height} pixels, {info.picture_tokens} tokens",
        "K/V pool": f"{info.kv_memory:,} bytes, {info.kv_tokens:,} tokens",
        "temperature": f"{info.temperature:g}",
        "top-k": f"{info.top_k or 'off'}",
        "top-p": "off" if info.top_p == 1 else f"{info.top_p:g}",
        "guidance": f"{info.guidance:g}",
    }.items():
        table.add_row(name, text)
    stdout_console().print(table)


def batch_here(common: Common, source: Source, output: Path) -> int:
    """Run a batch in this process, and give how many lines failed."""
    make_folder(output)
    with common.load() as model:
        counts = run_lines(model, common, source, output)
    print_counts(output / "results.jsonl", counts)
    return counts["failed"]


def run_lines(model: Model, common: Common, source: Source, output: Path) -> dict[str, int]:
    """Run a batch, and report the lines that fail.

    Returns:
        How many lines are new, kept from an earlier run, and failed.
    """
    from unitok.batch.runner import run_batch

    counts = {"new": 0, "kept": 0, "failed": 0}
    try:
        outcomes = run_batch(model, source, output, common.identity())
        with closing(counted(outcomes, source.count(), "batch", common.bars)) as shown:
            for outcome in shown:
                counts[outcome.status] += 1
                if outcome.error is not None:
                    complain(f"line {outcome.line}: {outcome.error}")
    except KeyboardInterrupt:
        raise stopped(
            f"{output} keeps what is finished, and the same command resumes from there"
        ) from None
    return counts


def main() -> None:
    """Run the command `unitok`."""
    if isinstance(sys.stdout, TextIOWrapper):  # the name of a file may not be Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="unitok")
    finally:  # all is printed and saved, so Ctrl-C during the exit needs no traceback
        if hears_ctrl_c():
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
