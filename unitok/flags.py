"""Flags of the command line, made of declarations elsewhere.

The options of a kind of request become flags, and so do the fields of `Common`, which every command
has. Typer takes a command's flags from its signature, so `with_flags` makes a new signature.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from unitok.requests import OptionSpec, options_of
from unitok.schemas import MAX_CHARACTERS, schema_text
from unitok.shown import shown
from unitok.terminal import speech, stopped_at_once

if TYPE_CHECKING:
    from unitok.api import Model

logger = logging.getLogger(__name__)

Command = Callable[..., None]
SEVERAL = ("whole numbers", "texts")  # kinds of options whose flag may be given several times
WHOLE = re.compile(r"-?[0-9]{1,9}")  # a number of pixels
SAMPLING = "Options of sampling"  # the panel of those that several kinds of request share
ON_RAY = "Options of --ray"  # the panel of those that batch and serve share
_common = partial(typer.Option, rich_help_panel="Options of every command")
_on_ray = partial(typer.Option, rich_help_panel=ON_RAY)

Replicas = Annotated[
    int | None,
    _on_ray(metavar="N", min=1, help="How many models share the work.", show_default="1"),
]
CpusPerReplica = Annotated[
    int | None, _on_ray(metavar="C", min=1, help="CPU cores and threads of each.", show_default="1")
]
GpusPerReplica = Annotated[
    float | None,
    _on_ray(
        metavar="G",
        min=0,
        help="GPUs of each; 0.5 for two models on one.",
        show_default="0: on the CPU",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Common:
    """The options of every command.

    Attributes:
        model: A checkpoint's folder or a hub id; None for the embedded model.
        revision: Of a hub repository; None for its main branch.
        cache_dir: The folder of downloads; None for the hub library's own.
        adapter: The folder or hub id of an adapter that is merged into the weights.
        adapters: Adapters that are kept beside the weights, as NAME=FOLDER; None for none.
        device: Where the model computes; None chooses.
        dtype: The type it computes in; None chooses.
        quantize: In how few bits its linear layers are; None for those of the type.
        memory: The size of the K/V pool; None chooses.
        strict: Whether unknown settings of a checkpoint are refused.
        no_drafts: Whether pictures are drafted nowhere.
        compile: Whether decode steps are compiled.
        verbose: 1 reports progress, 2 adds details.
        quiet: Whether only errors are printed.
    """

    model: Annotated[
        str | None,
        _common(
            metavar="FOLDER",
            help="A checkpoint's folder, or a hub id such as deepseek-community/Janus-Pro-1B.",
            show_default="embedded",
        ),
    ] = None
    # There is no flag for a token: a command line can be read by everybody on the machine.
    revision: Annotated[
        str | None,
        _common(metavar="NAME", help="A branch, tag or commit of a hub id.", show_default="main"),
    ] = None
    cache_dir: Annotated[
        Path | None,
        _common(
            metavar="FOLDER", help="Where a hub id is downloaded to.", show_default="the hub's own"
        ),
    ] = None
    adapter: Annotated[
        str | None,
        _common(
            metavar="FOLDER",
            help="A low-rank adapter of the model, in PEFT's format: its folder or hub id.",
        ),
    ] = None
    adapters: Annotated[
        list[str] | None,
        _common(
            metavar="NAME=FOLDER",
            help="Such an adapter, kept beside the weights for --adapter-name and for lines of "
            "batch that name it. May be given several times.",
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
    quantize: Annotated[
        str | None,
        _common(
            metavar="BITS",
            help="int8 or int4: linear layers with weights of few bits, in less memory.",
            show_default="none",
        ),
    ] = None
    memory: Annotated[
        str | None,
        _common(metavar="SIZE", help="Of the K/V pool: bytes, 512MB, 2GB, or 50% of free memory."),
    ] = None
    strict: Annotated[
        bool, _common("--strict", help="Refuse a model with settings that unitok does not know.")
    ] = False
    no_drafts: Annotated[
        bool,
        _common(
            "--no-drafts", help="Never guess tokens of pictures, not even where it changes nothing."
        ),
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
            "--verbose", "-v", count=True, show_default=False, help="Report progress; -vv: details."
        ),
    ] = 0
    quiet: Annotated[
        bool,
        _common("--quiet", "-q", help="Print errors only, no progress bars and no warnings."),
    ] = False

    def __post_init__(self) -> None:
        if self.verbose and self.quiet:
            raise ValueError("give --verbose or --quiet, not both")

    @property
    def bars(self) -> bool:
        """Whether progress bars are shown."""
        return sys.stderr.isatty() and not self.quiet

    def load(self) -> Model:
        """Load the model.

        Raises:
            ValueError: There is no CUDA device, or as `unitok.load`.
        """
        logger.info("loading %s", "the embedded model" if self.model is None else self.model)
        if self.quiet:  # the hub's library looks at this when it is imported
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        with stopped_at_once():
            import torch

            from unitok.loading import load

        on_cuda = self.device is not None and self.device.startswith("cuda")
        if on_cuda and not torch.cuda.is_available():
            raise ValueError(
                "there is no CUDA device here; leave out --device, or give --device cpu"
            )
        return load(self.model, **self.load_arguments())

    def load_arguments(self) -> dict[str, Any]:
        """What `unitok.load` is given beside the model.

        Raises:
            ValueError: The adapters are not named.
        """
        plain = self.memory is not None and self.memory.isdecimal()
        return {
            "device": self.device,
            "dtype": self.dtype,
            "memory": int(self.memory) if plain and self.memory else self.memory,
            "strict": self.strict,
            "compile": self.compile,
            "revision": self.revision,
            "cache_dir": self.cache_dir,
            "adapter": self.adapter,
            "adapters": self._named_adapters(),
            "drafts": False if self.no_drafts else "auto",
            "quantize": self.quantize,
        }

    def _named_adapters(self) -> dict[str, str]:
        """The adapters beside the weights: their folders or hub ids by name.

        Raises:
            ValueError: One has no name or no folder, or two have one name.
        """
        named: dict[str, str] = {}
        for text in self.adapters or ():
            name, _, folder = text.partition("=")
            if not (name and folder):
                raise ValueError(f"--adapters takes NAME=FOLDER, not {text!r}")
            if name in named:
                raise ValueError(f"--adapters names {name!r} twice")
            named[name] = folder
        return named

    def identity(self) -> str:
        """A digest of all that decides results but their requests; `load` has found the files."""
        from unitok.batch.identity import identity_of_load

        return identity_of_load(self.model, self.load_arguments())


def with_flags(
    made: type | None = None,
    but: Sequence[str] = (),
    only: Sequence[str] | None = None,
    also: Sequence[inspect.Parameter] = (),
) -> Callable[[Command], Command]:
    """Decorate a command `f(common, ..., **options)`.

    `common` comes from the flags of every command, and `options` are those of a kind of request.

    Args:
        made: The class of the requests; None for no options.
        but: The options that get no flag.
        only: The flags of every command that this one has; None for all. The others have their
            defaults.
        also: Further flags of the command's own, as parameters that are given by their names.
    """
    specs = [spec for spec in own_first(made) if spec.name not in but] if made else []
    shared = [p for p in _fields_of(Common) if only is None or p.name in only]

    def decorate(function: Command) -> Command:
        own = [p for p in _parameters_of(function) if p.name != "common"]

        @wraps(function)
        def call(**given: Any) -> None:
            common = Common(**{p.name: given.pop(p.name) for p in shared})
            options = {spec.name: _value(spec, given.pop(spec.flag)) for spec in specs}
            with speech(common.verbose, common.quiet):
                function(common, **given, **options)

        flags = (flag_of(spec, None if spec.name in vars(made) else SAMPLING) for spec in specs)
        parameters = [*own, *flags, *also, *shared]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def own_first(made: type) -> list[OptionSpec]:
    """The options of a kind of request, those of its own before those that it inherits."""
    return sorted(options_of(made).values(), key=lambda spec: spec.name not in vars(made))


def flag_of(spec: OptionSpec, panel: str | None = None) -> inspect.Parameter:
    """The flag of an option, as a parameter of a command.

    Args:
        spec: The option.
        panel: The part of the help that shows it; None for that of the command's own options.
    """
    kinds: dict[str, Any] = {
        "whole number": int,
        "whole numbers": list[int],
        "number": float,
        "text": str,
        "texts": list[str],
        "flag": bool,
        "schema": Path,
        "picture": Path,
        "sides": str,
    }
    kind, option, several = kinds[spec.kind], spec.option, spec.kind in SEVERAL
    # Typer shows a range with two ends in the help, and checks it. Others are checked with the
    # request.
    bounded = spec.kind == "whole number" and option.low is not None and option.high is not None
    default_shown: bool | str = spec.kind in ("whole number", "number", "text")
    info = typer.Option(
        flag_name(spec.flag),
        help=option.help + (" May be given several times." if several else ""),
        metavar=option.metavar,
        rich_help_panel=panel,
        min=option.low if bounded else None,
        max=option.high if bounded else None,
        show_default=(option.unset or False) if spec.default is None else default_shown,
    )
    default = list(spec.default or ()) if several else spec.default
    return _parameter(spec.flag, Annotated[kind | None if spec.nullable else kind, info], default)


def _value(spec: OptionSpec, given: Any) -> Any:
    """The value of an option, of what typer makes of its flag."""
    if spec.kind == "schema" and given is not None:
        return _read_schema(given)
    if spec.kind == "sides" and given is not None:
        return _read_sides(spec, given)
    if spec.kind == "texts":
        return given or spec.default
    if spec.kind != "whole numbers":
        return given
    return given[0] if given and len(given) == 1 else given or None


def _read_schema(file: Path) -> str:
    """The text of a JSON schema in a file.

    Raises:
        ValueError: It is no text, or far too long.
    """
    with file.open("rb") as opened:
        content = opened.read(4 * MAX_CHARACTERS + 1)  # a character takes at most four bytes
    try:
        return schema_text(content.decode())
    except ValueError as error:
        wrong = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(f"{file}: {wrong}") from None


def _read_sides(spec: OptionSpec, given: str) -> tuple[int, ...]:
    """Four whole numbers of text such as 8,8,32,32.

    Raises:
        ValueError: It is other text.
    """
    parts = [part.strip() for part in given.split(",")]
    if len(parts) != 4 or not all(WHOLE.fullmatch(part) for part in parts):
        name = flag_name(spec.flag)
        raise ValueError(
            f"{name} takes {spec.option.metavar}, such as 8,8,32,32, not {shown(given)}"
        )
    return tuple(map(int, parts))


def flag_name(name: str) -> str:
    """The flag of an option by name, such as "--top-k"."""
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def names_of_options(made: type) -> str:
    """The names of a kind of request's options, in a list for people."""
    return ", ".join(options_of(made))


def _parameters_of(function: Command) -> Iterable[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:  # which stands for flags made elsewhere
            yield _parameter(parameter.name, hints[parameter.name], parameter.default)


def _fields_of(made: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(made, include_extras=True)
    for field in fields(made):
        yield _parameter(field.name, hints[field.name], field.default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)
