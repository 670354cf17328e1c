"""`unitok baseline transcribe | compose`: speech to text, and text to music."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unitok.commands.baseline_models import SHARED, Json, Model, opened, run_each
from unitok.flags import Common, with_flags
from unitok.reporting import print_json
from unitok.saving import make_folder, write_whole
from unitok.screen import counted, printable
from unitok.terminal import complain, uninterrupted

if TYPE_CHECKING:
    from unitok.baselines.protocols import SpeechRecognizer


@with_flags(only=SHARED)
def transcribe(
    common: Common,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="Sounds in .wav files of PCM, of any rate, at most an hour long.",
        ),
    ],
    source: Model,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What is spoken, such as en.", show_default="the model finds out"
        ),
    ] = None,
    task: Annotated[
        Literal["transcribe", "translate"] | None,
        typer.Option(
            help="translate writes down in English what is said in another language.",
            show_default="transcribe",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write down what is said, with Whisper.

    The text of one file is printed alone, so that it can be the prompt of a drawing. Those of
    several files are printed in a line each, after the file's name.

    Example: unitok draw "$(unitok baseline transcribe wish.wav --model out/whisper)" -o wish.png
    """
    with opened(common, source, "speech", language=language, task=task) as recognizer:
        done = transcribed(recognizer, files, as_json)
        with closing(counted(done, len(files), "listening", common.bars)) as shown:
            run_each(shown, len(files))


def transcribed(
    recognizer: SpeechRecognizer, files: Sequence[Path], as_json: bool
) -> Iterator[bool]:
    """Print what is said in files; whether each could be read."""
    from unitok.baselines.wav import read_wav

    for file in files:
        try:
            sound = read_wav(file)
        except (OSError, ValueError) as error:
            complain(error)
            yield False
            continue
        try:
            text = " ".join(recognizer.transcribe(sound).split())
        except RuntimeError as error:  # such as too little memory for a long sound
            complain(f"{file}: {error}")
            yield False
            continue
        print_text(file, text, as_json, alone=len(files) == 1)
        yield True


def print_text(file: Path, text: str, as_json: bool, alone: bool) -> None:
    """Print what is said in a file."""
    if as_json:
        print_json({"file": str(file), "text": text})
        return
    line = text if alone else f"{file}: {text}"
    print(printable(line) if sys.stdout.isatty() else line, flush=True)


@with_flags(only=SHARED)
def compose(
    common: Common,
    prompt: Annotated[str, typer.Argument(show_default=False, help="What to hear.")],
    source: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .wav file.")],
    seconds: Annotated[
        float, typer.Option(metavar="NUMBER", help="How long, above 0 and at most 30.")
    ] = 10.0,
    guidance: Annotated[
        float | None,
        typer.Option(help="The guidance scale; 1 is none.", show_default="3"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed gives the same sound. By default it is random, and reported.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make music of a prompt with MusicGen, and save it as a .wav file of 16 bits.

    Example: unitok baseline compose "a slow waltz" -o waltz.wav --model facebook/musicgen-small
    """
    if output.suffix.lower() != ".wav":
        raise ValueError(f"{output}: name a .wav file, such as {output.stem or 'music'}.wav")
    make_folder(output.parent)
    with opened(common, source, "audio", guidance=guidance) as generator:
        from unitok.baselines.wav import wav_bytes
        from unitok.preparer import pick_seed

        chosen = pick_seed(seed)
        sound = generator.generate(prompt, seconds, seed=chosen)
        with uninterrupted():
            write_whole(wav_bytes(sound), output)
    length = sound.samples.shape[1] / sound.rate
    if as_json:
        print_json({"prompt": prompt, "file": str(output), "seed": chosen, "seconds": length})
    else:
        print(f"{output}: seed {chosen}, {length:g} seconds")
