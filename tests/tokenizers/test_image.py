"""The image tokenizer: shapes, codebooks, training of the codes, and what is refused."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unitok_tokenizers.autoencoder import AutoencoderConfig, to_tensor_range, to_unit_range
from unitok_tokenizers.blocks import AttentionBlock
from unitok_tokenizers.image import ImageCodec, ImageTokenizer, make_image_tokenizer
from unitok_tokenizers.losses import psnr, reconstruction
from unitok_tokenizers.quantizer import CosineQuantizer, EuclideanQuantizer, library_quantizer

CONFIG = AutoencoderConfig(
    image_size=16,
    codebook_size=24,
    code_dim=6,
    latent_channels=32,
    base_channels=32,
    channel_multiplier=(1, 2, 1),
    res_blocks=1,
    patch_width=32,
)
ENCODERS = pytest.mark.parametrize("encoder", ["conv", "patch"])
QUANTIZERS = pytest.mark.parametrize("kind", ["cosine", "euclidean"])


def tokenizer(encoder: str = "patch", **changes) -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(dataclasses.replace(CONFIG, encoder=encoder, **changes)).eval()


def quantizer(size: int = 12, dim: int = 5) -> CosineQuantizer:
    """With a codebook as a checkpoint may hold it: its rows have any length."""
    torch.manual_seed(1)
    made = CosineQuantizer(size, dim).eval()
    made.codebook.copy_(torch.randn(size, dim) * torch.linspace(0.2, 5, size)[:, None])
    made.refresh()
    return made


# --- pictures <-> codes --------------------------------------------------------------------------


@ENCODERS
def test_each_downsampling_halves_the_grid(encoder: str):
    for multiplier, grid in (((1, 1), 8), ((1, 2, 1), 4), ((1, 1, 1, 2), 2)):
        made = tokenizer(encoder, channel_multiplier=multiplier)
        assert (made.config.downsample, made.config.grid) == (16 // grid, grid)
        codes = made.encode(torch.rand(3, 3, 16, 16))
        assert codes.shape == (3, grid, grid) and codes.dtype == torch.int64
        assert made.decode(codes).shape == (3, 3, 16, 16)


@ENCODERS
def test_pictures_come_back_within_the_unit_range(encoder: str):
    made = tokenizer(encoder)
    codes = torch.randint(24, (2, 4, 4))
    pictures = made.decode(codes)
    assert pictures.dtype == torch.float32 and 0 <= pictures.min() <= pictures.max() <= 1
    assert torch.equal(pictures, made.decode(codes.flatten(1)))
    with torch.no_grad():  # with gradients, a CPU computes in another order
        assert torch.equal(pictures, to_unit_range(made.decode_raw(codes)))
    torch.testing.assert_close(pictures, to_unit_range(made.decode_raw(codes)), atol=1e-5, rtol=0)


def test_a_patch_code_depends_on_its_own_patch_alone():
    made, picture = tokenizer("patch"), torch.rand(1, 3, 16, 16)
    other = torch.rand(1, 3, 16, 16)
    other[:, :, 4:8, 8:12] = picture[:, :, 4:8, 8:12]
    codes, others = made.encode(picture), made.encode(other)
    assert codes[0, 1, 2] == others[0, 1, 2]
    assert not torch.equal(codes, others)


def test_codes_outside_the_codebook_are_refused():
    made = tokenizer()
    for wrong in (-1, 24):
        codes = torch.zeros(1, 4, 4, dtype=torch.int64)
        codes[0, 2, 3] = wrong
        with pytest.raises(ValueError, match=r"outside 0\.\.23"):
            made.decode(codes)


@pytest.mark.parametrize("shape", [(1, 15), (1, 4, 5), (1, 8, 2), (2, 8), (16,), (1, 1, 4, 4)])
def test_codes_that_are_no_grid_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"codes must be \[B, 4, 4\]"):
        tokenizer().decode(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 16, 17), (1, 3, 8, 8)])
def test_pictures_of_another_size_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"must be \[B, 3, 16, 16\]"):
        tokenizer().encode(torch.zeros(shape))


@QUANTIZERS
@ENCODERS
def test_a_tokenizer_without_a_decoder_encodes_alike_and_says_that_it_cannot_decode(
    encoder: str, kind: str
):
    both, half = (
        tokenizer(encoder, quantizer=kind),
        tokenizer(encoder, quantizer=kind, decoder=False),
    )
    assert both.can_decode and not half.can_decode
    kept = {k: v for k, v in both.state_dict().items() if not k.startswith("decoder.")}
    half.load_state_dict(kept)
    half.refresh()
    pictures = torch.rand(2, 3, 16, 16)
    assert torch.equal(half.encode(pictures), both.encode(pictures))
    with pytest.raises(ValueError, match="this checkpoint has no VQ decoder"):
        half.decode(half.encode(pictures))


def test_attention_is_in_the_middle_alone_or_in_the_lowest_level_too():
    def places(**changes) -> set[str]:
        modules = tokenizer("conv", res_blocks=2, **changes).named_modules()
        return {name for name, module in modules if isinstance(module, AttentionBlock)}

    middle = {"encoder.middle.attention", "decoder.middle.attention"}
    lowest = {f"encoder.levels.2.attentions.{i}" for i in range(2)}
    lowest |= {f"decoder.levels.0.attentions.{i}" for i in range(3)}
    assert places() == middle | lowest
    assert places(attention=False) == middle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "linear"}, "'conv' or 'patch'"),
        ({"image_size": 18}, "no multiple of 4"),
        ({"base_channels": 48}, "multiple of 32"),
        ({"base_channels": 16, "channel_multiplier": (2, 2)}, "multiple of 32"),
        ({"quantizer": "manhattan"}, "'cosine' or 'euclidean'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


# --- codecs --------------------------------------------------------------------------------------


def test_a_config_makes_its_own_codec():
    made = make_image_tokenizer(CONFIG)
    assert isinstance(made, ImageTokenizer) and isinstance(made, ImageCodec)
    assert (made.config, made.codebook_size, made.can_decode) == (CONFIG, 24, True)


def test_a_config_of_no_codec_is_refused():
    with pytest.raises(ValueError, match="no image tokenizer is made from a dict"):
        make_image_tokenizer({})


# --- nearest by cosine ---------------------------------------------------------------------------


def plain_nearest(latents: Tensor, codebook: Tensor) -> Tensor:
    """[B, d, h, w] -> [B, h, w]: the row of largest cosine, spelt out point by point."""
    codes = torch.empty(latents.shape[0], *latents.shape[2:], dtype=torch.int64)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, codes.shape)).tolist():
        cosine = F.cosine_similarity(latents[b, :, i, j][None], codebook)
        codes[b, i, j] = cosine.argmax()
    return codes


def test_the_nearest_code_is_nearest_by_cosine_whatever_the_lengths():
    made, latents = quantizer(), torch.randn(2, 5, 3, 4) * 7
    expected = plain_nearest(latents, made.codebook)
    assert torch.equal(made.encode(latents), expected)
    assert torch.equal(made(latents)[1], expected)
    by_distance = torch.cdist(latents.movedim(1, -1).reshape(-1, 5), made.codebook).argmin(1)
    assert not torch.equal(by_distance, expected.flatten()), "the case must tell the two apart"


def test_looked_up_vectors_have_unit_length():
    made = quantizer()
    vectors = made.lookup(torch.arange(12).reshape(3, 4))
    assert vectors.shape == (3, 4, 5)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(3, 4))
    assert torch.equal(vectors.flatten(0, 1), F.normalize(made.codebook, dim=-1))


def test_training_moves_the_codebook_and_evaluation_does_not():
    made, latents = quantizer(), torch.randn(4, 5, 4, 4)
    before = made.codebook.clone()
    made(latents)
    made.encode(latents)
    assert torch.equal(made.codebook, before)
    made.train()
    made.encode(latents)
    assert torch.equal(made.codebook, before) and made.vq.training
    made(latents)
    assert not torch.allclose(F.normalize(made.codebook, dim=-1), F.normalize(before, dim=-1))
    assert torch.equal(made.eval().encode(latents), plain_nearest(latents, made.codebook))


def test_codes_are_those_of_the_library_to_the_bit():
    made, latents = quantizer(512, 8), torch.randn(2, 8, 16, 16)
    codes = made.encode(latents)
    library = library_quantizer(made._averages).eval()
    assert torch.equal(codes, library(latents)[1])


def test_the_first_training_step_keeps_the_names_of_the_state_and_the_random_stream():
    made = quantizer().train()
    before, random = made.state_dict(), torch.get_rng_state()
    made(torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0)))
    after = made.state_dict()
    assert list(after) == list(before)
    assert [v.data_ptr() for v in after.values()] == [v.data_ptr() for v in before.values()]
    assert torch.equal(torch.get_rng_state(), random)


def test_training_starts_from_the_codebook_that_was_loaded():
    made = quantizer().train()
    before = F.normalize(made.codebook, dim=-1)
    made(before[:1].T[None, :, :, None])  # a latent that lies on code 0
    after = F.normalize(made.codebook, dim=-1)
    assert (before * after).sum(1).min() > 0.999


def test_the_gradient_passes_straight_through():
    made = quantizer().train()
    latents = torch.randn(1, 5, 2, 2, requires_grad=True)
    quantized, _, commitment = made(latents)
    assert commitment.ndim == 0 and commitment > 0
    quantized.sum().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0


def test_fitted_codes_cover_the_clusters_and_none_is_spent_twice_on_the_commonest():
    torch.manual_seed(0)
    centres = F.normalize(torch.randn(12, 16), dim=-1)
    common = centres[:1].expand(3000, -1)  # one patch, over and over, to the last bit
    around = centres.repeat(8, 1) + 0.02 * torch.randn(96, 16)
    points = torch.cat([common, around])
    made = CosineQuantizer(24, 16).eval()
    made.fit(points.T[None, :, :, None])
    nearest = (F.normalize(points, dim=-1) @ made.codebook.T).amax(1)
    assert nearest.min() > 0.98, "every point has a code near it"
    on_common = (made.codebook @ centres[0] > 0.9).sum()
    assert 1 <= on_common <= 6, "3000 of 3096 points, but only a share of the codes"
    assert torch.allclose(made.codebook.norm(dim=-1), torch.ones(24))
    assert torch.equal(
        made.encode(points.T[None, :, :, None]).flatten(), (points @ made.codebook.T).argmax(1)
    )


def test_equal_latents_count_once_in_a_fit():
    a, b = torch.eye(4)[:2]
    made = CosineQuantizer(1, 4)
    made.fit(torch.stack([a] * 500 + [b]).T[None, :, :, None])
    torch.testing.assert_close(made.codebook[0], F.normalize(a + b, dim=0), atol=0.02, rtol=0)


def test_a_second_fit_keeps_the_codes_in_use_and_moves_the_others():
    torch.manual_seed(0)
    centres = F.normalize(torch.randn(3, 16), dim=-1)
    made = CosineQuantizer(3, 16)
    made.codebook.copy_(torch.stack([centres[2], -centres.sum(0), centres[0]]))
    made.fit(centres.T[None, :, :, None], fresh=False)
    kept = F.cosine_similarity(made.codebook, centres[[2, 1, 0]])
    assert kept.min() > 0.99, "codes 0 and 2 stay; code 1 goes where none is near"


# --- nearest by distance -------------------------------------------------------------------------


def euclidean(codebook: Tensor) -> EuclideanQuantizer:
    made = EuclideanQuantizer(*codebook.shape)
    made.codebook.copy_(codebook)
    return made


def test_the_nearest_code_is_nearest_by_distance_whatever_the_lengths():
    torch.manual_seed(2)
    codebook = torch.randn(12, 5) * torch.linspace(0.2, 5, 12)[:, None]
    made, latents = euclidean(codebook), torch.randn(2, 5, 3, 4) * 2
    expected = torch.empty(2, 3, 4, dtype=torch.int64)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, expected.shape)).tolist():
        expected[b, i, j] = (latents[b, :, i, j] - codebook).norm(dim=1).argmin()
    codes = made.encode(latents)
    assert codes.dtype == torch.int64 and torch.equal(codes, expected)
    assert not torch.equal(codes, plain_nearest(latents, codebook)), "the case must tell them apart"
    assert torch.equal(made.lookup(codes), codebook[codes])


def test_near_ties_fall_as_by_the_formula_of_the_reference():
    torch.manual_seed(3)
    codebook = torch.empty(4096, 64).uniform_(-1 / 4096, 1 / 4096)
    latents = torch.randn(2, 64, 16, 16)
    flat = latents.permute(0, 2, 3, 1).reshape(2, -1, 64)
    squares = flat.square().sum(2, keepdim=True) + codebook.square().sum(1)
    expected = (squares - 2 * (flat @ codebook.T)).argmin(2)
    rooted = (squares - 2 * (flat @ codebook.T)).sqrt().argmin(2)
    assert torch.equal(euclidean(codebook).encode(latents).flatten(1), expected)
    assert not torch.equal(rooted, expected), "the case must tell the two apart"


def test_a_picture_has_the_same_codes_alone_and_in_a_batch():
    torch.manual_seed(4)
    made, latents = euclidean(torch.randn(64, 5)), torch.randn(3, 5, 4, 6)
    codes = made.encode(latents)
    for i in range(3):
        assert torch.equal(made.encode(latents[i : i + 1]), codes[i : i + 1])
    assert made.encode(latents[:0]).shape == (0, 4, 6)


def test_of_equal_rows_the_first_is_nearest():
    made = euclidean(torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0]]))
    assert made.encode(torch.ones(1, 2, 1, 1)).item() == 1


def test_gradients_pass_straight_through_a_codebook_that_stays():
    torch.manual_seed(5)
    made = euclidean(torch.randn(8, 5)).train()
    latents, before = torch.randn(1, 5, 2, 2, requires_grad=True), made.codebook.clone()
    quantized, codes, commitment = made(latents)
    torch.testing.assert_close(quantized, before[codes].movedim(-1, 1))
    torch.testing.assert_close(commitment, (latents - before[codes].movedim(-1, 1)).square().mean())
    (slope,) = torch.autograd.grad(quantized.sum(), latents)
    assert torch.equal(slope, torch.ones_like(latents))
    assert torch.equal(made.codebook, before)


def test_a_euclidean_codebook_is_not_fitted():
    with pytest.raises(ValueError, match="cannot be fitted"):
        EuclideanQuantizer(4, 2).fit(torch.zeros(1, 2, 2, 2))


# --- state ---------------------------------------------------------------------------------------


@QUANTIZERS
@ENCODERS
def test_a_tokenizer_built_without_storage_works_once_filled_and_refreshed(encoder: str, kind: str):
    source = tokenizer(encoder, quantizer=kind)
    source.quantizer.codebook.copy_(torch.randn(24, 6) * torch.linspace(0.2, 5, 24)[:, None])
    source.refresh()
    with torch.device("meta"):
        made = make_image_tokenizer(source.config)
    for key, value in source.state_dict().items():
        if not key.startswith("quantizer.vq."):
            owner, leaf = made.get_submodule(key.rpartition(".")[0]), key.rpartition(".")[2]
            is_parameter = leaf in owner._parameters
            setattr(owner, leaf, torch.nn.Parameter(value) if is_parameter else value)
    made.refresh()
    assert not any(v.is_meta for v in [*made.parameters(), *made.buffers()])
    pictures = torch.rand(2, 3, 16, 16)
    codes = made.eval().encode(pictures)
    assert len(codes.unique()) > 1
    assert torch.equal(codes, source.encode(pictures))
    assert torch.equal(made.decode(codes), source.decode(codes))


def training_pass(made: ImageTokenizer, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, codes and commitment loss of a training step; it moves the codebook."""
    latents = made.quant_conv(made.encoder(to_tensor_range(pictures)))
    quantized, codes, commitment = made.quantizer(latents)
    return made.decoder(made.post_quant_conv(quantized)), codes, commitment


@ENCODERS
def test_state_makes_the_round_trip_in_the_midst_of_training(encoder: str):
    first = tokenizer(encoder).train()
    pictures = torch.rand(4, 3, 16, 16)
    training_pass(first, pictures)
    second = ImageTokenizer(first.config).train()
    second.load_state_dict(first.state_dict())
    passes = (training_pass(made, pictures) for made in (first, second))
    for left, right in zip(*passes, strict=True):
        assert torch.equal(left, right)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert torch.equal(first.eval().encode(pictures), second.eval().encode(pictures))


def test_a_new_codebook_counts_after_refresh():
    made, latents = quantizer(), torch.randn(1, 5, 4, 4)
    made.codebook.copy_(made.codebook.flip(0))
    made.refresh()
    assert torch.equal(made.encode(latents), plain_nearest(latents, made.codebook))


def test_the_tokenizer_refreshes_its_quantizer():
    made, pictures = tokenizer(), torch.rand(4, 3, 16, 16)
    codes = made.encode(pictures)
    made.quantizer.codebook.copy_(made.quantizer.codebook.flip(0))
    made.refresh()
    assert torch.equal(made.encode(pictures), 23 - codes)


# --- losses --------------------------------------------------------------------------------------


def test_losses_are_what_they_say():
    a, b = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1)
    assert torch.allclose(psnr(a, b), torch.full((2,), 20.0))
    assert psnr(a, a).min() >= 99
    assert torch.allclose(reconstruction(a, b, absolute=0.5), torch.tensor(0.01 + 0.05))
    assert torch.equal(to_tensor_range(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0, 1]))
