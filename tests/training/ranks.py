"""Two ranks of one run, as torchrun starts them; a test starts this file as processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 100


def start_ranks(recipes: Sequence[Path], count: int = 2) -> list[subprocess.Popen[str]]:
    """Start the ranks of runs, which they make one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "engine", ROOT / "tokenizers")))
    shared = {
        **os.environ,
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.ranks", *map(str, recipes)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What the ranks printed; all are ended if one fails or takes too long."""
    limit = time.monotonic() + SECONDS
    try:
        printed = [p.communicate(timeout=max(1, limit - time.monotonic()))[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), printed
    return printed


def main() -> None:
    """Make the runs."""
    from accelerate.state import AcceleratorState

    from unitok.training.recipe_file import read_recipe
    from unitok.training.run import FineTuning

    for path in sys.argv[1:]:
        os.environ.pop("ACCELERATE_USE_FSDP", None)
        AcceleratorState._reset_state()  # a process has one kind of run, but for this test
        run = FineTuning(read_recipe(Path(path)))
        fillers = count_fillers(run.updates.make)
        run.run(shown=False)
        print(f"{run.ranks.index} of {run.ranks.count}, sharded {run.ranks.sharded}")
        print(f"fillers: {len(fillers)}")


def count_fillers(make: Any) -> list[str]:
    """A list to which the batches are added that only keep step with other ranks."""
    found: list[str] = []
    original = make.batches

    def batches(conversations: Any) -> Any:
        made = original(conversations)
        found.extend("filler" for batch in made if not any(batch.weights.values()))
        return made

    make.batches = batches
    return found


if __name__ == "__main__":
    main()
