"""Text to image by a UNet of diffusers over the states of MiniLM, trained as DDPM.

DDPM: https://arxiv.org/abs/2006.11239, with a last step of pure noise
(https://arxiv.org/abs/2305.08891), without which plain backgrounds fail. The UNet predicts the
picture itself. Noise would not fit through it: one of its positions is a tile of 192 numbers, as
wide as the UNet (https://arxiv.org/abs/2511.13720).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.emoji import captions
from unitok.emoji.baselines.budget import Budget, TimedCosine
from unitok.emoji.baselines.minilm import LONGEST, MiniLm
from unitok.emoji.baselines.states import (
    plain_generator,
    plain_state,
    set_plain_generator,
    set_plain_state,
)
from unitok.emoji.rendering import render
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import CANVAS
from unitok.emoji.sprites import TILE
from unitok.extras import need
from unitok.training.losses import Loss
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok.training.trainer import Trainer

NOISE_STEPS = 1000
LARGEST_WEIGHT = 5.0  # of a picture's loss, beside 1 of pure noise
SAMPLING: dict[str, Any] = {"steps": 20, "dtype": "bfloat16", "batch_size": 50}


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
        widths: Channels of each resolution.
        layers: Blocks of each resolution.
        head: Numbers of an attention head.
        text_layers: Layers that are trained over MiniLM.
        seed: Of the weights and of the data.
    """

    batch: int = 32
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.02
    drop: float = 0.1
    square: int = TILE
    widths: tuple[int, ...] = (192,)
    layers: int = 1
    head: int = 32
    text_layers: int = 2
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


class TextToImage(nn.Module):
    """What is trained: a UNet, and a small transformer that reads what the frozen MiniLM says.

    MiniLM was trained to say what sentences are about, and numbers and colours matter little there.

    Attributes:
        unet: A UNet2DConditionModel of diffusers.
        refiner: A BertModel of transformers.
    """

    def __init__(self, run: DiffusionRun, text_width: int) -> None:
        super().__init__()
        self.unet, self.refiner = make_unet(run, text_width), make_refiner(run, text_width)

    def forward(self, noisy: Tensor, times: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """The pictures [B, C, H, W] that the UNet sees in noisy ones."""
        read = self.refiner(inputs_embeds=states, attention_mask=mask)
        # Convolutions of a CPU are faster if the channels of a position lie together.
        return self.unet(
            noisy.contiguous(memory_format=torch.channels_last),
            times,
            read.last_hidden_state,
            class_labels=read.pooler_output,
            encoder_attention_mask=mask,
        ).sample


class DiffusionLoss:
    """The squared error of pictures, which counts more where there is less noise."""

    def __init__(self, model: TextToImage, text: MiniLm, square: int) -> None:
        self.model, self.text, self.square = model, text, square
        self.scheduler = make_scheduler("DDPMScheduler")

    def __call__(self, batch: NoisyBatch, step: int) -> Loss:
        """The loss of a batch; the number of updates so far makes no difference."""
        states, mask = self.text.states(batch.prompts)
        noisy = self.scheduler.add_noise(batch.pixels, batch.noise, batch.times)
        out = self.model(F.pixel_unshuffle(noisy, self.square), batch.times, states, mask)
        wanted = F.pixel_unshuffle(batch.pixels, self.square)
        errors = (out.float() - wanted).square().flatten(1).mean(1)
        loss = (self.weights(batch.times) * errors).mean()
        return Loss(loss, {"picture": loss}, len(batch.prompts))

    def weights(self, times: Tensor) -> Tensor:
        """1 + the ratio of signal to noise, up to a limit.

        As https://arxiv.org/abs/2303.09556 limits the weight of v prediction.
        """
        signal = self.scheduler.alphas_cumprod[times]
        return (1 / (1 - signal)).clamp(max=LARGEST_WEIGHT)


def save(trainer: Trainer[Any], folder: Path) -> None:
    """Write the pipeline of a trained UNet, as diffusers stores pipelines."""
    from unitok.baselines.pixel_pipeline import PixelPipeline

    loss = trainer.loss
    if not isinstance(loss, DiffusionLoss):
        raise TypeError("this trainer trains no UNet")
    pipeline = PixelPipeline(
        loss.model.unet,
        make_scheduler("DDIMScheduler"),
        loss.text.model,
        loss.text.tokenizer,
        loss.model.refiner,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def make_scheduler(name: str) -> Any:
    """A scheduler of diffusers by the name of its class, with the settings of these runs.

    A tile is many numbers, so much noise is needed to hide what it shows. The schedule spends a
    third of its steps where that is decided.
    """
    return getattr(need("diffusers", "baselines"), name)(
        num_train_timesteps=NOISE_STEPS,
        beta_schedule="linear",
        beta_end=0.012,
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def make_unet(run: DiffusionRun, text_width: int) -> Any:
    """A UNet2DConditionModel that attends to the text everywhere."""
    count = len(run.widths)
    unet = need("diffusers", "baselines").UNet2DConditionModel(
        sample_size=CANVAS // run.square,
        in_channels=3 * run.square**2,
        out_channels=3 * run.square**2,
        block_out_channels=run.widths,
        layers_per_block=run.layers,
        down_block_types=("CrossAttnDownBlock2D",) * count,
        up_block_types=("CrossAttnUpBlock2D",) * count,
        cross_attention_dim=text_width,
        attention_head_dim=tuple(width // run.head for width in run.widths),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=text_width,
    )
    # The fused attention of a CPU is slow backward.
    unet.set_attn_processor(
        need("diffusers.models.attention_processor", "baselines").AttnProcessor()
    )
    return unet


def make_refiner(run: DiffusionRun, width: int) -> Any:
    """A BertModel that takes states of another one in place of words."""
    library = need("transformers", "baselines")
    config = library.BertConfig(
        vocab_size=1,
        hidden_size=width,
        num_hidden_layers=run.text_layers,
        num_attention_heads=width // 64,
        intermediate_size=2 * width,
        max_position_embeddings=LONGEST,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    refiner = library.BertModel(config)
    refiner.embeddings.word_embeddings.requires_grad_(False)  # it never sees words
    return refiner


def make_trainer(run: DiffusionRun, budget: Budget) -> Trainer[NoisyBatch]:
    """A trainer of a new UNet."""
    torch.manual_seed(run.seed)
    text = MiniLm()
    model = TextToImage(run, text.width)
    unet = model.unet
    matrices = matrices_in(unet.down_blocks, unet.mid_block, unet.up_blocks, model.refiner.encoder)
    return Trainer(
        model,
        DiffusionLoss(model, text, run.square),
        MixedOptimiser(matrices, others(model, matrices), run.weight_decay),
        TimedCosine(run.lr, run.warmup, budget),
        DiffusionUpdates(run),
    )
