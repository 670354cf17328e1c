"""Memory and time to load a folder, beside transformers. See scripts/bench_load.py. Linux only."""

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

MEMORY_TARGET, TIME_TARGET = 1.15, 1.2  # x the weights; x transformers' time

Loader = Callable[[Path, str], tuple[torch.nn.Module, Callable[[], Any]]]


def compare(script: Path, folder: Path, dtype: str, pairs: int) -> bool:
    """Print what both libraries take.

    Args:
        script: A script that prints `measure` of its --one, --out and --dtype as JSON.
        folder: A model in transformers' Janus format.
        dtype: The type to load it in.
        pairs: How often each library loads it.

    Returns:
        Whether both targets are met.
    """

    def once(library: str) -> dict[str, float]:
        return in_new_process(script, library, folder, dtype)

    once("unitok")  # the file's pages are in the system's cache from here on
    runs = [(once("unitok"), once("transformers")) for _ in range(pairs)]
    weights = runs[0][0]["weights"]
    print(f"{dtype}: weights of {weights / 1e9:.2f} GB, {pairs} pairs", flush=True)
    ours, baseline = ([pair[i] for pair in runs] for i in (0, 1))
    for name, results in (("unitok", ours), ("transformers", baseline)):
        seconds = ", ".join(f"{r['seconds']:.2f}" for r in results)
        loads = ", ".join(f"{r['loaded']:.2f}" for r in results)
        peak = max(r["peak"] for r in results)
        print(f"  {name:12} {seconds} s (loaded after {loads} s), anonymous {peak / 1e9:.2f} GB")
    memory = max(r["peak"] for r in ours) / weights
    time_ratio = statistics.median(r["seconds"] for r in ours) / statistics.median(
        r["seconds"] for r in baseline
    )
    print(f"  memory {memory:.3f} x the weights (target: at most {MEMORY_TARGET})")
    print(f"  time {time_ratio:.2f} x transformers' (target: at most {TIME_TARGET})", flush=True)
    return memory <= MEMORY_TARGET and time_ratio <= TIME_TARGET


def in_new_process(script: Path, library: str, folder: Path, dtype: str) -> dict[str, float]:
    """One load and forward in a process of its own: what `measure` gives there."""
    options = ["--one", library, "--out", str(folder), "--dtype", dtype]
    command = [sys.executable, str(script), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(library: str, folder: Path, dtype: str) -> dict[str, float]:
    """Measure one load and one forward in this process.

    What only needs to be imported is imported before.

    Args:
        library: "unitok" or "transformers".
        folder: A model in transformers' Janus format.
        dtype: The type to load it in.

    Returns:
        seconds until the end of the forward, seconds until it was "loaded", the "peak" of
        anonymous memory, in bytes, and the bytes of the "weights".
    """
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


def prepare_unitok() -> Loader:
    """Import unitok; what is returned loads a folder and gives a forward over one token."""
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
    """Import transformers; what is returned loads a folder and gives a forward over one token."""
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
    """The peak of this process's anonymous pages while a block runs, less what it began with.

    Attributes:
        peak: Bytes.
    """

    peak = 0

    def __enter__(self) -> "PeakMemory":
        """Begin to sample."""
        self._start = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Sample once more, and stop."""
        self._sample()
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._sample()

    def _sample(self) -> None:
        self.peak = max(self.peak, anonymous_bytes() - self._start)


def anonymous_bytes() -> int:
    """RssAnon: the memory of this process that no file backs.

    Raises:
        OSError: The system does not report it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon; this needs Linux 4.5 or newer")
