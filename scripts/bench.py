"""Speed against transformers and vLLM, in one run on an otherwise idle machine: pairs of short runs
side by side, and their medians.

    make bench                                    # every comparison, and docs/benchmarks.md
    python scripts/bench.py --only drawings bookkeeping
    python scripts/bench.py --skip vllm           # without vLLM's environment
    python scripts/bench.py --rehearse --skip vllm # toy sizes: does it run?

one, eight, vllm, ragged, compiled, adapters, finetuning, quantization: random weights in
Janus-Pro-1B's shape, bf16. drawings, together, stream, pixels, previews, rollouts: the embedded
model. structured: both. speculation: what drafts save with the embedded model, and what wide steps
cost at the 1B shape. bookkeeping: the engine's own work, with a null model. driver: what the
driver's thread costs. serving: what the server costs, and how it stands a crowd.
benchmarks/comparisons.py says how each figure is made.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from benchmarks.cache import own_cache
from benchmarks.comparisons import COMPARISONS
from benchmarks.report import Result, Throughput, machine, table, write_document
from benchmarks.setting import Setting

VLLM = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "python"


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--skip", nargs="+", choices=COMPARISONS, default=[])
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="for benchmarks.md, its plot")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    """Run the comparisons, and print or write what they found."""
    args = parse()
    names = [name for name in args.only if name not in args.skip]
    if "vllm" in names and not VLLM.exists():
        sys.exit("vLLM is not installed: `make .venv-vllm/.stamp`, or leave it out: --skip vllm")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    setting = Setting(VLLM, args.rehearse)
    results: list[Result] = []
    points: list[Throughput] = []
    with own_cache():
        run(names, setting, results, points)
    print(f"\n{machine()}\n\n{table(results)}")
    if args.write:
        explained = {name: COMPARISONS[name] for name in names}
        write_document(args.write, explained, results, points)


def run(
    names: Sequence[str], setting: Setting, results: list[Result], points: list[Throughput]
) -> None:
    """Run comparisons, print the rows as they come, and add them to what was found."""
    start = time.perf_counter()
    for name in names:
        print(f"{name}, from second {time.perf_counter() - start:.0f}", flush=True)
        for found in COMPARISONS[name](setting):
            if isinstance(found, Result):
                results.append(found)
                print(found.row(), flush=True)
            else:
                points.append(found)


if __name__ == "__main__":
    main()
