"""`unitok baseline ...`: models of others, opened from a folder or from the hub."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from unitok.captioning import print_all
from unitok.commands.baseline_features import features
from unitok.commands.baseline_models import (
    FAILED,
    WITH_DTYPE,
    BatchSize,
    Files,
    Json,
    Model,
    opened,
)
from unitok.commands.baseline_pictures import classify, detect, search, segment
from unitok.commands.baseline_sounds import compose, transcribe
from unitok.drawing import Target, check_picture_name, generate, numbered, parse_size
from unitok.flags import Common, with_flags
from unitok.reporting import check, from_stdin, with_stdin
from unitok.requests import Caption, Draw, Edit, streamed_options
from unitok.saving import MAX_SCALE, make_folder, save_whole
from unitok.terminal import stopped_at_once, uninterrupted

OURS = ("adapter", "logprobs", "branch_logprobs", "priority", "timeout")
"""Options of requests that no adapter has. Those that follow have more of them."""
NOT_OF_CAPTIONS = (*OURS, "stop", "system", "json_schema", "regex", "choice")
NOT_OF_DRAWINGS = (*OURS, "min_p", "temperature", "top_k", "top_p", *streamed_options(Draw))
NOT_OF_EDITS = ("box", "margin", "strength", "tries", "decode_all")

baseline = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Models of others: CLIP, captioners, diffusion, encoders, SAM, Whisper, MusicGen.",
)
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Several get -0, -1, ... before the suffix."
    ),
]
Scale = Annotated[
    int,
    typer.Option(
        metavar="K", min=1, max=MAX_SCALE, help="Save every pixel as a square of K x K pixels."
    ),
]
NoClobber = Annotated[
    bool, typer.Option("--no-clobber", help="Replace no file: it is an error if one exists.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=1000,
        help="How often noise is taken away.",
        show_default="the pipeline's own",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="ddim, ddpm, dpm, euler, euler-ancestral, heun, pndm or unipc.",
        show_default="the folder's own",
    ),
]
ControlNet = Annotated[
    str | None,
    typer.Option(
        "--controlnet",
        metavar="FOLDER",
        help="The folder or hub id of a ControlNet, for Stable Diffusion.",
        show_default=False,
    ),
]


# --- captions ------------------------------------------------------------------------------------


@baseline.command()
@with_flags(Caption, but=NOT_OF_CAPTIONS, only=WITH_DTYPE)
def caption(
    common: Common,
    files: Files,
    source: Model,
    vision_tower: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="The vision tower of a LLaVA in its authors' layout, such as ShareGPT4V.",
            show_default="the folder beside it",
        ),
    ] = None,
    batch_size: BatchSize = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Describe pictures, or answer a question about each, in one line per file.

    It opens BLIP, BLIP-2, InstructBLIP, LLaVA, ShareGPT4V, Qwen-VL, InternVL and CoCa.

    Example: unitok baseline caption cat.png dog.png --model Salesforce/blip-image-captioning-base
    """
    asked, names = [Caption(file, **options) for file in files], [str(file) for file in files]
    check(asked[0], as_json)
    asked = [with_stdin(one) for one in asked]
    given = {"vision_tower": vision_tower, "batch_size": batch_size, "dtype": common.dtype}
    with opened(common, source, "captioner", **given) as captioner:
        complete = print_all(captioner, asked, names, as_json)
    if not complete:
        raise typer.Exit(FAILED)


# --- pictures ------------------------------------------------------------------------------------


@baseline.command()
@with_flags(Draw, but=(*NOT_OF_DRAWINGS, "width", "height"), only=WITH_DTYPE)
def draw(
    common: Common,
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT",
            show_default=False,
            help='For DiT a class of ImageNet; for DDPM empty: "".',
        ),
    ],
    source: Model,
    output: Output,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="In pixels, such as 768x512.", show_default=False),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A picture that a ControlNet follows; - is stdin.",
            show_default=False,
        ),
    ] = None,
    steps: Steps = None,
    scheduler: Scheduler = None,
    controlnet: ControlNet = None,
    batch_size: BatchSize = None,
    scale: Scale = 1,
    no_clobber: NoClobber = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Generate pictures of prompts with a pipeline of diffusers.

    It opens Stable Diffusion and SDXL, with a ControlNet too, DiT, DDPM, unCLIP and Wan. Several
    prompts are drawn in batches. Each further picture of a prompt has the next seed.

    Example: unitok baseline draw "a red apple" -o apple.png --model out/sd --steps 30 --seed 7
    """
    width, height = parse_size(size)
    images = () if image is None else (from_stdin(image),)
    options |= {"images": images, "width": width, "height": height}
    asked = [Draw(prompt, **options) for prompt in prompts]
    given = [{"prompt": prompt} for prompt in prompts]
    load = generator_of(
        common,
        source,
        steps=steps,
        scheduler=scheduler,
        controlnet=controlnet,
        batch_size=batch_size,
    )
    target = Target(output, scale, no_clobber)
    if not generate(common, asked, given, target, as_json, load):
        raise typer.Exit(FAILED)


@baseline.command()
@with_flags(Edit, but=(*NOT_OF_DRAWINGS, *NOT_OF_EDITS, "mask", "prompt"), only=WITH_DTYPE)
def edit(
    common: Common,
    image: Annotated[Path, typer.Argument(show_default=False, help="A picture; - is stdin.")],
    prompt: Annotated[str, typer.Argument(show_default=False)],
    source: Model,
    output: Output,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="White where it is painted anew: inpainting.", show_default=False
        ),
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A picture that a ControlNet follows.", show_default=False
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What guidance steers away from.", show_default=False),
    ] = None,
    steps: Steps = None,
    scheduler: Scheduler = None,
    controlnet: ControlNet = None,
    batch_size: BatchSize = None,
    scale: Scale = 1,
    no_clobber: NoClobber = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Change a picture as a prompt says, with Stable Diffusion or SDXL.

    The freedom is the strength of diffusers, above 0 and at most 1.

    Example: unitok baseline edit day.png "at night" -o night.png --model out/sd --freedom 0.6
    """
    with stopped_at_once():
        from unitok.baselines.stable_diffusion import DiffusionEdit

    shown = {"mask": mask, "control": control, "negative_prompt": negative_prompt}
    asked = with_stdin(DiffusionEdit(image, prompt, **shown, **options))
    given = {"image": str(image), "prompt": prompt}
    load = generator_of(
        common,
        source,
        steps=steps,
        scheduler=scheduler,
        controlnet=controlnet,
        batch_size=batch_size,
    )
    target = Target(output, scale, no_clobber)
    if not generate(common, [asked], [given], target, as_json, load):
        raise typer.Exit(FAILED)


@baseline.command()
@with_flags(Draw, but=(*NOT_OF_DRAWINGS, "width", "height", "n", "seed"), only=WITH_DTYPE)
def film(
    common: Common,
    prompt: Annotated[str, typer.Argument(show_default=False)],
    source: Model,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Frames get -0, -1, ... in it."),
    ],
    frames: Annotated[
        int, typer.Option(metavar="N", min=1, help="For Wan one more than a multiple of 4.")
    ] = 81,
    seed: Annotated[
        int | None, typer.Option(help="By default it is random, and reported.", show_default=False)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="In pixels, such as 832x480.", show_default=False),
    ] = None,
    steps: Steps = None,
    **options: Any,
) -> None:
    """Generate a clip of a prompt with Wan, and save its frames.

    Example: unitok baseline film "a cat runs" -o frames/cat.png --frames 17 --model out/wan
    """
    width, height = parse_size(size)
    check_picture_name(output)
    make_folder(output.parent)
    with generator_of(common, source, steps=steps)() as generator:
        from unitok.baselines.protocols import VideoGenerator
        from unitok.preparer import pick_seed

        if not isinstance(generator, VideoGenerator):
            raise ValueError(f"{generator.name} makes no clips; use draw")
        chosen = pick_seed(seed)
        clip = generator.film(prompt, frames, seed=chosen, width=width, height=height, **options)
        with uninterrupted():
            for path, frame in zip(numbered(output, frames), clip.frames, strict=True):
                save_whole(frame, path)
    print(f"{output}: seed {chosen}, {frames} frames at {clip.rate:g} a second")


def generator_of(
    common: Common, source: str, **options: Any
) -> Callable[[], AbstractContextManager[Any]]:
    """What opens an image generator."""
    return partial(opened, common, source, "generator", dtype=common.dtype, **options)


for _command in (classify, search, detect, segment, features, transcribe, compose):
    baseline.command()(_command)
