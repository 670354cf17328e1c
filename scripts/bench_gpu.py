"""Speed on a GPU, in one command of under ten minutes; correctness is scripts/check_gpu.py's.

    pip install --editable '.[cuda,baselines]'
    python scripts/bench_gpu.py
    python scripts/bench_gpu.py --only 1B --write docs/benchmarks_gpu.md
    python scripts/bench_gpu.py --device cpu --rehearse  # toy sizes: does it run?

1B, 7B: Janus-Pro's decoders with random bf16 weights; 1, 16 and 64 guided drawings at once.
  step: in the middle of a drawing, against the time that its memory takes to be read; with CUDA
  graphs and without, with torch's attention over gathered K/V, and beside transformers' Llama;
  compiled, and with drafts of 4 and 8 tokens, all of them wrong.
  pictures: whole drawings of 576 tokens, engine alone. first token: of one request on an idle
  engine.
attention: one layer's, paged by xformers, gathered by torch, and torch's on contiguous K/V.
pixels: VQ-16's decoder, from codes to pictures of 384 x 384.
embedded: the embedded model from prompt to picture, with drafts and without.
finetuning: a LoRA update of 1B and of 7B, text and drawings together: tokens a second, memory.
quantization: weights of 8 and 4 bits at both shapes: memory, and steps beside bf16.

A part that fails says why, and the others go on; the exit code is then 1.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
import transformers

from benchmarks.cache import own_cache
from benchmarks.device import DeviceBench
from benchmarks.gpu import PARTS, machine
from benchmarks.report import Result, command, table


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="some of them")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    """Run the parts, and print or write what they found."""
    args = parse()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench_gpu: no GPU here; --device cpu --rehearse runs it at toy sizes")
    transformers.utils.logging.set_verbosity_error()
    here = DeviceBench(torch.device(args.device), args.rehearse)
    results: list[Result] = []
    began = time.perf_counter()
    with own_cache():
        for name in args.only or PARTS:
            for result in here.attempt(name, PARTS[name](here)):
                results.append(result)
                print(result.row(), flush=True)
    took = time.perf_counter() - began
    text = f"{machine(here)}\n\n{table(results)}\n"
    print(f"\n{text}\n{took:.0f} s in all")
    if args.write:
        document = f"# Benchmarks on a GPU\n\n    {command('bench_gpu.py')}\n\n{text}"
        args.write.write_text(document, encoding="utf-8")
    if here.failures:
        sys.exit(f"bench_gpu: failed: {'; '.join(here.failures)}")


if __name__ == "__main__":
    main()
