"""Image tokenizers: what all of them offer, and the VQ autoencoder of LlamaGen and Chameleon."""

from functools import singledispatch
from typing import Any, Protocol, runtime_checkable

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
    """What every image tokenizer offers: pictures to grids of codes, and back.

    Fill its parameters and call `refresh` before the first `encode` or `decode`. B is the number of
    pictures, H and W are the sides of a picture in pixels, and h and w those of its grid in codes.
    """

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures as codes.

        Args:
            pictures: [B, 3, H, W] in [0, 1].

        Returns:
            Codes [B, h, w] int64 below `codebook_size`.

        Raises:
            ValueError: The pictures have a shape that the tokenizer cannot encode.
        """
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes into pictures.

        Args:
            codes: [B, h, w].

        Returns:
            Pictures [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: The codes have a shape that the tokenizer cannot decode, one lies outside
                the codebook, or `can_decode` is false.
        """
        ...

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        ...

    @property
    def can_decode(self) -> bool:
        """Whether the checkpoint has a decoder."""
        ...

    def refresh(self) -> None:
        """Recompute what is derived from the weights. Call it after loading."""
        ...


@singledispatch
def make_image_tokenizer(config: Any) -> Any:
    """Make the image tokenizer that a config asks for, with fresh weights.

    The file of an image tokenizer registers its own type of config:
    `@make_image_tokenizer.register`.

    Args:
        config: An `AutoencoderConfig`, or another config that is registered.

    Returns:
        A module that is an `ImageCodec`.

    Raises:
        ValueError: This type of config is not registered.
    """
    raise ValueError(f"no image tokenizer is made from a {type(config).__name__}")


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Check that all codes lie in the codebook.

    Args:
        codes: An integer tensor of any shape.
        codebook_size: The number of codes.

    Raises:
        ValueError: A code lies outside 0, ..., codebook_size - 1.
    """
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise ValueError(f"a code lies outside 0..{codebook_size - 1}")


class ImageTokenizer(nn.Module):
    """A VQ autoencoder for square pictures, an `ImageCodec`.

    It is that of LlamaGen (https://arxiv.org/abs/2406.06525) or, with a Euclidean codebook, that of
    Chameleon (https://arxiv.org/abs/2405.09818): encoder, 1x1 convolution, codebook, 1x1
    convolution, decoder. Without a decoder it only encodes.

    Pictures are [B, 3, S, S] floats in [0, 1], where S is `config.image_size`; codes are
    [B, grid, grid] int64 below `codebook_size`, where grid is `config.grid`.
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

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures as codes.

        Args:
            pictures: [B, 3, S, S] in [0, 1].

        Returns:
            Codes [B, grid, grid] int64.

        Raises:
            ValueError: The pictures are not RGB, or not of the tokenizer's size.
        """
        size = self.config.image_size
        if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, size, size):
            raise ValueError(f"pictures must be [B, 3, {size}, {size}], not {list(pictures.shape)}")
        weight = self.quant_conv.weight
        pixels = to_tensor_range(pictures.to(weight.device, weight.dtype))
        return self.quantizer.encode(self.quant_conv(self.encoder(pixels)))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes into pictures.

        Args:
            codes: [B, grid, grid] or [B, grid * grid].

        Returns:
            Pictures [B, 3, S, S] in [0, 1].

        Raises:
            ValueError: A grid has another size, a code lies outside the codebook, or there is no
                decoder.
        """
        return to_unit_range(self.decode_raw(codes).float())

    def decode_raw(self, codes: Tensor) -> Tensor:
        """Decode codes into pixels in the decoder's range, with gradients.

        Args:
            codes: [B, grid, grid] or [B, grid * grid].

        Returns:
            Pixels [B, 3, S, S] in about [-1, 1], not clipped.

        Raises:
            ValueError: A grid has another size, a code lies outside the codebook, or there is no
                decoder.
        """
        grid = self.config.grid
        if tuple(codes.shape[1:]) not in ((grid, grid), (grid * grid,)):
            raise ValueError(f"codes must be [B, {grid}, {grid}], not {list(codes.shape)}")
        check_codes(codes, self.codebook_size)
        vectors = self.quantizer.lookup(codes.reshape(-1, grid, grid)).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(vectors.to(self.post_quant_conv.weight.dtype)))

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return self.config.codebook_size

    @property
    def can_decode(self) -> bool:
        """Whether the checkpoint has a decoder."""
        return self.config.decoder

    def refresh(self) -> None:
        """Recompute what is derived from the weights. Call it after loading."""
        self.quantizer.refresh()


def make_quantizer(config: AutoencoderConfig) -> CosineQuantizer | EuclideanQuantizer:
    """Make the quantizer that a config names, with a random codebook."""
    kinds = {"cosine": CosineQuantizer, "euclidean": EuclideanQuantizer}
    return kinds[config.quantizer](config.codebook_size, config.code_dim)


@make_image_tokenizer.register
def _(config: AutoencoderConfig) -> ImageTokenizer:
    return ImageTokenizer(config)
