"""Text to image by a UNet of diffusers over the states of MiniLM, trained as DDPM.

DDPM: https://arxiv.org/abs/2006.11239, with v prediction (https://arxiv.org/abs/2202.00512) and a
last step of pure noise (https://arxiv.org/abs/2305.08891), without which plain backgrounds fail.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.baselines.extra import need
from unitok.emoji import captions
from unitok.emoji.baselines.budget import Budget, TimedCosine
from unitok.emoji.baselines.minilm import MiniLm
from unitok.emoji.baselines.states import (
    plain_generator,
    plain_state,
    set_plain_generator,
    set_plain_state,
)
from unitok.emoji.rendering import render
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import CANVAS
from unitok.training.losses import Loss
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok.training.trainer import Trainer

NOISE_STEPS = 1000


@dataclass(frozen=True)
class DiffusionRun:
    """Options of one run.

    Attributes:
        batch: Pictures of an update.
        lr: The highest learning rate.
        warmup: Updates until it is reached.
        weight_decay: Of all weights.
        drop: The share of prompts that become empty, so that guidance has two sides.
        square: Pixels of a side of the square that the UNet sees as one.
        widths: Channels of each resolution; those but the first look at the text.
        layers: Blocks of each resolution.
        head: Numbers of an attention head.
        seed: Of the weights and of the data.
    """

    batch: int = 32
    lr: float = 1.5e-3
    warmup: int = 50
    weight_decay: float = 0.02
    drop: float = 0.1
    square: int = 4
    widths: tuple[int, ...] = (96, 192)
    layers: int = 1
    head: int = 32
    seed: int = 0


@dataclass(frozen=True)
class NoisyBatch:
    """Pictures to learn.

    Attributes:
        pixels: [B, 3, 64, 64] in [-1, 1].
        prompts: B of them.
        noise: [B, 3, 64, 64].
        times: How much of it there is [B], from 0 to 999.
    """

    pixels: Tensor
    prompts: list[str]
    noise: Tensor
    times: Tensor


class DiffusionUpdates:
    """Batches of the training split, endlessly; the state resumes exactly."""

    def __init__(self, run: DiffusionRun) -> None:
        self.run = run
        self.scenes = SceneSampler(run.seed, "train")
        self.random = random.Random(f"diffusion {run.seed}")
        self.generator = torch.Generator().manual_seed(run.seed)

    def __next__(self) -> list[NoisyBatch]:
        """The batch of the next update."""
        scenes = self.scenes.batch(self.run.batch)
        prompts = [self.prompt(scene) for scene in scenes]
        pixels = render(scenes) * 2 - 1
        noise = torch.randn(pixels.shape, generator=self.generator)
        return [NoisyBatch(pixels, prompts, noise, self.times(len(scenes)))]

    def prompt(self, scene: Any) -> str:
        """A prompt, or now and then none."""
        prompt = captions.prompt(scene, self.random)
        return "" if self.random.random() < self.run.drop else prompt

    def times(self, count: int) -> Tensor:
        """Times that lie evenly, so that the losses of batches can be compared."""
        start = torch.rand((), generator=self.generator)
        return ((torch.arange(count) + start) / count * NOISE_STEPS).long()

    def state_dict(self) -> dict[str, Any]:
        """Where all random streams stand, in plain values."""
        return {
            "scenes": self.scenes.state_dict(),
            "random": plain_state(self.random),
            "generator": plain_generator(self.generator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.scenes.load_state_dict(state["scenes"])
        set_plain_state(self.random, state["random"])
        set_plain_generator(self.generator, state["generator"])


class DiffusionLoss:
    """The squared error of v."""

    def __init__(self, unet: Any, text: MiniLm, square: int) -> None:
        self.unet, self.text, self.square = unet, text, square
        self.scheduler = make_scheduler("DDPMScheduler")

    def __call__(self, batch: NoisyBatch, step: int) -> Loss:
        """The loss of a batch; the number of updates so far makes no difference."""
        states, mask = self.text.states(batch.prompts)
        noisy = self.scheduler.add_noise(batch.pixels, batch.noise, batch.times)
        wanted = self.scheduler.get_velocity(batch.pixels, batch.noise, batch.times)
        seen = F.pixel_unshuffle(noisy, self.square)
        out = self.unet(seen, batch.times, states, encoder_attention_mask=mask).sample
        loss = F.mse_loss(out.float(), F.pixel_unshuffle(wanted, self.square))
        return Loss(loss, {"velocity": loss}, len(batch.prompts))


def save(trainer: Trainer[Any], folder: Path) -> None:
    """Write the pipeline of a trained UNet, as diffusers stores pipelines."""
    from unitok.baselines.pixel_pipeline import PixelPipeline

    loss = trainer.loss
    if not isinstance(loss, DiffusionLoss):
        raise TypeError("this trainer trains no UNet")
    scheduler = make_scheduler("DDIMScheduler")
    pipeline = PixelPipeline(loss.unet, scheduler, loss.text.model, loss.text.tokenizer)
    pipeline.save_pretrained(folder, safe_serialization=True)


class Drawer:
    """Draws prompts by a saved pipeline."""

    def __init__(self, folder: Path, batch: int = 50, **sampling: Any) -> None:
        """Open the pipeline.

        Args:
            folder: What `save` wrote.
            batch: The most pictures at once.
            **sampling: Of the pipeline's call, such as num_inference_steps.
        """
        from unitok.baselines.pixel_pipeline import PixelPipeline

        self.pipeline = PixelPipeline.from_pretrained(folder, local_files_only=True)
        self.pipeline.set_progress_bar_config(disable=True)
        self.batch, self.sampling = batch, sampling

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """A picture of each prompt, by its seed."""
        drawn: list[Image.Image] = []
        for start in range(0, len(prompts), self.batch):
            part = slice(start, start + self.batch)
            drawn += self._some(prompts[part], seeds[part])
        return drawn

    def _some(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.autocast("cpu", torch.bfloat16):
            made = self.pipeline(prompts, generator=noise, **self.sampling)
        return list(made.images)  # pyright: ignore[reportArgumentType]


def make_scheduler(name: str) -> Any:
    """A scheduler of diffusers by the name of its class, with the settings of these runs."""
    return getattr(need("diffusers"), name)(
        num_train_timesteps=NOISE_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def make_unet(run: DiffusionRun, text_width: int) -> Any:
    """A UNet2DConditionModel whose first resolution has no attention."""
    deeper = len(run.widths) - 1
    unet = need("diffusers").UNet2DConditionModel(
        sample_size=CANVAS // run.square,
        in_channels=3 * run.square**2,
        out_channels=3 * run.square**2,
        block_out_channels=run.widths,
        layers_per_block=run.layers,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * deeper,
        up_block_types=("CrossAttnUpBlock2D",) * deeper + ("UpBlock2D",),
        cross_attention_dim=text_width,
        attention_head_dim=tuple(width // run.head for width in run.widths),
    )
    # The fused attention of a CPU is slow backward.
    unet.set_attn_processor(need("diffusers.models.attention_processor").AttnProcessor())
    return unet


def make_trainer(run: DiffusionRun, budget: Budget) -> Trainer[NoisyBatch]:
    """A trainer of a new UNet."""
    torch.manual_seed(run.seed)
    text = MiniLm()
    unet: nn.Module = make_unet(run, text.width)
    inside = ("down_blocks", "mid_block", "up_blocks")
    matrices = matrices_in(*(getattr(unet, name) for name in inside))
    return Trainer(
        unet,
        DiffusionLoss(unet, text, run.square),
        MixedOptimiser(matrices, others(unet, matrices), run.weight_decay),
        TimedCosine(run.lr, run.warmup, budget),
        DiffusionUpdates(run),
    )
