"""Kill a batch in the middle, start it again, and find each result exactly once.

    python examples/resume_a_batch.py
    python examples/resume_a_batch.py "a dog" "two pizzas" "a lion above a boat" --kill-after 2

The program draws a picture, writes OUT/requests.jsonl (two questions about that picture, and a
drawing per prompt), and gives it to the command `unitok batch`. It kills the command once the first
results are on disk, without a warning, as a power cut would. Then it runs the same command again,
which keeps what is there and does the rest. OUT/results has results.jsonl and the pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import unitok

PROMPTS = ["two apples on a blue background", "a cat left of a house", "a rocket above a tree"]


def write_requests(out: Path, prompts: list[str]) -> Path:
    """Lines of JSON, each a caption or a drawing; the keys are the options of the API."""
    with unitok.load() as model:
        model.draw("a dog on a green background", seed=0).image.save(out / "dog.png")
    requests = [
        {"caption": "dog.png"},
        {"caption": "dog.png", "question": "what colour is the background?"},
        *[{"draw": prompt, "seed": seed} for seed, prompt in enumerate(prompts)],
    ]
    file = out / "requests.jsonl"
    lines = [json.dumps(request, ensure_ascii=False) for request in requests]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def count_results(folder: Path) -> int:
    """Results that are on disk."""
    file = folder / "results.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def run_and_kill(command: list[str], results: Path, kill_after: int) -> None:
    """Start a command and kill it when so many results are there, if it has not ended by then."""
    with subprocess.Popen(command) as process:
        while process.poll() is None and count_results(results) < kill_after:
            time.sleep(0.01)
        process.kill()


def main() -> None:
    """Read the command line, write the requests, run them twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "prompts", nargs="*", default=PROMPTS, metavar="prompt", help="what to draw"
    )
    parser.add_argument(
        "--kill-after", type=int, default=1, help="how many results (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/batch"),
        help="a folder for the results (default: %(default)s)",
    )
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results"
    requests = write_requests(args.out, args.prompts)
    # In a shell: unitok batch OUT/requests.jsonl -o OUT/results
    command = [sys.executable, "-m", "unitok", "batch", str(requests), "-o", str(results)]
    run_and_kill(command, results, args.kill_after)
    print(f"killed after {count_results(results)} of {2 + len(args.prompts)} results", flush=True)
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
