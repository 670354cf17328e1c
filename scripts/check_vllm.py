# pyright: reportMissingImports=false
"""Whether vLLM emits the token ids of our engine for a folder, in one batch of all kinds.

    .venv-vllm/bin/python scripts/check_vllm.py              # the embedded model
    .venv-vllm/bin/python scripts/check_vllm.py FOLDER --only plain preemption --device cuda

64 greedy drawings with eight guidance scales, 32 captions and 16 texts, in float32: plain, with a
prefill budget of 48 tokens and prefix caching (twice, so that the second time finds the prefixes of
the first), and with so few blocks of K/V that requests are preempted. tests/vllm does the same with
the embedded model, and also with two processes. Ends with 1 if any id differs.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tests.vllm.conftest  # noqa: F401  # how vLLM runs on a CPU, which it reads on import
import unitok
from tests.vllm.engines import OPTIONS, counted, ids_of, serving
from tests.vllm.work import own_ids, work
from unitok.api import Model
from unitok.loading import DEFAULT_FOLDER

DRAWINGS, CAPTIONS, TEXTS = 64, 32, 16
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


def compare(model: Model, folder: Path, names: list[str]) -> bool:
    """Print what agrees in each setting; whether all does."""
    asked = work(DRAWINGS, CAPTIONS, TEXTS)
    wanted, complete = own_ids(model, asked), True
    for name in names:
        with serving(folder, **settings(model)[name]) as llm:
            for again in (False, True)[: 2 if name == "chunked" else 1]:
                same = [a == b for a, b in zip(ids_of(llm, model, asked), wanted, strict=True)]
                print(row(f"{name}{' again' if again else ''}", same, llm), flush=True)
                complete = complete and all(same)
    return complete


def row(name: str, same: list[bool], llm: Any) -> str:
    """One line of the result."""
    drawings, others = same[:DRAWINGS], same[DRAWINGS:]
    parts = {"drawings": drawings, "captions": others[:CAPTIONS], "texts": others[CAPTIONS:]}
    told = ", ".join(f"{sum(part)} of {len(part)} {what}" for what, part in parts.items())
    counts = f"{counted(llm, 'num_preemptions')} preemptions"
    return f"{name}: the same ids in {told}; {counts}, {counted(llm, 'prefix_cache_hits')} hits"


def main() -> None:
    """Compare, and end with 1 if any id differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", nargs="+", choices=("plain", "chunked", "preemption"))
    parser.add_argument("--device", default="cpu", help="of our engine; vLLM has its own")
    args = parser.parse_args()
    model = unitok.load(args.folder, device=args.device, dtype="float32")
    sys.exit(0 if compare(model, args.folder, args.only or list(settings(model))) else 1)


if __name__ == "__main__":
    main()
