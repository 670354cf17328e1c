"""Tables of the documentation, made of the declarations in the code.

`request_sections` shows the options of every kind of request, and `command_sections` the command
line. Nothing here imports torch, so the pages are made quickly.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer import Typer
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from unitok import cli, requests
from unitok.flags import Common, own_first
from unitok.requests import OptionSpec
from unitok.training.recipe import Recipe
from unitok.training.recipe_file import describe, section_of

SOME = "Of the options of every command it has"

_PLACEHOLDERS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n     .*)*)", re.MULTILINE)  # of a docstring


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def code(text: object) -> str:
    """A text as code in Markdown."""
    return f"`{text}`"


# --- requests ------------------------------------------------------------------------------------


def request_sections() -> str:
    """A section for each kind of request: what it asks for, how it is made, and its options."""
    return "\n\n".join(map(request_section, kinds_of_requests()))


def kinds_of_requests() -> list[type]:
    """The classes of all kinds of requests."""
    return [*requests.TextOptions.__subclasses__(), *requests.PictureOptions.__subclasses__()]


def request_section(made: type) -> str:
    """What a kind of request asks for, how it is made, and its options."""
    names = [str(p) for p in given_by_place(made)]
    call = f"```python\n{made.__name__}({', '.join([*names, '*', '...'])})\n```"
    about, _, attributes = (inspect.getdoc(made) or "").partition("\n\nAttributes:\n")
    given = [f"- `{name}`: {text}" for name, text in _ATTRIBUTE.findall(attributes)]
    parts = [f"## {made.__name__}", about, call, "\n".join(given), option_table(made)]
    return "\n\n".join(filter(None, parts))


def given_by_place(made: type) -> Iterator[inspect.Parameter]:
    """What a kind of request takes without a name, without types."""
    for parameter in inspect.signature(made).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            yield parameter.replace(annotation=parameter.empty)


def option_table(made: type) -> str:
    """The options of a kind of request: type, default, range and help of each."""
    head = ("option", "type", "default", "range", "what it does")
    return table(head, map(option_row, own_first(made)))


def option_row(spec: OptionSpec) -> tuple[str, ...]:
    """An option as the row of a table."""
    kind = spec.in_words + (" or None" if spec.nullable else "")
    return code(spec.name), kind, default_of(spec), spec.range, spec.option.help


def default_of(spec: OptionSpec) -> str:
    """The default of an option, and what None stands for."""
    if spec.required:
        return "must be given"
    unset = spec.option.unset if spec.default is None else ""
    return code(repr(spec.default)) + (f": {unset}" if unset else "")


# --- recipes -------------------------------------------------------------------------------------


def recipe_sections() -> str:
    """A table of the keys at the top of a recipe, and one of each section."""
    hints = get_type_hints(Recipe, include_extras=True)
    sections = {name: made for name, hint in hints.items() if (made := section_of(hint))}
    parts = [recipe_table(Recipe, but=sections)]
    for name, made in sections.items():
        title = f"[[{name}]]" if get_origin(_bare(hints[name])) is tuple else f"[{name}]"
        parts += [f"**`{title}`** {inspect.getdoc(made)}", recipe_table(made)]
    return "\n\n".join(parts)


def recipe_table(made: type, but: Container[str] = ()) -> str:
    """The keys of a section of a recipe: what each may be, its default and its help."""
    hints = get_type_hints(made, include_extras=True)
    rows = [recipe_row(each, hints[each.name]) for each in fields(made) if each.name not in but]
    return table(("key", "value", "default", "what it is"), rows)


def recipe_row(each: Field[Any], hint: Any) -> tuple[str, ...]:
    """A key of a recipe as the row of a table."""
    kind, key = get_args(hint)[:2]
    inner = next((a for a in get_args(kind) if a is not type(None)), kind)
    bare = inner if type(None) in get_args(kind) else kind
    words = "a list of texts" if get_origin(bare) is tuple else describe(bare, key)
    default = "" if each.default is MISSING else toml_text(each.default)
    return code(each.name), words, code(default) if default else "", key.help


def toml_text(value: Any) -> str:
    """A default as it is written in a recipe; nothing for None."""
    return "" if value is None else json.dumps(value)


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


# --- commands ------------------------------------------------------------------------------------


def command_sections() -> str:
    """A section for each command, with its help and a table of its flags."""
    shared = {field.name for field in fields(Common)}
    sections = [command_section(name, command, shared) for name, command in all_commands(cli.app)]
    common = [p for p in parameters_of(cli.app.registered_commands[0]) if p.name in shared]
    return "\n\n".join([*sections, "## Options of every command", flag_table(common)])


def all_commands(app: Typer, group: str = "") -> Iterator[tuple[str, CommandInfo]]:
    """The commands and those of groups, each by its whole name, such as "data check"."""
    for command in app.registered_commands:
        yield group + name_of(command), command
    for inner in app.registered_groups:
        if inner.typer_instance is not None:
            yield from all_commands(inner.typer_instance, f"{group}{inner.name} ")


def command_section(name: str, command: CommandInfo, shared: Collection[str]) -> str:
    """What a command does, how it is used, and its flags except those that all commands share."""
    own = [p for p in parameters_of(command) if p.name not in shared]
    flags = [p for p in own if isinstance(info_of(p), OptionInfo)]
    usage = " ".join(["unitok", name, "[OPTIONS]", *filter(None, map(argument, own))])
    parts = [f"## unitok {name}", f"```text\n{usage}\n```", help_of(command)]
    parts += [flag_table(flags)] if flags else []
    return "\n\n".join([*parts, *some_of_shared(command, shared)])


def some_of_shared(command: CommandInfo, shared: Collection[str]) -> list[str]:
    """A sentence that says which flags of every command one has, if it has not all of them."""
    has = [p for p in parameters_of(command) if p.name in shared]
    if len(has) == len(shared):
        return []
    return [f"{SOME} {', '.join(code(flag) for p in has for flag in flags_of(p))}."]


def name_of(command: CommandInfo) -> str:
    """The name by which a command is called."""
    return command.name or getattr(command.callback, "__name__", "")


def help_of(command: CommandInfo) -> str:
    """A command's help, with its example as code."""
    text = "\n\n".join(filter(None, [inspect.getdoc(command.callback), command.epilog]))
    return re.sub(r"(?m)^Example: (.*)$", r"Example: `\1`", text)


def parameters_of(command: CommandInfo) -> list[inspect.Parameter]:
    """The flags and arguments of a command."""
    assert command.callback is not None
    return list(inspect.signature(command.callback).parameters.values())


def argument(parameter: inspect.Parameter) -> str:
    """The placeholder of an argument in the usage; "" for a flag that may be left out."""
    info = info_of(parameter)
    if isinstance(info, ArgumentInfo):
        name = (info.metavar or parameter.name.upper()).removesuffix("...")
        return f"{name}..." if get_origin(get_args(parameter.annotation)[0]) is list else name
    missing = parameter.default is parameter.empty
    return f"{flags_of(parameter)[0]} {placeholder(parameter)}" if missing else ""


def flag_table(parameters: Iterable[inspect.Parameter]) -> str:
    """Flags with their values, defaults and help."""
    return table(("flag", "value", "default", "what it does"), map(flag_row, parameters))


def flag_row(parameter: inspect.Parameter) -> tuple[str, ...]:
    """A flag as the row of a table."""
    info = info_of(parameter)
    flags = ", ".join(map(code, flags_of(parameter)))
    value = code(placeholder(parameter)) if placeholder(parameter) else ""
    bounds = f" from {info.min} to {info.max}" if info.max is not None else ""
    return flags, value + bounds, shown_default(parameter), info.help or ""


def flags_of(parameter: inspect.Parameter) -> tuple[str, ...]:
    """How a flag is written, such as "--output" and "-o"."""
    info = info_of(parameter)
    named = (info.default, *(info.param_decls or ()))  # in Annotated, the first is no default
    flags = tuple(flag for flag in named if isinstance(flag, str))
    return flags or (f"--{parameter.name.replace('_', '-')}",)


def shown_default(parameter: inspect.Parameter) -> str:
    """The default of a flag, as the command's own help has it."""
    default, shown = parameter.default, info_of(parameter).show_default
    if default is parameter.empty:
        return "must be given"
    if isinstance(shown, str):
        return shown
    nothing = default is None or default is False or default == []
    return "" if nothing or not shown else code(default)


def placeholder(parameter: inspect.Parameter) -> str:
    """What stands for a flag's value in its help; "" for a flag without a value."""
    info = info_of(parameter)
    kinds = [kind for kind in _PLACEHOLDERS if kind in _types(get_args(parameter.annotation)[0])]
    if getattr(info, "count", False) or not kinds:
        return ""
    return info.metavar or _PLACEHOLDERS[kinds[0]]


def _types(hint: Any) -> list[Any]:
    """The types that a type hint is made of."""
    return [hint, *(part for inner in get_args(hint) for part in _types(inner))]


def info_of(parameter: inspect.Parameter) -> Any:
    """What a parameter of a command declares: typer's OptionInfo or ArgumentInfo."""
    assert get_origin(parameter.annotation) is Annotated, f"{parameter.name} declares no flag"
    return next(
        part
        for part in get_args(parameter.annotation)
        if isinstance(part, OptionInfo | ArgumentInfo)
    )
