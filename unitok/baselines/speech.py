"""A speech recognizer of transformers: Whisper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from unitok.baselines.complete import PROCESSOR, check_complete
from unitok.baselines.extra import need
from unitok.baselines.parts import VOCABULARIES, find_device, open_model, open_processor
from unitok.baselines.protocols import Audio
from unitok.baselines.sounds import mono_at
from unitok.shown import shown


class WhisperRecognizer:
    """Whisper (https://arxiv.org/abs/2212.04356).

    Attributes:
        name: The folder's name.
    """

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
        check_complete(folder, PROCESSOR, VOCABULARIES)
        library, self.name, self._device = need("transformers"), folder.name, find_device(device)
        self._processor = open_processor(library.AutoProcessor, folder)
        kind = library.WhisperForConditionalGeneration
        self._model = open_model(kind, folder).to(self._device)
        self._asked = self._check({"language": language, "task": task})

    def _check(self, asked: Mapping[str, str | None]) -> dict[str, str]:
        """What is asked for; ValueError if the model does not know it."""
        given = {name: value for name, value in asked.items() if value is not None}
        for name, key in (("language", "lang_to_id"), ("task", "task_to_id")):
            ids: Mapping[str, int] = getattr(self._model.generation_config, key, None) or {}
            known = sorted(word.strip("<|>") for word in ids)
            if name in given and given[name] not in known:
                allowed = f"one of {', '.join(known)}" if known else "left out"
                raise ValueError(
                    f"{name} must be {allowed} for {self.name}, not {shown(given[name])}"
                )
        return given

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
        ).to(self._device)
        timed = {"return_timestamps": True} if is_long else {}
        ids = self._model.generate(**inputs, do_sample=False, **timed, **self._asked)
        return self._processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
