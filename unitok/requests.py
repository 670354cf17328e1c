"""The requests to a model, and every option of them: its name, type, default, range and help.

This is the one place where an option is declared. `Caption`, `Draw` and `Edit`, the keyword
arguments of `Model.caption`, `Model.draw` and `Model.edit`, the flags of the command line and the
keys of JSON lines all come from the fields here.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from functools import cache, wraps
from numbers import Integral, Real
from operator import index
from pathlib import Path
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from unitok.schemas import schema_text
from unitok.shown import shown

if TYPE_CHECKING:  # it imports torch, which would delay the command line's help
    from unitok.pictures import PictureLike

MAX_TOKENS = 256  # the default for an answer
MAX_SAMPLES = 1000  # pictures of one drawing or edit
MAX_SIDE = 65_536  # pixels of a picture that is generated; a model's own limit is far lower
PREVIEW_SHARE = 0.08  # of the other time that previews take, unless asked otherwise
MAX_PREVIEWS = 100  # of one picture; few pictures have so many rows of tokens
TRIES = 4  # of an edit of a part of a picture
MAX_GUIDANCE = 1000  # far more than any model wants; the weights of huge scales sum to no 1

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
        flag: The name of the flag on the command line, if it is not that of the option.
        streamed: Whether it is for pictures that are watched: it does something in a stream alone.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    metavar: str | None = None
    unset: str = "the model's own"
    flag: str | None = None
    streamed: bool = False


Kind = Literal[
    "whole number",
    "whole numbers",
    "number",
    "text",
    "texts",
    "flag",
    "schema",
    "picture",
    "sides",
]


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

    def converted(self, value: object) -> Any:
        """A value as Python's own type, so that numbers of numpy become int and float.

        Raises:
            TypeError: It is of a wrong type. True and False fit only a flag.
            ValueError: It is a number that is not finite.
        """
        if self.nullable and value is None:
            return None
        try:
            made = _CONVERTERS[self.kind](value)
        except TypeError:
            message = f"{self.name} must be {self.in_words}, not {shown(value)}"
            raise TypeError(message) from None
        except OverflowError:  # of a fraction
            raise ValueError(f"{self.name} must be finite, not {shown(value)}") from None
        if self.kind == "number" and not abs(made) <= sys.float_info.max:
            raise ValueError(f"{self.name} must be finite, not {shown(value)}")
        return made

    def fits(self, value: object) -> bool:
        """Whether a value is of the option's type."""
        try:
            self.converted(value)
        except TypeError:
            return False
        except ValueError:
            pass
        return True

    def check_range(self, value: Any) -> None:
        """Check the range of a value.

        Raises:
            ValueError: It is outside the option's range.
        """
        if value is not None and self.range and not self._in_range(value):
            raise ValueError(f"{self.name} must be {self.range}, not {shown(value)}")

    @property
    def flag(self) -> str:
        """The name of the flag, without dashes."""
        return self.option.flag or self.name

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


def _whole_number(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return index(value)


def _whole_numbers(value: Any) -> int | tuple[int, ...]:
    if hasattr(value, "__index__") and not getattr(value, "shape", ()):
        return _whole_number(value)
    # What can be iterated over only once would be empty for the second of several requests.
    if isinstance(value, str | bytes | Mapping | Set | Iterator):
        raise TypeError
    return tuple(map(_whole_number, value))


def _sides(value: Any) -> tuple[int, ...]:
    sides = _whole_numbers(value)
    if not isinstance(sides, tuple) or len(sides) != 4:
        raise TypeError
    return sides


def _picture(value: Any) -> Any:
    if isinstance(value, bool | int | float | Mapping | Set):
        raise TypeError
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, Integral):
        return _whole_number(value)
    if not isinstance(value, Real):
        raise TypeError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: Any) -> str | Sequence[str]:
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_IN_WORDS: dict[Kind, str] = {
    "whole number": "a whole number",
    "whole numbers": "a whole number or a list of whole numbers",
    "number": "a number",
    "text": "text",
    "texts": "text or a list of texts",
    "flag": "True or False",
    "schema": "a JSON schema",
    "picture": "a picture",
    "sides": "four whole numbers: left, top, right and bottom",
}
_CONVERTERS: dict[Kind, Callable[[Any], Any]] = {
    "whole number": _whole_number,
    "whole numbers": _whole_numbers,
    "number": _number,
    "text": _text,
    "texts": _texts,
    "flag": _flag,
    "schema": schema_text,
    "picture": _picture,
    "sides": _sides,
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


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What every request may say of its turn and its time."""

    timeout: Annotated[
        float | None,
        Option(
            "The most seconds until the result. Then the request is ended.",
            above=0,
            unset="none",
        ),
    ] = None
    priority: Annotated[int, Option("Waiting requests of a lower number come first.")] = 0
    adapter: Annotated[
        str | None,
        Option(
            "The name of a loaded adapter to use.",
            metavar="NAME",
            unset="none",
            flag="adapter_name",
        ),
    ] = None

    def __post_init__(self) -> None:
        convert_options(self)


@_says_which_option_is_unknown
@dataclass(frozen=True, kw_only=True)
class TextOptions(RequestOptions):
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
        str | Sequence[str] | None,
        Option("Text that ends the answer, and is cut off.", metavar="TEXT", unset=""),
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
    json_schema: Annotated[
        Mapping[str, Any] | str | None,
        Option("A JSON schema. The answer is JSON that fits it.", metavar="FILE", unset=""),
    ] = None
    regex: Annotated[
        str | None,
        Option("A regular expression that the whole answer matches.", metavar="PATTERN", unset=""),
    ] = None
    choice: Annotated[
        str | Sequence[str] | None,
        Option("A text that the answer may be, and no other.", metavar="TEXT", unset=""),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if "" in self.stops:
            raise ValueError(
                "stop holds an empty text, which would end every answer at once: take it out"
            )
        self._check_form()

    def _check_form(self) -> None:
        """Raise ValueError if what the answer must be contradicts itself."""
        if self.choice is not None and not self.choices:
            raise ValueError("choice is empty: give the texts that the answer may be")
        if "" in self.choices:
            raise ValueError("choice holds an empty text: take it out")
        named = [n for n in ("json_schema", "regex", "choice") if getattr(self, n) is not None]
        if len(named) > 1:
            raise ValueError(f"give {named[0]} or {named[1]}, not both")
        if named and self.stops:
            raise ValueError(
                f"stop would cut an answer off that {named[0]} asks for: leave one out"
            )

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that the answer may be; () for any."""
        return (self.choice,) if isinstance(self.choice, str) else tuple(self.choice or ())

    @property
    def is_structured(self) -> bool:
        """Whether a schema, a regular expression or a choice says what the answer may be."""
        return bool(self.choices) or self.json_schema is not None or self.regex is not None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


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
class PictureOptions(RequestOptions):
    """How pictures are generated. An option that is None has the model's own default.

    `unitok_engine.Sampling` explains the numbers.
    """

    seed: Annotated[
        int | Sequence[int] | None,
        Option(
            "The same seed gives the same picture. Several are one for each picture. By default it "
            "is random, and reported.",
            metavar="INTEGER",
            unset="",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Option(
            "The guidance scale. 1 is none; higher follows the prompt more closely.",
            low=-MAX_GUIDANCE,
            high=MAX_GUIDANCE,
        ),
    ] = None
    n: Annotated[
        int | None,
        Option("How many pictures.", low=1, high=MAX_SAMPLES, unset="1, or one for each seed"),
    ] = None
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
    preview: Annotated[
        bool,
        Option(
            "Show each picture while it is drawn: in a stream, or in the terminal.", streamed=True
        ),
    ] = False
    preview_count: Annotated[
        int | None,
        Option(
            "How many previews of each picture, evenly spread over its rows.",
            low=1,
            high=MAX_PREVIEWS,
            unset="as many as preview_budget allows",
            streamed=True,
        ),
    ] = None
    preview_budget: Annotated[
        float | None,
        Option(
            "The most time for previews, as a share of the other time.",
            above=0,
            high=1,
            unset=f"{PREVIEW_SHARE}, or no limit with preview_count",
            streamed=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("preview_count", "preview_budget"):
            if getattr(self, name) is not None and not self.preview:
                raise ValueError(f"{name} does nothing without preview: give both")
        self._check_seeds()

    def _check_seeds(self) -> None:
        """Raise ValueError if there are not as many seeds as pictures."""
        if not isinstance(self.seed, tuple):
            return
        if not 1 <= len(self.seed) <= MAX_SAMPLES:
            raise ValueError(f"seed must hold 1 to {MAX_SAMPLES} seeds, not {len(self.seed)}")
        if self.n not in (None, len(self.seed)):
            raise ValueError(
                f"seed holds {len(self.seed)} seeds, and n is {self.n}: give as many seeds, one "
                "seed for all, or no n"
            )

    @property
    def samples(self) -> int:
        """How many pictures are asked for: n, else one for each seed, else one."""
        return len(self.seeds) or self.n or 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """A seed for each picture, if several were given; else ()."""
        return self.seed if isinstance(self.seed, tuple) else ()


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
        int | None,
        Option("In pixels, if the model offers sizes; needs height too.", low=1, high=MAX_SIDE),
    ] = None
    height: Annotated[
        int | None,
        Option("In pixels, if the model offers sizes; needs width too.", low=1, high=MAX_SIDE),
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
    """Change a picture as a prompt says, n times.

    A part of it is painted anew, and the rest stays, if a mask, a box, a margin or a strength says
    which part. Otherwise the prompt is an instruction for the whole picture.
    """

    image: PictureLike
    prompt: Annotated[str, Option("What to change.")]
    _: KW_ONLY
    freedom: Annotated[
        float | None,
        Option("0 keeps the picture's details; higher leaves more room to change.", low=0),
    ] = None
    mask: Annotated[
        PictureLike | None,
        Option(
            "A picture of the same size: what is white in it is painted anew, and the rest stays.",
            metavar="FILE",
            unset="",
        ),
    ] = None
    box: Annotated[
        Sequence[int] | None,
        Option(
            "Instead of a mask, a box in pixels: left, top, right and bottom.",
            metavar="L,T,R,B",
            unset="",
        ),
    ] = None
    margin: Annotated[
        Sequence[int] | None,
        Option(
            "Pixels that are added left, above, right and below, and painted.",
            metavar="L,T,R,B",
            unset="",
        ),
    ] = None
    strength: Annotated[
        float | None,
        Option(
            "The share of the part that is painted anew, at places that the seed chooses. Without "
            "a mask, a box and a margin, the part is the whole picture.",
            above=0,
            high=1,
            unset="1",
        ),
    ] = None
    tries: Annotated[
        int | None,
        Option(
            "How often a part is painted, each time with another beginning. The likeliest try is "
            "taken, what stays behind it included.",
            low=1,
            high=MAX_SAMPLES,
            unset=f"{TRIES}",
        ),
    ] = None
    decode_all: Annotated[
        bool,
        Option(
            "Decode what stays from its tokens, instead of putting the picture's own pixels back."
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask is not None and self.box is not None:
            raise ValueError("give mask or box, not both")
        if self.margin is not None and (min(self.margin) < 0 or max(self.margin) == 0):
            raise ValueError(
                "margin holds how many pixels are added at each side: 0 or more, and somewhere "
                f"more than 0, not {shown(self.margin)}"
            )
        if not self.is_partial and (self.tries is not None or self.decode_all):
            name = "decode_all" if self.tries is None else "tries"
            raise ValueError(
                f"{name} is for a part of a picture: give a mask, a box, a margin or a strength too"
            )

    @property
    def is_partial(self) -> bool:
        """Whether a part of the picture is painted anew, and the rest stays."""
        parts = (self.mask, self.box, self.margin, self.strength)
        return any(part is not None for part in parts)


AnyRequest = Caption | Reply | Draw | Edit


_COMMON = frozenset(known_names(RequestOptions))


@cache
def options_of(made: type) -> dict[str, OptionSpec]:
    """The options of a kind of request by name, as its fields declare them."""
    hints = get_type_hints(made, localns={"PictureLike": object}, include_extras=True)
    specs = {}
    # What every request may say stands behind what is special to its kind.
    for field in sorted(fields(made), key=lambda field: field.name in _COMMON):
        hint = hints[field.name]
        option = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Option)), None)
        if option is not None:
            kind, nullable = _kind(hint.__origin__)
            required = field.default is MISSING
            default = None if required else field.default
            specs[field.name] = OptionSpec(field.name, kind, nullable, required, default, option)
    return specs


def streamed_options(made: type) -> tuple[str, ...]:
    """The names of those options of a kind of request that do something in a stream alone."""
    return tuple(name for name, spec in options_of(made).items() if spec.option.streamed)


def _kind(hint: Any) -> tuple[Kind, bool]:
    """The kind of a type hint, and whether None belongs to it."""
    parts = set(get_args(hint) or (hint,))
    nullable = NoneType in parts
    parts -= {NoneType}
    if any(get_origin(part) is Mapping for part in parts):
        return "schema", nullable
    if len(parts) > 1:
        return "texts" if str in parts else "whole numbers", nullable
    (part,) = parts
    if get_origin(part) is Sequence:
        return "sides", nullable
    kinds: dict[type, Kind] = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "flag",
        object: "picture",  # which stands for PictureLike here
    }
    return kinds[part], nullable


@cache
def _texts_of(made: type) -> tuple[str, ...]:
    """The fields of a kind of request that must be text and are no options, as its prompt."""
    hints = get_type_hints(made, localns={"PictureLike": object})
    options = options_of(made)
    return tuple(name for name in known_names(made) if hints[name] is str and name not in options)


def convert_options(asked: object) -> None:
    """Give a new request's options Python's own types. Ranges are checked later.

    Raises:
        TypeError: An option is of a wrong type.
        ValueError: An option is a number that is not finite.
    """
    for name in _texts_of(type(asked)):
        check_is_text(name, getattr(asked, name))
    for name, spec in options_of(type(asked)).items():
        object.__setattr__(asked, name, spec.converted(getattr(asked, name)))


def check_is_text(name: str, value: object) -> None:
    """Check that an argument is text.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {shown(value)}")


def check_ranges(asked: RequestOptions) -> None:
    """Check the ranges of a request's options.

    Raises:
        ValueError: An option is out of its range.
    """
    for name, spec in options_of(type(asked)).items():
        if spec.kind in ("whole number", "number"):
            spec.check_range(getattr(asked, name))
