"""An image tokenizer in training, with all that a checkpoint of the run has to hold."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from unitok.training.image_tokenizer.code_use import CodeUse
from unitok.training.image_tokenizer.discriminator import PatchDiscriminator
from unitok.training.image_tokenizer.options import Part
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.quantizer import EuclideanQuantizer


class TrainedTokenizer(nn.Module):
    """The networks of a run and the state of its codebook.

    Attributes:
        tokenizer: The image tokenizer. Only the chosen parts have gradients.
        discriminator: Judges its pictures, if the run has one.
        code_use: When each code was used last.
        average: The running average of the image tokenizer's weights, if it is kept.
        parts: What is trained.
    """

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        parts: Sequence[Part] = ("encoder", "codebook", "decoder"),
        discriminator: PatchDiscriminator | None = None,
        decay: float | None = None,
    ) -> None:
        """decay: Of the average of the weights; None for no average."""
        super().__init__()
        self.tokenizer, self.parts, self.decay = tokenizer, frozenset(parts), decay
        self._choose()
        self.discriminator = discriminator
        self.code_use = CodeUse(tokenizer.codebook_size)
        self.average = None if decay is None else frozen_copy(tokenizer)

    def _choose(self) -> None:
        """Give gradients to the chosen parts, and to no others."""
        tokenizer = self.tokenizer.requires_grad_(False)
        if "encoder" in self.parts:
            tokenizer.encoder.requires_grad_(True)
            tokenizer.quant_conv.requires_grad_(True)
        if "decoder" in self.parts:
            tokenizer.post_quant_conv.requires_grad_(True)
            tokenizer.decoder.requires_grad_(True)
        if "codebook" in self.parts and isinstance(tokenizer.quantizer, EuclideanQuantizer):
            tokenizer.quantizer.make_trainable()

    def train(self, mode: bool = True) -> "TrainedTokenizer":
        """Set the mode. A cosine codebook moves in training mode, so one that stays is left out."""
        super().train(mode)
        self.tokenizer.quantizer.train(mode and "codebook" in self.parts)
        if self.average is not None:
            self.average.eval()
        return self

    @property
    def best(self) -> ImageTokenizer:
        """What the run is for: the average of the weights if there is one, else the last ones."""
        return self.tokenizer if self.average is None else self.average

    def groups(self) -> list[list[nn.Parameter]]:
        """The trained weights of the image tokenizer and, if there is one, the discriminator's."""
        networks = [self.tokenizer, self.discriminator]
        return [
            [p for p in network.parameters() if p.requires_grad]
            for network in networks
            if network is not None
        ]

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights; what is no weight is copied, as the codebook."""
        if self.average is None or self.decay is None:
            return
        latest = self.tokenizer.state_dict()
        trained = {name for name, p in self.tokenizer.named_parameters() if p.requires_grad}
        for name, value in self.average.state_dict().items():
            if name in trained:
                value.lerp_(latest[name], 1 - self.decay)
            else:
                value.copy_(latest[name])


def frozen_copy(tokenizer: ImageTokenizer) -> ImageTokenizer:
    """A copy of an image tokenizer, without gradients."""
    return copy.deepcopy(tokenizer).requires_grad_(False).eval()
