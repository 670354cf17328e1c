"""Static decode steps over xformers' own paged kernel, run on the CPU by Triton's interpreter.

A recorded launch is right for other lengths only if the host reads none of them: every launch of a
shape must have the same arguments. See test_xformers_decode.py for why this file is also a script.
"""

import os
import subprocess
import sys
from collections import defaultdict
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from unitok.driver import Driver
from unitok_engine import (
    Branch,
    CacheView,
    Engine,
    EngineConfig,
    FixedPlan,
    IdRange,
    KVShape,
    Request,
    Sampling,
)
from unitok_engine.graphs import StaticStep

IDS, HEADS, KV_HEADS, HEAD_DIM = 48, 2, 1, 16
WIDTH = HEADS * HEAD_DIM


class RowModel:
    """One attention layer; each row is computed by itself, so that padding changes no bit."""

    kv_shape = KVShape(1, KV_HEADS, HEAD_DIM)
    hidden_size = WIDTH
    dtype = torch.float16
    device = torch.device("cpu")
    id_ranges = (IdRange(0, IDS),)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(IDS, WIDTH, generator=generator).half()
        self.place = torch.randn(512, WIDTH, generator=generator).half()
        self.kv = torch.randn(2, WIDTH, KV_HEADS * HEAD_DIM, generator=generator).half() / 4

    def embed(self, ids: Tensor) -> Tensor:
        return self.table[ids]

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        hidden = hidden + self.place[positions]
        k, v = (by_row(hidden, weight).unflatten(1, (KV_HEADS, -1)) for weight in self.kv)
        return hidden + cache.attend(0, hidden.unflatten(1, (HEADS, -1)), k, v).flatten(1)

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        return by_row(hidden, self.table[id_range.start : id_range.stop].T)


def by_row(x: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([row @ weight for row in x])


def requests() -> list[Request]:
    """Lines that end at different steps; the guided one's first line takes a second block."""
    long, short = tuple(i % IDS for i in range(62)), (5, 7, 9)
    guided = (Branch(long, 2.0), Branch(short, -1.0))
    plan, sampling = FixedPlan(IdRange(0, IDS), 6), Sampling(seed=3)
    return [
        Request(guided, plan, sampling, logprobs=True),
        Request((Branch(short),), FixedPlan(IdRange(0, IDS), 4), sampling, logprobs=True),
    ]


def outputs(cuda_graphs: bool) -> list[tuple[Any, ...]]:
    config = EngineConfig(
        attention="xformers", cuda_graphs=cuda_graphs, num_blocks=8, max_batch_tokens=16
    )
    finished = Driver(Engine(RowModel(), config)).complete(requests())
    return sorted((output.request_id, output.token_ids, output.logprobs) for output in finished)


class Watched:
    """A kernel whose launches are noted: what the host hands it, but for the queries and outputs,
    which lie in a graph's own memory."""

    def __init__(self, kernel: Any, launches: dict[tuple, set[tuple]]) -> None:
        self.kernel = kernel
        self.launches = launches

    def __getitem__(self, grid):
        def launch(**arguments) -> None:
            fixed = ("K", "V", "block_tables", "Seq_len")
            noted = [
                (name, value.data_ptr() if name in fixed else tuple(value.shape))
                if isinstance(value, Tensor)
                else (name, value)
                for name, value in arguments.items()
            ]
            shape = (arguments["Z"], arguments["N_CTX_K"])
            self.launches[shape].add(tuple(noted))
            self.kernel[grid](**arguments)

        return launch


def main() -> None:
    from xformers.ops.fmha.triton_splitk import FwOp

    FwOp.SUPPORTED_DEVICES = {*FwOp.SUPPORTED_DEVICES, "cpu"}
    ordinary = outputs(cuda_graphs=False)
    launches: dict[tuple, set[tuple]] = defaultdict(set)
    count = 0
    get_kernel = FwOp.get_kernel

    def watched() -> Watched:
        nonlocal count
        count += 1
        return Watched(get_kernel(), launches)

    run = StaticStep._run

    def watched_run(self: StaticStep) -> Tensor:
        with patch.object(FwOp, "get_kernel", watched):
            return run(self)

    with patch.object(StaticStep, "_run", watched_run):
        assert outputs(cuda_graphs=True) == ordinary
    assert all(len(noted) == 1 for noted in launches.values()), launches
    print(f"{count} launches of shapes {sorted(launches)}")


@pytest.mark.timeout(330)
def test_static_steps_give_the_bits_of_ordinary_ones_and_launch_alike():
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "5 launches of shapes [(2, 1024), (4, 1024)]\n"


if __name__ == "__main__":
    main()
