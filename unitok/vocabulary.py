"""The vocabulary: text tokens and image tokens share one space of token ids.

In Janus (https://arxiv.org/abs/2410.13848) the image tokens follow the text tokens. In Chameleon
and Emu3 they lie inside the text vocabulary. In both, they are one contiguous range of token ids.
"""

from dataclasses import dataclass
from typing import overload

import torch

from unitok_engine import IdRange


@dataclass(frozen=True)
class Vocabulary:
    """Which token ids are text, which are images, and how an image code becomes a token id.

    Attributes:
        text_size: Token ids below this belong to the text tokenizer.
        image_start: The token id of image code 0; code c has the token id `image_start` + c.
        image_size: The number of image codes.

    Raises:
        ValueError: The image tokens neither follow the text tokens nor lie inside them.
    """

    text_size: int
    image_start: int
    image_size: int

    def __post_init__(self):
        if self.image_start < 0 or self.image_size < 0:
            raise ValueError(f"a size of a vocabulary must not be negative: {self}")
        follows = self.image_start == self.text_size
        inside = self.image_start + self.image_size <= self.text_size
        if not follows and not inside:
            raise ValueError(f"image tokens must follow the text tokens or lie inside them: {self}")

    @property
    def size(self) -> int:
        """The number of token ids."""
        return max(self.text_size, self.image_start + self.image_size)

    @property
    def text_range(self) -> IdRange:
        """The token ids of the text tokenizer, with the image tokens that lie inside."""
        return IdRange(0, self.text_size)

    @property
    def image_range(self) -> IdRange:
        """The token ids of images."""
        return IdRange(self.image_start, self.image_start + self.image_size)

    @overload
    def code_to_id(self, code: int) -> int: ...
    @overload
    def code_to_id(self, code: torch.Tensor) -> torch.Tensor: ...
    def code_to_id(self, code: int | torch.Tensor) -> int | torch.Tensor:
        """The token ids of image codes.

        Args:
            code: An int or an integer tensor.

        Raises:
            ValueError: It is not an image code.
        """
        _check_within(code, 0, self.image_size, "an image code")
        return code + self.image_start

    @overload
    def id_to_code(self, token: int) -> int: ...
    @overload
    def id_to_code(self, token: torch.Tensor) -> torch.Tensor: ...
    def id_to_code(self, token: int | torch.Tensor) -> int | torch.Tensor:
        """The image codes of token ids.

        Args:
            token: An int or an integer tensor.

        Raises:
            ValueError: It is not an image token.
        """
        _check_within(token, self.image_range.start, self.image_range.stop, "an image token")
        return token - self.image_start

    def is_image(self, ids: torch.Tensor) -> torch.Tensor:
        """Whether each token id is an image token: a bool tensor of the same shape."""
        return (ids >= self.image_range.start) & (ids < self.image_range.stop)


def _check_within(value: int | torch.Tensor, start: int, stop: int, what: str) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() == 0:
            return
        low, high = (int(bound) for bound in value.aminmax())
    else:
        low = high = value
    if low < start or high >= stop:
        wrong = low if low < start else high
        raise ValueError(f"{wrong} is not {what}: those are {start} to {stop - 1}")
