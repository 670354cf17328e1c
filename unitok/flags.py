"""Flags of the command line, made of what is declared elsewhere.

`options_of` a kind of request become flags, and so do the fields of `Common`, which every command
takes. Typer reads a command's flags from its signature, so a new signature is what is made here.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from unitok.requests import OptionSpec, options_of
from unitok.terminal import speech, stopped_at_once

if TYPE_CHECKING:
    from unitok.api import Model

logger = logging.getLogger(__name__)

Command = Callable[..., None]
_common = partial(typer.Option, rich_help_panel="Options of every command")


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes: which model, where it runs, and how much is said."""

    model: Annotated[
        Path | None,
        _common(
            metavar="FOLDER",
            help="A checkpoint's folder, or a hub id such as deepseek-community/Janus-Pro-1B.",
            show_default="embedded",
        ),
    ] = None
    device: Annotated[
        str | None, _common(help="cpu, cuda or cuda:1.", show_default="cuda if there is one")
    ] = None
    dtype: Annotated[
        str | None,
        _common(
            help="auto, float32 (fp32), bfloat16 (bf16), float16 (fp16) or float64.",
            show_default="auto: the checkpoint's, where the device computes well in it",
        ),
    ] = None
    memory: Annotated[
        str | None,
        _common(metavar="SIZE", help="Of the K/V pool: bytes, 512MB, 2GB, or 50% of what is free."),
    ] = None
    strict: Annotated[
        bool, _common("--strict", help="Refuse a model with settings that unitok does not know.")
    ] = False
    compile: Annotated[
        bool,
        _common(
            "--compile",
            help="Compile decode steps: the first ones take up to minutes, the others less.",
        ),
    ] = False
    verbose: Annotated[
        int,
        _common(
            "--verbose", "-v", count=True, show_default=False, help="Say what is done; -vv: how."
        ),
    ] = 0
    quiet: Annotated[
        bool,
        _common("--quiet", "-q", help="Say nothing but errors: no bars, no warnings."),
    ] = False

    def __post_init__(self) -> None:
        if self.verbose and self.quiet:
            raise ValueError("--verbose or --quiet, but not both")

    @property
    def bars(self) -> bool:
        """Whether bars are to be shown."""
        return sys.stderr.isatty() and not self.quiet

    def load(self) -> Model:
        """The model; ValueError for a device that is not here."""
        logger.info("loading %s", self.model or "the embedded model")
        if self.quiet:  # before its import, which is when the hub's library looks
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        with stopped_at_once():
            import torch

            from unitok.loading import load

        on_cuda = self.device is not None and self.device.startswith("cuda")
        if on_cuda and not torch.cuda.is_available():
            raise ValueError("there is no CUDA device here; leave --device out, or say cpu")
        plain = self.memory is not None and self.memory.isdecimal()
        memory = int(self.memory) if plain and self.memory else self.memory
        return load(self.model, self.device, self.dtype, memory, self.strict, self.compile)


def with_flags(made: type | None = None, but: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Decorate a command `f(common, ..., **options)`.

    common: made of the flags that every command has. options: those of the kind of request `made`
    but for some, by name; what they are checked for says `unitok.requests`.
    """
    specs = [spec for spec in own_first(made) if spec.name not in but] if made else []
    shared = list(_fields_of(Common))

    def decorate(function: Command) -> Command:
        own = [p for p in _parameters_of(function) if p.name not in ("common", "options")]

        @wraps(function)
        def call(**given: Any) -> None:
            common = Common(**{p.name: given.pop(p.name) for p in shared})
            with speech(common.verbose, common.quiet):
                function(common, **given)

        parameters = [*own, *map(flag_of, specs), *shared]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def own_first(made: type) -> list[OptionSpec]:
    """The options of a kind of request; those it has alone before those it inherits."""
    return sorted(options_of(made).values(), key=lambda spec: spec.name not in vars(made))


def flag_of(spec: OptionSpec) -> inspect.Parameter:
    """The flag of an option, as a parameter of a command."""
    kinds = {"whole number": int, "number": float, "text": str, "texts": list[str], "flag": bool}
    kind: Any = kinds[spec.kind]
    option = spec.option
    # A range with two ends is checked while the flags are read, and shown in the help; the others
    # are checked where all requests are.
    bounded = spec.kind == "whole number" and option.low is not None and option.high is not None
    told: bool | str = spec.kind in ("whole number", "number", "text")
    info = typer.Option(
        flag_name(spec.name),
        help=option.help + (" May be given several times." if spec.kind == "texts" else ""),
        metavar=option.metavar,
        min=option.low if bounded else None,
        max=option.high if bounded else None,
        show_default=(option.unset or False) if spec.default is None else told,
    )
    default = list(spec.default or ()) if spec.kind == "texts" else spec.default
    return _parameter(spec.name, Annotated[kind | None if spec.nullable else kind, info], default)


def flag_name(name: str) -> str:
    """What is typed for an option."""
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def names_of_options(made: type) -> str:
    """The options of a kind of request, in words."""
    return ", ".join(options_of(made))


def _parameters_of(function: Command) -> Iterable[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        yield _parameter(parameter.name, hints[parameter.name], parameter.default)


def _fields_of(made: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(made, include_extras=True)
    for field in fields(made):
        yield _parameter(field.name, hints[field.name], field.default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)
