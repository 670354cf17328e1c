"""An exponential moving average of the trained weights, which often draws better than they do."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unitok.training.kept_weights import KeptWeights


class Ema(KeptWeights):
    """Keeps average = decay * average + (1 - decay) * weight for each weight, after every update.

    Weights may be sharded (DTensors); their averages are sharded alike.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        """Begin at the weights as they are.

        Args:
            weights: The trained weights by name.
            decay: Nearer to 1 looks further back.
        """
        super().__init__(weights)
        self.decay = decay

    @property
    def averages(self) -> dict[str, Tensor]:
        """The averages by the names of the weights."""
        return self.kept

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now into the averages."""
        for name, average in self.averages.items():
            average.lerp_(self.weights[name].detach(), 1 - self.decay)
