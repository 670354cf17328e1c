"""A pipeline of diffusers for text to image without an autoencoder.

The UNet sees a picture as a smaller one, each pixel of which is a square of the picture's own: no
number is lost, and a CPU computes few positions with many channels much faster than the reverse.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 32  # tokens of a prompt


class PixelPipeline(DiffusionPipeline):
    """Draws prompts: noise that a UNet turns into pixels, as a text encoder's states tell it.

    Classifier-free guidance: https://arxiv.org/abs/2207.12598. DDIM: https://arxiv.org/abs/2010.02502.
    """

    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    text_encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    refiner: PreTrainedModel

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        refiner: PreTrainedModel,
    ) -> None:
        """Put the parts together.

        Args:
            unet: Its channels are 3 for each pixel of a square.
            scheduler: Of the steps.
            text_encoder: A model of transformers.
            tokenizer: Of the text encoder.
            refiner: A model that takes the states of the text encoder. Its own states are what the
                UNet attends to, and its pooled one is added to the time.
        """
        super().__init__()
        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            refiner=refiner,
        )

    @property
    def square(self) -> int:
        """Pixels of a side of the square that the UNet sees as one."""
        return round((self.unet.config["in_channels"] / 3) ** 0.5)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Draw a picture of each prompt.

        Args:
            prompt: One, or several.
            num_inference_steps: Evaluations of the UNet.
            guidance_scale: 1 is none.
            generator: Of the noise; one for each prompt makes a picture independent of the others.
            output_type: "pil", or "pt" for a tensor [B, 3, S, S] in [0, 1].

        Raises:
            ValueError: There is no such output type.
        """
        if output_type not in ("pil", "pt"):
            raise ValueError(f"no output type {output_type!r}; types are pil, pt")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        guided = guidance_scale != 1
        condition = self.encode([""] * len(prompts) + prompts if guided else prompts)
        picture = self.noise(len(prompts), generator)
        self.scheduler.set_timesteps(num_inference_steps)
        bar: Any = self.progress_bar  # wrongly typed in diffusers
        for t in bar(self.scheduler.timesteps):
            seen = torch.cat([picture, picture]) if guided else picture
            out = self.unet(seen.to(self.unet.dtype), t, **condition).sample.float()
            if guided:
                free, told = out.chunk(2)
                out = free + guidance_scale * (told - free)
            step: Any = self.scheduler.step(out, int(t), picture, use_clipped_model_output=True)
            picture = step.prev_sample
        pixels = (F.pixel_shuffle(picture, self.square) / 2 + 0.5).clamp(0, 1)
        return ImagePipelineOutput(images=as_pictures(pixels) if output_type == "pil" else pixels)  # pyright: ignore[reportArgumentType]

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the UNet is told of texts, by the names of its arguments."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(self.device)
        mask = tokens["attention_mask"]
        states = self.text_encoder(**tokens).last_hidden_state
        read = self.refiner(inputs_embeds=states, attention_mask=mask)
        return {
            "encoder_hidden_states": read.last_hidden_state,
            "class_labels": read.pooler_output,
            "encoder_attention_mask": mask,
        }

    def noise(
        self, count: int, generator: torch.Generator | Sequence[torch.Generator] | None
    ) -> Tensor:
        """What drawing begins with; made on the CPU, so that every device has the same."""
        config = self.unet.config
        shape = (config["in_channels"], config["sample_size"], config["sample_size"])
        if isinstance(generator, Sequence):
            noise = torch.stack([torch.randn(shape, generator=each) for each in generator])
        else:
            noise = torch.randn((count, *shape), generator=generator)
        return noise.to(self.device)


def as_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels [B, 3, H, W] in [0, 1] as 8-bit images."""
    levels = pixels.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in levels]
