"""The arrows between the packages.

scripts, benchmarks, examples -> unitok -> {unitok_engine, unitok_tokenizers}. Within unitok, the
emoji world stands on training, which stands on models.
"""

import ast
import functools
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "engine" / "unitok_engine"
TOKENIZERS = ROOT / "tokenizers" / "unitok_tokenizers"
UNITOK = ROOT / "unitok"
ABOVE = {"benchmarks", "examples", "scripts", "tests"}
REFERENCES = {"transformers", "diffusers"}
IMPORTERS = {"import_module", "__import__", "need"}


class Called(NamedTuple):
    """A call: the last part of its name, if it is of an attribute, and a text that it is given."""

    name: str
    of_attribute: bool
    text: str | None


@functools.cache
def statements(source: str) -> tuple[list[ast.Import | ast.ImportFrom], list[Called]]:
    """All imports and calls, at any depth of nesting; each file is parsed once for all tests."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return imports, [called(node) for node in nodes if isinstance(node, ast.Call)]


def called(node: ast.Call) -> Called:
    """What a call calls: `a.b(...)` and `b(...)` both have the name "b"."""
    function, first = node.func, node.args[0] if node.args else None
    text = first.value if isinstance(first, ast.Constant) else None
    name = getattr(function, "attr", getattr(function, "id", ""))
    return Called(
        name, isinstance(function, ast.Attribute), text if isinstance(text, str) else None
    )


def imported(source: str) -> set[str]:
    """Top-level names of all modules that the source imports, at any depth of nesting."""
    imports, calls = statements(source)
    names = {call.text.split(".")[0] for call in calls if call.name in IMPORTERS and call.text}
    for node in imports:
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def modules(source: str) -> set[str]:
    """Full names of all that the source imports by an import statement: `a.b`, and `a.b.c` of
    `from a.b import c`, which may be a module."""
    names: set[str] = set()
    for node in statements(source)[0]:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif node.level == 0 and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def forward_calls(source: str) -> int:
    """How often the source calls an attribute named `forward`."""
    return sum(call.of_attribute and call.name == "forward" for call in statements(source)[1])


def files(folder: Path, without: str | None = None) -> Iterator[Path]:
    """The Python files under a folder, but for those under its subfolder `without`."""
    found = sorted(folder.rglob("*.py"))
    assert found, f"no Python file in {folder}"
    return (path for path in found if without is None or (folder / without) not in path.parents)


def breaches(folder: Path, forbidden: set[str], without: str | None = None) -> list[str]:
    """Which files of a folder import which forbidden names."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(folder, without)
        for name in sorted(imported(path.read_text(encoding="utf-8")) & forbidden)
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        (ENGINE, {"unitok", "unitok_tokenizers", *ABOVE}),
        (TOKENIZERS, {"unitok", "unitok_engine", *ABOVE}),
        (UNITOK, ABOVE),
        (ROOT / "benchmarks", {"examples", "scripts", "tests"}),
    ],
    ids=["engine", "tokenizers", "unitok", "benchmarks"],
)
def test_imports_follow_the_arrows(folder: Path, forbidden: set[str]):
    assert breaches(folder, forbidden) == []


def test_reference_libraries_stay_in_benchmarks_and_baselines():
    assert breaches(ENGINE, REFERENCES) == []
    assert breaches(TOKENIZERS, REFERENCES) == []
    baselines = ("unitok/baselines/", "unitok/emoji/baselines/")
    found = [text for text in breaches(UNITOK, REFERENCES) if not text.startswith(baselines)]
    # The perceptual loss compares features of a network that the user names.
    features = "unitok/training/image_tokenizer/features.py"
    assert found == [f"{features} imports transformers"]


def importers(module: str) -> set[str]:
    """Files and folders directly in unitok that import a module of unitok or a part of it."""
    return {
        path.relative_to(UNITOK).parts[0]
        for path in files(UNITOK)
        if any(
            f"{name}.".startswith(f"{module}.")
            for name in modules(path.read_text(encoding="utf-8"))
        )
    }


def test_training_knows_no_data_set_and_models_know_no_training():
    # The registry of suites names those of the emoji world, and `unitok train` its rewards.
    assert importers("unitok.emoji") == {"commands", "demo.py", "emoji", "evaluation"}
    assert importers("unitok.training") == {"commands", "emoji", "training"}


# Which families build on which. Beside them the emoji recipe knows one: it trains a Janus.
FAMILIES = UNITOK / "families"
BUILDS_ON = {"unitoken": {"chameleon"}, "janus4o": {"janus"}}


def families_in(source: str) -> set[str]:
    """Families whose package, or a module of it, the source imports."""
    known = {path.parent.name for path in FAMILIES.glob("*/family.py")} - {"common"}
    parts = (name.split(".") for name in modules(source))
    return {part[2] for part in parts if part[:2] == ["unitok", "families"] and part[2:]} & known


def test_a_family_is_known_to_the_registry_and_to_those_that_build_on_it_alone():
    for path in files(UNITOK):
        if path == FAMILIES / "__init__.py":
            continue
        first, second, *_ = (*path.relative_to(UNITOK).parts, "")
        allowed = {"janus"} if first == "emoji" else set()
        if first == "families":
            allowed = {second, *BUILDS_ON.get(second, ())}
        found = families_in(path.read_text(encoding="utf-8"))
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {found - allowed}"
    source = "import unitok.families.emu3.config\nfrom unitok.families import Family, janus"
    assert families_in(source) == {"emu3", "janus"}


def import_graph(*roots: Path) -> dict[str, set[str]]:
    """Which of our modules each of them imports, at any depth of nesting."""
    sources: dict[str, str] = {}
    for root in roots:
        for path in files(root):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[name] = path.read_text(encoding="utf-8")
    return {name: targets(source, sources) - {name} for name, source in sources.items()}


def targets(source: str, known: Mapping[str, str]) -> set[str]:
    """The known modules that a source imports; `from a import b` is `a.b` if that is a module."""
    found: set[str] = set()
    for node in statements(source)[0]:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif node.level == 0 and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in full}
    return found & known.keys()


def test_no_import_goes_in_a_circle():
    graph = import_graph(ENGINE, TOKENIZERS, UNITOK)
    assert len(graph) > 100
    list(TopologicalSorter(graph).static_order())  # it names the circle if there is one


def test_the_walk_sees_a_circle():
    sources = {"a": "from b import c", "b": "", "b.c": "def late():\n    import a"}
    graph = {name: targets(source, sources) - {name} for name, source in sources.items()}
    assert graph == {"a": {"b.c"}, "b": set(), "b.c": {"a"}}
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph).static_order())


def test_the_decoder_is_run_from_one_place():
    paths = [*files(ENGINE), *files(UNITOK, without="training")]
    calls = {str(p.relative_to(ROOT)): forward_calls(p.read_text(encoding="utf-8")) for p in paths}
    sites = {path: count for path, count in calls.items() if count}
    assert sites == {"engine/unitok_engine/runner.py": 1}


def test_the_walk_sees_every_kind_of_import_and_call():
    source = (
        "import one.part\n"
        "def late():\n"
        "    from two import part\n"
        "    from . import sibling\n"
        "    importlib.import_module('three.part')\n"
        "    return self.model.forward(x), forward(x), self.model(x)\n"
    )
    assert imported(source) == {"one", "two", "three"}
    assert modules(source) == {"one.part", "two", "two.part"}
    assert forward_calls(source) == 1
