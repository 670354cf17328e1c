"""Decode steps with torch.compile against those without, side by side in one process.

    python scripts/bench_compile.py                     # Janus-Pro-1B's shape, one guided drawing
    python scripts/bench_compile.py --drawings 8        # 16 rows a step
    python scripts/bench_compile.py --rehearse          # toy sizes: does it run?

The weights are random. A context is not computed: its keys and values are constants, which cost the
same to read. Sides alternate, one step each of the same engine. Reported are medians of the seconds
by the clock and of the process's own, which tell more where others use the machine, and the medians
over pairs of compiled over uncompiled: below 1 the compiled one is faster.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.engines import DecodeSteps
from benchmarks.models import random_model
from benchmarks.requests import guided
from unitok.nn.compiled import CompiledBlocks, why_not_compiled
from unitok.nn.config import JANUS_PRO_1B
from unitok.nn.model import UnifiedModel

CODEBOOK = 16384  # Janus-Pro's
WARM_UP = 3  # steps of each side that do not count


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drawings", type=int, default=1, help="at once; two rows each")
    parser.add_argument("--rounds", type=int, default=31, help="pairs of steps (31)")
    parser.add_argument("--context", type=int, default=300, help="ids of context (300)")
    parser.add_argument("--layers", type=int, default=JANUS_PRO_1B.decoder.layers)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    return parser.parse_args()


def make_model(args: argparse.Namespace) -> UnifiedModel:
    """Build a compiled model of random weights in the shape that is asked for."""
    decoder = dataclasses.replace(JANUS_PRO_1B.decoder, layers=args.layers)
    if args.rehearse:
        decoder = dataclasses.replace(
            decoder, layers=2, hidden_size=256, intermediate_size=512, heads=2, kv_heads=2,
            vocab_size=1000,
        )  # fmt: skip
    codebook = 64 if args.rehearse else CODEBOOK
    model = random_model(decoder, codebook, getattr(torch, args.dtype))
    model.prepare(at_once=True, compile=True)
    return model


def measure(
    sides: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Run each side once a round, in alternating order; seconds by the clock and of the process."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(-WARM_UP, rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            wall, cpu = time.perf_counter(), time.process_time()
            sides[name]()
            if turn >= 0:
                spent = time.perf_counter() - wall, time.process_time() - cpu
                seconds[name].append(spent)
    return seconds


def report(seconds: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians of both sides, and of the ratios of pairs."""
    for place, name in enumerate(("by the clock", "of the process")):
        plain, compiled = ([s[place] for s in seconds[side]] for side in ("plain", "compiled"))
        ratio = statistics.median(c / p for c, p in zip(compiled, plain, strict=True))
        print(
            f"{name}: compiled {statistics.median(compiled) * 1000:.1f} ms a step (best "
            f"{min(compiled) * 1000:.1f}), uncompiled {statistics.median(plain) * 1000:.1f} ms "
            f"(best {min(plain) * 1000:.1f}); compiled over uncompiled {ratio:.3f} x"
        )


@torch.inference_mode()
def main() -> None:
    """Measure and report."""
    args = parse()
    missing = why_not_compiled(torch.device("cpu"))
    if missing is not None:
        raise SystemExit(f"nothing can be compiled here: {missing}")
    model = make_model(args)
    compiled = model.decoder.compiled
    length = 2 * (args.rounds + WARM_UP) + 8
    model.decoder.compiled = None  # for the prefill
    requests = [guided(model, args.context, length, seed) for seed in range(args.drawings)]
    steps = DecodeSteps(model, requests, args.context + length + 8)

    def side(blocks: CompiledBlocks | None) -> Callable[[], object]:
        def step() -> None:
            model.decoder.compiled = blocks
            steps()

        return step

    sides = {"plain": side(None), "compiled": side(compiled)}
    began = time.perf_counter()
    sides["compiled"]()
    print(f"the first compiled step took {time.perf_counter() - began:.1f} s")
    sides["plain"]()
    report(measure(sides, args.rounds))


if __name__ == "__main__":
    main()
