"""What a training run of an image tokenizer is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.llamagen import MULTIPLIERS

Part = Literal["encoder", "codebook", "decoder"]
Adversarial = Literal["none", "hinge", "non-saturating"]
Norm = Literal["batch", "group"]
DOWNSAMPLES = {2 ** (levels - 1): widths for levels, widths in MULTIPLIERS.items()}


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """The sizes of a new image tokenizer, of the kind of LlamaGen's.

    Attributes:
        image_size: The side of a picture in pixels. It counts for a file of LlamaGen's too, which
            does not say it.
        downsample: The side of the square that a code stands for: 16 (VQ-16) or 8 (VQ-8).
        codebook_size: The number of codes.
        code_dim: The width of a codebook row.
        latent_channels: The number of channels beside the codebook.
        base_channels: The number of channels at the full resolution, a multiple of 32.
    """

    image_size: int = 256
    downsample: int = 16
    codebook_size: int = 16384
    code_dim: int = 8
    latent_channels: int = 256
    base_channels: int = 128

    def __post_init__(self) -> None:
        for name in ("image_size", "codebook_size", "code_dim", "latent_channels"):
            check_least(f"sizes.{name}", getattr(self, name), 1)
        if self.downsample not in DOWNSAMPLES:
            raise ValueError(f"sizes.downsample must be 8 or 16, not {self.downsample}")

    def to_config(self) -> AutoencoderConfig:
        """The sizes of the network.

        Raises:
            ValueError: The sizes do not fit together.
        """
        return AutoencoderConfig(
            image_size=self.image_size,
            codebook_size=self.codebook_size,
            code_dim=self.code_dim,
            latent_channels=self.latent_channels,
            base_channels=self.base_channels,
            channel_multiplier=DOWNSAMPLES[self.downsample],
        )


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What is made small. The weights stand beside each other in one sum.

    Attributes:
        l1: The weight of the mean absolute error of a pixel, whose range is 2.
        mse: The weight of the mean squared error.
        perceptual: The network whose features are compared: "lite0", or a folder; None for none.
        perceptual_weight: The weight of their distance.
        adversarial: The loss of the discriminator, "hinge" or "non-saturating"; "none" for no
            discriminator.
        adversarial_weight: Its weight.
        adversarial_start: The update from which on there is a discriminator, counted from 0.
        adaptive: Whether its weight is multiplied by the ratio of the gradients of the other
            losses and its own, at the last layer of the decoder, as in VQGAN.
        commitment: The weight of the commitment loss.
        codebook: The weight of the codebook loss of a Euclidean codebook. A cosine codebook moves
            by running averages instead.
        revive_after: A code that was not used in so many updates moves to a latent of the batch; 0
            for never.
        discriminator_channels: The number of channels of the discriminator's first layer.
        discriminator_layers: How often it halves the sides.
        discriminator_norm: "batch" as in VQGAN; with "group" a verdict does not depend on the other
            pictures of the batch.
    """

    l1: float = 0.0
    mse: float = 1.0
    perceptual: str | None = None
    perceptual_weight: float = 1.0
    adversarial: Adversarial = "none"
    adversarial_weight: float = 0.5
    adversarial_start: int = 1000
    adaptive: bool = False
    commitment: float = 0.25
    codebook: float = 1.0
    revive_after: int = 250
    discriminator_channels: int = 64
    discriminator_layers: int = 3
    discriminator_norm: Norm = "batch"

    def __post_init__(self) -> None:
        for name in ("l1", "mse", "perceptual_weight", "adversarial_weight", "commitment"):
            check_least(f"loss.{name}", getattr(self, name), 0)
        for name in ("codebook", "adversarial_start", "revive_after"):
            check_least(f"loss.{name}", getattr(self, name), 0)
        check_least("loss.discriminator_channels", self.discriminator_channels, 1)
        check_least("loss.discriminator_layers", self.discriminator_layers, 1)
        check_among("loss.adversarial", self.adversarial, ("none", "hinge", "non-saturating"))
        check_among("loss.discriminator_norm", self.discriminator_norm, ("batch", "group"))
        if not self.l1 and not self.mse:
            raise ValueError("loss.l1 and loss.mse are both 0: nothing would be reconstructed")


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerOptions:
    """A run that trains an image tokenizer; a recipe for `unitok train` has the same keys.

    Attributes:
        task: What the recipe is for.
        out: The folder for all that is written.
        pictures: A folder of pictures, with all folders in it, or JSON lines that name pictures.
        model: What is trained further: a Janus's folder, or a file of LlamaGen's VQ-16 or VQ-8.
            None makes a new image tokenizer of the given sizes.
        parts: Which parts are trained. With ("decoder",) every picture keeps its codes.
        held_out: Pictures that are reconstructed in the report, as in `pictures`; by default the
            first ones that are learned.
        report_pictures: How many of them.
        steps: Updates of the run.
        batch: Pictures of an update.
        micro_batch: Pictures that are computed at once; by default all of an update.
        crop: The smallest side of a random crop, as a share of the picture's shorter side.
        flip: Whether half of the pictures are mirrored.
        learning_rate: The highest one, of the image tokenizer and of the discriminator.
        warmup: Updates until it is reached.
        clip: The largest norm of the gradients, of each of the two networks by itself.
        ema: The decay of an average of the weights, which is what is saved; None for none.
        seed: Of new weights, of the order of the pictures, and of their crops.
        device: Where it is trained; "auto" is a GPU if there is one.
        precision: The type in which the networks are computed.
        save_every: Updates between two checkpoints, each with a report.
        log_every: Updates whose mean losses become one record of the log.
        sizes: The sizes of a new image tokenizer.
        loss: What is made small.
    """

    task: Literal["image_tokenizer"] = "image_tokenizer"
    out: str
    pictures: str = ""
    model: str | None = None
    parts: tuple[Part, ...] = ("encoder", "codebook", "decoder")
    held_out: str | None = None
    report_pictures: int = 64
    steps: int = 1000
    batch: int = 8
    micro_batch: int | None = None
    crop: float = 0.8
    flip: bool = False
    learning_rate: float = 1e-4
    warmup: int = 20
    clip: float = 1.0
    ema: float | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    save_every: int = 250
    log_every: int = 25
    sizes: SizeOptions = field(default_factory=SizeOptions)
    loss: LossOptions = field(default_factory=LossOptions)

    def __post_init__(self) -> None:
        for name in ("report_pictures", "steps", "batch", "warmup", "save_every", "log_every"):
            check_least(name, getattr(self, name), 1)
        check_among("precision", self.precision, ("fp32", "bf16"))
        for part in self.parts:
            check_among("parts", part, ("encoder", "codebook", "decoder"))
        if "decoder" not in self.parts:
            raise ValueError("parts must hold decoder: without it no picture gets better")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be above 0 and at most 1, not {self.crop}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must be above 0 and below 1, not {self.ema}")
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ValueError("learning_rate and clip must be above 0")
        if self.micro_batch is not None:
            check_least("micro_batch", self.micro_batch, 1)


def check_least(name: str, value: float, least: float) -> None:
    """Raise ValueError for a number that is too small, or that is none."""
    if not value >= least:
        raise ValueError(f"{name} must be at least {least:g}, not {value}")


def check_among(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError for a word that is not among those that are known."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(known)}, not {value!r}")
