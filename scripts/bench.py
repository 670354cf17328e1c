"""Speed against transformers and vLLM, in one run on an otherwise idle machine: pairs of short runs
side by side, and their medians.

    make bench                                    # every comparison, and docs/benchmarks.md
    python scripts/bench.py --only drawings bookkeeping
    python scripts/bench.py --skip vllm vllm-backend  # without vLLM's environment
    python scripts/bench.py --rehearse                # toy sizes: does it run?
    python scripts/bench.py --keep found --write docs # in parts: what found/ has is not run again

one, eight, vllm, vllm-backend, ragged, compiled, adapters, finetuning, quantization: random weights
in Janus-Pro-1B's shape, bf16. drawings, together, stream, pixels, previews, inpainting, rollouts:
the embedded model. structured: both. speculation: what drafts save with the embedded model, and
what wide steps cost at the 1B shape. bookkeeping: the engine's own work, with a null model. driver:
what the driver's thread costs. serving: what the server costs, and how it stands a crowd. ray: two
replicas on Ray beside one. benchmarks/comparisons.py says how each figure is made.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from benchmarks.cache import own_cache
from benchmarks.comparisons import COMPARISONS, NEED_VLLM
from benchmarks.report import (
    Result,
    Throughput,
    machine,
    read_found,
    table,
    write_document,
    write_found,
)
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
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of what was found so far")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="for benchmarks.md, its plot")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    """Run the comparisons, and print or write what they found."""
    args = parse()
    names = [name for name in args.only if name not in args.skip]
    if not VLLM.exists() and (needing := [name for name in names if name in NEED_VLLM]):
        sys.exit(
            "vLLM is not installed: `make install-vllm`, or leave it out: --skip "
            + " ".join(needing)
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    setting = Setting(VLLM, args.rehearse)
    results: list[Result] = []
    points: list[Throughput] = []
    with own_cache():
        run(names, setting, args.keep, results, points)
    print(f"\n{machine()}\n\n{table(results)}")
    if args.write:
        explained = {name: COMPARISONS[name] for name in names}
        write_document(args.write, explained, results, points)


def run(
    names: Sequence[str],
    setting: Setting,
    keep: Path | None,
    results: list[Result],
    points: list[Throughput],
) -> None:
    """Run comparisons, print the rows as they come, and add them to what was found.

    Args:
        names: Of the comparisons.
        setting: The models and the sizes.
        keep: The folder of what earlier runs found, to which this one adds; None for none.
        results: The rows, to which those of these comparisons are added.
        points: The points of the plot, likewise.
    """
    start = time.perf_counter()
    for name in names:
        kept = None if keep is None else keep / f"{name}.json"
        if kept is not None and kept.exists():
            try:
                found = read_found(kept, setting.rehearse)
            except ValueError as error:
                sys.exit(f"bench: {error}")
            print(f"{name}, as {kept} has it")
        else:
            print(f"{name}, from second {time.perf_counter() - start:.0f}", flush=True)
            found = []
            for one in COMPARISONS[name](setting):
                found.append(one)
                if isinstance(one, Result):
                    print(one.row(), flush=True)
            if kept is not None:
                write_found(kept, found, setting.rehearse)
        results += [one for one in found if isinstance(one, Result)]
        points += [one for one in found if isinstance(one, Throughput)]


if __name__ == "__main__":
    main()
