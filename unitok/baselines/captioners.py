"""Models that read a picture and write text, opened with transformers.

They are what AutoModelForImageTextToText covers: BLIP, BLIP-2, InstructBLIP, LLaVA, Qwen2-VL and
their successors. Each kind has its own form of prompt.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.baselines.adapter import seeded
from unitok.baselines.asking import BatchRunner
from unitok.baselines.parts import PROCESSOR, TOKENIZER, errors_named
from unitok.checkpoints.folders import read_json
from unitok.pictures import open_picture
from unitok.preparer import pick_seed
from unitok.requests import Caption
from unitok.results import TextResult
from unitok.signatures import one_or_many

BATCH_SIZE = 8
DESCRIBE = "Describe the image."  # what a model that answers questions is asked for a caption
# As LLaVA 1.5 and ShareGPT4V were trained (https://arxiv.org/abs/2310.03744).
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
    "USER: {image}\n{question} ASSISTANT:"
)


class Captioner(BatchRunner):
    """A folder of AutoModelForImageTextToText whose processor has a chat template.

    Requests with the same options are answered in batches, greedily. One that is sampled, with a
    temperature above 0, or that has a repetition penalty, is answered alone, so that its answer
    does not depend on the others; it is sampled by the library's sampler with its own seed.
    """

    takes = (Caption,)
    honoured = frozenset(
        "question max_tokens temperature top_k top_p min_p repetition_penalty seed".split()
    )

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
            FileNotFoundError: A part of the folder is missing.
            ValueError: It cannot be opened, or an option is out of its range.
            ImportError: A library is not installed.
        """
        super().__init__(folder, device, batch_size)
        self._load(dtype)

    # -- what differs between the kinds

    def _load(self, dtype: str) -> None:
        self._open(self._class(), PROCESSOR, TOKENIZER, dtype=dtype)
        self._processor.tokenizer.padding_side = "left"  # what is generated follows the text

    def _class(self) -> str:
        return "AutoModelForImageTextToText"

    def prompt(self, question: str | None) -> str | None:
        """The text that the processor is given for a question; None for none.

        Raises:
            ValueError: The model cannot be asked that.
        """
        if not self._processor.chat_template:
            raise ValueError(f"{self.folder} has no chat template, so nothing can be asked")
        content = [{"type": "image"}, {"type": "text", "text": question or DESCRIBE}]
        with errors_named(self.folder, "its chat template cannot be used"):
            return self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )

    def can_take(self, asked: Caption) -> bool:
        """Whether the model does such a thing at all: some caption alone, some answer alone."""
        return True

    def ends(self) -> Any:
        """The token id, or those, that end an answer."""
        return self._model.generation_config.eos_token_id

    # -- what all do

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
        return self._all(asked)

    def _key(self, asked: Caption) -> Hashable:
        self._check(asked)
        prompt = self._prompt(asked)
        # A penalty would be on the padding, too.
        alone = asked.temperature > 0 or asked.repetition_penalty != 1
        return object() if alone else (asked.max_tokens, prompt is None)

    def _prompt(self, asked: Caption) -> str | None:
        if asked.question is None:
            return self.prompt(None)
        token = str(getattr(self._processor, "image_token", None) or "<image>")
        if token in asked.question:
            raise ValueError(f"question holds {token}, which stands for the picture: leave it out")
        return self.prompt(asked.question or None)

    @torch.inference_mode()
    def _answer(self, asked: Sequence[Caption]) -> list[TextResult]:
        began, inputs = time.perf_counter(), self._inputs(asked)
        seeds = [pick_seed(one.seed) for one in asked]
        with seeded(seeds[0], self.device):
            answers = self._generate(inputs, asked[0])
        seconds, lengths = time.perf_counter() - began, prompt_lengths(inputs)
        return [
            self._result(one, ids, length, seed, seconds)
            for one, ids, length, seed in zip(asked, answers, lengths, seeds, strict=True)
        ]

    def _inputs(self, asked: Sequence[Caption]) -> Mapping[str, Any]:
        """What the model takes of requests."""
        images = [open_picture(one.image) for one in asked]
        told: dict[str, Any] = {}
        if texts := [text for one in asked if (text := self._prompt(one)) is not None]:
            # Some templates write the start of a text, which the tokenizer would write again.
            start = self._processor.tokenizer.bos_token
            begun = start is not None and texts[0].startswith(start)
            told = {"text": texts, "padding": True, "add_special_tokens": not begun}
        inputs = self._processor(images=images, return_tensors="pt", **told)
        self._check_length(max(prompt_lengths(inputs)))
        return inputs.to(self.device, self._model.dtype)

    def _check_length(self, tokens: int) -> None:
        """Check the longest of some prompts; ValueError if the model cannot read it."""
        settings = self._model.config.get_text_config(decoder=True)
        most = getattr(settings, "max_position_embeddings", None)
        if most is not None and tokens > most:
            raise ValueError(f"question makes {tokens:,} tokens; {self.name} reads {most:,}")

    def _generate(self, inputs: Mapping[str, Any], asked: Caption) -> list[list[int]]:
        """The new token ids of each sequence, as a request asks for."""
        steps = 0

        def count(_: Tensor, scores: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            return scores

        options = generation_options(asked)
        ids = self._model.generate(**inputs, **options, logits_processor=[count])
        # What it returns begins with the prompt, or does not, as the model's class will have it.
        return ids[:, ids.shape[1] - steps :].tolist()

    def _result(
        self, asked: Caption, ids: list[int], prompt: int, seed: int, seconds: float
    ) -> TextResult:
        ends = self.ends() if isinstance(self.ends(), list) else [self.ends()]
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text, stopped = self._decode(ids[:length]).strip(), length < len(ids)
        reason = "stop" if stopped else "length"
        return TextResult(text, seed, reason, prompt, length + stopped, seconds, asked)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._processor.tokenizer.decode(ids, skip_special_tokens=True)


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

    def _class(self) -> str:
        architectures = read_json(self.folder / "config.json").get("architectures") or [""]
        self._answers = architectures[0] == "BlipForQuestionAnswering"
        return "BlipForQuestionAnswering" if self._answers else "BlipForConditionalGeneration"

    def can_take(self, asked: Caption) -> bool:
        """Questions or captions, by its class."""
        return self._answers == (asked.question is not None)

    def prompt(self, question: str | None) -> str | None:
        """The question alone."""
        if self._answers and question is None:
            raise ValueError(f"{self.name} answers questions alone: give a question")
        if question is not None and not self._answers:
            raise ValueError(
                f"{self.name} captions alone: leave the question out, or open a folder of "
                "BlipForQuestionAnswering"
            )
        return question

    def ends(self) -> Any:
        """The end of a text, as BERT writes it."""
        return self._model.config.text_config.sep_token_id

    def _key(self, asked: Caption) -> Hashable:
        # The decoder reads the padding of a question, so those of a batch are equally long.
        key, question = super()._key(asked), asked.question or ""
        return key, len(self._processor.tokenizer(question)["input_ids"])


class Blip2Captioner(Captioner):
    """A folder of Blip2ForConditionalGeneration (https://arxiv.org/abs/2301.12597)."""

    def prompt(self, question: str | None) -> str | None:
        """A question as in the paper; nothing for a caption."""
        return f"Question: {question} Answer:" if question else None

    def ends(self) -> Any:
        """The end of a text, as the language model writes it."""
        return self._model.language_model.generation_config.eos_token_id


class InstructBlipCaptioner(Blip2Captioner):
    """A folder of InstructBlipForConditionalGeneration (https://arxiv.org/abs/2305.06500)."""

    def prompt(self, question: str | None) -> str | None:
        """The question alone; for a caption the paper's instruction."""
        return question or "A short image description:"


def generation_options(asked: Caption) -> dict[str, Any]:
    """The options of transformers' `generate`. They replace those that the folder names."""
    options: dict[str, Any] = {
        "max_new_tokens": asked.max_tokens,
        "repetition_penalty": float(asked.repetition_penalty),
        "num_beams": 1,
        "do_sample": asked.temperature > 0,
    }
    if asked.temperature > 0:
        options |= {"temperature": float(asked.temperature), "top_p": float(asked.top_p)}
        options |= {"top_k": asked.top_k, "min_p": float(asked.min_p) or None}
    return options


def prompt_lengths(inputs: Mapping[str, Any]) -> list[int]:
    """The tokens of each prompt, without padding; 0 for those without a text."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].sum(1).tolist()
    return [0] * len(inputs["pixel_values"])
