"""Models that read a picture and write text, opened with transformers.

They are what AutoModelForImageTextToText covers: BLIP, BLIP-2, InstructBLIP, LLaVA, Qwen2-VL and
their successors. Each kind has its own form of prompt.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unitok.baselines.asking import answer_all, check_request, run_in_batches
from unitok.baselines.extra import need
from unitok.baselines.generation import Steps, generation_options
from unitok.baselines.parts import (
    check_vocabulary,
    find_device,
    find_dtype,
    open_model,
    open_processor,
)
from unitok.checkpoints.folders import read_json
from unitok.pictures import open_picture
from unitok.preparer import pick_seed
from unitok.requests import Caption
from unitok.results import TextResult
from unitok.signatures import one_or_many

BATCH_SIZE = 8
DESCRIBE = "Describe the image."  # what a model that answers questions is asked for a caption
HONOURED = frozenset(
    "question max_tokens temperature top_k top_p min_p repetition_penalty seed".split()
)
# As LLaVA 1.5 and ShareGPT4V were trained (https://arxiv.org/abs/2310.03744).
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
    "USER: {image}\n{question} ASSISTANT:"
)


class Captioner:
    """A folder of AutoModelForImageTextToText whose processor has a chat template.

    Requests with the same options are answered in batches, greedily. One that is sampled, with a
    temperature above 0, is answered alone, by the library's sampler with its own seed.

    Attributes:
        folder: Where the model lies.
        device: Where it computes.
        batch_size: How many pictures are captioned at once.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        batch_size: int = BATCH_SIZE,
        dtype: str = "auto",
    ) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights as safetensors, a tokenizer and the files of
                the processor.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures are captioned at once.
            dtype: "auto" is the checkpoint's own on a GPU, and float32 on a CPU.

        Raises:
            ValueError: The folder cannot be opened, or a part of it is missing.
            ImportError: A library is not installed.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.folder, self.device, self.batch_size = folder, find_device(device), batch_size
        self._processor: Any = self.open_processor()
        self._tokenizer: Any = self._processor.tokenizer
        self._tokenizer.padding_side = "left"  # what is generated follows the text
        self._model: Any = self.open_model(find_dtype(dtype, self.device)).to(self.device)

    # -- what differs between the kinds

    def open_model(self, dtype: Any) -> Any:
        """The weights."""
        return open_model(need("transformers").AutoModelForImageTextToText, self.folder, dtype)

    def open_processor(self) -> Any:
        """What prepares pictures and texts."""
        check_vocabulary(self.folder)
        return open_processor(need("transformers").AutoProcessor, self.folder)

    def prompt(self, question: str | None) -> str | None:
        """The text that the processor is given for a question; None for none.

        Raises:
            ValueError: The model cannot be asked that.
        """
        if not self._processor.chat_template:
            raise ValueError(f"{self.folder} has no chat template, so nothing can be asked")
        content = [{"type": "image"}, {"type": "text", "text": question or DESCRIBE}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )

    def ends(self) -> Any:
        """The token id, or those, that end an answer."""
        return self._model.generation_config.eos_token_id

    def together(self, prompt: str | None) -> object:
        """What prompts of one batch have in common: all have a text, or none has."""
        return prompt is None

    # -- what all do

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.folder.resolve().name

    @one_or_many(Caption)
    def caption(self, asked: Sequence[Caption]) -> list[TextResult]:
        """Describe a picture, or answer a question about it. A list is captioned in batches.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A file is not a picture, an option is out of its range, or the model cannot
                do what is asked.
            TypeError: An option is unknown or of a wrong type.
            RuntimeError: The model is closed.
        """
        return answer_all(self._answer, asked, self.batch_size, self._key)

    def run(self, requests: Iterable[Caption]) -> Generator[TextResult]:
        """Results as they finish, each with its `index` and its `request`.

        A request that fails gives a result with the finish reason "error" and an `error`. The
        others go on.

        Raises:
            TypeError: The requests are no list or other iterable of requests.
        """
        return run_in_batches(self._answer, requests, self.batch_size, self._key)

    def close(self) -> None:
        """Free the weights. Closing again does nothing."""
        self._model = None

    def _key(self, asked: Caption) -> object:
        """What requests of one batch have in common; ValueError if the model cannot do it."""
        check_request(asked, Caption, HONOURED, self.name)
        together = self.together(self._prompt(asked))
        if asked.temperature:
            return object()  # no other has it
        return asked.max_tokens, asked.repetition_penalty, together

    def _prompt(self, asked: Caption) -> str | None:
        token = str(getattr(self._processor, "image_token", None) or "<image>")
        if asked.question is not None and token in asked.question:
            raise ValueError(f"question holds {token}, which stands for the picture: leave it out")
        return self.prompt(asked.question)

    def _answer(self, batch: Sequence[Caption]) -> list[TextResult]:
        """Answer requests that have the same key."""
        if self._model is None:
            raise RuntimeError(f"{self.name} is closed")
        began = time.perf_counter()
        inputs = self._inputs(batch)
        seeds = [pick_seed(asked.seed) for asked in batch]
        ids = self._generate(inputs, generation_options(batch[0]), seeds[0])
        seconds = time.perf_counter() - began
        lengths = prompt_lengths(inputs)
        return [
            self._result(asked, new, length, seed, seconds)
            for asked, new, length, seed in zip(batch, ids, lengths, seeds, strict=True)
        ]

    def _inputs(self, batch: Sequence[Caption]) -> Mapping[str, Any]:
        """What the model takes of requests."""
        images = [open_picture(asked.image) for asked in batch]
        texts = [self._prompt(asked) for asked in batch]
        told = {} if texts[0] is None else {"text": texts, "padding": True}
        inputs = self._processor(images=images, return_tensors="pt", **told)
        return inputs.to(self.device, self._model.dtype)

    @torch.inference_mode()
    def _generate(
        self, inputs: Mapping[str, Any], options: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        """The new token ids of each sequence."""
        steps = Steps()
        devices = [self.device] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            ids = self._model.generate(**inputs, **options, logits_processor=[steps])
        return ids[:, ids.shape[1] - steps.count :].tolist()

    def _result(
        self, asked: Caption, ids: list[int], prompt: int, seed: int, seconds: float
    ) -> TextResult:
        ends = self.ends()
        ends = ends if isinstance(ends, list) else [ends]
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text = self._tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
        stopped = length < len(ids)
        reason = "stop" if stopped else "length"
        return TextResult(text, seed, reason, prompt, length + stopped, seconds, asked)


class LlavaCaptioner(Captioner):
    """A folder of LlavaForConditionalGeneration. Without a chat template it speaks as Vicuna."""

    def prompt(self, question: str | None) -> str | None:
        """The chat template's text, or Vicuna's."""
        if self._processor.chat_template:
            return super().prompt(question)
        image = self._processor.image_token
        return VICUNA.format(image=image, question=question or DESCRIBE)


class BlipCaptioner(Captioner):
    """A folder of BLIP (https://arxiv.org/abs/2201.12086).

    BlipForConditionalGeneration captions; BlipForQuestionAnswering answers questions. `config.json`
    says which of them it is.
    """

    def open_model(self, dtype: Any) -> Any:
        """The weights, of the class that the folder names."""
        architectures = read_json(self.folder / "config.json").get("architectures") or [""]
        self._answers = architectures[0] == "BlipForQuestionAnswering"
        name = "BlipForQuestionAnswering" if self._answers else "BlipForConditionalGeneration"
        return open_model(getattr(need("transformers"), name), self.folder, dtype)

    def prompt(self, question: str | None) -> str | None:
        """The question alone."""
        if self._answers and not question:
            raise ValueError(f"{self.name} answers questions alone: give a question")
        if question and not self._answers:
            raise ValueError(
                f"{self.name} captions alone: leave the question out, or open a folder of "
                "BlipForQuestionAnswering"
            )
        return question

    def ends(self) -> Any:
        """The end of a text, as BERT writes it."""
        return self._model.config.text_config.sep_token_id

    def together(self, prompt: str | None) -> object:
        """How long prompts are: the decoder reads the padding of a question, too."""
        return None if prompt is None else len(self._tokenizer(prompt)["input_ids"])


class Blip2Captioner(Captioner):
    """A folder of Blip2ForConditionalGeneration (https://arxiv.org/abs/2301.12597)."""

    def prompt(self, question: str | None) -> str | None:
        """A question as in the paper; nothing for a caption."""
        return question and f"Question: {question} Answer:"

    def ends(self) -> Any:
        """The end of a text, as the language model writes it."""
        return self._model.language_model.generation_config.eos_token_id


class InstructBlipCaptioner(Blip2Captioner):
    """A folder of InstructBlipForConditionalGeneration (https://arxiv.org/abs/2305.06500)."""

    def prompt(self, question: str | None) -> str | None:
        """The question alone; for a caption the paper's instruction."""
        return question or "A short image description:"


def prompt_lengths(inputs: Mapping[str, Any]) -> list[int]:
    """The tokens of each prompt, without padding; 0 for those without a text."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].sum(1).tolist()
    return [0] * len(inputs["pixel_values"])
