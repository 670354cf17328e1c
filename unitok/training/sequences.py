"""What a model learns from a conversation: sequences of token ids, each with its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unitok_engine import Branch


@dataclass(frozen=True)
class PaintedImage:
    """A picture whose image tokens are to be learned.

    Attributes:
        places: The indices in the sequence where its image ids stand, row by row.
        pixels: Gives the picture as the image tokenizer sees it, [3, H, W] in [0, 1].
        codes: Its codes, [h, w] or row by row, if they are known already; else they are computed
            from the pixels.
    """

    places: tuple[int, ...]
    pixels: Callable[[], Tensor]
    codes: Tensor | None = None


@dataclass(frozen=True)
class TrainingSequence:
    """One sequence to learn.

    Attributes:
        branch: Token ids, and embeddings that stand in for pictures to read. Where image ids of
            painted pictures will stand, it holds any image id.
        targets: For each id, whether it is to be predicted from those before it. The first one
            never is.
        painted: The pictures whose ids are filled in.
        name: Where it comes from, such as "train.jsonl:12", for messages.
    """

    branch: Branch
    targets: tuple[bool, ...]
    painted: tuple[PaintedImage, ...] = ()
    name: str = ""

    def __len__(self) -> int:
        """The number of ids."""
        return len(self.targets)
