"""The perceptual loss: how far apart two pictures are for a network that has seen many."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PerceptualLoss(nn.Module):
    """The distance of feature maps, LPIPS without its learned weights.

    The features of each place are scaled to unit length; the loss is the squared distance, a mean
    over the places of a map and over the maps (https://arxiv.org/abs/1801.03924, "baseline").

    Args:
        features: Gives maps [B, C, ...] of pictures [B, 3, H, W] in [-1, 1]. It stays as it is.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Stay in evaluation mode: the network is not trained."""
        return super().train(False)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            predicted: Pictures [B, 3, H, W] in about [-1, 1].
            target: Pictures of the same shape, through which no gradient passes.

        Returns:
            A scalar.
        """
        with torch.no_grad():
            wanted = self.features(target)
        return torch.stack(list(map(distance, self.features(predicted), wanted))).mean()


def distance(left: Tensor, right: Tensor) -> Tensor:
    """The mean squared distance of features [B, C, ...] that are scaled to unit length."""
    difference = F.normalize(left.float(), dim=1) - F.normalize(right.float(), dim=1)
    return difference.square().sum(1).mean()
