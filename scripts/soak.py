"""Many short requests through one driver: memory must not grow, and every block must be freed.

    python scripts/soak.py
    python scripts/soak.py --requests 2000 --threads 1

Captions, guided drawings, several samples at once, requests that are aborted and pictures that
cannot be read, of the embedded model, arrive at random. The first quarter fills the prefix cache;
after it, memory may grow by no more than 2%. The exit code is 1 if it does, or if a block or
an answer is missing.
"""

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch
from PIL import Image

import unitok
from unitok.driver import Driver
from unitok.families import ImageOptions
from unitok.handles import Handle, TokenJob
from unitok.prompt import Message
from unitok_engine import (
    Branch,
    Embeddings,
    Engine,
    EngineConfig,
    EngineStats,
    FixedPlan,
    FreePlan,
    IdRange,
    Output,
    Request,
    Sampling,
)

SUBJECTS = ("two apples", "a cat left of a house", "three red balls", "a tree above a dog")
GROWTH = 1.02  # of memory after the first quarter


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=96)
    parser.add_argument("--memory-mb", type=int, default=24, help="of the K/V pool")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if left out")
    return parser.parse_args()


class Requests:
    """Short random requests to the embedded model."""

    def __init__(self, seed: int) -> None:
        self.family = unitok.load(device="cpu").family
        self.random = random.Random(seed)
        generator = np.random.default_rng(seed)
        width, height = self.family.picture_size
        noise = generator.integers(0, 256, (12, height, width, 3), dtype=np.uint8)
        self.pictures = [Image.fromarray(picture) for picture in noise]

    def make(self, index: int) -> Request:
        """A request of a random kind; the index is its seed."""
        kind = self.random.choice((self.caption, self.caption, self.drawing, self.drawing))
        return kind(index)

    def caption(self, index: int) -> Request:
        """A caption of noise; one picture in fifty cannot be read."""
        family = self.family
        picture = family.encode_image(self.random.choice(self.pictures))
        line = family.chat_prompt([Message("user", family.defaults.question, (picture,))], None)
        features = line.embeddings
        if self.random.random() < 0.02:
            features = tuple(
                Embeddings(f.start, f.length, f"broken {index}", unreadable) for f in features
            )
        text = family.model.vocabulary.text_range
        plan = FreePlan(
            IdRange(text.start, text.stop), frozenset(), max_tokens=self.random.randint(1, 8)
        )
        return Request((Branch(line.token_ids, embeddings=features),), plan, self.sampling(index))

    def drawing(self, index: int) -> Request:
        """The first image tokens of a guided drawing, at times in two samples."""
        prompt = self.random.choice(SUBJECTS)
        spec = self.family.generation_spec([Message("user", prompt)], ImageOptions(1.5))
        image = self.family.model.vocabulary.image_range
        plan = FixedPlan(IdRange(image.start, image.stop), self.random.randint(1, 8))
        return Request(
            spec.branches, plan, self.sampling(index), n=self.random.choice((1, 1, 1, 2))
        )

    def sampling(self, index: int) -> Sampling:
        """Greedy, or at temperature 1."""
        return Sampling(temperature=self.random.choice((0.0, 1.0)), seed=index)


def unreadable() -> torch.Tensor:
    """Fail as an encoder does on a broken picture."""
    raise OSError("a picture that cannot be read")


def main() -> None:
    """Run the requests, print the progress, and check what is left."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    source = Requests(seed=0)
    driver = Driver(Engine(source.family.model, EngineConfig(memory=args.memory_mb * 2**20)))
    start, reasons, held = time.monotonic(), Counter(), []
    for done in run(driver, source, args, reasons):
        if done % max(args.requests // 20, 1) == 0:
            held.append(resident_memory())
            print(
                f"{done} requests, {time.monotonic() - start:.0f} s, "
                f"memory {held[-1] / 2**20:.0f} MiB, {driver.engine.stats}",
                flush=True,
            )
    driver.wait_until_idle()
    print(dict(reasons))
    sys.exit("\n".join(wrong(driver.engine.stats, held)) or None)


def run(
    driver: Driver, source: Requests, args: argparse.Namespace, reasons: Counter[str]
) -> Iterator[int]:
    """Keep requests in flight, and yield the number of those that ended after each end."""
    flying: dict[int, Handle[Output, list[Output]]] = {}
    ready: SimpleQueue[int] = SimpleQueue()
    added = done = 0
    while added < args.requests or flying:
        while added < args.requests and len(flying) < args.in_flight:
            handle = flying[added] = driver.submit(TokenJob(source.make(added)))
            handle.when_done(partial(ready.put, added))
            if source.random.random() < 0.02:
                handle.cancel()
            added += 1
        for output in flying.pop(ready.get()).result():
            reasons[str(output.finish_reason)] += 1
        done += 1
        yield done


def wrong(stats: EngineStats, held: list[int]) -> list[str]:
    """What is wrong, one message each."""
    faults = []
    if stats.free_blocks != stats.num_blocks or stats.running or stats.waiting:
        faults.append(f"soak: requests or blocks are left: {stats}")
    warm = held[len(held) // 4]
    if held[-1] > GROWTH * warm:
        faults.append(f"soak: memory grew from {warm} to {held[-1]} bytes")
    return faults


def resident_memory() -> int:
    """Bytes this process holds now; where the system does not say, the most it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
