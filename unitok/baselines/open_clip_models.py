"""CLIP and CoCa, opened with open_clip, which needs the environment of make install-vision.

A folder is as open_clip saves it for the hub: open_clip_config.json and the weights.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.asking import answer_all, check_request, run_in_batches
from unitok.baselines.extra import need
from unitok.baselines.parts import NEEDS_TORCHVISION, find_device
from unitok.baselines.scoring import BATCH_SIZE, Scorer
from unitok.checkpoints.folders import first_line
from unitok.pictures import open_picture
from unitok.preparer import pick_seed
from unitok.requests import Caption
from unitok.results import TextResult
from unitok.signatures import one_or_many

START, END = 49406, 49407  # token ids of the start and the end of a text, in CLIP's tokenizer
HONOURED = frozenset("max_tokens temperature top_k top_p repetition_penalty seed".split())
LEAST = 5  # tokens of a caption, if so many are allowed, as open_clip itself has it


class OpenClip:
    """A folder that open_clip opens.

    Attributes:
        model: The model.
        prepare: Makes pixels [3, H, W] of a picture.
        tokenizer: Makes token ids of texts.
    """

    def __init__(self, folder: Path, device: str) -> None:
        """Open a folder.

        Raises:
            ValueError: It cannot be opened.
            ImportError: open_clip is not installed.
        """
        try:
            open_clip: Any = import_module("open_clip")
        except ImportError:
            raise ImportError(f"{folder} needs open_clip, {NEEDS_TORCHVISION}") from None
        name = f"local-dir:{folder}"
        try:
            made: Any = open_clip.create_model_from_pretrained(name, device=device)
            self.tokenizer: Any = open_clip.get_tokenizer(name)
        except Exception as error:  # that library's are of all kinds
            raise ValueError(f"{folder}: open_clip cannot open it: {first_line(error)}") from None
        self.model: Any = made[0].eval()
        self.prepare: Any = made[1]


class OpenClipScorer(Scorer):
    """A folder of open_clip's CLIP, SigLIP or CoCa."""

    def __init__(self, folder: Path, device: str = "auto", batch_size: int = BATCH_SIZE) -> None:
        """Open a folder.

        Args:
            folder: It holds open_clip_config.json and the weights.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures or texts are encoded at once.

        Raises:
            ValueError: It cannot be opened.
            ImportError: open_clip is not installed.
        """
        super().__init__(folder, find_device(device), batch_size)
        self._opened = OpenClip(folder, self.device)
        self._bias: Tensor | None = getattr(self._opened.model, "logit_bias", None)

    def prepare_image(self, image: Image.Image) -> Mapping[str, Tensor]:
        """The pixels of a picture."""
        return {"image": self._opened.prepare(image)[None]}

    def encode_images(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Projected embeddings [B, d]."""
        return self._opened.model.encode_image(inputs["image"])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Projected embeddings [B, d]. What is longer than the model reads is cut off."""
        return self._opened.model.encode_text(self._opened.tokenizer(list(texts)).to(self.device))

    def logits(self, similarity: Tensor) -> Tensor:
        """Cosines, multiplied by the learned scale, with the bias if one was learned."""
        scaled = similarity * self._opened.model.logit_scale.detach().float().cpu().exp()
        return scaled if self._bias is None else scaled + self._bias.detach().float().cpu()

    def probabilities(self, logits: Tensor) -> Tensor:
        """A softmax over the labels; a sigmoid of each for a model with a bias, as SigLIP."""
        return logits.softmax(-1) if self._bias is None else logits.sigmoid()


class CocaCaptioner:
    """A folder of open_clip's CoCa (https://arxiv.org/abs/2205.01917), which captions.

    Captions are made in batches, greedily. One that is sampled, with a temperature above 0, is made
    alone, by the library's sampler with its own seed.
    """

    def __init__(self, folder: Path, device: str = "auto", batch_size: int = 8) -> None:
        """Open a folder.

        Args:
            folder: It holds open_clip_config.json and the weights.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures are captioned at once.

        Raises:
            ValueError: It cannot be opened.
            ImportError: open_clip is not installed.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.folder, self.device, self.batch_size = folder, find_device(device), batch_size
        self._opened: OpenClip | None = OpenClip(folder, self.device)
        enable_sampling()

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.folder.resolve().name

    @one_or_many(Caption)
    def caption(self, asked: Sequence[Caption]) -> list[TextResult]:
        """Describe a picture. A list is captioned in batches.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A file is not a picture, an option is out of its range, or the model cannot
                do what is asked, as to answer a question.
            TypeError: An option is unknown or of a wrong type.
            RuntimeError: The model is closed.
        """
        return answer_all(self._answer, asked, self.batch_size, self._key)

    def run(self, requests: Iterable[Caption]) -> Generator[TextResult]:
        """Results as they finish, each with its `index` and its `request`.

        Raises:
            TypeError: The requests are no list or other iterable of requests.
        """
        return run_in_batches(self._answer, requests, self.batch_size, self._key)

    def close(self) -> None:
        """Free the weights. Closing again does nothing."""
        self._opened = None

    def _key(self, asked: Caption) -> object:
        check_request(asked, Caption, HONOURED, self.name)
        if asked.top_k and asked.top_p < 1:
            raise ValueError(f"{self.name} takes top_k or top_p, not both")
        return object() if asked.temperature else (asked.max_tokens, asked.repetition_penalty)

    @torch.inference_mode()
    def _answer(self, batch: Sequence[Caption]) -> list[TextResult]:
        if self._opened is None:
            raise RuntimeError(f"{self.name} is closed")
        began = time.perf_counter()
        pixels = [self._opened.prepare(open_picture(asked.image)) for asked in batch]
        seeds = [pick_seed(asked.seed) for asked in batch]
        model = self._opened.model
        # The start of a text counts too, and a text is no longer than the model's context.
        length = min(batch[0].max_tokens + 1, model.context_length)
        with torch.random.fork_rng(devices=[self.device] if "cuda" in self.device else []):
            torch.manual_seed(seeds[0])
            ids = model.generate(
                torch.stack(pixels).to(self.device),
                seq_len=length,
                max_seq_len=model.context_length,
                min_seq_len=min(LEAST, length - 1),
                repetition_penalty=float(batch[0].repetition_penalty),
                **sampler_options(batch[0]),
            )
        seconds = time.perf_counter() - began
        return [
            self._result(asked, row, length, seed, seconds)
            for asked, row, seed in zip(batch, ids.tolist(), seeds, strict=True)
        ]

    def _result(
        self, asked: Caption, ids: list[int], longest: int, seed: int, seconds: float
    ) -> TextResult:
        assert self._opened is not None
        end = ids.index(END) if END in ids else len(ids)
        text = self._opened.tokenizer.decode(ids[1:end]).strip()
        reason = "stop" if end < longest - 1 else "length"  # there it is cut off by an end
        return TextResult(text, seed, reason, 0, min(end, len(ids) - 1), seconds, asked)


def enable_sampling() -> None:
    """Give open_clip its samplers.

    When it is imported, open_clip 3.3 looks for a beam search that transformers 5 has no more, and
    then uses none of its samplers. They are as they were.

    Raises:
        ImportError: transformers is not installed.
    """
    library, coca = need("transformers"), cast("Any", import_module("open_clip.coca_model"))
    coca.GENERATION_TYPES["top_k"] = library.TopKLogitsWarper
    coca.GENERATION_TYPES["top_p"] = library.TopPLogitsWarper
    coca._has_transformers = True


def sampler_options(asked: Caption) -> dict[str, Any]:
    """How open_clip samples: the likeliest token, or from some of them."""
    if not asked.temperature:
        return {"generation_type": "top_k", "top_k": 1}
    if asked.top_k:
        return {"generation_type": "top_k", "top_k": asked.top_k, "temperature": asked.temperature}
    return {"generation_type": "top_p", "top_p": asked.top_p, "temperature": asked.temperature}
