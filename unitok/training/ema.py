"""An exponential moving average of the trained weights, which often draws better than they do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Keeps average = decay * average + (1 - decay) * weight for each weight, after every update.

    Weights may be sharded (DTensors); their averages are sharded alike.

    Attributes:
        averages: By the names of the weights.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        """Begin at the weights as they are.

        Args:
            weights: The trained weights by name.
            decay: Nearer to 1 looks further back.
        """
        self.weights, self.decay = dict(weights), decay
        self.averages = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now into the averages."""
        for name, average in self.averages.items():
            average.lerp_(self.weights[name].detach(), 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averages as its weights for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, average in self.averages.items():
            weight = self.weights[name].detach()
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
