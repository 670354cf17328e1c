# pyright: reportMissingImports=false
"""Whether vLLM emits the token ids of our engine for a folder, in one batch of all kinds.

    .venv-vllm/bin/python scripts/check_vllm.py              # the embedded model
    .venv-vllm/bin/python scripts/check_vllm.py FOLDER --only plain preemption --device cuda
    .venv-vllm/bin/python scripts/check_vllm.py --tiny --only tensor data

64 greedy drawings with eight guidance scales, 32 captions and 16 texts, in float32: plain, with a
prefill budget of 48 tokens and prefix caching (twice, so that the second time finds the prefixes of
the first), and with so few blocks of K/V that requests are preempted. With two processes only where
that is named: "tensor" splits the model, and "data" loads it twice. tests/vllm does the same with
the embedded model, and asks less of two processes. Ends with 1 if any id differs.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tests.vllm.conftest  # noqa: F401  # how vLLM runs on a CPU, which it reads on import
import unitok
from tests.vllm.engines import OPTIONS, counted, ids_of, serving
from tests.vllm.parallel_child import in_child
from tests.vllm.tiny import save_tiny
from tests.vllm.work import Ids, own_ids, work
from unitok.api import Model
from unitok.loading import DEFAULT_FOLDER

REQUESTS = (64, 32, 16)  # drawings, captions, texts
PARALLEL = {"tensor": "tensor_parallel_size", "data": "data_parallel_size"}
ROOM = 160  # tokens of a prompt, pictures aside
BLOCK = OPTIONS["block_size"]


def settings(model: Model) -> Mapping[str, dict[str, Any]]:
    """The options of vLLM by the names of the settings."""
    length = 2 * model.family.picture_tokens + ROOM
    alike = {"max_model_len": min(length, model.family.max_context)}
    caching = {**alike, "enable_prefix_caching": True}
    few = 8 * -(-(model.family.picture_tokens + 80) // BLOCK)
    return {
        "plain": alike,
        "chunked": {**caching, "max_num_batched_tokens": 48, "max_num_seqs": 48},
        "preemption": {**caching, "num_gpu_blocks_override": few},
    }


def compare(model: Model, folder: Path, names: Sequence[str], sizes: Sequence[int]) -> bool:
    """Print what agrees in each setting; whether all does.

    Args:
        model: Ours.
        folder: Where it is.
        names: Of the settings.
        sizes: How many drawings, captions and texts are asked for.
    """
    asked = work(*sizes)
    wanted, complete = own_ids(model, asked), True
    for name in names:
        runs = parallel if name in PARALLEL else in_process
        for told, found, detail in runs(model, folder, name, sizes):
            same = [a == b for a, b in zip(found, wanted, strict=True)]
            print(f"{told}: the same ids in {told_of(same, sizes)}; {detail}", flush=True)
            complete = complete and all(same)
    return complete


Compared = Iterator[tuple[str, list[Ids], str]]  # the setting, vLLM's ids, what else is told


def in_process(model: Model, folder: Path, name: str, sizes: Sequence[int]) -> Compared:
    """vLLM in this process; with prefix caching, twice."""
    with serving(folder, **settings(model)[name]) as llm:
        for again in (False, True)[: 2 if name == "chunked" else 1]:
            found = ids_of(llm, model, work(*sizes))
            counts = f"{counted(llm, 'num_preemptions')} preemptions"
            hits = f"{counted(llm, 'prefix_cache_hits')} hits"
            yield f"{name}{' again' if again else ''}", found, f"{counts}, {hits}"


def parallel(model: Model, folder: Path, name: str, sizes: Sequence[int]) -> Compared:
    """vLLM in two processes of its own."""
    options = settings(model)["plain"] | {PARALLEL[name]: 2}
    with TemporaryDirectory() as place:
        found = in_child(folder, Path(place) / "out.json", options, sizes)
    tokens = " and ".join(f"{count:,.0f}" for count in found["tokens"].values())
    yield f"{PARALLEL[name]}=2", found["ids"], f"{tokens} tokens by replica"


def told_of(same: Sequence[bool], sizes: Sequence[int]) -> str:
    """How many requests of each kind have the same ids."""
    left = iter(same)
    parts = [list(islice(left, size)) for size in sizes]
    kinds = zip(("drawings", "captions", "texts"), parts, strict=True)
    return ", ".join(f"{sum(part)} of {len(part)} {kind}" for kind, part in kinds)


def main() -> None:
    """Compare, and end with 1 if any id differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--tiny", action="store_true", help="random weights in place of a folder")
    usual = ("plain", "chunked", "preemption")
    parser.add_argument("--only", nargs="+", choices=(*usual, *PARALLEL), default=usual)
    names = ("DRAWINGS", "CAPTIONS", "TEXTS")
    parser.add_argument("--requests", nargs=3, type=int, default=REQUESTS, metavar=names)
    parser.add_argument("--device", default="cpu", help="of our engine; vLLM has its own")
    args = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = save_tiny(Path(place) / "tiny") if args.tiny else args.folder
        model = unitok.load(folder, device=args.device, dtype="float32")
        complete = compare(model, folder, args.only, args.requests)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
