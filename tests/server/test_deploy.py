"""The files in deploy/ are well formed, and give `unitok serve` only flags that it has."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from unitok.cli import app

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVE: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def unit() -> configparser.ConfigParser:
    text = (DEPLOY / "unitok.service").read_text().replace("\\\n", " ")
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def entrypoint() -> list[str]:
    """What the image runs, before the arguments of the compose file."""
    (line,) = re.findall(r"^ENTRYPOINT (\[.*\])", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return yaml.safe_load(line)


def unit_command() -> list[str]:
    return shlex.split(unit()["Service"]["ExecStart"])


def compose_command() -> list[str]:
    return entrypoint() + compose()["services"]["unitok"]["command"]


@pytest.mark.parametrize("command", [unit_command, compose_command])
def test_the_command_has_only_flags_and_values_that_serve_takes(command: Any):
    program, verb, *arguments = command()
    assert (Path(program).name, verb) == ("unitok", "serve")
    known = {name for option in SERVE.params for name in option.opts}
    flags = [part for part in arguments if part.startswith("--")]
    assert flags and set(flags) <= known
    SERVE.make_context("serve", arguments)  # which fails at a value that a flag does not take


def test_the_unit_leaves_the_server_time_to_drain():
    (drain,) = (option.show_default for option in SERVE.params if option.name == "drain_seconds")
    assert int(unit()["Service"]["TimeoutStopSec"]) > float(drain)
    assert int(compose()["services"]["unitok"]["stop_grace_period"].removesuffix("s")) > float(
        drain
    )


def test_the_front_end_asks_the_server_of_the_compose_file():
    services = compose()["services"]
    settings, arguments = services["open-webui"]["environment"], compose_command()
    assert "unitok" in services["open-webui"]["depends_on"]
    for name in ("OPENAI_API_BASE_URL", "IMAGES_OPENAI_API_BASE_URL"):
        assert settings[name] == "http://unitok:8000/v1"
    assert settings["IMAGE_GENERATION_MODEL"] == arguments[arguments.index("--alias") + 1]
    assert {volume.split(":")[0] for one in services.values() for volume in one["volumes"]} == set(
        compose()["volumes"]
    )
