"""Whether a server's memory stays flat: many mixed requests to `unitok serve`, and what it has.

    python scripts/check_serving.py                  # 20,000 requests, about half an hour
    python scripts/check_serving.py --count 2000 --clients 16

A line for each thousand requests: the server's resident memory, its threads and open files, and how
many answers were no success. The check fails if any was, or if memory grew by more than --most once
a thousand were done: they fill what is kept on purpose, such as the K/V of prompts.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from benchmarks.http_clients import closed_loop
from benchmarks.serving import ServerProcess, server
from benchmarks.serving_mix import mixed

MEBI = 2**20
WARM_UP = 1000  # requests


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000, help="requests")
    parser.add_argument("--each", type=int, default=1000, help="requests for a line")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--most", type=int, default=64, metavar="MIB", help="of growth")
    return parser.parse_args()


def main() -> None:
    """Send the requests, and print what the server has."""
    args = parse()
    if args.each < 1 or args.count < WARM_UP + args.each:
        sys.exit(f"--count must be at least {WARM_UP:,} and --each more")
    memory: list[int] = []
    failed = 0
    context = multiprocessing.get_context("spawn")
    with server() as ours, ProcessPoolExecutor(1, mp_context=context) as clients:
        for seed in tqdm(range(args.count // args.each), unit_scale=args.each, unit="req"):
            wanted = [item.wanted for item in mixed(args.each, seed)]
            answers = clients.submit(closed_loop, ours.url, wanted, args.clients).result()
            failed += sum(not answer.accepted for answer in answers)
            memory.append(ours.resident_bytes)
            tqdm.write(line((seed + 1) * args.each, ours, failed))
    after = memory[-(-WARM_UP // args.each) - 1 :]
    growth = (max(after) - after[0]) / MEBI
    print(f"memory grew by {growth:.1f} MiB (at most {args.most}); {failed} failed")
    sys.exit(growth > args.most or failed > 0)


def line(done: int, ours: ServerProcess, failed: int) -> str:
    """What a server has after so many requests."""
    files = len(list(Path(f"/proc/{ours.pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{ours.pid}/task").iterdir()))
    memory = ours.resident_bytes / MEBI
    return f"{done:6,}: {memory:.1f} MiB, {threads} threads, {files} files, {failed} failed"


if __name__ == "__main__":
    main()
