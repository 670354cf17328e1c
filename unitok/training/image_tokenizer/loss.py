"""The loss of an image tokenizer and of its discriminator, as one sum.

LlamaGen (https://arxiv.org/abs/2406.06525) and VQGAN (https://arxiv.org/abs/2012.09841) make two
updates from the same decoded pictures, each with the other network as it was before. Neither loss
passes a gradient to the other's weights here, so the gradients of the sum are those of the two, and
one backward pass and one optimiser serve both networks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from unitok.training.image_tokenizer.adversarial import (
    adaptive_ratio,
    discriminator_loss,
    generator_loss,
)
from unitok.training.image_tokenizer.code_use import count_codes, perplexity
from unitok.training.image_tokenizer.options import LossOptions
from unitok.training.image_tokenizer.perceptual import PerceptualLoss
from unitok.training.image_tokenizer.trained import TrainedTokenizer
from unitok.training.losses import Loss
from unitok_tokenizers.autoencoder import to_tensor_range
from unitok_tokenizers.quantizer import EuclideanQuantizer


@dataclass(frozen=True)
class PictureBatch:
    """Pictures to reconstruct.

    Attributes:
        pixels: [B, 3, S, S] in [0, 1].
        weight: The weight of the batch in its update.
        names: Of the pictures, for messages.
    """

    pixels: Tensor
    weight: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantized:
    """What the codebook makes of the latents of a batch.

    Attributes:
        latents: Quantized latents [B, d, h, w].
        codes: [B, h, w].
        losses: Those of the codebook by name.
    """

    latents: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class ImageTokenizerLoss(nn.Module):
    """Reconstruction, perceptual, adversarial and codebook losses, and the discriminator's own."""

    def __init__(
        self,
        model: TrainedTokenizer,
        options: LossOptions,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        """perceptual: Compares the pictures too, with the weight `options.perceptual_weight`."""
        super().__init__()
        self.model, self.options, self.perceptual = model, options, perceptual

    def forward(self, batch: PictureBatch, step: int) -> Loss:
        """The loss of a batch in an update, counted from 0. It moves a cosine codebook."""
        self.model.train()
        weight = self.model.tokenizer.quant_conv.weight
        target = to_tensor_range(batch.pixels.to(weight.device))
        quantized = self.quantize(target, step)
        pixels = self.decode(quantized.latents)
        likeness = self.likeness(pixels, target)
        total = torch.stack(list(likeness.values())).sum()
        parts = likeness | quantized.losses
        if self.model.discriminator is not None and step >= self.options.adversarial_start:
            fooling, telling = self.judge(pixels, target)
            total = total + self.adversarial_weight(total, fooling) * fooling + telling
            parts |= {"adversarial": fooling, "discriminator": telling}
        total = total + self.options.commitment * quantized.losses["commitment"]
        if "codebook" in quantized.losses:
            total = total + self.options.codebook * quantized.losses["codebook"]
        counts = count_codes(quantized.codes, self.model.tokenizer.codebook_size)
        parts |= {"perplexity": perplexity(counts), "codes_used": (counts > 0).float().mean()}
        return Loss(total * batch.weight, parts, quantized.codes.numel())

    def quantize(self, target: Tensor, step: int) -> Quantized:
        """Encode pictures [B, 3, S, S] in [-1, 1], in an update; dead codes are moved before."""
        model, tokenizer = self.model, self.model.tokenizer
        with torch.set_grad_enabled("encoder" in model.parts and torch.is_grad_enabled()):
            latents = tokenizer.quant_conv(tokenizer.encoder(target)).float()
        with torch.autocast(target.device.type, enabled=False):  # codes are compared in fp32
            if "codebook" in model.parts and self.options.revive_after:
                model.code_use.revive(tokenizer.quantizer, latents, step, self.options.revive_after)
            quantized, codes, commitment = tokenizer.quantizer(latents)
            losses = {"commitment": commitment}
            if "codebook" in model.parts and isinstance(tokenizer.quantizer, EuclideanQuantizer):
                nearest = tokenizer.quantizer.lookup(codes).movedim(-1, 1)
                losses["codebook"] = F.mse_loss(nearest, latents.detach())
        model.code_use.note(codes, step)
        return Quantized(quantized, codes, losses)

    def decode(self, latents: Tensor) -> Tensor:
        """Quantized latents [B, d, h, w] -> pictures [B, 3, S, S] in about [-1, 1]."""
        tokenizer = self.model.tokenizer
        return tokenizer.decoder(tokenizer.post_quant_conv(latents)).float()

    def likeness(self, pixels: Tensor, target: Tensor) -> dict[str, Tensor]:
        """How unlike pictures are to their originals: weighted losses by name."""
        options = self.options
        absolute, squared = F.l1_loss(pixels, target), F.mse_loss(pixels, target)
        parts = {"reconstruction": options.l1 * absolute + options.mse * squared}
        if self.perceptual is not None:
            parts["perceptual"] = options.perceptual_weight * self.perceptual(pixels, target)
        return parts

    def judge(self, pixels: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The adversarial loss, with gradients of the decoder alone, and the discriminator's."""
        discriminator, kind = self.model.discriminator, self.options.adversarial
        assert discriminator is not None
        as_it_is = {name: p.detach() for name, p in discriminator.named_parameters()}
        fooling = generator_loss(kind, functional_call(discriminator, as_it_is, (pixels,)).float())
        real, fake = discriminator(target).float(), discriminator(pixels.detach()).float()
        return fooling, discriminator_loss(kind, real, fake)

    def adversarial_weight(self, likeness: Tensor, fooling: Tensor) -> Tensor | float:
        """The weight of the adversarial loss beside the others."""
        weight = self.options.adversarial_weight
        if not self.options.adaptive or not likeness.requires_grad:
            return weight
        decoder: Any = self.model.tokenizer.decoder
        return weight * adaptive_ratio(likeness, fooling, decoder.conv_out.weight)
