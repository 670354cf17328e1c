r"""Record the results of fixed requests, and check later that they are still the same.

    python scripts/golden.py record FILE [--every N] [--stride N]
    python scripts/golden.py check FILE

The requests go through the public API, each alone, on the CPU in float32: to tiny random models of
all families and formats. A recording holds texts, token ids, the margin of each choice,
log-probabilities and pixels. --every takes every N-th case alone, --stride every N-th
row and column of pixels. `check` runs the requests of a recording again and compares:
`tests/unitok/golden/comparison.py` says what "the same" means. It prints each difference and the
counts; the exit code is 1 if anything differs.

The recording that `tests/unitok/test_golden.py` checks is made by

    python scripts/golden.py record tests/unitok/golden/families.json --every 2 --stride 3
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.unitok.golden.comparison import Tally, compare
from tests.unitok.golden.recording import Recordings, load, save, stride_of
from tests.unitok.golden.requests import family_cases
from tests.unitok.golden.runner import record


def main() -> None:
    """Record or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--every", type=int, default=1, help="record every N-th case")
    parser.add_argument("--stride", type=int, default=1, help="record every N-th pixel, both ways")
    args = parser.parse_args()
    if args.what == "check":
        tally = check(load(args.file))
        print(*tally.differences, tally, sep="\n")
        sys.exit(1 if tally.differences else 0)
    with TemporaryDirectory() as root:
        recordings = record(family_cases()[:: args.every], Path(root), args.stride)
    save(recordings, args.file)
    print(compare(recordings, recordings))


def check(before: Recordings) -> Tally:
    """Run the requests of a recording again, and compare."""
    asked = [case for case in family_cases() if case.name in before]
    with TemporaryDirectory() as root:
        return compare(before, record(asked, Path(root), stride_of(before)))


if __name__ == "__main__":
    main()
