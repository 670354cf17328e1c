"""The image tokenizer: shapes, codebook, training of the codes, and what is refused."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unitok_tokenizers.autoencoder import AutoencoderConfig, to_tensor_range, to_unit_range
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.losses import psnr, reconstruction
from unitok_tokenizers.quantizer import CosineQuantizer

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
    assert torch.equal(pictures, to_unit_range(made.decode_raw(codes)))


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


@pytest.mark.parametrize("shape", [(1, 15), (1, 4, 5), (16,), (1, 1, 4, 4)])
def test_codes_that_are_no_grid_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"codes must be \[B, 4, 4\]"):
        tokenizer().decode(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 16, 17), (1, 3, 8, 8)])
def test_pictures_of_another_size_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"must be \[B, 3, 16, 16\]"):
        tokenizer().encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "linear"}, "'conv' or 'patch'"),
        ({"image_size": 18}, "no multiple of 4"),
        ({"base_channels": 48}, "multiple of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


# --- the codebook --------------------------------------------------------------------------------


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
    euclidean = torch.cdist(latents.movedim(1, -1).reshape(-1, 5), made.codebook).argmin(1)
    assert not torch.equal(euclidean, expected.flatten()), "the case must tell the two apart"


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


# --- state ---------------------------------------------------------------------------------------


@ENCODERS
def test_state_makes_the_round_trip_in_the_midst_of_training(encoder: str):
    first = tokenizer(encoder).train()
    pictures = torch.rand(4, 3, 16, 16)
    first(pictures)
    second = ImageTokenizer(first.config).train()
    second.load_state_dict(first.state_dict())
    for left, right in zip(first(pictures), second(pictures), strict=True):
        assert torch.equal(left, right)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert torch.equal(first.eval().encode(pictures), second.eval().encode(pictures))


def test_a_new_codebook_counts_after_refresh():
    made, latents = quantizer(), torch.randn(1, 5, 4, 4)
    made.codebook.copy_(made.codebook.flip(0))
    made.refresh()
    assert torch.equal(made.encode(latents), plain_nearest(latents, made.codebook))


# --- losses --------------------------------------------------------------------------------------


def test_losses_are_what_they_say():
    a, b = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1)
    assert torch.allclose(psnr(a, b), torch.full((2,), 20.0))
    assert psnr(a, a).min() >= 99
    assert torch.allclose(reconstruction(a, b, absolute=0.5), torch.tensor(0.01 + 0.05))
    assert torch.equal(to_tensor_range(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0, 1]))
