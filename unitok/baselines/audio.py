"""An audio generator of transformers: MusicGen, with its T5 text encoder and its EnCodec."""

from math import ceil
from pathlib import Path

import torch

from unitok.baselines.complete import check_complete
from unitok.baselines.extra import need
from unitok.baselines.parts import VOCABULARIES, find_device, open_model, open_processor
from unitok.baselines.protocols import Audio

LONGEST = 30.0  # seconds; it was trained with no longer sounds


class MusicgenGenerator:
    """MusicGen (https://arxiv.org/abs/2306.05284).

    Attributes:
        name: The folder's name.
        rate: Samples in a second.
    """

    def __init__(self, folder: Path, device: str = "auto", guidance: float = 3.0) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights of all three parts, and the tokenizer.
            device: "auto" is a GPU if there is one.
            guidance: The guidance scale; 1 is none.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
            ValueError: The guidance scale is less than 1.
        """
        if not guidance >= 1:
            raise ValueError(f"guidance must be at least 1, not {guidance}")
        check_complete(folder, VOCABULARIES)
        library, self.name, self._device = need("transformers"), folder.name, find_device(device)
        self._tokenizer = open_processor(library.AutoTokenizer, folder)
        kind = library.MusicgenForConditionalGeneration
        self._model = open_model(kind, folder).to(self._device)
        self._codec, self._guidance = self._model.config.audio_encoder, guidance
        self.rate: int = self._codec.sampling_rate

    @torch.no_grad()
    def generate(self, prompt: str, seconds: float, seed: int = 0) -> Audio:
        """Make a sound.

        Args:
            prompt: What to hear.
            seconds: How long, above 0 and at most 30.
            seed: Equal seeds make equal sounds.

        Raises:
            ValueError: The length is none of these, or the prompt is empty.
        """
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what to hear")
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"seconds must be above 0 and at most {LONGEST:g}, not {seconds}")
        inputs = self._tokenizer([prompt], return_tensors="pt").to(self._device)
        decoder = self._model.config.decoder
        # Each codebook begins a frame after the one before it, on both channels alike.
        delay = decoder.num_codebooks // decoder.audio_channels - 1
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = self._model.generate(
                **inputs,
                do_sample=True,
                guidance_scale=self._guidance,
                max_new_tokens=ceil(seconds * self._codec.frame_rate) + delay,
            )
        samples = made[0].float().cpu().numpy()[:, : round(seconds * self.rate)]
        return Audio(samples.clip(-1, 1), self.rate)
