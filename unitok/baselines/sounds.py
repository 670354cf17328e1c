"""Sounds, of transformers: Whisper writes down what is said, MusicGen makes music."""

from math import ceil, gcd
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from unitok.baselines.adapter import Adapter, seeded
from unitok.baselines.parts import PROCESSOR, TOKENIZER
from unitok.baselines.protocols import Audio
from unitok.shown import shown

LONGEST = 30.0  # seconds of a sound that MusicGen makes; it was trained with no longer ones
LONGEST_PROMPT = 512  # tokens, as T5 was trained with; memory grows with their square


class WhisperRecognizer(Adapter):
    """Whisper (https://arxiv.org/abs/2212.04356)."""

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        language: str | None = None,
        task: Literal["transcribe", "translate"] | None = None,
    ) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights, the processor's file and the tokenizer.
            device: "auto" is a GPU if there is one.
            language: What is spoken, such as "en"; None lets the model find out.
            task: "translate" writes down in English what is said in another language.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
            ValueError: The model does not know the language or the task.
        """
        super().__init__(folder, device)
        self._open("WhisperForConditionalGeneration", PROCESSOR, TOKENIZER)
        asked = {"language": language, "task": task}
        self._asked = {name: value for name, value in asked.items() if value is not None}
        for name, value in self._asked.items():
            self._check_known(name, value)

    def _check_known(self, name: str, value: str) -> None:
        """Check a language or a task; ValueError if the model does not know it."""
        key = {"language": "lang_to_id", "task": "task_to_id"}[name]
        ids = getattr(self._model.generation_config, key, None) or {}
        known = sorted(word.strip("<|>") for word in ids)
        if value not in known:
            allowed = f"one of {', '.join(known)}" if known else "left out"
            raise ValueError(f"{name} must be {allowed} for {self.name}, not {shown(value)}")

    @torch.no_grad()
    def transcribe(self, audio: Audio) -> str:
        """The words of a sound.

        Args:
            audio: It may have any rate, any number of channels and any length. What is longer than
                the 30 seconds that the model hears at once is heard piece by piece.

        Raises:
            ValueError: The sound is empty, or has values that are no numbers.
        """
        hearing = self._processor.feature_extractor
        samples = mono_at(audio, hearing.sampling_rate)
        is_long = len(samples) > hearing.n_samples
        whole = {"truncation": False, "padding": "longest"} if is_long else {}
        inputs = hearing(
            samples,
            sampling_rate=hearing.sampling_rate,
            return_tensors="pt",
            return_attention_mask=True,
            **whole,
        ).to(self.device)
        timed = {"return_timestamps": True} if is_long else {}
        ids = self._model.generate(**inputs, do_sample=False, **timed, **self._asked)
        return self._processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


class MusicgenGenerator(Adapter):
    """MusicGen (https://arxiv.org/abs/2306.05284), with its T5 text encoder and its EnCodec.

    Attributes:
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
        super().__init__(folder, device)
        self._open("MusicgenForConditionalGeneration", TOKENIZER, processor="AutoTokenizer")
        self._guidance, self._config = guidance, self._model.config
        self.rate: int = self._config.audio_encoder.sampling_rate

    @torch.no_grad()
    def generate(self, prompt: str, seconds: float, seed: int = 0) -> Audio:
        """Make a sound.

        Args:
            prompt: What to hear.
            seconds: How long, above 0 and at most 30.
            seed: Equal seeds make equal sounds.

        Raises:
            ValueError: The length is none of these, the prompt is empty, or the seed has more than
                64 bits.
        """
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what to hear")
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"seconds must be above 0 and at most {LONGEST:g}, not {seconds}")
        inputs = self._processor([prompt], return_tensors="pt").to(self.device)
        if (tokens := inputs["input_ids"].shape[1]) > LONGEST_PROMPT:
            raise ValueError(f"the prompt has {tokens:,} tokens; T5 reads {LONGEST_PROMPT}")
        decoder, frame_rate = self._config.decoder, self._config.audio_encoder.frame_rate
        # Each codebook begins a frame after the one before it, on both channels alike.
        delay = decoder.num_codebooks // decoder.audio_channels - 1
        with seeded(seed, self.device):
            made = self._model.generate(
                **inputs,
                do_sample=True,
                guidance_scale=self._guidance,
                max_new_tokens=ceil(seconds * frame_rate) + delay,
            )
        samples = made[0].float().cpu().numpy()[:, : round(seconds * self.rate)]
        return Audio(samples.clip(-1, 1), self.rate)


ZEROS = 10  # of the sinc on each side of its middle
BETA = 5.0  # of the Kaiser window
BLOCK = 2**16  # samples that are made at a time


def mono_at(audio: Audio, rate: int) -> np.ndarray:
    """Samples [n] of a sound at a rate: the mean of its channels, resampled if need be.

    Args:
        audio: The sound.
        rate: Samples in a second.

    Raises:
        ValueError: The sound is empty, has no rate, or has values that are no numbers.
    """
    samples = np.asarray(audio.samples, dtype=np.float32)
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"a sound is [channels, samples], and not empty, not {samples.shape}")
    if audio.rate < 1:
        raise ValueError(f"a sound has at least one sample in a second, not {audio.rate}")
    if not np.isfinite(samples).all():
        raise ValueError("a sound has values that are not numbers")
    mono, common = samples.mean(0), gcd(audio.rate, rate)
    if audio.rate == rate:
        return mono
    return resampled(mono, rate // common, audio.rate // common)


def resampled(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    """Samples at up / down times their rate, filtered by a windowed sinc.

    It is the filter of `scipy.signal.resample_poly`. Sample m of the result lies at m * down / up
    of the given ones, and the filter has other values there for each m % up.

    Args:
        samples: [n].
        up: The factor of the rate.
        down: Its divisor, which has no factor in common with `up`.

    Returns:
        [ceil(n * up / down)], float32.
    """
    weights = phases(up, down)
    taps = weights.shape[1]
    padded = np.pad(samples, taps)
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    made = np.empty(-(-len(samples) * up // down), np.float32)
    for start in range(0, len(made), BLOCK):
        place = np.arange(start, min(start + BLOCK, len(made))) * down
        first = place // up + taps // 2 + 1  # of the window whose middle is there
        made[start : start + BLOCK] = np.einsum("nt,nt->n", windows[first], weights[place % up])
    return made


def phases(up: int, down: int) -> np.ndarray:
    """The filter [up, taps] at each distance, in parts of a sample, from the middle tap."""
    most = max(up, down)
    reach = ZEROS * most / up  # samples to each side
    half = int(reach) + 1
    distance = np.arange(up)[:, None] / up - np.arange(-half, half + 1)[None]
    share = distance / reach
    window = np.i0(BETA * np.sqrt(np.clip(1 - share**2, 0, None))) * (np.abs(share) <= 1)
    filtered = np.sinc(distance * up / most) * window
    return (filtered * up / filtered.sum()).astype(np.float32)
