"""The recipe of the default model's image tokenizer, trained on scenes of the emoji world.

Codes here do not depend on what lies behind a sprite: the encoder sees each sprite on a card of a
random colour, and the decoder must show the true background, which it learns from the tiles around.
So an object keeps its codes on every background, and a pair of object and colour that was never
seen together still consists of codes that were.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.emoji.rendering import Style, render
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import BACKGROUNDS, SLOTS, Scene
from unitok.nn.config import DEFAULT
from unitok.training.checkpoints import load_checkpoint
from unitok.training.image_tokenizer.report import reconstruction_report
from unitok.training.loop import LoopOptions, TrainingLoop
from unitok.training.losses import Loss
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok.training.schedule import WarmupCosine
from unitok.training.trainer import Trainer
from unitok_tokenizers.autoencoder import AutoencoderConfig, to_tensor_range
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.losses import reconstruction


@dataclass(frozen=True)
class TokenizerRun:
    """Options of one run.

    Attributes:
        steps: Updates of the run, which the learning rate follows.
        batch: Pictures of an update.
        lr: The highest learning rate.
        warmup: Updates until it is reached.
        commitment: The weight of the commitment loss.
        free: The share of the steps before there are codes.
        noise: The standard deviation of the noise on the latents meanwhile, which have length 1.
        style: What lies under each sprite of the pictures to reconstruct.
        seed: Of the weights and of the data.
        device: Where the tokenizer is trained.
    """

    steps: int = 3000
    batch: int = 32
    lr: float = 2e-3
    warmup: int = 30
    commitment: float = 0.25
    free: float = 0.25
    noise: float = 0.08
    style: Style = "blended"
    seed: int = 0
    device: str = "cpu"


PALETTE = torch.tensor(list(BACKGROUNDS.values())) / 255


def random_backing(count: int, generator: torch.Generator) -> Tensor:
    """Colours [count, 4, 3] under the sprites: white half of the time, else any of the palette."""
    white = torch.rand(count, 1, generator=generator) < 0.5
    choice = torch.randint(len(PALETTE), (count, SLOTS), generator=generator)
    return PALETTE[choice.masked_fill(white, 0)]


@dataclass(frozen=True)
class TokenizerBatch:
    """Pictures [B, 3, S, S] in [0, 1]: what the encoder sees, and what the decoder must show."""

    seen: Tensor
    target: Tensor


class TokenizerUpdates:
    """Scenes to reconstruct, one batch an update; the state resumes exactly."""

    def __init__(self, run: TokenizerRun) -> None:
        self.run = run
        self.scenes = SceneSampler(run.seed, "train")
        self.generator = torch.Generator().manual_seed(run.seed)

    def __next__(self) -> list[TokenizerBatch]:
        """The batch of the next update."""
        return [self.batch()]

    def batch(self) -> TokenizerBatch:
        """Scenes of all kinds, and as many of one object: large sprites have the most tiles."""
        half = self.run.batch // 2
        scenes = self.scenes.batch(self.run.batch - half) + self.scenes.batch(half, "colour")
        target = render(scenes, self.run.device, style=self.run.style)
        return TokenizerBatch(self.disguised(scenes, target), target)

    def disguised(self, scenes: list[Scene], target: Tensor) -> Tensor:
        """The scenes with something else behind their sprites."""
        if self.run.style == "blended":
            backing = random_backing(len(scenes), self.generator)
            return render(scenes, self.run.device, backing=backing)
        square = render(scenes, self.run.device, style="square")
        keep = torch.rand(len(scenes), 1, 1, 1, generator=self.generator) < 0.5
        return torch.where(keep.to(target.device), target, square)

    def state_dict(self) -> dict[str, Any]:
        """Where both random streams stand."""
        return {"scenes": self.scenes.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.scenes.load_state_dict(state["scenes"])
        self.generator.set_state(state["generator"].cpu())


class TokenizerLoss:
    """Reconstruction and commitment; the codebook is fitted when the free part of a run ends.

    A codebook that starts at random collapses to a few codes for long; one that is fitted to an
    autoencoder that already works does not. So a run begins with noisy latents on the sphere that
    the codes will lie on.
    """

    def __init__(self, model: ImageTokenizer, updates: TokenizerUpdates, run: TokenizerRun) -> None:
        """updates: Also what the codebook is fitted to, and the random stream of the noise."""
        self.model, self.updates, self.run = model, updates, run

    def __call__(self, batch: TokenizerBatch, step: int) -> Loss:
        """The loss of a batch in an update, counted from 0; it may fit the codebook before."""
        model = self.model.train()
        latents = self.latents(batch)
        quantized, commitment = self.quantize(latents, step)
        pixels = model.decoder(model.post_quant_conv(quantized))
        loss = reconstruction(pixels.float(), to_tensor_range(batch.target))
        parts = {"reconstruction": loss, "commitment": commitment}
        tokens = latents.shape[0] * latents[0, 0].numel()
        return Loss(loss + self.run.commitment * commitment, parts, tokens)

    def latents(self, batch: TokenizerBatch) -> Tensor:
        """What the encoder makes of a batch, [B, d, h, w]."""
        return self.model.quant_conv(self.model.encoder(to_tensor_range(batch.seen)))

    def quantize(self, latents: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Codes and the commitment loss, or, in the free part of a run, noisy latents and zero."""
        free = int(self.run.free * self.run.steps)
        if step < free:
            return self.noisy(latents), torch.zeros((), device=latents.device)
        if step in (free, 2 * free):  # once more, for codes that fell out of use
            self.model.quantizer.fit(self.many_latents(), fresh=step == free)
        quantized, _, commitment = self.model.quantizer(latents)
        return quantized, commitment

    def noisy(self, latents: Tensor) -> Tensor:
        """Latents of length 1, with noise."""
        points = F.normalize(latents.float(), dim=1)
        noise = torch.randn(points.shape, generator=self.updates.generator).to(points.device)
        return points + self.run.noise * noise

    @torch.no_grad()
    def many_latents(self, batches: int = 64) -> Tensor:
        """The latents of many scenes, which are new ones of the same stream."""
        return torch.cat([self.latents(self.updates.batch()).float() for _ in range(batches)])


def make_trainer(config: AutoencoderConfig, run: TokenizerRun) -> Trainer[TokenizerBatch]:
    """A trainer of a new image tokenizer."""
    torch.manual_seed(run.seed)
    model = ImageTokenizer(config).to(run.device)
    matrices = matrices_in(model.encoder, model.decoder)
    updates = TokenizerUpdates(run)
    return Trainer(
        model,
        TokenizerLoss(model, updates, run),
        MixedOptimiser(matrices, others(model, matrices)),
        WarmupCosine(run.lr, run.warmup, run.steps),
        updates,
        settings={"config": asdict(config), "run": asdict(run)},
    )


@dataclass(frozen=True)
class TokenizerReport:
    """What is left of held-out scenes.

    Attributes:
        psnr: Mean peak signal-to-noise ratio, in dB.
        worst: The lowest of all pictures, in dB.
        stable: The share of codes that stay when white cards replace the background.
        used: How many codes of the codebook occur.
    """

    psnr: float
    worst: float
    stable: float
    used: int


@torch.no_grad()
def evaluate(model: ImageTokenizer, style: Style, count: int = 256) -> TokenizerReport:
    """Encode and decode held-out scenes of all kinds."""
    model.eval()
    scenes: list[Scene] = SceneSampler(1234, "heldout").batch(count)
    pictures = render(scenes, style=style)
    codes, canonical = model.encode(pictures), model.encode(render(scenes, style="square"))
    report = reconstruction_report(model, pictures, at_once=count)
    return TokenizerReport(
        psnr=report.psnr,
        worst=report.worst,
        stable=float((codes == canonical).float().mean()),
        used=report.used,
    )


def save_samples(model: ImageTokenizer, style: Style, path: Path) -> None:
    """Save a picture of held-out scenes, and below them what is left of them."""
    pictures = render(SceneSampler(5, "heldout").batch(12), style=style)
    image = reconstruction_report(model, pictures, shown=len(pictures)).sheet
    image.resize((image.width * 2, image.height * 2), 0).save(path)


def train(run: TokenizerRun, encoder: str, options: LoopOptions) -> None:
    """Train the default model's image tokenizer, or go on with it.

    Besides what the loop writes, the folder gets samples.png.

    Args:
        run: What is trained, and how.
        encoder: "patch", or "conv" for VQ-16's own encoder.
        options: The folder, and how often it is written to.

    Raises:
        ValueError: The checkpoint is broken.
    """
    trainer = make_trainer(replace(DEFAULT.image_tokenizer, encoder=encoder), run)
    model = cast(ImageTokenizer, trainer.model)

    def score() -> dict[str, float]:
        report = evaluate(model, run.style)
        save_samples(model, run.style, options.folder / "samples.png")
        return asdict(report)

    TrainingLoop(trainer, options, score).run()


def load_tokenizer(path: Path, device: str = "cpu") -> tuple[ImageTokenizer, TokenizerRun]:
    """A trained tokenizer and its options, from the checkpoint of a run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint of an image tokenizer.
    """
    state = load_checkpoint(path, device)
    settings = state.get("settings", {})
    if not settings.keys() >= {"config", "run"}:
        raise ValueError(f"{path} is no checkpoint of an image tokenizer")
    config = settings["config"]
    multiplier = tuple(config["channel_multiplier"])
    model = ImageTokenizer(AutoencoderConfig(**{**config, "channel_multiplier": multiplier}))
    model.load_state_dict(state["model"])
    return model.to(device).eval(), replace(TokenizerRun(), **settings["run"])
