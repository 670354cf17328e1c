"""The VQ autoencoders against references: what the papers and their code say, spelt out plainly in
torch's functions, and transformers' Chameleon.

The plain reference draws each tensor when it first asks for it, by the name and shape it has in a
published checkpoint; so a strict load proves that no other is needed, and none left over.
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.llamagen import load_llamagen
from unitok_tokenizers.taming import taming_name


@dataclass(frozen=True)
class Scheme:
    """How a family names the parts of its net; {i} counts from the highest resolution, {j} from the
    first to be run."""

    down: str
    up: str
    res: str
    middle: tuple[str, str, str]


LLAMAGEN = Scheme("conv_blocks.{i}", "conv_blocks.{j}", "res", ("mid.0", "mid.1", "mid.2"))
TAMING = Scheme("down.{i}", "up.{i}", "block", ("mid.block_1", "mid.attn_1", "mid.block_2"))


class Reference:
    """A VQ autoencoder as a list of functions over tensors by their published names."""

    def __init__(
        self,
        scheme: Scheme,
        multiplier: Sequence[int],
        dim: int,
        cosine: bool,
        width: int = 32,
        latent: int = 24,
        seed: int = 0,
    ) -> None:
        self.scheme, self.cosine, self.latent, self.dim = scheme, cosine, latent, dim
        self.widths = [width * m for m in multiplier]
        self.first, self.last = width, len(multiplier) - 1
        self.tensors: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, name: str, *shape: int) -> Tensor:
        if name not in self.tensors:
            noise = torch.randn(shape, generator=self.generator)
            scale = 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
            if name.startswith("decoder.conv_out."):
                scale *= 0.4  # pixels in about [-1, 1], as a trained net's are
            is_scale_of_norm = "norm" in name and name.endswith("weight")
            self.tensors[name] = noise * scale + is_scale_of_norm
        assert self.tensors[name].shape == shape, name
        return self.tensors[name]

    def conv(self, name: str, x: Tensor, channels: int, side: int, **options) -> Tensor:
        weight = self.tensor(f"{name}.weight", channels, x.shape[1], side, side)
        return F.conv2d(x, weight, self.tensor(f"{name}.bias", channels), **options)

    def norm(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight, bias = (self.tensor(f"{name}.{leaf}", channels) for leaf in ("weight", "bias"))
        return F.group_norm(x, 32, weight, bias, eps=1e-6)

    def norm_swish(self, name: str, x: Tensor) -> Tensor:
        x = self.norm(name, x)
        return x * torch.sigmoid(x)

    def res(self, name: str, x: Tensor, channels: int) -> Tensor:
        h = self.conv(f"{name}.conv1", self.norm_swish(f"{name}.norm1", x), channels, 3, padding=1)
        h = self.conv(f"{name}.conv2", self.norm_swish(f"{name}.norm2", h), channels, 3, padding=1)
        if x.shape[1] != channels:
            x = self.conv(f"{name}.nin_shortcut", x, channels, 1)
        return x + h

    def attention(self, name: str, x: Tensor) -> Tensor:
        channels, h = x.shape[1], self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h, channels, 1).flatten(2) for part in "qkv")
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(channels), dim=2)
        out = torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape)
        return x + self.conv(f"{name}.proj_out", out, channels, 1)

    def level(self, name: str, x: Tensor, i: int, count: int) -> Tensor:
        for k in range(count):
            x = self.res(f"{name}.{self.scheme.res}.{k}", x, self.widths[i])
            if i == self.last and self.scheme is LLAMAGEN:
                x = self.attention(f"{name}.attn.{k}", x)
        return x

    def middle(self, half: str, x: Tensor) -> Tensor:
        first, attention, second = self.scheme.middle
        x = self.res(f"{half}.{first}", x, x.shape[1])
        x = self.attention(f"{half}.{attention}", x)
        return self.res(f"{half}.{second}", x, x.shape[1])

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] -> what the codebook is compared with [B, d, h, w]."""
        x = self.conv("encoder.conv_in", pixels, self.first, 3, padding=1)
        for i in range(self.last + 1):
            name = "encoder." + self.scheme.down.format(i=i)
            x = self.level(name, x, i, count=2)
            if i < self.last:
                padded = F.pad(x, (0, 1, 0, 1))
                x = self.conv(f"{name}.downsample.conv", padded, x.shape[1], 3, stride=2)
        x = self.norm_swish("encoder.norm_out", self.middle("encoder", x))
        x = self.conv("encoder.conv_out", x, self.latent, 3, padding=1)
        return self.conv("quant_conv", x, self.dim, 1)

    def exact(self) -> "Reference":
        """The same in double precision."""
        exact = copy(self)
        exact.tensors = {name: tensor.double() for name, tensor in self.tensors.items()}
        return exact

    @property
    def codebook(self) -> Tensor:
        raw = self.tensors["quantize.embedding.weight"]
        return raw / raw.norm(dim=1, keepdim=True) if self.cosine else raw

    def encode(self, pixels: Tensor) -> Tensor:
        z = self.latents(pixels)
        if self.cosine:
            z = z / z.norm(dim=1, keepdim=True)
        distances = z.square().sum(1)[:, None] + self.codebook.square().sum(1)[:, None, None]
        return (distances - 2 * torch.einsum("bdhw,nd->bnhw", z, self.codebook)).argmin(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] -> pixels [B, 3, H, W], about [-1, 1]."""
        x = self.conv("post_quant_conv", self.codebook[codes].movedim(-1, 1), self.latent, 1)
        x = self.conv("decoder.conv_in", x, self.widths[-1], 3, padding=1)
        x = self.middle("decoder", x)
        for j, i in enumerate(reversed(range(self.last + 1))):
            name = "decoder." + self.scheme.up.format(i=i, j=j)
            x = self.level(name, x, i, count=3)
            if i > 0:
                twice = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(f"{name}.upsample.conv", twice, x.shape[1], 3, padding=1)
        return self.conv(
            "decoder.conv_out", self.norm_swish("decoder.norm_out", x), 3, 3, padding=1
        )


def pixels(count: int, size: int) -> Tensor:
    """Noise of several scales, so that the codes differ, in [-1, 1]."""
    generator = torch.Generator().manual_seed(size)
    parts = [
        torch.rand(count, 3, -(-size // s), -(-size // s), generator=generator) for s in (1, 8)
    ]
    fine, coarse = (F.interpolate(p, size=(size, size)) for p in parts)
    return (fine + 2 * coarse) / 1.5 - 1


def scattered(latents: Tensor, size: int = 700) -> Tensor:
    """A codebook [size, d] as wide as latents [B, d, h, w], its rows of any length.

    An untrained net puts all latents close together: any other codebook would give one code alone.
    """
    points = latents.movedim(1, -1).flatten(0, -2)
    noise = torch.randn(size, points.shape[1], generator=torch.Generator().manual_seed(1))
    return (points.mean(0) + points.std(0) * noise) * torch.linspace(0.7, 1.4, size)[:, None]


def prepared(scheme: Scheme, multiplier: Sequence[int], x: Tensor) -> Reference:
    """A reference with all its tensors drawn; LlamaGen's compares by cosine."""
    if scheme is LLAMAGEN:
        made = Reference(scheme, multiplier, dim=8, cosine=True)
    else:
        made = Reference(scheme, multiplier, dim=20, cosine=False)
    made.tensors["quantize.embedding.weight"] = scattered(made.latents(x))
    made.decode(made.encode(x))
    return made


def named(tensors: dict[str, Tensor], config: AutoencoderConfig) -> ImageTokenizer:
    """A tokenizer with the tensors of a checkpoint in taming's names, all of them."""
    made = ImageTokenizer(config).eval()
    names = {taming_name(key, len(config.channel_multiplier)): key for key in made.state_dict()}
    made.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    made.refresh()
    return made


def assert_agree(made: ImageTokenizer, reference: Reference, x: Tensor) -> None:
    codes = reference.encode(x)
    assert torch.equal(made.encode((x + 1) / 2), codes)
    assert len(codes.unique()) > codes.numel() // 4, "the codes must tell pictures apart"
    decoded, expected = made.decode_raw(codes), reference.exact().decode(codes).float()
    assert 0.1 < expected.std() < 1
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=0)
    unit = ((expected + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(made.decode(codes), unit, atol=1e-5, rtol=0)


# --- LlamaGen ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("multiplier", "size"),
    [((1, 1, 2, 2, 4), 64), ((1, 1, 2, 2, 4), 80), ((1, 2, 2, 4), 32), ((1, 2, 2, 4), 56)],
)
@torch.no_grad()
def test_llamagen_files_encode_and_decode_as_the_paper_says(
    tmp_path: Path, multiplier: tuple[int, ...], size: int
):
    x = pixels(2, size)
    reference = prepared(LLAMAGEN, multiplier, x)
    usage = {"quantize.codebook_used": torch.zeros(65536)}
    torch.save({"model": reference.tensors | usage}, tmp_path / "vq.pt")
    assert_agree(load_llamagen(tmp_path / "vq.pt", image_size=size), reference, x)
    raw = copy(reference)
    raw.cosine = False
    assert not torch.equal(raw.encode(x), reference.encode(x)), "lengths must matter here"


# --- Chameleon -----------------------------------------------------------------------------------


def chameleon(multiplier: tuple[int, ...], size: int, **changes) -> AutoencoderConfig:
    return AutoencoderConfig(
        image_size=size,
        codebook_size=700,
        code_dim=20,
        latent_channels=24,
        base_channels=32,
        channel_multiplier=multiplier,
        quantizer="euclidean",
        attention=False,
        **changes,
    )


SHAPES = pytest.mark.parametrize(
    ("multiplier", "size"), [((1, 1, 2, 2, 4), 80), ((1, 2, 3), 28), ((2, 1), 18)]
)


@SHAPES
@torch.no_grad()
def test_chameleons_vqgan_encodes_and_decodes_as_the_paper_says(
    multiplier: tuple[int, ...], size: int
):
    x = pixels(2, size)
    reference = prepared(TAMING, multiplier, x)
    assert_agree(named(reference.tensors, chameleon(multiplier, size)), reference, x)


@SHAPES
@torch.no_grad()
def test_chameleons_vqgan_encodes_as_transformers_does(multiplier: tuple[int, ...], size: int):
    config = chameleon(multiplier, size, decoder=False)
    torch.manual_seed(0)
    theirs: Any = ChameleonVQVAE(
        ChameleonVQVAEConfig(
            embed_dim=config.code_dim,
            num_embeddings=config.codebook_size,
            latent_channels=config.latent_channels,
            resolution=size,
            base_channels=config.base_channels,
            channel_multiplier=list(multiplier),
            num_res_blocks=config.res_blocks,
        )
    ).eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):  # they start at zero, which would hide a mix-up
            parameter.normal_(std=0.1)
    x = pixels(3, size)
    theirs.quantize.embedding.weight.copy_(scattered(theirs.quant_conv(theirs.encoder(x))))
    codes = theirs.encode(x).image_tokens.reshape(3, config.grid, config.grid)
    made = named(theirs.state_dict(), config)
    assert torch.equal(made.encode((x + 1) / 2), codes)
    assert len(codes.unique()) > codes.numel() // 4, "the codes must tell pictures apart"
