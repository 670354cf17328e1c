"""The xformers backend's own decode kernel, run on the CPU by Triton's interpreter.

The interpreter is chosen when triton is first imported, so the check runs in a process of its own:
this file, as a script.
"""

import os
import subprocess
import sys
from typing import NoReturn

import pytest
import torch

from unitok_engine import AttentionMetadata, KVShape, make_backend
from unitok_engine.attention.backends import BackendName
from unitok_engine.attention.probe import kernel_fault

CPU = torch.device("cpu")
PAGE, HEADS, HEAD_DIM = 64, 4, 32
# Two groups: three decode rows, then two runs of a forced id and a sampled one.
QUERIES, CONTEXTS = (1, 1, 1, 2, 2), (70, 5, 128, 65, 3)
TABLES = ((3, 1), (0,), (2, 5), (6, 4), (7,))
LINES = list(zip(QUERIES, CONTEXTS, TABLES, strict=True))


def attended(name: BackendName, kv_heads: int) -> torch.Tensor:
    """[n, heads, head_dim] of one step over seeded K/V."""
    torch.manual_seed(0)
    slots = torch.tensor(
        [
            table[i // PAGE] * PAGE + i % PAGE
            for query, context, table in LINES
            for i in range(context - query, context)
        ]
    )
    metadata = AttentionMetadata(slots, QUERIES, CONTEXTS, TABLES)
    shape = KVShape(1, kv_heads, HEAD_DIM)
    backend = make_backend(shape, 8, PAGE, torch.float16, CPU, name)
    history = torch.randn(2, 8 * PAGE, kv_heads, HEAD_DIM).half()
    index = backend.layout.slot_index(torch.arange(8 * PAGE))
    backend.layout.write(0, index, history[0], history[1])
    n = sum(QUERIES)
    q = torch.randn(n, HEADS, HEAD_DIM).half()
    k, v = torch.randn(2, n, kv_heads, HEAD_DIM).half()
    return backend.view(metadata).attend(0, q, k, v)


def fails(inputs: object, needs_gradient: bool) -> NoReturn:
    raise RuntimeError("no such kernel")


def main() -> None:
    from xformers.ops.fmha import triton_splitk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_splitk.FwOp, "apply", fails)
        refusal = kernel_fault(HEAD_DIM, PAGE, torch.float16, CPU)
    assert refusal is not None and refusal.startswith("its paged kernel raised "), refusal
    for kv_heads in (4, 2, 1):
        ours, theirs = attended("torch-gather", kv_heads), attended("xformers", kv_heads)
        torch.testing.assert_close(theirs, ours, atol=4e-3, rtol=0)
        print(f"{kv_heads} K/V heads agree")
    kernel_fault.cache_clear()
    print(f"fault: {kernel_fault(HEAD_DIM, PAGE, torch.float16, CPU)}")


@pytest.mark.timeout(330)
def test_the_paged_kernel_gives_what_the_torch_backend_gives():
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    agreed = [f"{n} K/V heads agree" for n in (4, 2, 1)]
    assert run.stdout.splitlines() == [*agreed, "fault: None"]


if __name__ == "__main__":
    main()
