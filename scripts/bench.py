"""Speed against transformers and vLLM, in one run on an otherwise idle machine: pairs of short runs
side by side, and their medians.

    make bench                                    # every comparison, and docs/benchmarks.md
    python scripts/bench.py --only drawings bookkeeping
    python scripts/bench.py --skip vllm           # without vLLM's environment
    python scripts/bench.py --rehearse --skip vllm # toy sizes: does it run?

one, eight, vllm, ragged: random weights in Janus-Pro-1B's shape, bf16. drawings, together, stream,
pixels: the embedded model. bookkeeping: the engine's own work, with a model that costs nothing.
unitok/evaluation/comparisons.py says how each figure is made.
"""

import argparse
import inspect
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers

from unitok.evaluation.bench_report import (
    Result,
    Throughput,
    machine,
    plot,
    table,
    throughput_table,
)
from unitok.evaluation.comparisons import COMPARISONS, Setting

VLLM = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "python"
PLOT = "benchmarks_throughput.png"


def parse() -> argparse.Namespace:
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
    args = parse()
    names = [name for name in args.only if name not in args.skip]
    if "vllm" in names and not VLLM.exists():
        sys.exit("vLLM is not installed: `make .venv-vllm/.stamp`, or leave it out: --skip vllm")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    setting = Setting(VLLM, args.rehearse)
    results: list[Result] = []
    points: list[Throughput] = []
    start = time.perf_counter()
    for name in names:
        print(f"{name}, from second {time.perf_counter() - start:.0f}", flush=True)
        for found in COMPARISONS[name](setting):
            if isinstance(found, Result):
                results.append(found)
                print(found.row(), flush=True)
            else:
                points.append(found)
    print(f"\n{machine()}\n\n{table(results)}")
    if args.write:
        write(args.write, names, results, points)


def write(
    folder: Path, names: Iterable[str], results: list[Result], points: list[Throughput]
) -> None:
    """benchmarks.md and, if there were drawings, its plot."""
    command = " ".join(["python", "scripts/bench.py", *sys.argv[1:]])
    parts = ["# Benchmarks", f"    {command}", machine() + ".", table(results)]
    parts.append(
        "Speed drifts, so only what ran side by side is compared: sides alternate, and ratios are "
        "medians. More than 1 x is better for *faster*, less for *over*."
    )
    if points:
        plot(points, folder / PLOT)
        parts += ["## Throughput", f"![Throughput by the number of drawings at once]({PLOT})"]
        parts += [throughput_table(points)]
    parts.append("## How each figure is made")
    parts += [f"- **{name}**: {prose(name)}" for name in names]
    (folder / "benchmarks.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def prose(name: str) -> str:
    """A comparison's docstring in one line."""
    return " ".join((inspect.getdoc(COMPARISONS[name]) or "").split())


if __name__ == "__main__":
    main()
