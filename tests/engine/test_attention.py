"""What attention backends are told of a step, and which backend is picked."""

import pytest
import torch

from tests.engine.tiny import TinyModel, caption, drawing, engine, finish
from unitok_engine import AttentionMetadata, KVShape, make_backend
from unitok_engine.attention.backends import BACKENDS, BackendName, pick_backend
from unitok_engine.attention.base import StaticBackend
from unitok_engine.attention.xformers import XformersBackend

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


HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("dtype", "device", "block_size", "head_dim", "installed", "name"),
    [
        (FULL, CPU, None, 64, True, "torch"),
        (BRAIN, CPU, 64, 64, True, "torch"),
        (BRAIN, CUDA, None, 64, True, "xformers"),
        (HALF, CUDA, None, 64, True, "xformers"),
        (BRAIN, CUDA, 128, 64, True, "xformers"),
        (BRAIN, CUDA, 32, 64, True, "torch-gather"),
        (BRAIN, CUDA, 96, 64, True, "torch-gather"),
        (FULL, CUDA, None, 64, True, "torch-gather"),
        (BRAIN, CUDA, None, 48, True, "torch-gather"),
        (BRAIN, CUDA, None, 64, False, "torch-gather"),
        (BRAIN, torch.device("mps"), None, 64, True, "torch-gather"),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_the_backend_that_fits_is_picked(
    dtype: torch.dtype,
    device: torch.device,
    block_size: int | None,
    head_dim: int,
    installed: bool,
    name: BackendName,
    monkeypatch: pytest.MonkeyPatch,
):
    found = (lambda library: object()) if installed else (lambda library: None)
    monkeypatch.setattr("unitok_engine.attention.xformers.find_spec", found)
    monkeypatch.setattr("unitok_engine.attention.backends.kernel_fault", lambda *sizes: None)
    shape = KVShape(layers=1, kv_heads=2, head_dim=head_dim)
    assert pick_backend(shape, block_size, dtype, device) == name
    assert pick_backend(shape, block_size, dtype, device, "torch-gather") == "torch-gather"
    if device == CPU or name == "xformers":
        assert pick_backend(shape, block_size, dtype, device, "xformers") == "xformers"
    else:
        with pytest.raises(ValueError, match='"xformers" does not work here: '):
            pick_backend(shape, block_size, dtype, device, "xformers")


def test_xformers_takes_heads_of_a_few_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unitok_engine.attention.xformers.find_spec", lambda library: object())
    sizes = [
        head_dim
        for head_dim in range(1, 1100)
        if XformersBackend.why_unfit(KVShape(1, 1, head_dim), 64, BRAIN, CUDA) is None
    ]
    assert sizes == [16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize(
    ("dtype", "device", "block_size", "head_dim", "words"),
    [
        (BRAIN, torch.device("mps"), 64, 64, "it needs CUDA, not mps"),
        (FULL, CUDA, 64, 64, "it takes float16 and bfloat16, not float32"),
        (HALF, CUDA, 64, 48, "it takes heads of 16, 32, 64, 128, 256, 512, not 48"),
        (HALF, CUDA, 32, 64, "it takes blocks of 64 tokens or a multiple, not 32"),
        (HALF, CUDA, 64, 64, "xformers is not installed"),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_a_reason_is_given_where_xformers_does_not_fit(
    dtype: torch.dtype,
    device: torch.device,
    block_size: int,
    head_dim: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("unitok_engine.attention.xformers.find_spec", lambda library: None)
    shape = KVShape(layers=1, kv_heads=2, head_dim=head_dim)
    assert XformersBackend.why_unfit(shape, block_size, dtype, device) == words


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


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("contexts", [(9, 9), (3, 9)], ids=["equal", "ragged"])
def test_rows_read_in_place_as_gathered_whatever_the_number_of_heads(
    heads: int, kv_heads: int, contexts: tuple[int, ...]
):
    torch.manual_seed(0)
    tables = ((1, 4, 3), (5, 2, 0))
    slots = [t[(n - 1) // 4] * 4 + (n - 1) % 4 for t, n in zip(tables, contexts, strict=True)]
    step = AttentionMetadata(torch.tensor(slots), (1, 1), contexts, tables)
    history = torch.randn(2, 24, kv_heads, 8)
    q, (k, v) = torch.randn(2, heads, 8), torch.randn(2, 2, kv_heads, 8)
    outs = []
    for name in ("torch", "torch-gather"):
        backend = make_backend(KVShape(1, kv_heads, 8), 6, 4, torch.float32, CPU, name)
        everywhere = backend.layout.slot_index(torch.arange(24))
        backend.layout.write(0, everywhere, history[0], history[1])
        outs.append(backend.view(step).attend(0, q, k, v))
    torch.testing.assert_close(outs[0], outs[1])


@pytest.mark.parametrize("run", [2, 5, 16])
@pytest.mark.parametrize("context", [16, 40, 41])
def test_a_run_of_tokens_attends_on_a_cpu_bit_by_bit_as_its_tokens_one_by_one(
    run: int, context: int
):
    torch.manual_seed(0)
    backend = make_backend(KVShape(1, 2, 16), 12, 8, torch.float32, CPU, "torch")
    history = torch.randn(2, 96, 2, 16)
    backend.layout.write(0, backend.layout.slot_index(torch.arange(96)), history[0], history[1])
    q, (k, v) = torch.randn(run, 4, 16), torch.randn(2, run, 2, 16)

    def attend(first: int, last: int) -> torch.Tensor:
        """Of the run's tokens from the first up to the last, beside a decode row of another."""
        start, stop = context - run + first, context - run + last
        step = AttentionMetadata(
            torch.tensor([95, *range(start, stop)]),
            (1, last - first),
            (24, stop),
            ((9, 10, 11), (0, 1, 2, 3, 4, 5)),
        )
        tokens = [torch.cat([x[:1], x[first:last]]) for x in (q, k, v)]
        return backend.view(step).attend(0, *tokens)[1:]

    together = attend(0, run)
    apart = torch.cat([attend(i, i + 1) for i in range(run)])
    assert torch.equal(together, apart)


@pytest.mark.parametrize("contexts", [(33, 39, 30), (9, 39, 30)], ids=["near", "far"])
@pytest.mark.parametrize("run", [1, 3])
def test_rows_attend_on_a_cpu_bit_by_bit_as_alone_however_many_blocks_the_others_read(
    run: int, contexts: tuple[int, ...]
):
    torch.manual_seed(0)
    backend = make_backend(KVShape(1, 2, 16), 15, 8, torch.float32, CPU, "torch")
    history = torch.randn(2, 120, 2, 16)
    backend.layout.write(0, backend.layout.slot_index(torch.arange(120)), history[0], history[1])
    tables = [list(range(5 * row, 5 * row + -(-n // 8))) for row, n in enumerate(contexts)]
    q, (k, v) = torch.randn(3, run, 4, 16), torch.randn(2, 3, run, 2, 16)

    def attend(rows: tuple[int, ...]) -> torch.Tensor:
        ends = [(40 * row + contexts[row] - run, 40 * row + contexts[row]) for row in rows]
        step = AttentionMetadata(
            torch.tensor([slot for start, stop in ends for slot in range(start, stop)]),
            (run,) * len(rows),
            tuple(contexts[row] for row in rows),
            tuple(tables[row] for row in rows),
        )
        return backend.view(step).attend(0, *(x[list(rows)].flatten(0, 1) for x in (q, k, v)))

    alone = torch.cat([attend((row,)) for row in range(3)])
    assert torch.equal(attend((0, 1, 2)), alone)
