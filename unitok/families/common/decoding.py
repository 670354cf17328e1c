"""Token ids of finished drawings -> pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.nn.model import UnifiedModel
from unitok_engine import GridPlan


@dataclass(frozen=True)
class GridDecoder:
    """Decodes what a plan emitted for several drawings.

    Those of equal plans are equal, so that drawings of one size are decoded together.
    """

    model: UnifiedModel
    plan: GridPlan

    def __call__(self, emitted: Sequence[Sequence[int]]) -> Tensor:
        """The ids of n drawings -> pictures [n, 3, H, W] in [0, 1]."""
        ids = torch.tensor([self.plan.image_ids(one) for one in emitted])
        codes = self.model.vocabulary.id_to_code(ids).unflatten(1, (self.plan.rows, -1))
        return self.model.image_tokenizer.decode(codes.to(self.model.device))
