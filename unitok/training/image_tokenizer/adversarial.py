"""The losses of a discriminator and of the network that it judges.

Hinge: https://arxiv.org/abs/1705.02894. Non-saturating: https://arxiv.org/abs/1406.2661. Adaptive
weight: VQGAN, https://arxiv.org/abs/2012.09841.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.training.image_tokenizer.options import Adversarial

LARGEST_RATIO = 1e4


def discriminator_loss(kind: Adversarial, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator makes small.

    Args:
        kind: "hinge" or "non-saturating".
        real: Logits of real pictures, any shape.
        fake: Logits of decoded pictures.

    Returns:
        A scalar.
    """
    if kind == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def generator_loss(kind: Adversarial, fake: Tensor) -> Tensor:
    """What the decoder makes small, so that its pictures pass for real.

    Args:
        kind: "hinge" or "non-saturating".
        fake: Logits of decoded pictures, any shape.

    Returns:
        A scalar.
    """
    return -fake.mean() if kind == "hinge" else F.softplus(-fake).mean()


def adaptive_ratio(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """How much larger the gradient of one loss is than that of the other, without a gradient.

    Args:
        reconstruction: A scalar.
        adversarial: A scalar.
        last: The weight at which the gradients are compared, that of the decoder's last layer.
    """
    (wanted,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (given,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (wanted.norm() / (given.norm() + 1e-4)).clamp(0, LARGEST_RATIO).detach()
