"""The tables of the documentation list everything that the code declares."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import unitok
import unitok_engine
from scripts.docs_tables import (
    all_commands,
    command_sections,
    kinds_of_requests,
    option_table,
    recipe_sections,
    request_sections,
    table,
)
from unitok.cli import app
from unitok.requests import Caption, Draw, Edit, options_of
from unitok.training.recipe import LoraKeys, OptimiserKeys, Recipe, SamplesKeys

DOCS = Path(__file__).resolve().parents[1] / "docs"
REFERENCE = DOCS / "reference"
WITHOUT_MODEL = ("data make", "eval compare", "eval fid", "eval pairs", "train")


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a table in Markdown by the first cell, without the head."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    cells = [[cell.strip() for cell in line] for line in lines]
    return {first.strip("`"): rest for first, *rest in cells[2:]}


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", kinds_of_requests(), ids=lambda made: made.__name__)
def test_every_option_of_a_request_has_a_row_with_its_default_range_and_help(made):
    shown = rows(section(request_sections(), made.__name__))
    assert sorted(shown) == sorted(options_of(made))
    for field in fields(made):
        if field.name in shown:
            _, default, bounds, text = shown[field.name]
            spec = options_of(made)[field.name]
            wanted = "must be given" if spec.required else f"`{field.default!r}`"
            assert default.split(":")[0] == wanted
            assert (bounds, text) == (spec.range, spec.option.help)


def test_what_a_request_is_about_is_listed_before_its_options():
    shown = section(request_sections(), "Reply")
    assert "Attributes:" not in shown
    assert "\n- `messages`: The conversation." in shown.partition("| option")[0]


def test_all_public_kinds_of_requests_are_shown():
    assert {Caption, Draw, Edit} <= set(kinds_of_requests())


def test_an_option_that_none_leaves_to_the_model_says_so():
    assert rows(option_table(Draw))["guidance"][:2] == [
        "a number or None",
        "`None`: the model's own",
    ]


def test_a_bar_in_a_cell_does_not_end_it():
    assert rows(table(("a", "b"), [("x", "1 | 2")]))["x"] == [r"1 \| 2"]


# --- commands ------------------------------------------------------------------------------------


def flags_of(command: Any) -> set[str]:
    """All flags of a command as typer has them, but for --help."""
    return {
        flag
        for parameter in command.params
        if parameter.param_type_name == "option"
        for flag in parameter.opts
    } - {"--help", "-h"}


def command_of(name: str) -> Any:
    """A command as typer has it, by its whole name, such as "data check"."""
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    return command


def test_commands_of_groups_are_shown_too():
    names = [name for name, _ in all_commands(app)]
    assert {name.split()[0] for name in names} == set(command_of("").commands)
    assert {"draw", "data check", "data make"} <= set(names)


@pytest.mark.parametrize("name", [name for name, _ in all_commands(app)])
def test_every_flag_of_a_command_is_shown(name):
    text = command_sections()
    shown = section(text, f"unitok {name}") + section(text, "Options of every command")
    firsts = " ".join(re.findall(r"^\| (.*?) \|", shown, re.MULTILINE))
    flags = flags_of(command_of(name))
    needs_model = name not in WITHOUT_MODEL
    assert ("--model" in flags) == needs_model and "--quiet" in flags
    shown_flags = set(re.findall(r"`(-.*?)`", firsts))
    assert shown_flags >= flags
    if needs_model:
        assert shown_flags == flags


def test_a_command_shows_its_usage_its_help_and_the_defaults_of_its_flags():
    shown = section(command_sections(), "unitok draw")
    assert "unitok draw [OPTIONS] PROMPT" in shown
    assert "unitok caption [OPTIONS] FILE" in command_sections()
    assert re.search(r"unitok caption .*\.\.\.\n", command_sections())
    assert "Example: `unitok draw " in shown
    assert rows(shown)["-n"] == [
        "`INTEGER` from 1 to 1000",
        "1, or one for each seed",
        "How many pictures.",
    ]
    assert rows(shown)["--guidance"][:2] == ["`NUMBER`", "the model's own"]


# --- recipes -------------------------------------------------------------------------------------


def test_every_key_of_a_recipe_is_shown():
    text = recipe_sections()
    for made in (Recipe, OptimiserKeys, LoraKeys, SamplesKeys):
        for each in fields(made):
            shown = f"| `{each.name}` |" in text or f"[{each.name}]" in text
            assert shown, each.name
    assert rows(text)["learning_rate"] == ["a number above 0", "`0.0001`", "the highest one"]
    assert "<!-- recipe -->" in (DOCS / "finetuning.md").read_text(encoding="utf-8")


# --- the reference -------------------------------------------------------------------------------


def test_the_reference_names_everything_that_is_public():
    text = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    named = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    named |= {f"unitok.{made.__name__}" for made in kinds_of_requests()}
    public = {f"unitok.{name}" for name in unitok.__all__ if name != "Result"}
    public |= {f"unitok_engine.{name}" for name in unitok_engine.__all__}
    assert public <= named
    assert "## unitok.Result" in text
