"""Mutation testing: changes the code in one place at a time, and sees whether a test fails.

    make mutate N=200 SEED=1
    python scripts/mutate.py --count 20 --seed 1 engine/unitok_engine/scheduler.py

Places are drawn by the seed, and one of the mutants that Cosmic Ray's operators
(https://cosmic-ray.readthedocs.io) make there is taken: another operator, comparison, number or
truth value, a condition turned round, a loop or an exception handler left out. A longer run with
the same seed begins with the same mutants. What only declares is left alone: annotations, the
arguments of decorators, and `strict=True` of `zip`.

Mutants are made in a copy of the tree. Each is tried on the tests of its module first, then on
those of its part (`tests_of`), up to the first that fails. One that hangs, or takes three times as
long as all tests do without a change, counts as noticed. The table has a line for each mutant; the
exit code is 1 if fewer than --target percent were noticed.
"""

import argparse
import ast
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = (".", "engine", "tokenizers")

# The files of `unitok` that are the API. The command line is not part of it.
API = """
api best_job chat chat_file conversation drafts draw_job driver edit_part failed_job grammar_ends
grammar_errors grammar_plan grammars handles history image_decoder loading messages picture_info
picture_sources pictures precision preparer preview_budget previews prompt prompt_length requests
results saving schemas scoring shown signatures stats strict_json text_job throughput tuning upkeep
vocabulary
""".split()

# Quickest first.
ENGINE_TESTS = """
request plans block_pool draft_table draft_width grid_drafter observer attention sampler probe
caution prefix_caching graphs scheduler seeds priority tries given known_cells adapters engine
drafts shares faults reference engine_random_use engine_machine interrupts
""".split()
API_TESTS = """
vocabulary results prompt preview_budget saving settings strict_json picture_info picture_sources
pictures damaged_pictures image_decoder counted_work one_loop driver conversation messages chat
loading options adapters adapters_per_request weight_updates previews inpainting golden api drafts
same_bytes janus janus4o concurrency scoring structured structured_ends structured_beside
""".split()

# The tests that look at a module most closely, where that is not the file named after it.
CLOSEST = {
    "engine/unitok_engine/attention/backends.py": "engine/attention engine/probe",
    "engine/unitok_engine/attention/base.py": "engine/attention",
    "engine/unitok_engine/attention/cpu.py": "engine/attention parity/paged_attention",
    "engine/unitok_engine/attention/gather.py": "engine/attention parity/paged_attention",
    "engine/unitok_engine/attention/kv_layout.py": "engine/attention parity/paged_attention",
    "engine/unitok_engine/attention/paged.py": "engine/attention parity/paged_attention",
    "engine/unitok_engine/attention/xformers.py": """engine/attention engine/probe engine/graphs
        parity/xformers_decode parity/xformers_static""",
    "engine/unitok_engine/batch.py": "engine/engine engine/adapters",
    "engine/unitok_engine/config.py": "engine/request",
    "engine/unitok_engine/drafter.py": "engine/drafts",
    "engine/unitok_engine/embedding_store.py": "engine/faults",
    "engine/unitok_engine/embeddings.py": "engine/faults",
    "engine/unitok_engine/ids.py": "engine/request",
    "engine/unitok_engine/model.py": "engine/engine",
    "engine/unitok_engine/noise.py": "engine/sampler",
    "engine/unitok_engine/prefix_cache.py": "engine/prefix_caching",
    "engine/unitok_engine/runner.py": "engine/engine engine/adapters",
    "engine/unitok_engine/scheduler.py": "engine/scheduler engine/shares",
    "engine/unitok_engine/sequence.py": "engine/engine engine/drafts engine/adapters",
    "engine/unitok_engine/transfer.py": "engine/sampler",
    "engine/unitok_engine/user_warnings.py": "unitok/options unitok/api",
    "engine/unitok_engine/waiting.py": "engine/scheduler engine/shares engine/priority",
    "unitok/best_job.py": "unitok/inpainting",
    "unitok/chat_file.py": "unitok/chat",
    "unitok/draw_job.py": "unitok/driver",
    "unitok/edit_part.py": "unitok/inpainting",
    "unitok/failed_job.py": "unitok/driver",
    "unitok/grammar_ends.py": "unitok/structured_ends",
    "unitok/grammar_errors.py": "unitok/structured",
    "unitok/grammar_plan.py": "unitok/structured unitok/structured_ends",
    "unitok/grammars.py": "unitok/structured",
    "unitok/handles.py": "unitok/driver",
    "unitok/history.py": "unitok/chat",
    "unitok/loading.py": "unitok/loading unitok/compile",
    "unitok/precision.py": "unitok/loading",
    "unitok/preparer.py": "unitok/options unitok/api",
    "unitok/prompt_length.py": "unitok/options",
    "unitok/requests.py": "unitok/options unitok/api",
    "unitok/schemas.py": "unitok/structured",
    "unitok/signatures.py": "unitok/options unitok/api",
    "unitok/stats.py": "unitok/options",
    "unitok/text_job.py": "unitok/driver",
    "unitok/throughput.py": "unitok/options",
    "unitok/upkeep.py": "unitok/weight_updates unitok/driver",
    "unitok/tuning.py": "unitok/weight_updates unitok/adapters_per_request",
}

# Numbers are compared by value: whether equal ones are the same object is an accident.
EXCLUDED = re.compile(r"RemoveDecorator$|(Eq|Lt|LtE|Gt|GtE)_Is(Not)?$|_Is(Not)?_(?!Is)")

COLUMNS = ("verdict", "file", "line", "operator", "change", "seconds", "test")
LONGEST = 3600  # seconds for all tests on the code as it is

NOTICED, HUNG, SURVIVED = "noticed", "hung", "survived"


@dataclass(frozen=True)
class Mutant:
    """A change of one place.

    Attributes:
        path: The file, from the root of the repository.
        line: The number of the line, from 1.
        operator: What made it, such as "NumberReplacer".
        change: The changed lines, before and after.
        code: The file's whole text with the change.
    """

    path: str
    line: int
    operator: str
    change: str
    code: str


@dataclass(frozen=True)
class Outcome:
    """How the tests took a mutant.

    Attributes:
        verdict: "noticed", "hung" or "survived".
        test: The first test that failed, if one did.
        seconds: How long they ran.
    """

    verdict: str
    test: str
    seconds: float


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, help="files or folders; the engine and the API if left out"
    )
    parser.add_argument("--count", type=int, default=200, help="mutants to try")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other mutants")
    parser.add_argument("--target", type=float, default=95, help="percent that must be noticed")
    parser.add_argument("--out", type=Path, help="the table; runs/mutants-SEED.tsv if left out")
    return parser.parse_args()


def main() -> None:
    """Draw mutants, try each, and report."""
    args = parse()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the tests' processes import torch
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the tests end with it
    files = files_at(args.paths) or mutated_files()
    out = args.out or ROOT / "runs" / f"mutants-{args.seed}.tsv"
    out.parent.mkdir(parents=True, exist_ok=True)
    mutants = sample(files, args.count, args.seed)
    print(f"{len(mutants)} mutants of {len(files)} files; the table is {out}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = copy_of_tree(Path(folder) / "tree")
        limit = 60 + 3 * seconds_unchanged(tree, mutants)
        results = []
        with out.open("w", encoding="utf-8") as table:
            print(*COLUMNS, sep="\t", file=table)
            for mutant in mutants:
                outcome = attempt(tree, mutant, limit)
                results.append((mutant, outcome))
                print(*row(mutant, outcome), sep="\t", file=table, flush=True)
                print(outcome.verdict, f"{mutant.path}:{mutant.line}", outcome.test, flush=True)
    sys.exit(report(results, args.target))


def mutated_files() -> list[str]:
    """All files of the engine and of the API, from the root of the repository."""
    return [*files_at([ROOT / "engine"]), *(f"unitok/{name}.py" for name in API)]


def files_at(paths: Sequence[Path]) -> list[str]:
    """Files, and those in folders that do more than gather names, from the repository's root."""
    files = [sorted(path.rglob("[!_]*.py")) if path.is_dir() else [path] for path in paths]
    return [relative(file) for file in chain.from_iterable(files)]


def relative(path: Path) -> str:
    """A file's path from the root of the repository."""
    return path.resolve().relative_to(ROOT).as_posix()


def tests_of(path: str) -> list[list[str]]:
    """The test files for a module: those that look at it most closely, and those of its part."""
    part = "engine" if path.startswith("engine/") else "unitok"
    own = CLOSEST.get(path, f"{part}/{Path(path).stem}").split()
    common = [f"{part}/{name}" for name in (ENGINE_TESTS if part == "engine" else API_TESTS)]
    if part == "engine":
        common.append("unitok/counted_work")
    names = (own, [name for name in common if name not in own])
    return [[test_file(name) for name in stage] for stage in names]


def test_file(name: str) -> str:
    """The path of the tests "engine/request"."""
    folder, stem = name.split("/")
    return f"tests/{folder}/test_{stem}.py"


# --- mutants --------------------------------------------------------------------------------------


def sample(files: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Mutants of so many places, or of all that there are."""
    chance = Random(seed)
    found = [(file, place) for file in files for place in places(file)]
    chance.shuffle(found)
    mutants: list[Mutant] = []
    for file, choices in found:
        if len(mutants) == count:
            break
        operator, occurrence, line = chance.choice(choices)
        mutant = make(file, operator, occurrence, line)
        if mutant is not None:
            mutants.append(mutant)
    return mutants


def places(file: str) -> list[list[tuple[str, int, int]]]:
    """For each place of a file what can be done there: operator, its occurrence, and the line."""
    from cosmic_ray import ast as syntax  # pyright: ignore[reportMissingImports]
    from cosmic_ray import plugins  # pyright: ignore[reportMissingImports]

    tree = syntax.get_ast((ROOT / file).read_text(encoding="utf-8"))
    nodes = [(node, declares(node)) for node in syntax.ast_nodes(tree)]
    found: dict[Any, list[tuple[str, int, int]]] = defaultdict(list)
    for name in plugins.operator_names():
        operator_class = plugins.get_operator(name)
        if operator_class.arguments() or EXCLUDED.search(name):
            continue
        occurrence = -1
        for node, only_declares in nodes:
            for start, _ in operator_class().mutation_positions(node):
                occurrence += 1
                if not only_declares:
                    kind = name.split("/")[-1].split("_")[0]
                    found[start, kind].append((name, occurrence, start[0]))
    return [found[key] for key in sorted(found)]


def declares(node: Any) -> bool:
    """Whether a node of the syntax tree is part of an annotation, a decorator or `strict=True`."""
    while (parent := node.parent) is not None:
        index = parent.children.index(node)
        if parent.type == "argument" and parent.children[0].get_code().strip() == "strict":
            return True
        if parent.type == "decorator" or (parent.type in ("annassign", "tfpdef") and index < 3):
            return parent.type != "tfpdef" or index == 2
        if parent.type == "funcdef" and index > 0 and parent.children[index - 1] == "->":
            return True
        node = parent
    return False


def make(file: str, operator: str, occurrence: int, line: int) -> Mutant | None:
    """One mutant, or None if it is no program or the same one."""
    from cosmic_ray import mutating, plugins  # pyright: ignore[reportMissingImports]

    code = (ROOT / file).read_text(encoding="utf-8")
    mutated = mutating.mutate_code(code, plugins.get_operator(operator)(), occurrence)
    try:
        if mutated is None or same_program(code, mutated):
            return None
    except SyntaxError:
        return None
    return Mutant(file, line, operator.split("/")[-1], difference(code, mutated), mutated)


def difference(code: str, other: str) -> str:
    """The lines that differ, before and after."""
    diff = difflib.unified_diff(code.splitlines(), other.splitlines(), n=0, lineterm="")
    lines = list(diff)[3:]
    before, after = (" ".join(x[1:].strip() for x in lines if x[0] == sign) for sign in "-+")
    return f"{before} -> {after}"


def same_program(code: str, other: str) -> bool:
    """Whether two texts are the same program; SyntaxError if the other is none."""
    return ast.dump(ast.parse(code)) == ast.dump(ast.parse(other))


# --- tests ----------------------------------------------------------------------------------------


def copy_of_tree(target: Path) -> Path:
    """A copy of all that git would keep, as it is now."""
    kept = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(kept, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def seconds_unchanged(tree: Path, mutants: Sequence[Mutant]) -> float:
    """How long the tests take on the code as it is; they must all pass."""
    stages = chain.from_iterable(tests_of(mutant.path) for mutant in mutants)
    tests = list(dict.fromkeys(chain.from_iterable(stages)))
    outcome = run_tests(tree, tests, LONGEST)
    if outcome.verdict != SURVIVED:
        sys.exit(f"mutate: tests fail without any change: {outcome.test or outcome.verdict}")
    print(f"{len(tests)} test files pass as it is, in {outcome.seconds:.0f} s", flush=True)
    return outcome.seconds


def attempt(tree: Path, mutant: Mutant, limit: float) -> Outcome:
    """Run the tests on one mutant."""
    target = tree / mutant.path
    unchanged = target.read_bytes()
    target.write_text(mutant.code, encoding="utf-8")
    try:
        closest, others = tests_of(mutant.path)
        outcome = run_tests(tree, closest, limit)
        return outcome if outcome.verdict != SURVIVED else run_tests(tree, others, limit)
    finally:
        target.write_bytes(unchanged)


def run_tests(tree: Path, tests: Sequence[str], limit: float) -> Outcome:
    """Run tests in a process that has imported the libraries already, up to the first failure."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["hypothesis", "pytest", "torch"])
    start, log = time.monotonic(), tree.parent / "log.txt"
    process = context.Process(target=test_process, args=(tree, log, tests))
    process.start()
    assert process.pid is not None
    try:
        process.join(limit)
    finally:
        end_group(process.pid)
    process.join()
    seconds = time.monotonic() - start
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.MULTILINE)
    verdict = {0: SURVIVED, -signal.SIGKILL: HUNG}.get(process.exitcode or 0, NOTICED)
    return Outcome(verdict, found[0] if found else "", seconds)


def test_process(tree: Path, log: Path, tests: Sequence[str]) -> None:
    """In the new process: pytest, with all its output in a file."""
    # So that it can be ended with all that the tests started. It gets no session of its own: the
    # first terminal that a test opens would become that session's, and its end would end us.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs it beside
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(tree)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    roots = os.pathsep.join(str(tree / root) for root in SOURCE_ROOTS)
    os.environ |= {"PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True  # a file that changes twice in a second would look unchanged
    import pytest
    from hypothesis import Phase, settings

    phases = (Phase.explicit, Phase.reuse, Phase.generate)  # one failure will do, of any size
    settings.register_profile("mutate", phases=phases, report_multiple_bugs=False)
    settings.load_profile("mutate")
    options = ["-x", "-q", "--tb=no", "-rfE", "--timeout=60", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([*options, *tests]))


def end_group(pid: int) -> None:
    """Kill a process and all that it started, if any of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


# --- report ---------------------------------------------------------------------------------------


def row(mutant: Mutant, outcome: Outcome) -> list[str]:
    """A mutant's line of the table."""
    where = [mutant.path, str(mutant.line), mutant.operator, mutant.change]
    return [outcome.verdict, *where, f"{outcome.seconds:.1f}", outcome.test]


def report(results: Sequence[tuple[Mutant, Outcome]], target: float) -> int:
    """Print who survived and the rate; the exit code."""
    for line in survivors(results):
        print(line)
    noticed = sum(outcome.verdict != SURVIVED for _, outcome in results)
    rate = 100 * noticed / max(len(results), 1)
    print(f"{noticed} of {len(results)} mutants were noticed: {rate:.1f} %")
    return 0 if rate >= target else 1


def survivors(results: Sequence[tuple[Mutant, Outcome]]) -> Iterator[str]:
    """A line for each mutant that no test noticed."""
    for mutant, outcome in results:
        if outcome.verdict == SURVIVED:
            yield f"survived: {mutant.path}:{mutant.line}: {mutant.change}"


if __name__ == "__main__":
    main()
