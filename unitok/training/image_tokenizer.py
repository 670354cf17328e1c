"""Training an image tokenizer on scenes of the emoji world.

Codes here do not know what lies behind a sprite: the encoder sees each sprite on a card of a random
colour, the decoder must paint the true background, which it learns from the tiles around. So an
object keeps its codes on every background, and a pair of object and colour that was never seen
together is still made of codes that were.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.emoji.scenes import BACKGROUNDS, SLOTS, Scene, SceneSampler, Style, render
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok_tokenizers.autoencoder import AutoencoderConfig, to_tensor_range
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.losses import psnr, reconstruction


@dataclass(frozen=True)
class TokenizerRun:
    """Options of one run."""

    steps: int = 3000
    batch: int = 32
    lr: float = 2e-3
    warmup: int = 30
    commitment: float = 0.25
    free: float = 0.25  # share of the steps before there are codes
    noise: float = 0.08  # on the latents meanwhile, of length 1
    style: Style = "blended"
    seed: int = 0
    device: str = "cpu"


PALETTE = torch.tensor(list(BACKGROUNDS.values())) / 255


def random_backing(count: int, generator: torch.Generator) -> Tensor:
    """Colours [count, 4, 3] under the sprites: white half of the time, else any of the palette."""
    white = torch.rand(count, 1, generator=generator) < 0.5
    choice = torch.randint(len(PALETTE), (count, SLOTS), generator=generator)
    return PALETTE[choice.masked_fill(white, 0)]


class TokenizerTrainer:
    """Owns model, optimiser and random state; `state_dict` resumes exactly."""

    def __init__(self, config: AutoencoderConfig, run: TokenizerRun) -> None:
        torch.manual_seed(run.seed)
        self.config, self.run = config, run
        self.model = ImageTokenizer(config).to(run.device)
        matrices = matrices_in(self.model.encoder, self.model.decoder)
        self.optimiser = MixedOptimiser(matrices, others(self.model, matrices))
        self.scenes = SceneSampler(run.seed, "train")
        self.generator = torch.Generator().manual_seed(run.seed)
        self.step_count = 0

    def learning_rate(self) -> float:
        run, step = self.run, self.step_count
        warm = min(1.0, (step + 1) / run.warmup)
        done = min(1.0, step / run.steps)
        return (
            run.lr
            * warm
            * (0.02 + 0.98 * 0.5 * (1 + float(torch.cos(torch.tensor(done * 3.14159)))))
        )

    def step(self) -> tuple[float, float]:
        """One update; returns reconstruction and commitment loss."""
        run = self.run
        scenes = self.sample()
        target = render(scenes, run.device, style=run.style)
        seen = self.disguised(scenes, target)
        self.model.train()
        with torch.autocast(torch.device(run.device).type, torch.bfloat16):
            latents = self.model.quant_conv(self.model.encoder(to_tensor_range(seen)))
            quantized, commitment = self.quantize(latents)
            pixels = self.model.decoder(self.model.post_quant_conv(quantized))
        loss = reconstruction(pixels.float(), to_tensor_range(target))
        (loss + run.commitment * commitment).backward()
        self.optimiser.step(self.learning_rate())
        self.step_count += 1
        return float(loss.detach()), float(commitment.detach())

    def sample(self) -> list[Scene]:
        """Scenes of all kinds, and as many of one object: large sprites have the most tiles."""
        half = self.run.batch // 2
        return self.scenes.batch(self.run.batch - half) + self.scenes.batch(half, "colour")

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, or, in the first part of a run, noisy latents on the sphere the codes will lie on.

        A codebook that starts at random collapses to a few codes for long; one that is fitted to
        an autoencoder that already works does not.
        """
        free = int(self.run.free * self.run.steps)
        if self.step_count >= free:
            if self.step_count in (free, 2 * free):  # once more, for codes that fell out of use
                fresh = self.step_count == free
                self.model.quantizer.fit(self.many_latents(), fresh=fresh)
            quantized, _, commitment = self.model.quantizer(latents)
            return quantized, commitment
        points = F.normalize(latents.float(), dim=1)
        noise = torch.randn(points.shape, generator=self.generator).to(points.device)
        return points + self.run.noise * noise, torch.zeros((), device=points.device)

    @torch.no_grad()
    def many_latents(self, batches: int = 64) -> Tensor:
        """Latents of many scenes, as the encoder sees them."""
        parts = []
        for _ in range(batches):
            scenes = self.sample()
            seen = self.disguised(scenes, render(scenes, self.run.device, style=self.run.style))
            parts.append(self.model.quant_conv(self.model.encoder(to_tensor_range(seen))).float())
        return torch.cat(parts)

    def disguised(self, scenes: list[Scene], target: Tensor) -> Tensor:
        """What the encoder sees: the scenes with something else behind their sprites."""
        if self.run.style == "blended":
            backing = random_backing(len(scenes), self.generator)
            return render(scenes, self.run.device, backing=backing)
        square = render(scenes, self.run.device, style="square")
        keep = torch.rand(len(scenes), 1, 1, 1, generator=self.generator) < 0.5
        return torch.where(keep.to(target.device), target, square)

    def state_dict(self) -> dict:
        return {
            "config": asdict(self.config),
            "run": asdict(self.run),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scenes": self.scenes.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "step": self.step_count,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scenes.load_state_dict(state["scenes"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self.step_count = state["step"]


@dataclass(frozen=True)
class TokenizerReport:
    """On held-out scenes: PSNR in dB of true pictures; share of codes that keep their value when
    white cards replace the background behind the sprites; codes in use."""

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
    quality = psnr(model.decode(codes), pictures)
    return TokenizerReport(
        psnr=float(quality.mean()),
        worst=float(quality.min()),
        stable=float((codes == canonical).float().mean()),
        used=len(torch.unique(codes)),
    )


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[ImageTokenizer, TokenizerRun]:
    """A trained tokenizer and its options from a training checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
    """
    state = torch.load(path, map_location=device, weights_only=True)
    config = AutoencoderConfig(
        **{**state["config"], "channel_multiplier": tuple(state["config"]["channel_multiplier"])}
    )
    model = ImageTokenizer(config)
    model.load_state_dict(state["model"])
    return model.to(device).eval(), replace(TokenizerRun(), **state["run"])
