"""Attention within packed sequences: the same as of each alone, and as of the xformers bias."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from xformers.ops import fmha

from unitok.nn import packed_attention
from unitok.nn.layers import WIDE_STEPS, causal_attention
from unitok.nn.packed_attention import PackedAttention, has_kernel, kernel_fault, xformers_attention

CPU = torch.device("cpu")
HEADS, HEAD_DIM = 4, 16
LENGTHS = [(7,), (1, 1, 1), (5, 5, 5), (9, 1, 30, 2, 17)]


def rows(
    lengths: Sequence[int], kv_heads: int = HEADS
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Queries, keys and values, and what is to flow back through the output."""
    torch.manual_seed(0)
    q, k, v, flowing = (
        torch.randn(sum(lengths), heads, HEAD_DIM) for heads in (HEADS, kv_heads, kv_heads, HEADS)
    )
    return (q.requires_grad_(), k.requires_grad_(), v.requires_grad_()), flowing


def materialised(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k / sqrt(d) + bias) v, spelt out."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5
    return torch.einsum("hqk,khd->qhd", (scores + bias).softmax(-1), v)


def alone(lengths: Sequence[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each sequence by itself."""
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = [slice(end - n, end) for end, n in zip(ends, lengths, strict=True)]
    return torch.cat([causal_attention(q[s], k[s], v[s]) for s in spans])


def with_gradients(out: Tensor, qkv: Sequence[Tensor], flowing: Tensor) -> list[Tensor]:
    return [out, *torch.autograd.grad((out * flowing).sum(), list(qkv))]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_packed_attention_is_the_materialised_bias_and_each_sequence_alone(
    lengths: tuple[int, ...], kv_heads: int
):
    qkv, flowing = rows(lengths, kv_heads)
    bias = fmha.attn_bias.BlockDiagonalCausalMask.from_seqlens(list(lengths), device=CPU)
    packed = with_gradients(PackedAttention(lengths).attend(0, *qkv), qkv, flowing)
    size = (sum(lengths), sum(lengths))
    for expected in (materialised(*qkv, bias.materialize(size)), alone(lengths, *qkv)):
        for ours, theirs in zip(packed, with_gradients(expected, qkv, flowing), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [(40, 24), (WIDE_STEPS - 8, WIDE_STEPS + 8)])
def test_two_bytes_agree_with_four(lengths: tuple[int, ...]):
    qkv, flowing = rows(lengths, kv_heads=2)
    expected = with_gradients(PackedAttention(lengths).attend(0, *qkv), qkv, flowing)
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in qkv)
    half = (q, k, v)
    seen = with_gradients(PackedAttention(lengths).attend(0, *half), half, flowing)
    for ours, theirs in zip(seen, expected, strict=True):
        assert (ours.float() - theirs).norm() < 0.02 * theirs.norm()


def test_queries_that_autocast_has_widened_are_narrowed():
    qkv, _ = rows((9, 4))
    q, k, v = (x.detach().bfloat16() for x in qkv)
    wide = PackedAttention((9, 4)).attend(0, q.float(), k.float(), v)
    assert wide.dtype == torch.bfloat16
    assert torch.equal(wide, PackedAttention((9, 4)).attend(0, q, k, v))


# --- the kernel of xformers, in whose place torch computes what it would -------------------------


def from_bias(q: Tensor, k: Tensor, v: Tensor, attn_bias) -> Tensor:
    """`memory_efficient_attention` as it is documented, which has no operator for a CPU."""
    assert q.shape == k.shape == v.shape and len(q) == 1
    bias = attn_bias.materialize((q.shape[1], q.shape[1])).to(q)
    return materialised(q[0], k[0], v[0], bias)[None]


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_kernel_gets_what_it_documents(kv_heads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fmha, "memory_efficient_attention", from_bias)
    lengths = (9, 1, 30)
    qkv, flowing = rows(lengths, kv_heads)
    seen = with_gradients(xformers_attention(lengths, CPU)(*qkv), qkv, flowing)
    expected = with_gradients(alone(lengths, *qkv), qkv, flowing)
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_kernel_is_tried_before_it_is_used(monkeypatch: pytest.MonkeyPatch):
    fault = kernel_fault(HEAD_DIM, torch.float32, CPU)
    assert fault is not None and fault.startswith("its kernel raised NotImplementedError")
    monkeypatch.setattr(fmha, "memory_efficient_attention", from_bias)
    for dtype in (torch.float32, torch.bfloat16):
        assert kernel_fault(HEAD_DIM, dtype, CPU) is None
    with torch.inference_mode():
        assert kernel_fault(HEAD_DIM, torch.float32, CPU) is None

    def wrong(q: Tensor, k: Tensor, v: Tensor, attn_bias) -> Tensor:
        return from_bias(q, k, v, attn_bias) * 1.1

    monkeypatch.setattr(fmha, "memory_efficient_attention", wrong)
    assert kernel_fault(HEAD_DIM, torch.float32, CPU) == "its kernel gives wrong numbers"


def test_a_kernel_that_fails_is_told_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_attention, "kernel_fault", lambda *sizes: "it is old")
    has_kernel.cache_clear()
    with pytest.warns(UserWarning, match="instead of xformers, more slowly: it is old") as seen:
        assert not has_kernel(16, torch.float32, CPU) and not has_kernel(16, torch.float32, CPU)
    assert len(seen) == 1
    has_kernel.cache_clear()
    monkeypatch.setattr(packed_attention, "find_spec", lambda name: None)
    assert not has_kernel(16, torch.float32, CPU)
    has_kernel.cache_clear()
