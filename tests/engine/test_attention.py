"""What attention backends are told of a step, and which backend is picked."""

import pytest
import torch

from tests.engine.tiny import TinyModel, caption, drawing, engine, finish
from unitok_engine import AttentionMetadata, KVShape, make_backend
from unitok_engine.attention.backends import BACKENDS, BackendName, pick_backend
from unitok_engine.attention.base import StaticBackend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = KVShape(layers=1, kv_heads=2, head_dim=64)


def metadata(lengths: tuple[int, ...]) -> AttentionMetadata:
    """Rows whose contexts and tables tell which row they are of."""
    rows = range(len(lengths))
    contexts, tables = tuple(100 + row for row in rows), tuple([row] for row in rows)
    return AttentionMetadata(torch.arange(sum(lengths)), lengths, contexts, tables)


@pytest.mark.parametrize(
    ("lengths", "longest", "rows"),
    [
        ((1, 1, 1), None, [(0, 3)]),
        ((1, 1, 2, 5, 5, 9), None, [(0, 2), (2, 3), (3, 5), (5, 6)]),
        ((1, 1, 2, 5, 5, 9), 2, [(0, 2), (2, 3), (3, 6)]),
        ((1, 1, 2, 5, 5, 9), 5, [(0, 2), (2, 3), (3, 5), (5, 6)]),
        ((7, 8), 4, [(0, 2)]),
    ],
    ids=["decode", "mixed", "long ones together", "one long", "only long ones"],
)
def test_groups_cover_all_rows_by_their_length(
    lengths: tuple[int, ...], longest: int | None, rows: list[tuple[int, int]]
):
    step = metadata(lengths)
    groups = step.groups(longest)
    assert [group.query_lengths for group in groups] == [lengths[a:b] for a, b in rows]
    assert [group.context_lengths for group in groups] == [
        step.context_lengths[a:b] for a, b in rows
    ]
    assert [group.block_tables for group in groups] == [step.block_tables[a:b] for a, b in rows]
    tokens = [token for group in groups for token in range(sum(lengths))[group.tokens]]
    assert tokens == list(range(sum(lengths)))
    assert [len(step.slot_mapping[group.tokens]) for group in groups] == [
        sum(lengths[a:b]) for a, b in rows
    ]


@pytest.mark.parametrize(
    ("dtype", "device", "block_size", "installed", "name"),
    [
        (torch.float32, CPU, None, True, "torch"),
        (torch.bfloat16, CUDA, None, True, "xformers"),
        (torch.bfloat16, CUDA, 128, True, "xformers"),
        (torch.bfloat16, CUDA, 32, True, "torch-gather"),
        (torch.float32, CUDA, None, True, "torch-gather"),
        (torch.bfloat16, CUDA, None, False, "torch-gather"),
    ],
    ids=["a CPU", "CUDA", "two pages", "half a page", "fp32", "no xformers"],
)
def test_the_backend_that_fits_is_picked(
    dtype: torch.dtype,
    device: torch.device,
    block_size: int | None,
    installed: bool,
    name: BackendName,
    monkeypatch: pytest.MonkeyPatch,
):
    found = (lambda library: object()) if installed else (lambda library: None)
    monkeypatch.setattr("unitok_engine.attention.xformers.find_spec", found)
    assert pick_backend(SHAPE, block_size, dtype, device) == name


def test_only_xformers_has_static_views():
    static = [
        name
        for name in BACKENDS
        if isinstance(make_backend(SHAPE, 2, 64, torch.float16, CPU, name), StaticBackend)
    ]
    assert static == ["xformers"]


def test_each_forward_embeds_once_and_nothing_else_does():
    class Counting(TinyModel):
        embedded = 0

        def embed(self, ids: torch.Tensor) -> torch.Tensor:
            self.embedded += 1
            return super().embed(ids)

    model = Counting()
    machine = engine(model)
    finish(machine, [caption(0), drawing(1)])
    assert model.embedded == machine.runner.forwards > 0
