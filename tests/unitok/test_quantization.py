"""Weights of few bits: what the layers compute, and which kernels and layouts they have."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import linear

from unitok.quantization import int4, int8
from unitok.quantization.int4 import (
    GROUP,
    Avx2Kernel,
    Avx512Kernel,
    CudaKernel,
    Int4Linear,
    PlainKernel,
    fits_int4,
)
from unitok.quantization.int8 import CudaProduct, Int8Linear, OneDnnProduct, multiplies_int8
from unitok.quantization.linear import QuantizedLinear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KINDS = (Int8Linear, Int4Linear)
CPU = torch.device("cpu")
ROWS = (1, 2, 3, 8, 16, 31, 129, 260)


def layers_of(
    dtype: torch.dtype = torch.float32, bias: bool = False, sizes: Sequence[int] = (128, 64)
) -> dict[str, nn.Linear]:
    """Linear layers of one input: one output is zero, and one has large weights."""
    torch.manual_seed(0)
    made = {f"l{i}": nn.Linear(128, size, bias=bias) for i, size in enumerate(sizes)}
    for layer in made.values():
        layer.requires_grad_(False).weight[3] = 0
        layer.weight[5] *= 20
        layer.to(dtype)
    return made


def rows_of(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of very different sizes; the second is zero, and has an outlier above it."""
    torch.manual_seed(1)
    x = torch.randn(count, 128) * torch.logspace(-2, 2, count)[:, None]
    x[0, 7] *= 50
    x[1:2] = 0
    return x.to(dtype)


def check_close(layer: QuantizedLinear, x: Tensor, share: float) -> None:
    """Products are those of the dequantised weights, but for a share of what they can be at most:
    the length of a row times that of a weight."""
    weight, x64 = layer.dense().double(), x.double()
    bias = torch.cat(list(layer.biases())).double() if layer.biases() else torch.zeros(192)
    error = (layer(x).double() - linear(x64, weight, bias.double())).abs()
    lengths = x64.norm(dim=-1, keepdim=True) * weight.norm(dim=-1)
    assert (error <= share * (lengths + bias.abs()) + 1e-30).all()


ROUNDING = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 5e-3}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_multiplies_by_its_dequantised_weights(kind, bias: bool, dtype: torch.dtype):
    layer = kind(layers_of(dtype, bias))
    share = 1e-2 if kind is Int4Linear else ROUNDING[dtype]
    for count in ROWS:
        check_close(layer, rows_of(count, dtype), share)
    assert layer(rows_of(6, dtype).view(2, 3, 128)).shape == (2, 3, 192)
    assert layer(torch.zeros(0, 128, dtype=dtype)).shape == (0, 192)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_nothing_multiplies_whole_numbers_the_result_is_the_same(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
):
    exact = Int8Linear(layers_of(dtype, bias=True))
    monkeypatch.setattr(int8, "product_for", lambda *of: None)
    plain = Int8Linear(layers_of(dtype, bias=True))
    assert not plain.rounds_alike and not plain.row_sizes
    assert torch.equal(torch.cat(list(plain.weights())), torch.cat(list(exact.weights())))
    for count in ROWS:
        check_close(plain, rows_of(count, dtype), ROUNDING[dtype])


def test_weights_are_rounded_to_the_nearest_of_their_numbers():
    (dense,) = [layer.weight for layer in layers_of(sizes=(128,)).values()]
    numbers, scale = int8.quantize(dense)
    assert numbers.abs().amax(1).tolist() == [0 if row == 3 else 127 for row in range(128)]
    error = (numbers * scale[:, None] - dense).abs()
    assert (error <= 0.501 * scale[:, None]).all()
    numbers, scales = int4.quantize(dense)
    assert set(numbers.unique().tolist()) == set(range(16))
    error = (int4.dequantize(numbers, scales) - dense).abs().view(128, -1, GROUP).amax(-1)
    assert (error <= 0.55 * scales[..., 0].T.float() + 1e-30).all()


def test_what_is_quantised_again_stays():
    layer = Int8Linear(layers_of())
    again, _ = int8.quantize(layer.dense())
    assert torch.equal(again, layer._unpacked())


# --- kernels -------------------------------------------------------------------------------------


def whole_products(rows: Tensor, numbers: Tensor) -> Tensor:
    return rows.long() @ numbers.long().T


@pytest.mark.parametrize("product", [OneDnnProduct(), CudaProduct()])
@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("count", [2, 6, 32, 62, 258])
def test_products_of_whole_numbers_are_exact(
    product: int8.Product, amx: bool, large: bool, count: int, monkeypatch: pytest.MonkeyPatch
):
    # torch's product for GPUs is there on a CPU too, so that this is a rehearsal of it.
    monkeypatch.setattr(int8, "has_amx", lambda: amx)
    torch.manual_seed(0)
    numbers = torch.randint(-127, 128, (64, 96), dtype=torch.int8)
    rows = torch.randint(-128, 128, (count, 96), dtype=torch.int8)
    if isinstance(product, OneDnnProduct) and not multiplies_int8():
        rows, numbers = rows.sign(), numbers.sign()  # of which no sum is rounded anywhere
    if large:
        monkeypatch.setattr(int8, "LARGE", 1000)
    packed = product.pack(numbers)
    assert torch.equal(product.unpack(packed), numbers)
    scale = torch.full((64,), 0.5)
    wanted = (whole_products(rows, numbers) / 2).float()
    as_bytes = rows.view(torch.uint8) ^ int8.MIDDLE
    assert torch.equal(product.multiply(as_bytes, packed, scale), wanted)


def test_a_row_in_two_parts_is_the_row_in_16_bits():
    x = rows_of(40)
    parts, unit = int8.split_in_parts(x)
    lower, higher = (parts.double() - int8.MIDDLE).chunk(2)
    numbers = 256 * higher + lower
    assert numbers.abs().amax(-1).tolist() == [0 if row == 1 else 32512 for row in range(40)]
    error = (numbers * unit - x).abs()
    assert (error <= 0.51 * unit).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_spoils_its_row_and_no_other(bad: float):
    layer, x = Int8Linear(layers_of()), rows_of(5)
    wanted = layer(x)
    x[2, 9] = bad
    out = layer(x)
    assert not out[2].isfinite().any()
    assert torch.equal(out[[0, 1, 3, 4]], wanted[[0, 1, 3, 4]])


def test_a_row_gets_the_same_bits_however_many_rows_there_are():
    x = rows_of(260)
    for dtype in DTYPES:
        layer = Int8Linear(layers_of(dtype))
        assert layer.rounds_alike == multiplies_int8()
        if layer.rounds_alike:
            wanted = layer(x.to(dtype))
            for count in ROWS:
                assert torch.equal(layer(x[:count].to(dtype)), wanted[:count])


def test_four_bits_give_few_rows_the_same_bits_and_no_more_is_said():
    layer, x = Int4Linear(layers_of(torch.bfloat16)), rows_of(int4.FEW, torch.bfloat16)
    wanted = layer(x)
    for count in (1, 2, 3, 8):
        assert torch.equal(layer(x[:count]), wanted[:count])
    assert not layer.rounds_alike


@pytest.mark.parametrize("kernel", [PlainKernel(), Avx512Kernel(), Avx2Kernel()])
def test_numbers_of_four_bits_come_back_from_every_layout(kernel: int4.Kernel):
    numbers = torch.randint(0, 16, (192, 64), dtype=torch.uint8)
    packed = kernel.pack(numbers)
    assert packed.nbytes == numbers.nbytes / 2
    assert torch.equal(kernel.unpack(packed), numbers)


@pytest.mark.parametrize("kernel", [PlainKernel(), Avx512Kernel(), Avx2Kernel()])
def test_every_layout_is_dequantised_alike(kernel: PlainKernel):
    numbers, scales = int4.quantize(torch.randn(192, 64))
    x = torch.randn(int4.FEW + 8, 64)
    wanted = x @ int4.dequantize(numbers, scales).T
    out = kernel.multiply(x, kernel.pack(numbers), scales)
    assert (out - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_the_layout_is_that_of_torchs_kernel():
    kernel = int4.kernel_for(CPU)
    if isinstance(kernel, Avx512Kernel):
        numbers = torch.randint(0, 16, (192, 64), dtype=torch.uint8)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers.int(), 1)
        assert torch.equal(kernel.pack(numbers).flatten(), packed.flatten())
    assert type(kernel).__name__ == {
        "AVX512": "Avx512Kernel",
        "AVX2": "Avx2Kernel",
    }.get(torch.backends.cpu.get_cpu_capability(), "PlainKernel")


@pytest.mark.parametrize("inputs", [64, 128, 192])
def test_the_kernel_for_gpus_takes_these_shapes(inputs: int):
    # Torch checks shapes and types of tensors without storage as it does on a GPU.
    kernel = CudaKernel()
    with FakeTensorMode():
        packed = kernel.pack(torch.empty(64, inputs, dtype=torch.uint8))
        scales = torch.empty(inputs // GROUP, 64, 2, dtype=torch.bfloat16)
        assert kernel.multiply(torch.empty(3, inputs), packed, scales).shape == (3, 64)
        assert kernel.unpack(packed).shape == (64, inputs)


def test_sizes_that_four_bits_do_not_suit_are_told():
    assert fits_int4({"a": nn.Linear(128, 64), "b": nn.Linear(128, 192)})
    assert not fits_int4({"a": nn.Linear(128, 64), "b": nn.Linear(128, 96)})
    assert not fits_int4({"a": nn.Linear(96, 64)})


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_that_of_few_bits(kind):
    layer = kind(layers_of(torch.bfloat16, bias=True))
    numbers = 192 * 128 // (2 if kind is Int4Linear else 1)
    scales = 192 * 128 // GROUP * 4 if kind is Int4Linear else 192 * 4
    assert layer.nbytes == numbers + scales + 192 * 2
    assert not list(layer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_quantises_anew_what_it_names_and_nothing_else(kind):
    layers, others = layers_of(bias=True), layers_of(bias=True)
    others["l1"].weight.copy_(torch.randn(64, 128))
    others["l0"].bias.copy_(torch.randn(128))
    layer, wanted = kind(layers), kind(others)
    before = layer.samples()[1]
    layer.update({"l1": others["l1"].weight}, {"l0": others["l0"].bias})
    x = rows_of(5)
    assert torch.equal(layer(x), wanted(x))
    assert not torch.equal(layer.samples()[1], before)
    assert torch.equal(layer.samples()[1], wanted.samples()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_refuses_what_it_cannot_do(kind):
    layer = kind(layers_of())
    with pytest.raises(RuntimeError, match=r"dtype is torch\.bfloat16, the layer's torch\.float32"):
        layer(rows_of(2, torch.bfloat16))
    with pytest.raises(RuntimeError, match="no gradients"):
        layer(rows_of(2).requires_grad_())
    with pytest.raises(RuntimeError, match="cannot be converted or moved"):
        layer.to(torch.bfloat16)
    assert layer.to("cpu") is layer
