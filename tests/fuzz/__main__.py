"""Feeds random inputs to everything that takes inputs from outside: `python -m tests.fuzz`.

    python -m tests.fuzz                       # a minute, and a new seed
    python -m tests.fuzz --seconds 3600
    python -m tests.fuzz --seed 7 --only pictures

An input may be taken or refused, with an exception that is documented and a message that names the
thing. It must not start a process, use the network, write outside its folder, take more memory than
stated, or hang. An input that does is a finding. Findings are saved in out/fuzz with the seed, and
are run first the next time, as are the inputs of tests/fuzz/regressions, which were findings once.
The exit code is 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from secrets import randbelow

from tests.fuzz.report import Row, print_report
from tests.fuzz.worker import ROOT, Worker

FINDINGS = ROOT / "out" / "fuzz"
REGRESSIONS = Path(__file__).parent / "regressions"


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of all targets together")
    parser.add_argument("--seed", type=int, help="what the inputs are made of; random if left out")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="by default all")
    return parser.parse_args()


def main() -> None:
    """Run the fuzzer."""
    given = parse()
    seed = randbelow(10**9) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker("tests.fuzz.targets", Path(folder), seed)
        names = [name for name in worker.targets if not given.only or name in given.only]
        rows = {name: fuzz(worker, name, given.seconds / len(names), seed) for name in names}
        worker.close()
    print_report(rows)
    sys.exit(any(row.findings for row in rows.values()))


def fuzz(worker: Worker, name: str, seconds: float, seed: int) -> Row:
    """Run the inputs of a target: first those that were findings once, then random ones.

    Args:
        worker: Runs them.
        name: The target.
        seconds: How long.
        seed: The worker's, part of the names of findings.
    """
    row, end, index = Row(), time.monotonic() + seconds, 0
    for path in known_cases(name):
        row.add(worker.judge(name, path.read_bytes()), lambda path=path: path)
    while time.monotonic() < end:
        case = worker.random_case(name, index)
        row.add(worker.judge(name, case), saving(case, FINDINGS / name / f"{seed}-{index}"))
        index += 1
    return row


def known_cases(name: str) -> list[Path]:
    """The kept inputs of a target: regressions of the repository, then findings of earlier runs."""
    return [
        path for folder in (REGRESSIONS, FINDINGS) for path in sorted((folder / name).glob("*"))
    ]


def saving(case: bytes, path: Path) -> Callable[[], Path]:
    """What saves an input in a file, and returns the file."""

    def save() -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case)
        return path

    return save


if __name__ == "__main__":
    main()
