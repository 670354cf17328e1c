"""Other numbers for the trained weights of a model, which can stand in their place for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class KeptWeights:
    """A copy of trained weights as they were, such as those of a base model.

    Weights may be sharded (DTensors); their copies are sharded alike.

    Attributes:
        kept: The copies by the names of the weights.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights as they are.

        Args:
            weights: The trained weights by name.
        """
        self.weights = dict(weights)
        self.kept = {name: weight.detach().clone() for name, weight in weights.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the kept numbers as its weights for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, kept in self.kept.items():
            weight = self.weights[name].detach()
            own = weight.clone()
            weight.copy_(kept)
            kept.copy_(own)
