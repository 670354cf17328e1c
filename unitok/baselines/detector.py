"""A detector of transformers: Grounding DINO, which stands in for GLIP."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.adapter import Adapter, check_finite
from unitok.baselines.parts import PROCESSOR, TOKENIZER
from unitok.baselines.protocols import Detection
from unitok.checkpoints.folders import first_line
from unitok.pictures import PictureLike, open_picture
from unitok.results import pixels_of
from unitok.shown import shown


class GroundingDinoDetector(Adapter):
    """Grounding DINO (https://arxiv.org/abs/2303.05499)."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights, the processor's file and the tokenizer.
            device: "auto" is a GPU if there is one.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
        """
        super().__init__(folder, device)
        self._open("GroundingDinoForObjectDetection", PROCESSOR, TOKENIZER)

    @torch.no_grad()
    def detect(
        self, image: PictureLike, labels: Sequence[str], threshold: float = 0.3
    ) -> list[Detection]:
        """Find things by their names.

        Args:
            image: The picture.
            labels: What to look for. The model reads them in lower case, and all at once.
            threshold: The least score of what is given back, in [0, 1].

        Returns:
            What was found, the surest first. Of several labels that fit a thing, the best is given.

        Raises:
            RuntimeError: The model fails, as it does if the picture is too small.
            ValueError: A label is empty, is given twice or has a full stop, which parts labels; or
                all of them are longer than the model reads.
        """
        check_labels(labels)
        picture, owners = open_picture(image), self._owners(labels)
        text = " ".join(f"{clean(label)}." for label in labels)
        inputs = self._processor(images=picture, text=text, return_tensors="pt")
        out = self._look(inputs, picture)
        found = out.logits[0].cpu().sigmoid()[:, : len(owners)]  # [things, tokens]
        by_label = [found[:, owners == i].amax(-1) for i in range(len(labels))]
        scores, chosen = torch.stack(by_label, dim=-1).max(-1)
        places = check_finite(self.name, out.pred_boxes[0].cpu())
        boxes = corners(places, *picture.size).tolist()
        order = scores.argsort(descending=True, stable=True).tolist()
        return [
            Detection(labels[int(chosen[i])], tuple(boxes[i]), float(scores[i]))
            for i in order
            if scores[i] >= threshold
        ]

    def _look(self, inputs: Any, picture: Image.Image) -> Any:
        try:
            return self._model(**inputs.to(self.device))
        except Exception as error:  # of any kind, such as of a picture that is too small
            said = f"{self.name} cannot look at {pixels_of(picture)}: {first_line(error)}"
            raise RuntimeError(said) from None

    def _owners(self, labels: Sequence[str]) -> Tensor:
        """Which label each token of the text is of; -1 for those that part them.

        Raises:
            ValueError: The model reads fewer tokens, or none of a label.
        """
        tokenizer, most = self._processor.tokenizer, self._model.config.max_text_len
        pieces = [len(tokenizer.tokenize(clean(label))) for label in labels]
        if 0 in pieces:
            unread = shown(labels[pieces.index(0)])
            raise ValueError(f"label {unread} has nothing that {self.name} reads")
        # After the tokens of each label stands its full stop.
        owners = [-1, *chain.from_iterable([i] * n + [-1] for i, n in enumerate(pieces)), -1]
        if len(owners) > most:
            raise ValueError(f"the labels have {len(owners)} tokens; {self.name} reads {most}")
        return torch.tensor(owners)


def clean(label: str) -> str:
    """A label as the model reads it."""
    return " ".join(label.lower().split())


def check_labels(labels: Sequence[str]) -> None:
    """Check labels; ValueError if there are none, or one is empty, twice, or has a full stop."""
    if isinstance(labels, str):
        raise ValueError(f"labels must be a list, such as [{shown(labels)}]")
    if not labels:
        raise ValueError("labels is empty; name what to look for")
    for i, label in enumerate(labels):
        if not clean(label) or "." in label:
            raise ValueError(f"label {shown(label)} must have words, and no full stop")
        if clean(label) in map(clean, labels[:i]):
            raise ValueError(f"label {shown(label)} is given twice")


def corners(boxes: Tensor, width: int, height: int) -> Tensor:
    """Boxes [n, 4] as left, top, right, bottom in pixels.

    Args:
        boxes: Middle x, middle y, width and height, as shares of the picture.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    scale = torch.tensor([width, height, width, height])
    return torch.cat([middle - half, middle + half], dim=1) * scale
