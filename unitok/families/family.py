"""What a checkpoint family has to say for itself, so that the API needs no `if`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from unitok.model import UnifiedModel
from unitok.prompt import Line, Message
from unitok_engine import Plan
from unitok_tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class Defaults:
    """A model's own way to sample and to be asked; part of the checkpoint, not of the code.

    temperature, top_k, top_p, guidance: for pictures (text is greedy unless asked otherwise).
    question: what `caption` asks. known_words: all words the model ever saw, if it saw few.
    """

    temperature: float
    top_k: int
    top_p: float
    guidance: float
    question: str
    system: str
    known_words: frozenset[str] | None = None


class Family(Protocol):
    """A loaded checkpoint: model, words, pictures, prompts and plans."""

    name: str
    model: UnifiedModel
    tokenizer: TextTokenizer
    defaults: Defaults
    max_context: int
    preprocess: Callable[[Image.Image], Tensor]

    def answer(self, messages: Sequence[Message], system: str | None) -> Line:
        """The line after which the model writes."""
        ...

    def draw(
        self, messages: Sequence[Message], guidance: float, negative: str | None
    ) -> list[tuple[Line, float]]:
        """The weighted lines after which the model paints; weights sum to 1."""
        ...

    def text_plan(self, max_tokens: int) -> Plan: ...

    def picture_plan(self) -> Plan: ...

    def read(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels [B, 3, S, S] -> features [B, n, d] that fill a picture's slot."""
        ...

    def paint(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """What picture plans emitted -> pictures [B, 3, S, S] in [0, 1]."""
        ...


def read_json(path: Path, optional: bool = False) -> Mapping[str, Any]:
    """A JSON object of a checkpoint folder.

    Raises:
        FileNotFoundError: it is missing and not optional.
        ValueError: it cannot be parsed.
    """
    if not path.is_file():
        if optional:
            return {}
        raise FileNotFoundError(f"{path} is missing; the folder is not complete")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object")
    return data
