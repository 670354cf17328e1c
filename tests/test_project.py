"""What the files at the top of the project say: name, version, wheel, hooks, jobs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from typer.testing import CliRunner

import unitok
from unitok.cli import app

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WHEEL = WheelBuilder(str(ROOT))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    rule = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    assert rule is not None, f"the Makefile has no target {target}"
    return [line.strip() for line in rule[1].splitlines()]


# --- name and version ----------------------------------------------------------------------------


def test_the_distribution_is_not_called_as_another_project_is():
    assert WHEEL.metadata.name == "unitok-engine"


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert WHEEL.metadata.version == unitok.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", unitok.__version__)


def test_the_command_tells_the_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"unitok {unitok.__version__}\n")


def test_python_runs_the_package_as_the_command():
    run = [sys.executable, "-m", "unitok", "--version"]
    told = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert told == f"unitok {unitok.__version__}\n"


def test_the_changelog_leads_to_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, latest = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[:2]
    assert (unreleased, latest) == ("Unreleased", unitok.__version__)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_installs_the_other_project(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?:pip|uv|pipx)\b.*\binstall\s(?:-\S+\s)*unitok\b", text) == []


# --- the wheel -----------------------------------------------------------------------------------


def test_the_wheel_holds_the_packages_and_nothing_else():
    paths = {file.distribution_path for file in WHEEL.recurse_included_files()}
    assert {path.split("/")[0] for path in paths} == {
        "unitok",
        "unitok_engine",
        "unitok_tokenizers",
    }
    assert {
        "unitok/__main__.py",
        "unitok/py.typed",
        "unitok/assets/default/model.safetensors",
        "unitok_engine/engine.py",
        "unitok_tokenizers/text.py",
    } <= paths


# --- hooks and jobs ------------------------------------------------------------------------------


def test_the_hooks_are_the_checks_of_make_lint():
    repos = read_yaml(".pre-commit-config.yaml")["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    checks = [c.replace("$(BIN)", ".venv/bin").removesuffix(" .") for c in recipe("lint")]
    assert [hook["entry"].split(" --")[0] for hook in hooks] == [c.split(" --")[0] for c in checks]


def test_no_test_runs_without_a_limit(pytestconfig: pytest.Config):
    assert pytestconfig.pluginmanager.has_plugin("timeout")
    assert float(pytestconfig.getini("timeout")) == 120


def test_each_job_makes_what_the_makefile_has():
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    made = {
        name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()
    }
    assert made == {
        "lint": ["make lint"],
        "docs": ["make docs"],
        "test": ["make test"],
        "training": ["make test-training"],
        "evaluation": ["make test-evaluation"],
        "server": ["make test-server"],
        "page": ["command -v chromium || sudo apt-get install --yes chromium", "make test-page"],
        "ray": ["make test-ray"],
        "proxy": ["command -v nginx || sudo apt-get install --yes nginx", "make test-proxy"],
        "parity": ["make test-parity"],
        "vllm": ["make test-vllm"],
        "fuzz": ["make fuzz"],
        "wheel": ["make check-wheel"],
    }
    for *_, command in made.values():
        assert recipe(command.removeprefix("make "))


def test_every_job_runs_the_oldest_python_that_is_supported():
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"].values()
    versions = [
        s["with"]["python-version"]
        for j in jobs
        for s in j["steps"]
        if "python" in s.get("uses", "")
    ]
    assert versions == [WHEEL.metadata.core.requires_python.removeprefix(">=")] * len(jobs)


def test_pages_name_targets_that_the_makefile_has():
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    named = {n for text in texts for n in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)}
    assert {"demo", "test", "hooks"} <= named
    for target in named:
        assert recipe(target)
