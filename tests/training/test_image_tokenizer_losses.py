"""The losses of image tokenizers, each against numbers worked out by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.tiny_image_tokenizer import tiny_pictures, tiny_tokenizer
from unitok.training.image_tokenizer.adversarial import (
    adaptive_ratio,
    discriminator_loss,
    generator_loss,
)
from unitok.training.image_tokenizer.code_use import CodeUse, count_codes, perplexity
from unitok.training.image_tokenizer.discriminator import PatchDiscriminator, smallest_picture
from unitok.training.image_tokenizer.loss import ImageTokenizerLoss, PictureBatch
from unitok.training.image_tokenizer.options import LossOptions
from unitok.training.image_tokenizer.perceptual import PerceptualLoss
from unitok.training.image_tokenizer.trained import TrainedTokenizer
from unitok_tokenizers.autoencoder import to_tensor_range


class Channels(nn.Module):
    """Features that are the pixels themselves, and twice as many of half of them."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return [pixels, pixels[:, :2].flatten(2)]


# --- perceptual ----------------------------------------------------------------------------------


def test_the_perceptual_loss_compares_features_of_unit_length_map_by_map():
    left = torch.tensor([3.0, 4.0, 0.0]).reshape(1, 3, 1, 1)
    right = torch.tensor([0.0, 2.0, 0.0]).reshape(1, 3, 1, 1)
    # (0.6, 0.8, 0) and (0, 1, 0) differ by 0.36 + 0.04, and so do their first two channels.
    loss = PerceptualLoss(Channels())
    torch.testing.assert_close(loss(left, right), torch.tensor(0.4))
    assert loss(left, 7 * left) < 1e-12, "only the direction counts"


def test_the_perceptual_loss_has_gradients_for_the_prediction_and_trains_nothing():
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    loss = PerceptualLoss(nn.ModuleList([layer])).train()
    loss.features.forward = lambda pixels: [layer(pixels)]  # type: ignore[method-assign]
    assert not layer[1].training and not any(p.requires_grad for p in loss.parameters())
    predicted = torch.rand(2, 3, 8, 8, requires_grad=True)
    target = torch.rand(2, 3, 8, 8, requires_grad=True)
    loss(predicted, target).backward()
    assert predicted.grad is not None and predicted.grad.abs().sum() > 0
    assert target.grad is None


# --- the discriminator ---------------------------------------------------------------------------


def test_hinge_and_non_saturating_losses_are_what_they_say():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    # Hinge: real logits lack 0 and 0.5 of 1, fake ones 0 and 2 of -1.
    assert discriminator_loss("hinge", real, fake).item() == pytest.approx((0.25 + 1.0) / 2)
    assert generator_loss("hinge", fake).item() == pytest.approx(1.0)
    chances = [1 / (1 + math.exp(-x)) for x in (2.0, 0.5, -3.0, 1.0)]
    as_real = -(math.log(chances[0]) + math.log(chances[1])) / 2
    as_fake = -(math.log(1 - chances[2]) + math.log(1 - chances[3])) / 2
    loss = discriminator_loss("non-saturating", real, fake).item()
    assert loss == pytest.approx((as_real + as_fake) / 2)
    passing = -(math.log(chances[2]) + math.log(chances[3])) / 2
    assert generator_loss("non-saturating", fake).item() == pytest.approx(passing)


def test_the_adaptive_ratio_is_that_of_the_gradients_norms():
    weight = torch.ones(4, requires_grad=True)
    ratio = adaptive_ratio(6 * weight.sum(), (0.5 * weight).sum(), weight)
    assert ratio.item() == pytest.approx(12 / (1 + 1e-4)) and not ratio.requires_grad
    assert adaptive_ratio(6e9 * weight.sum(), 0.5 * weight.sum(), weight).item() == 1e4


@pytest.mark.parametrize(("size", "layers", "patches"), [(64, 3, 6), (32, 2, 6), (24, 3, 1)])
def test_the_discriminator_judges_patches(size: int, layers: int, patches: int):
    made = PatchDiscriminator(4, layers)
    assert made(torch.rand(2, 3, size, size)).shape == (2, 1, patches, patches)
    assert size >= smallest_picture(layers)


def test_the_published_discriminator_has_the_published_size():
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1)
    biases, norms = 64 + 1, 2 * (128 + 256 + 512)
    count = sum(p.numel() for p in PatchDiscriminator().parameters())
    assert count == convolutions + biases + norms == 2_765_633


def test_with_group_norms_a_verdict_does_not_depend_on_the_other_pictures():
    pictures, equal = torch.rand(3, 3, 16, 16), {}
    for norm in ("batch", "group"):
        torch.manual_seed(0)
        made = PatchDiscriminator(8, 1, norm)  # type: ignore[arg-type]
        equal[norm] = torch.allclose(made(pictures)[:1], made(pictures[:1]), atol=1e-6)
    assert equal == {"batch": False, "group": True}


@pytest.mark.parametrize("kind", ["hinge", "non-saturating"])
def test_the_discriminator_learns_to_tell_blurred_pictures_from_sharp_ones(kind):
    torch.manual_seed(0)
    made, real = PatchDiscriminator(16, 1), to_tensor_range(torch.rand(16, 3, 16, 16))
    fake = F.avg_pool2d(real, 5, 1, 2, count_include_pad=False)
    optimiser = torch.optim.AdamW(made.parameters(), 2e-3)
    losses: list[float] = []
    for _ in range(25):
        loss = discriminator_loss(kind, made(real), made(fake))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert made(real).mean() > made(fake).mean() + 0.5


# --- codes ---------------------------------------------------------------------------------------


def test_the_perplexity_counts_codes_in_even_use():
    codes = torch.tensor([[0, 1], [2, 5]])
    assert count_codes(codes, 7).tolist() == [1, 1, 1, 0, 0, 1, 0]
    assert perplexity(count_codes(codes, 7)).item() == pytest.approx(4)
    assert perplexity(torch.tensor([9, 0, 0])).item() == pytest.approx(1)
    halves = perplexity(torch.tensor([2, 1, 1])).item()
    assert halves == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_dead_codes_move_to_different_latents_of_the_batch_and_others_stay(kind: str):
    quantizer, use = tiny_tokenizer(kind).quantizer.train(), CodeUse(24)
    before = quantizer.codebook.clone()
    use.note(torch.arange(20).reshape(1, 4, 5), step=6)
    latents = torch.randn(2, 4, 3, 3)
    assert use.revive(quantizer, latents, step=9, after=10) == 0
    assert use.revive(quantizer, latents, step=10, after=10) == 4
    points = latents.movedim(1, -1).reshape(-1, 4)
    points = F.normalize(points, dim=-1) if kind == "cosine" else points
    nearest = torch.cdist(quantizer.codebook[20:], points).min(1)
    assert nearest.values.max() < 1e-3 and len(nearest.indices.unique()) == 4
    assert torch.equal(quantizer.codebook[:20], before[:20])
    assert use.last_used.tolist() == [6] * 20 + [10] * 4
    found = quantizer.encode(latents).flatten()[nearest.indices]
    assert sorted(found.tolist()) == [20, 21, 22, 23], "they are the nearest now"


def test_no_more_codes_move_than_there_are_latents():
    quantizer, use = tiny_tokenizer().quantizer, CodeUse(24)
    assert use.revive(quantizer, torch.randn(1, 4, 2, 2), step=5, after=5) == 4
    assert (use.last_used == 5).sum() == 4


# --- the sum -------------------------------------------------------------------------------------


def made_loss(
    kind: str = "cosine", parts=("encoder", "codebook", "decoder"), **options: Any
) -> ImageTokenizerLoss:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"adversarial_start": 0, **options}
    given = LossOptions(**settings)
    discriminator = (
        None if given.adversarial == "none" else PatchDiscriminator(8, 1, given.discriminator_norm)
    )
    return ImageTokenizerLoss(TrainedTokenizer(tiny_tokenizer(kind), parts, discriminator), given)


BATCH = PictureBatch(tiny_pictures(2))


def test_the_total_is_the_weighted_sum_of_its_parts():
    loss = made_loss("euclidean", l1=0.5, mse=2.0, commitment=0.3, codebook=0.7)
    loss.perceptual, loss.options = PerceptualLoss(Channels()), loss.options
    tokenizer = loss.model.tokenizer
    target = to_tensor_range(BATCH.pixels)
    latents = tokenizer.quant_conv(tokenizer.encoder(target))
    codes = tokenizer.quantizer.encode(latents)
    pixels, nearest = tokenizer.decode_raw(codes), tokenizer.quantizer.lookup(codes).movedim(-1, 1)
    expected = (
        0.5 * (pixels - target).abs().mean()
        + 2.0 * (pixels - target).square().mean()
        + loss.perceptual(pixels, target)
        + (0.3 + 0.7) * (latents - nearest).square().mean()
    )
    made = loss(PictureBatch(BATCH.pixels, weight=0.25), 0)
    torch.testing.assert_close(made.total, 0.25 * expected)
    assert made.tokens == 2 * 8 * 8
    counts = count_codes(codes, 24)
    assert made.parts["codes_used"].item() == pytest.approx((counts > 0).float().mean().item())
    torch.testing.assert_close(made.parts["perplexity"], perplexity(counts))


def test_the_codebook_loss_pulls_codes_to_latents_and_the_commitment_loss_latents_to_codes():
    loss = made_loss("euclidean", codebook=1.0, commitment=0.0)
    made, tokenizer = loss(BATCH, 0), loss.model.tokenizer
    made.total.backward()
    with torch.no_grad():
        latents = tokenizer.quant_conv(tokenizer.encoder(to_tensor_range(BATCH.pixels)))
        codes = tokenizer.quantizer.encode(latents)
        points = latents.movedim(1, -1).reshape(-1, 4)
        expected = torch.zeros(24, 4).index_add_(
            0, codes.flatten(), 2 * (tokenizer.quantizer.codebook[codes.flatten()] - points)
        )
    torch.testing.assert_close(tokenizer.quantizer.codebook.grad, expected / points.numel())


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def test_before_its_start_there_is_no_discriminator_and_after_it_there_is():
    loss = made_loss(adversarial="hinge", adversarial_start=5)
    early = loss(BATCH, 4)
    early.total.backward()
    assert "adversarial" not in early.parts and "discriminator" not in early.parts
    assert loss.model.discriminator is not None
    assert all(grad is None for grad in gradients(loss.model.discriminator))
    late = loss(BATCH, 5)
    late.total.backward()
    assert {"adversarial", "discriminator"} <= late.parts.keys()
    assert all(grad is not None for grad in gradients(loss.model.discriminator))


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_backward_pass_gives_both_networks_the_gradients_of_their_own_losses(adaptive: bool):
    """As two updates of LlamaGen: each network sees the other as a constant."""
    options: dict[str, Any] = {
        "adversarial": "hinge",
        "discriminator_norm": "group",
        "adaptive": adaptive,
    }
    loss = made_loss("euclidean", **options)
    model, tokenizer = loss.model, loss.model.tokenizer
    assert model.discriminator is not None
    loss(BATCH, 0).total.backward()
    found = [gradients(tokenizer), gradients(model.discriminator)]
    loss.zero_grad()
    target = to_tensor_range(BATCH.pixels)
    quantized = loss.quantize(target, 0)
    pixels = loss.decode(quantized.latents)
    likeness, fooling = F.mse_loss(pixels, target), -model.discriminator(pixels).mean()
    decoder: Any = tokenizer.decoder
    weight = 0.5 * (adaptive_ratio(likeness, fooling, decoder.conv_out.weight) if adaptive else 1.0)
    codebook = 0.25 * quantized.losses["commitment"] + quantized.losses["codebook"]
    (likeness + weight * fooling + codebook).backward()
    expected = [gradients(tokenizer)]
    loss.zero_grad()
    real, fake = model.discriminator(target), model.discriminator(pixels.detach())
    discriminator_loss("hinge", real, fake).backward()
    expected.append(gradients(model.discriminator))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert any(grad is not None and grad.abs().sum() > 0 for grad in found[1])


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("parts", "moving"),
    [
        (("decoder",), {"decoder", "post_quant_conv"}),
        (("encoder", "decoder"), {"encoder", "quant_conv", "decoder", "post_quant_conv"}),
        (("codebook", "decoder"), {"quantizer", "decoder", "post_quant_conv"}),
    ],
    ids=["decoder", "all but the codebook", "all but the encoder"],
)
def test_only_the_chosen_parts_move(kind: str, parts, moving: set[str]):
    loss = made_loss(kind, parts, revive_after=1)
    model = loss.model
    before = {k: v.clone() for k, v in model.tokenizer.state_dict().items()}
    codes = model.tokenizer.encode(BATCH.pixels)
    optimiser = torch.optim.AdamW([p for group in model.groups() for p in group], 1e-2)
    for step in range(3):
        loss(BATCH, step).total.backward()
        optimiser.step()
        optimiser.zero_grad()
    after = model.tokenizer.state_dict()
    assert {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])} == moving
    if parts == ("decoder",):
        assert torch.equal(model.tokenizer.eval().encode(BATCH.pixels), codes)


def test_the_average_follows_the_weights_and_has_the_codebook():
    loss = made_loss()
    model = TrainedTokenizer(loss.model.tokenizer, decay=0.75)
    start = model.tokenizer.quant_conv.weight.detach().clone()
    with torch.no_grad():
        model.tokenizer.quant_conv.weight.add_(1.0)
        model.tokenizer.quantizer.codebook.neg_()
    model.update_average()
    assert model.best is model.average and model.average is not None
    torch.testing.assert_close(model.average.quant_conv.weight, start + 0.25)
    assert torch.equal(model.average.quantizer.codebook, model.tokenizer.quantizer.codebook)
    assert not model.train().average.training  # type: ignore[union-attr]
