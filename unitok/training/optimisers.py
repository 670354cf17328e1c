"""Muon for weights that are matrices, AdamW for the rest, behind one small face.

Muon: https://kellerjordan.github.io/posts/muon/, with the scale of https://arxiv.org/abs/2502.16982.
"""

from collections.abc import Iterable

import torch
from torch import nn


class MixedOptimiser:
    """`torch.optim.Muon` over matrices and flattened convolutions, `torch.optim.AdamW` elsewhere.

    Both take steps of like size, so one learning rate serves both.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        weight_decay: float = 0.0,
    ) -> None:
        self.matrices, self.rest = list(matrices), list(rest)
        # Muon takes 2-D tensors only: these share memory with the weights they flatten.
        self.flat = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self.matrices]
        self.muon = torch.optim.Muon(
            self.flat, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(self.rest, betas=(0.9, 0.98), weight_decay=weight_decay)

    def step(self, learning_rate: float, clip: float = 1.0) -> None:
        """Clip, update, and clear the gradients."""
        nn.utils.clip_grad_norm_(self.matrices + self.rest, clip)
        for flat, weight in zip(self.flat, self.matrices, strict=True):
            flat.grad = None if weight.grad is None else weight.grad.view(flat.shape)
        for optimiser in (self.muon, self.adamw):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            optimiser.step()
        for parameter in self.matrices + self.rest + self.flat:
            parameter.grad = None

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def matrices_in(*modules: nn.Module) -> list[nn.Parameter]:
    """Weights of two or more dimensions, in order: what Muon is for."""
    return [p for m in modules for p in m.parameters() if p.requires_grad and p.ndim >= 2]


def others(model: nn.Module, taken: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The model's other trainable parameters."""
    chosen = {id(p) for p in taken}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
