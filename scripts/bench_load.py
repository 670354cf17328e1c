"""How much memory and time it takes to load a folder of Janus-Pro-1B's size, beside transformers.

    python scripts/bench_load.py --out runs/full_size
    python scripts/bench_load.py --out runs/full_size --pairs 5 --dtype bfloat16

The first run writes OUT, random bf16 weights in transformers' Janus format (about 4 GB); see
run_full_size.py. Every figure comes from a fresh process, after one that is not counted and leaves
the file in the system's cache:

- memory: the peak of anonymous pages (RssAnon of /proc/self/status, sampled every 5 ms) from the
  call to its end, less what importing torch and the library took, over the size of the weights in
  the type asked for. Pages mapped from a file do not count.
- time: from the call that loads to the end of a first forward over one token, in turns with
  transformers on the same folder and in the same type; the median of all pairs.

Targets: memory at most 1.15 x the weights; time at most 1.2 x transformers'. The exit code is 1 if
one is missed. Linux only.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.load import compare, measure


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: both")
    parser.add_argument("--one", choices=["unitok", "transformers"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Compare; with --one, measure one library in this process."""
    args = parse()
    if args.one:
        print(json.dumps(measure(args.one, args.out, args.dtype)))
        return
    if not (args.out / "config.json").is_file():
        from scripts.run_full_size import write_folder

        write_folder(args.out)
    dtypes = [args.dtype] if args.dtype else ["bfloat16", "float32"]
    met = [compare(Path(__file__), args.out, dtype, args.pairs) for dtype in dtypes]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
