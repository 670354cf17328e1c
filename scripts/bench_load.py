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

Bars: memory at most 1.15 x the weights; time at most 1.2 x transformers'. Linux only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SELF = Path(__file__)
MEMORY_BAR, TIME_BAR = 1.15, 1.2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: both")
    parser.add_argument("--one", choices=["unitok", "transformers"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.out, args.dtype)))
        return
    if not (args.out / "config.json").is_file():
        from scripts.run_full_size import write_folder

        write_folder(args.out)
    dtypes = [args.dtype] if args.dtype else ["bfloat16", "float32"]
    sys.exit(0 if all([compare(args.out, dtype, args.pairs) for dtype in dtypes]) else 1)


def compare(folder: Path, dtype: str, pairs: int) -> bool:
    """Print what both take; whether both bars hold."""
    once("unitok", folder, dtype)  # the file's pages are in the system's cache from here on
    runs = [
        (once("unitok", folder, dtype), once("transformers", folder, dtype)) for _ in range(pairs)
    ]
    weights = runs[0][0]["weights"]
    print(f"{dtype}: weights of {weights / 1e9:.2f} GB, {pairs} pairs", flush=True)
    ours, theirs = ([pair[i] for pair in runs] for i in (0, 1))
    for name, results in (("unitok", ours), ("transformers", theirs)):
        seconds = ", ".join(f"{r['seconds']:.2f}" for r in results)
        loads = ", ".join(f"{r['loaded']:.2f}" for r in results)
        peak = max(r["peak"] for r in results)
        print(f"  {name:12} {seconds} s (loaded after {loads} s), anonymous {peak / 1e9:.2f} GB")
    memory = max(r["peak"] for r in ours) / weights
    time_ratio = statistics.median(r["seconds"] for r in ours) / statistics.median(
        r["seconds"] for r in theirs
    )
    print(f"  memory {memory:.3f} x the weights (bar {MEMORY_BAR})")
    print(f"  time {time_ratio:.2f} x transformers' (bar {TIME_BAR})", flush=True)
    return memory <= MEMORY_BAR and time_ratio <= TIME_BAR


def once(library: str, folder: Path, dtype: str) -> dict[str, float]:
    """One load and forward in a process of its own."""
    command = [sys.executable, str(SELF), "--one", library, "--out", str(folder), "--dtype", dtype]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(library: str, folder: Path, dtype: str) -> dict[str, float]:
    """Bytes and seconds of this process; what only needs to be imported is, before."""
    load = {"unitok": prepare_unitok, "transformers": prepare_transformers}[library]()
    with PeakMemory() as memory:
        start = time.perf_counter()
        model, forward = load(folder, dtype)
        loaded = time.perf_counter() - start
        forward()
        seconds = time.perf_counter() - start
    count = sum(t.numel() for t in {t.data_ptr(): t for t in model.state_dict().values()}.values())
    size = count * getattr(torch, dtype).itemsize
    return {"seconds": seconds, "loaded": loaded, "peak": memory.peak, "weights": size}


Loader = Callable[[Path, str], tuple[torch.nn.Module, Callable[[], Any]]]


def prepare_unitok() -> Loader:
    from unitok.loading import load as open_model

    def load(folder: Path, dtype: str) -> tuple[torch.nn.Module, Callable[[], Any]]:
        model = open_model(folder, device="cpu", dtype=dtype).family.model

        @torch.inference_mode()
        def forward() -> Any:
            hidden = model(model.embed(torch.tensor([[1]])), torch.tensor([[0]]))
            return model.logits(hidden, model.vocabulary.text_range)

        return model, forward

    return load


def prepare_transformers() -> Loader:
    from transformers import JanusForConditionalGeneration

    def load(folder: Path, dtype: str) -> tuple[torch.nn.Module, Callable[[], Any]]:
        model: Any = JanusForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        )

        @torch.inference_mode()
        def forward() -> Any:
            return model.eval()(input_ids=torch.tensor([[1]])).logits

        return model, forward

    return load


class PeakMemory:
    """The peak of this process's anonymous pages while a block runs, less what it began with."""

    peak = 0

    def __enter__(self) -> "PeakMemory":
        self.start = anonymous_bytes()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, anonymous_bytes() - self.start)

    def __exit__(self, *error: object) -> None:
        self.peak = max(self.peak, anonymous_bytes() - self.start)
        self.done.set()
        self.thread.join()


def anonymous_bytes() -> int:
    """RssAnon: memory that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon; this needs Linux 4.5 or newer")


if __name__ == "__main__":
    main()
