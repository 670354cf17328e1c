# pyright: reportMissingImports=false
"""vLLM in several processes, as `vllm serve` runs it: the ids of toy requests, as JSON.

    python -m tests.vllm.parallel_child FOLDER OUT '[16, 4, 4]' '{"tensor_parallel_size": 2}'

Fresh processes start from a fresh one: a test's own has threads that do not outlive a fork.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.vllm.engines import OPTIONS
from tests.vllm.work import Ids, emitted, to_vllm, work

ROOT = Path(__file__).resolve().parents[2]
SIZES = (16, 4, 4)  # drawings, captions, texts


def in_child(
    folder: Path, out: Path, options: dict[str, Any], sizes: Sequence[int] = SIZES
) -> dict[str, Any]:
    """What vLLM gives in processes of its own: the "ids", and the "tokens" of each replica.

    Args:
        folder: The model's.
        out: A file for what is found.
        options: Of vLLM's engine.
        sizes: How many drawings, captions and texts are asked for.

    Raises:
        RuntimeError: It failed.
    """
    words = [str(folder.absolute()), str(out.absolute()), json.dumps(sizes), json.dumps(options)]
    command = [sys.executable, "-m", "tests.vllm.parallel_child", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return json.loads(out.read_text())


def main() -> None:
    """Write the ids, and how many tokens each replica made."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    folder, out, sizes, options = sys.argv[1:]
    found = asyncio.run(run(folder, json.loads(sizes), json.loads(options)))
    Path(out).write_text(json.dumps({"ids": found, "tokens": tokens_by_replica()}))


async def run(folder: str, sizes: Sequence[int], options: dict[str, Any]) -> list[Ids]:
    """The ids of all requests, which are in flight together."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    import unitok
    from unitok.backends.vllm.layout import TokenLayout

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(folder, **{**OPTIONS, **options}))
    try:
        model = unitok.load(folder, device="cpu", dtype="float32")
        layout = TokenLayout.of_config(engine.model_config.hf_config)
        pairs = zip(*to_vllm(model, layout, work(*sizes)), strict=True)
        return await asyncio.gather(*(one(engine, *pair, str(i)) for i, pair in enumerate(pairs)))
    finally:
        engine.shutdown()


async def one(engine: Any, prompt: Any, parameters: Any, name: str) -> Ids:
    """The ids of one request."""
    ids: Ids = []
    async for output in engine.generate(prompt, parameters, name):
        ids = emitted(output)
    return ids


def tokens_by_replica() -> dict[str, float]:
    """How many tokens each replica generated, by vLLM's own count."""
    from prometheus_client import REGISTRY

    found: dict[str, float] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "vllm:generation_tokens_total":
                engine = sample.labels["engine"]
                found[engine] = found.get(engine, 0.0) + sample.value
    return found


if __name__ == "__main__":
    main()
