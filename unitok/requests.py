"""The requests to a model, and every option of them: its name, type, default, range and help.

This is the one place where an option is declared. `Caption`, `Draw` and `Edit`, the keyword
arguments of `Model.caption`, `Model.draw` and `Model.edit`, the flags of the command line and the
keys of JSON lines all come from the fields here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from functools import cache, wraps
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_type_hints

if TYPE_CHECKING:  # it imports torch, which would delay the command line's help
    from unitok.pictures import PictureLike

MAX_TOKENS = 256  # the default for an answer
MAX_SAMPLES = 1000  # pictures of one drawing or edit

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What an option has beside its name, type and default.

    Attributes:
        help: What the option does, in a sentence.
        low: The least value.
        high: The greatest value.
        above: A bound that values must exceed.
        metavar: The placeholder of the value in the command line's help.
        unset: What None stands for, in words; "" if the help says so, or if it stands for nothing.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    metavar: str | None = None
    unset: str = "the model's own"


Kind = Literal["whole number", "number", "text", "texts", "flag"]


@dataclass(frozen=True)
class OptionSpec:
    """An option of a kind of request, as its field declares it.

    Attributes:
        name: The name of the field.
        kind: The type.
        nullable: Whether None may be given.
        required: Whether it must be given. Then the default means nothing.
        default: The value if it is not given.
        option: What else is declared.
    """

    name: str
    kind: Kind
    nullable: bool
    required: bool
    default: Any
    option: Option

    def check_type(self, value: object) -> None:
        """Check the type of a value.

        Raises:
            TypeError: It is of a wrong type.
            ValueError: It is a number that is not finite.
        """
        if self.nullable and value is None:
            return
        if not self.fits(value):
            raise TypeError(f"{self.name} must be {self.in_words}, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{self.name} must be finite, not {value}")

    def fits(self, value: object) -> bool:
        """Whether a value is of the option's type. True and False fit only a flag."""
        if isinstance(value, bool):
            return self.kind == "flag"
        if self.kind == "texts" and not isinstance(value, str):
            return isinstance(value, Sequence) and all(isinstance(text, str) for text in value)
        return isinstance(value, _TYPES[self.kind])

    def check_range(self, value: Any) -> None:
        """Check the range of a value.

        Raises:
            ValueError: It is outside the option's range.
        """
        if value is not None and self.range and not self._in_range(value):
            raise ValueError(f"{self.name} must be {self.range}, not {value}")

    @property
    def in_words(self) -> str:
        """The type, in words."""
        return _IN_WORDS[self.kind]

    @property
    def range(self) -> str:
        """The values that are allowed, in words; "" if all are."""
        low, high, above = self.option.low, self.option.high, self.option.above
        if above is not None:
            return f"above {above:g}" + ("" if high is None else f" and at most {high:g}")
        if self.kind == "whole number":
            bounds = [("at least", low), ("at most", high)]
            return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        if low is None:
            return ""
        return f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"

    def _in_range(self, value: float) -> bool:
        low, high, above = self.option.low, self.option.high, self.option.above
        return (
            (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
        )


_IN_WORDS: dict[Kind, str] = {
    "whole number": "a whole number",
    "number": "a number",
    "text": "text",
    "texts": "text or a list of texts",
    "flag": "True or False",
}
_TYPES: dict[Kind, tuple[type, ...]] = {
    "whole number": (int,),
    "number": (int, float),
    "text": (str,),
    "texts": (str,),
    "flag": (bool,),
}


def _says_which_option_is_unknown(made: type[T]) -> type[T]:
    """Let a class name the nearest known option when an unknown one is given."""
    initialise: Callable[..., None] = made.__init__

    @wraps(initialise)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        for name in options:
            if name not in made.__dataclass_fields__:  # type: ignore[attr-defined]
                raise TypeError(f"{made.__name__} has {unknown_option(name, known_names(made))}")
        initialise(self, *args, **options)

    made.__init__ = checked  # type: ignore[method-assign]
    return made


def known_names(made: type) -> list[str]:
    """The names of all fields of a kind of request."""
    return [field.name for field in fields(made)]


def unknown_option(name: str, known: Iterable[str]) -> str:
    """A message about an option that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


@_says_which_option_is_unknown
@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How text is sampled: greedily, unless the temperature is above 0.

    `unitok_engine.Sampling` explains the numbers.
    """

    max_tokens: Annotated[int, Option("The most tokens of an answer.", low=1)] = MAX_TOKENS
    temperature: Annotated[
        float, Option("0 takes the likeliest token; higher is more varied.", low=0)
    ] = 0.0
    top_k: Annotated[int, Option("Sample from the k likeliest tokens; 0 for all.", low=0)] = 0
    top_p: Annotated[
        float, Option("Sample from the likeliest tokens that make up this share.", above=0, high=1)
    ] = 1.0
    min_p: Annotated[
        float,
        Option("Drop tokens less likely than this share of the likeliest one.", low=0, high=1),
    ] = 0.0
    repetition_penalty: Annotated[
        float, Option("Above 1, earlier tokens become less likely.", above=0)
    ] = 1.0
    stop: Annotated[
        str | Sequence[str],
        Option("Text that ends the answer, and is cut off.", metavar="TEXT"),
    ] = ()
    seed: Annotated[
        int | None,
        Option(
            "The same seed gives the same answer. By default it is random, and reported.", unset=""
        ),
    ] = None
    logprobs: Annotated[bool, Option("Return the log-probability of each token.")] = False
    branch_logprobs: Annotated[
        bool, Option("Return the log-probability of each token before any filter.")
    ] = False

    def __post_init__(self) -> None:
        check_types(self)


@_says_which_option_is_unknown
@dataclass(frozen=True)
class Caption(TextOptions):
    """Describe a picture, or answer a question about it."""

    image: PictureLike
    question: Annotated[
        str | None, Option("A question to answer about the picture.", metavar="TEXT")
    ] = None
    system: Annotated[str | None, Option("The system prompt.", metavar="TEXT")] = None


@_says_which_option_is_unknown
@dataclass(frozen=True)
class Reply(TextOptions):
    """Answer a conversation, which is given as messages. `unitok.messages` explains their form.

    Attributes:
        messages: The conversation. The last message is of the user.
        folder: Where relative paths of pictures start; None for the current folder.
    """

    messages: Sequence[Mapping[str, Any]]
    folder: Path | None = None


@_says_which_option_is_unknown
@dataclass(frozen=True)
class Turn(TextOptions):
    """A message of a chat, and the pictures that are shown with it."""

    text: str
    images: PictureLike | Sequence[PictureLike] = ()


@_says_which_option_is_unknown
@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How pictures are generated. An option that is None has the model's own default.

    `unitok_engine.Sampling` explains the numbers.
    """

    seed: Annotated[
        int | None,
        Option(
            "The same seed gives the same picture. By default it is random, and reported.", unset=""
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Option("The guidance scale. 1 is none; higher follows the prompt more closely."),
    ] = None
    n: Annotated[int, Option("How many pictures.", low=1, high=MAX_SAMPLES)] = 1
    temperature: Annotated[
        float | None, Option("0 takes the likeliest token; higher is more varied.", low=0)
    ] = None
    top_k: Annotated[
        int | None, Option("Sample from the k likeliest tokens; 0 for all.", low=0)
    ] = None
    top_p: Annotated[
        float | None,
        Option("Sample from the likeliest tokens that make up this share.", above=0, high=1),
    ] = None
    min_p: Annotated[
        float,
        Option("Drop tokens less likely than this share of the likeliest one.", low=0, high=1),
    ] = 0.0
    logprobs: Annotated[bool, Option("Return the log-probability of each token.")] = False
    branch_logprobs: Annotated[
        bool, Option("Return the log-probability of each token without guidance and filters.")
    ] = False

    def __post_init__(self) -> None:
        check_types(self)


@_says_which_option_is_unknown
@dataclass(frozen=True)
class Draw(PictureOptions):
    """Generate n pictures of a prompt, which may refer to pictures: those of `images`."""

    prompt: str
    _: KW_ONLY
    images: PictureLike | Sequence[PictureLike] = ()
    negative_prompt: Annotated[
        str | None, Option("What guidance steers away from.", metavar="TEXT", unset="")
    ] = None
    width: Annotated[
        int | None, Option("In pixels, if the model offers sizes; needs height too.", low=1)
    ] = None
    height: Annotated[
        int | None, Option("In pixels, if the model offers sizes; needs width too.", low=1)
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.width is None) != (self.height is None):
            raise ValueError("give both width and height, or none of them")

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels; None if they were not given."""
        return None if self.width is None or self.height is None else (self.width, self.height)


@_says_which_option_is_unknown
@dataclass(frozen=True)
class Edit(PictureOptions):
    """Change a picture as a prompt says, n times."""

    image: PictureLike
    prompt: Annotated[str, Option("What to change.")]
    _: KW_ONLY
    freedom: Annotated[
        float | None,
        Option("0 keeps the picture's details; higher leaves more room to change.", low=0),
    ] = None


AnyRequest = Caption | Reply | Draw | Edit


@cache
def options_of(made: type) -> dict[str, OptionSpec]:
    """The options of a kind of request by name, as its fields declare them."""
    hints = get_type_hints(made, localns={"PictureLike": object}, include_extras=True)
    specs = {}
    for field in fields(made):
        hint = hints[field.name]
        option = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Option)), None)
        if option is not None:
            kind, nullable = _kind(hint.__origin__)
            required = field.default is MISSING
            default = None if required else field.default
            specs[field.name] = OptionSpec(field.name, kind, nullable, required, default, option)
    return specs


def _kind(hint: Any) -> tuple[Kind, bool]:
    """The kind of a type hint, and whether None belongs to it."""
    parts = set(get_args(hint) or (hint,))
    nullable = NoneType in parts
    parts -= {NoneType}
    if len(parts) > 1:
        return "texts", nullable
    kinds: dict[type, Kind] = {int: "whole number", float: "number", str: "text", bool: "flag"}
    return kinds[parts.pop()], nullable


def check_types(asked: object) -> None:
    """Check the types of a request's options. Ranges are checked later.

    Raises:
        TypeError: An option is of a wrong type.
        ValueError: An option is a number that is not finite.
    """
    for name, spec in options_of(type(asked)).items():
        spec.check_type(getattr(asked, name))


def check_ranges(asked: TextOptions | PictureOptions) -> None:
    """Check the ranges of a request's options.

    Raises:
        ValueError: An option is out of its range.
    """
    for name, spec in options_of(type(asked)).items():
        if spec.kind in ("whole number", "number"):
            spec.check_range(getattr(asked, name))
