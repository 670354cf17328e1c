"""Reading and writing recipes as TOML, https://toml.io."""

import dataclasses
import json
import sys
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unitok.shown import shown
from unitok.terminal import one_line
from unitok.training.recipe import GrpoKeys, Key, Recipe, TrainKeys

T = TypeVar("T")
LONGEST = 2**20  # bytes of a recipe
SEVERAL = ("data", "reward")  # sections of which there may be several
LARGEST = 2**53  # of whole numbers; libraries take no larger ones


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: The file.
        settings: "key=value" each, which replace what the file says. Keys of sections have a dot,
            as in "optimiser.learning_rate=1e-4"; those of several data have a number, as in
            "data.0.path=train.jsonl". Values are TOML; what is not is taken as text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TOML, a key is unknown or missing, or a value is wrong.
    """
    return parse_recipe(read_table(path, settings), str(path))


def read_table(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file, and replace keys; see `read_recipe`. Keys and values are not checked."""
    table = _read_toml(path)
    for text in settings:
        _set(table, text)
    return table


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such recipe")
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path}: a recipe has at most {LONGEST:,} bytes")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # numbers of too many digits among them
        raise ValueError(f"{path}: this is no TOML: {one_line(error)}") from None


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """Check a table, and make a recipe of it.

    Args:
        table: Of a TOML file.
        where: The file, for messages.

    Raises:
        ValueError: A key is unknown or missing, or a value is wrong.
    """
    recipe = read_as(Recipe, table, where)
    check_reinforcement(recipe, where)
    if not recipe.data and (recipe.rollout is None or recipe.grpo.supervised):
        raise ValueError(f"{where}: there is no data: write [[data]] and path = ...")
    if not recipe.out.strip():
        raise ValueError(f"{where}: out is empty: name a folder")
    if (recipe.steps is None) == (recipe.epochs is None):
        raise ValueError(f"{where}: give steps or epochs, one of the two")
    if recipe.lora is not None and recipe.train != TrainKeys():
        raise ValueError(f"{where}: give [train] or [lora], not both: adapters freeze the rest")
    if recipe.dpo is not None:
        check_dpo(recipe, where)
    elif not recipe.loss.text_weight and not recipe.loss.image_weight:
        raise ValueError(f"{where}: loss.text_weight and loss.image_weight are both 0")
    if recipe.optimiser.name == "muon" and recipe.memory.sharding == "fsdp":
        raise ValueError(
            f"{where}: optimiser.name must be adamw with memory.sharding fsdp: Muon needs whole "
            "matrices, of which each rank has a part"
        )
    return recipe


def check_reinforcement(recipe: Recipe, where: str) -> None:
    """Raise ValueError if the sections of reinforcement learning do not fit each other."""
    if recipe.rollout is None:
        if recipe.reward or recipe.grpo != GrpoKeys():
            raise ValueError(f"{where}: rewards are of samples: write [rollout] and prompts = ...")
        return
    if not recipe.rollout.prompts:
        raise ValueError(f"{where}: rollout.prompts is empty: name a file of JSON lines")
    if not recipe.reward:
        raise ValueError(f"{where}: there is no reward: write [[reward]] and name = ...")
    if recipe.data and not recipe.grpo.supervised:
        raise ValueError(f"{where}: data are learned beside samples by grpo.supervised, which is 0")
    if recipe.steps is None:
        raise ValueError(f"{where}: give steps; epochs are of data")


def check_dpo(recipe: Recipe, where: str) -> None:
    """Raise ValueError for what pairs of answers are not learned with."""
    if recipe.rollout is not None:
        raise ValueError(f"{where}: give [dpo] or [rollout], not both: they learn in two ways")
    if recipe.loss.z_loss:
        raise ValueError(f"{where}: loss.z_loss must be 0 with [dpo]")
    if recipe.memory.sharding == "fsdp":
        raise ValueError(
            f"{where}: memory.sharding must be none with [dpo]: the model at the start, with which "
            "it is compared, is computed by each rank for itself"
        )


def _set(table: dict[str, Any], text: str) -> None:
    """Put "key=value" into a table."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set takes key=value, not {shown(text)}")
    *sections, last = key.strip().split(".")
    place: Any = table
    for section in sections:
        place = _enter(place, section, key)
    if not isinstance(place, dict):
        raise ValueError(f"--set {text}: {'.'.join(sections)} has no keys")
    place[last] = _toml_value(value.strip())


def _enter(place: Any, section: str, key: str) -> Any:
    """A section of a table, or an item of a list; both are made if they are new."""
    if isinstance(place, list):
        if not section.isdecimal() or int(section) > len(place):
            raise ValueError(f"--set {key}: {section} is no number from 0 to {len(place)}")
        if int(section) == len(place):
            place.append({})
        return place[int(section)]
    if not isinstance(place, dict):
        raise ValueError(f"--set {key}: {section} lies in no section")
    return place.setdefault(section, [] if section in SEVERAL else {})


def _toml_value(text: str) -> Any:
    """A TOML value; or the text itself, so that a shell's quotes need no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def read_as(made: type[T], table: Mapping[str, Any], where: str) -> T:
    """Check a table, and make a recipe of a kind of it.

    Args:
        made: A dataclass, whose fields are the keys.
        table: Of a TOML file.
        where: The file, for messages.

    Raises:
        ValueError: A key is unknown or missing, or a value is wrong.
    """
    try:
        return _read(made, table, where, "")
    except UnknownKey as error:
        raise ValueError(f"{error}{_nearest(made, error.key)}") from None


class UnknownKey(ValueError):
    """A key that a recipe does not have."""

    def __init__(self, where: str, key: str) -> None:
        super().__init__(f"{where}: there is no key {key}")
        self.key = key


def _read(made: type[T], table: Mapping[str, Any], where: str, section: str) -> T:
    """Make a dataclass of a table of its fields."""
    hints = get_type_hints(made, include_extras=True)
    for name in table:
        if name not in hints:
            raise UnknownKey(where, section + name)
    for each in dataclasses.fields(made):  # type: ignore[arg-type]
        required = each.default is dataclasses.MISSING and (
            each.default_factory is dataclasses.MISSING
        )
        if required and each.name not in table:
            raise ValueError(f"{where}: the key {section}{each.name} is missing")
    return made(
        **{
            name: _value(hints[name], value, where, f"{section}{name}")
            for name, value in table.items()
        }
    )


def _nearest(made: type, name: str) -> str:
    """The key that someone may have meant, as the end of a message."""
    known = list(_all_keys(made, ""))
    last = {key.rpartition(".")[2]: key for key in known}
    near = get_close_matches(name, known, 1, 0.6)
    near = near or [last[n] for n in get_close_matches(name.rpartition(".")[2], list(last), 1, 0.7)]
    return f"; did you mean {near[0]}?" if near else ""


def _all_keys(made: type, section: str) -> Iterator[str]:
    for name, hint in get_type_hints(made, include_extras=True).items():
        inner = section_of(hint)
        if inner is None:
            yield f"{section}{name}"
        else:
            yield from _all_keys(inner, f"{section}{name}.")
            yield f"{section}{name}"


def section_of(hint: Any) -> type | None:
    """The dataclass of a key that is a section, or a list of sections; None of others."""
    kinds = [hint, *_flat_args(hint)]
    return next(
        (kind for kind in kinds if dataclasses.is_dataclass(kind) and type(kind) is type), None
    )


def _flat_args(hint: Any) -> Iterator[Any]:
    for inner in get_args(hint):
        yield inner
        yield from _flat_args(inner)


def _value(hint: Any, value: Any, where: str, name: str) -> Any:
    """Check a value, and convert it.

    Raises:
        ValueError: It is of another kind, or out of range.
    """
    kind, key = hint, Key("")
    if get_origin(hint) is Annotated:
        kind, key = get_args(hint)[:2]
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not types.NoneType)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: {name} must be a section [{name}], not {shown(value)}")
        return _read(kind, value, where, f"{name}.")  # pyright: ignore[reportArgumentType]
    if get_origin(kind) is tuple:
        return _items(get_args(kind)[0], value, where, name)
    if kind is int and type(value) is int and abs(value) > LARGEST:
        raise ValueError(f"{where}: {name} is too large: {shown(value)}")
    if not _fits(kind, value) or not _in_range(key, value):
        raise ValueError(f"{where}: {name} must be {describe(kind, key)}, not {shown(value)}")
    return float(value) if kind is float else value


def _items(kind: Any, value: Any, where: str, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        what = f"sections [[{name}]]" if dataclasses.is_dataclass(kind) else "a list of texts"
        raise ValueError(f"{where}: {name} must be {what}, not {shown(value)}")
    return tuple(_value(kind, item, where, f"{name}.{i}") for i, item in enumerate(value))


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # nor nan
    return type(value) is kind


def _in_range(key: Key, value: Any) -> bool:
    return (
        (key.low is None or value >= key.low)
        and (key.above is None or value > key.above)
        and (key.high is None or value <= key.high)
        and (key.below is None or value < key.below)
    )


def describe(kind: Any, key: Key) -> str:
    """What a value may be, for people."""
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
    low = [f"at least {key.low:g}"] if key.low is not None else []
    low += [f"above {key.above:g}"] if key.above is not None else []
    high = [f"at most {key.high:g}"] if key.high is not None else []
    high += [f"below {key.below:g}"] if key.below is not None else []
    return " ".join([words, " and ".join(low + high)]).strip()


def to_toml(recipe: Any) -> str:
    """All keys of a recipe, defaults included, as a file that is read back alike."""
    table = _without_none(dataclasses.asdict(recipe))
    lines = [*_lines(table)]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_lines(value)]
        elif _is_sections(value):
            for item in value:
                lines += ["", f"[[{name}]]", *_lines(item)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    """The keys of a table that are no sections."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict) and not _is_sections(v)}
    return [f"{name} = {_text(value)}" for name, value in plain.items()]


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_text, value)) + "]"
    # JSON writes these as TOML does, but for a delete character, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_sections(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and isinstance(value[0], dict)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    if isinstance(value, tuple):
        return [_without_none(item) for item in value]
    return value


def differences(left: Recipe, right: Recipe) -> list[str]:
    """The keys in which two recipes differ."""
    return [f"{key}: {a} and {b}" for key, a, b in _differing(left, right, "")]


def _differing(left: Any, right: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if dataclasses.is_dataclass(left) and type(left) is type(right):
        for each in dataclasses.fields(left):
            inner = f"{name}.{each.name}".removeprefix(".")
            yield from _differing(getattr(left, each.name), getattr(right, each.name), inner)
    elif left != right:
        yield name, shown(left), shown(right)


SHIPPED = Path(__file__).parent / "recipes"


def find_recipe(name: str) -> Path:
    """The file of a recipe: its path, or one that comes with unitok, by its name.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = sorted(found.stem for found in SHIPPED.glob("*.toml"))
    if name in shipped:
        return SHIPPED / f"{name}.toml"
    raise FileNotFoundError(
        f"{name}: there is no such recipe; unitok comes with {', '.join(shipped)}"
    )
