"""Pictures <-> grids of codes: what every codec offers, and the VQ autoencoder among them."""

from functools import singledispatch
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unitok_tokenizers.autoencoder import (
    AutoencoderConfig,
    ConvDecoder,
    NoDecoder,
    make_encoder,
    to_tensor_range,
    to_unit_range,
)
from unitok_tokenizers.quantizer import CosineQuantizer, EuclideanQuantizer


@runtime_checkable
class ImageCodec(Protocol):
    """What every image tokenizer offers. h and w are the picture's sides over the shrinkage.

    Fill its parameters, call `refresh`, then encode and decode; both check what they are given and
    raise ValueError.
    """

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> codes [B, h, w] int64 below `codebook_size`."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] -> pictures [B, 3, H, W] in [0, 1]; needs `can_decode`."""
        ...

    @property
    def codebook_size(self) -> int: ...

    @property
    def can_decode(self) -> bool:
        """Whether the checkpoint has the half that paints."""
        ...

    def refresh(self) -> None:
        """Recompute what is derived from the weights. Call after loading."""
        ...


@singledispatch
def make_image_tokenizer(config: Any) -> Any:
    """A codec of the kind its config asks for, with fresh weights: an `ImageCodec` and a module.

    A codec's file registers its own config: `@make_image_tokenizer.register`.

    Raises:
        ValueError: no codec has this type of config.
    """
    raise ValueError(f"no image tokenizer is made from a {type(config).__name__}")


class Reconstruction(NamedTuple):
    """What a training step sees: pixels in [-1, 1] (not clipped), codes, commitment loss."""

    pixels: Tensor
    codes: Tensor
    commitment: Tensor


class ImageTokenizer(nn.Module):
    """A VQ autoencoder: encoder, 1x1 convolution, codebook, 1x1 convolution, decoder.

    Pictures are [B, 3, S, S] floats in [0, 1]; codes are [B, grid, grid] int64 below
    `codebook_size`. LlamaGen, https://arxiv.org/abs/2406.06525; with a Euclidean codebook,
    Chameleon, https://arxiv.org/abs/2405.09818. Without a decoder it only encodes.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.code_dim, 1)
        self.quantizer = make_quantizer(config)
        # Checkpoints without a decoder have this convolution all the same.
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent_channels, 1)
        self.decoder = ConvDecoder(config) if config.decoder else NoDecoder()

    def forward(self, pictures: Tensor) -> Reconstruction:
        """One training pass over pictures [B, 3, S, S] in [0, 1]."""
        latents = self.quant_conv(self.encoder(to_tensor_range(pictures)))
        quantized, codes, loss = self.quantizer(latents)
        pixels = self.decoder(self.post_quant_conv(quantized))
        return Reconstruction(pixels, codes, loss)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, S, S] in [0, 1] -> codes [B, grid, grid].

        Raises:
            ValueError: the pictures are not of the tokenizer's size.
        """
        size = self.config.image_size
        if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, size, size):
            raise ValueError(f"pictures must be [B, 3, {size}, {size}], not {list(pictures.shape)}")
        weight = self.quant_conv.weight
        pixels = to_tensor_range(pictures.to(weight.device, weight.dtype))
        return self.quantizer.encode(self.quant_conv(self.encoder(pixels)))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, grid, grid] or [B, grid * grid] -> pictures [B, 3, S, S] in [0, 1].

        Raises:
            ValueError: a grid of another size, a code outside the codebook, or no decoder.
        """
        return to_unit_range(self.decode_raw(codes).float())

    def decode_raw(self, codes: Tensor) -> Tensor:
        """As `decode`, but pixels in about [-1, 1], not clipped, with gradients."""
        grid = self.config.grid
        if tuple(codes.shape[1:]) not in ((grid, grid), (grid * grid,)):
            raise ValueError(f"codes must be [B, {grid}, {grid}], not {list(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(f"a code lies outside 0..{self.codebook_size - 1}")
        vectors = self.quantizer.lookup(codes.reshape(-1, grid, grid)).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(vectors.to(self.post_quant_conv.weight.dtype)))

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    @property
    def can_decode(self) -> bool:
        return self.config.decoder

    def refresh(self) -> None:
        """Recompute what is derived from the weights. Call after loading."""
        self.quantizer.refresh()


def make_quantizer(config: AutoencoderConfig) -> CosineQuantizer | EuclideanQuantizer:
    kinds = {"cosine": CosineQuantizer, "euclidean": EuclideanQuantizer}
    return kinds[config.quantizer](config.codebook_size, config.code_dim)


@make_image_tokenizer.register
def _(config: AutoencoderConfig) -> ImageTokenizer:
    return ImageTokenizer(config)
