"""xformers' kernel is tried before it is picked; here fakes stand in for it on the CPU."""

import warnings
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from unitok_engine import EngineConfig, KVShape, make_backend
from unitok_engine.attention.backends import pick_backend
from unitok_engine.attention.kv_layout import StandardKVLayout
from unitok_engine.attention.probe import kernel_fault

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = KVShape(layers=4, kv_heads=16, head_dim=64)


class FakeKernel:
    """In the place of `PagedAttention`: it attends in plain torch, and notes its launches."""

    launches = 0
    contexts: tuple[int, ...] = ()  # of the last launch
    error: Exception | None = None
    lost = 0  # tokens at the end of each context that it does not see

    def __init__(
        self, layout: StandardKVLayout, queries: int, contexts: Sequence[int], tables: Tensor
    ) -> None:
        self._layout, self._contexts, self._tables = layout, contexts, tables

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        type(self).launches += 1
        type(self).contexts = tuple(self._contexts)
        if self.error is not None:
            raise self.error
        keys, values = self._layout.gather(layer, self._tables.long())
        rows = [self._row(*row) for row in zip(q, keys, values, self._contexts, strict=True)]
        return torch.stack(rows)

    def _row(self, q: Tensor, keys: Tensor, values: Tensor, context: int) -> Tensor:
        """[heads, head_dim] from q of that shape and K/V [heads, tokens, head_dim]."""
        keys, values = (x[:, : context - self.lost].float() for x in (keys, values))
        scores = torch.einsum("hd,htd->ht", q.float(), keys) / q.shape[1] ** 0.5
        return torch.einsum("ht,htd->hd", scores.softmax(1), values).to(q.dtype)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeKernel]]:
    class Kernel(FakeKernel):
        pass

    monkeypatch.setattr("unitok_engine.attention.xformers.PagedAttention", Kernel)
    kernel_fault.cache_clear()
    yield Kernel
    kernel_fault.cache_clear()


@pytest.fixture
def on_cuda(kernel: type[FakeKernel], monkeypatch: pytest.MonkeyPatch) -> type[FakeKernel]:
    """The kernel of a machine with CUDA and xformers; it is tried on the CPU."""
    monkeypatch.setattr("unitok_engine.attention.xformers.find_spec", lambda library: object())
    monkeypatch.setattr(
        "unitok_engine.attention.backends.kernel_fault",
        lambda head_dim, block_size, dtype, device: kernel_fault(head_dim, block_size, dtype, CPU),
    )
    return kernel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [16, 64, 256])
@pytest.mark.parametrize("block_size", [64, 128])
def test_a_kernel_that_attends_as_torch_does_has_no_fault(
    kernel: type[FakeKernel], dtype: torch.dtype, head_dim: int, block_size: int
):
    assert kernel_fault(head_dim, block_size, dtype, CPU) is None
    # A row that goes on in its second block, and a short one.
    assert (kernel.launches, kernel.contexts) == (1, (block_size + 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [16, 64, 256])
def test_a_kernel_that_loses_a_token_gives_wrong_numbers(
    kernel: type[FakeKernel], dtype: torch.dtype, head_dim: int
):
    kernel.lost = 1
    fault = kernel_fault(head_dim, 64, dtype, CPU)
    assert fault is not None and fault.startswith("its paged kernel gives wrong numbers (xformers ")


def test_numbers_that_are_not_finite_are_wrong(
    kernel: type[FakeKernel], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kernel, "_row", lambda self, q, *rest: q * torch.nan)
    assert "wrong numbers" in str(kernel_fault(64, 64, torch.float16, CPU))


def test_a_kernel_that_raises_is_named_by_the_first_line_of_its_error(kernel: type[FakeKernel]):
    kernel.error = TypeError("at 12:4: no such thing\n    x = tl.thing()\n")
    fault = kernel_fault(64, 64, torch.float16, CPU)
    assert fault is not None
    assert fault.startswith("its paged kernel raised TypeError: at 12:4: no such thing (xformers ")
    assert ", triton " in fault and "\n" not in fault


def test_an_error_without_a_word_is_named_by_its_type(kernel: type[FakeKernel]):
    kernel.error = NotImplementedError()
    assert "raised NotImplementedError (" in str(kernel_fault(64, 64, torch.float16, CPU))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("full")])
def test_too_little_memory_is_no_fault_of_the_kernel(kernel: type[FakeKernel], error: Exception):
    kernel.error = error
    with pytest.raises(type(error)):
        kernel_fault(64, 64, torch.float16, CPU)
    kernel.error = None
    assert kernel_fault(64, 64, torch.float16, CPU) is None


def test_a_process_tries_each_combination_once(kernel: type[FakeKernel]):
    for _ in range(3):
        for head_dim, dtype in ((64, torch.float16), (64, torch.bfloat16), (128, torch.float16)):
            kernel_fault(head_dim, 64, dtype, CPU)
    assert kernel.launches == 3


def test_the_trial_leaves_the_seed_of_torch_as_it_was(kernel: type[FakeKernel]):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    kernel_fault(64, 64, torch.float16, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_kernel_that_works_is_picked_without_a_word(on_cuda: type[FakeKernel]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolved = EngineConfig(num_blocks=8).resolve(SHAPE, torch.float16, CUDA)
    assert (resolved.attention, resolved.block_size, on_cuda.launches) == ("xformers", 64, 1)


def test_torch_attends_where_the_kernel_fails_and_a_warning_says_why(on_cuda: type[FakeKernel]):
    on_cuda.error = AttributeError("triton has no attribute 'x'")
    why = "torch attends instead of xformers, more slowly: its paged kernel raised AttributeError"
    with pytest.warns(UserWarning, match=f"{why}: triton has no attribute 'x'") as told:
        resolved = EngineConfig(num_blocks=8).resolve(SHAPE, torch.float16, CUDA)
    assert told[0].filename == __file__, "it points at the caller's line"
    assert (resolved.attention, resolved.block_size) == ("torch-gather", 64)


def test_torch_attends_where_the_kernel_gives_wrong_numbers(on_cuda: type[FakeKernel]):
    on_cuda.lost = 1
    with pytest.warns(UserWarning, match="wrong numbers"):
        assert pick_backend(SHAPE, 64, torch.bfloat16, CUDA) == "torch-gather"


def test_xformers_asked_for_by_name_must_work(on_cuda: type[FakeKernel]):
    asked = EngineConfig(num_blocks=8, attention="xformers")
    assert asked.resolve(SHAPE, torch.float16, CUDA).attention == "xformers"
    on_cuda.error = RuntimeError("no kernel image")
    why = '"xformers" does not work here: its paged kernel raised RuntimeError: no kernel image'
    with pytest.raises(ValueError, match=why):
        asked.resolve(SHAPE, torch.bfloat16, CUDA)
    with pytest.raises(ValueError, match=why):
        make_backend(SHAPE, 8, 64, torch.bfloat16, CUDA, "xformers")


def test_nothing_is_tried_where_xformers_does_not_fit_or_is_not_wanted(on_cuda: type[FakeKernel]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_backend(SHAPE, None, torch.float32, CUDA) == "torch-gather"
        assert pick_backend(SHAPE, None, torch.float16, CUDA, "torch-gather") == "torch-gather"
        assert pick_backend(SHAPE, None, torch.float16, CPU, "xformers") == "xformers"
    assert on_cuda.launches == 0
