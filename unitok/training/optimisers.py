"""Muon for weights that are matrices and AdamW for the rest, as one optimiser of torch.

Muon: https://kellerjordan.github.io/posts/muon/, with the scale of https://arxiv.org/abs/2502.16982.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class MixedOptimiser(torch.optim.Optimizer):
    """`torch.optim.Muon` over matrices and flattened convolutions, `torch.optim.AdamW` elsewhere.

    Both take steps of similar size, so that one learning rate serves both.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        weight_decay: float = 0.0,
        learning_rate: float = 1e-3,
    ) -> None:
        self.matrices, self.rest = list(matrices), list(rest)
        # Muon takes 2-D tensors only: these share memory with the weights they flatten.
        self.flat = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self.matrices]
        self.muon = torch.optim.Muon(
            self.flat, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(self.rest, betas=(0.9, 0.98), weight_decay=weight_decay)
        groups = [{"params": self.matrices}, {"params": self.rest}]
        super().__init__(groups, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the weights, at the learning rates of `param_groups`.

        Raises:
            ValueError: A closure was given; neither part of this optimiser evaluates a loss again.
        """
        if closure is not None:
            raise ValueError("MixedOptimiser takes no closure: compute the gradients before step()")
        for flat, weight in zip(self.flat, self.matrices, strict=True):
            flat.grad = None if weight.grad is None else weight.grad.view(flat.shape)
        for optimiser, group in zip((self.muon, self.adamw), self.param_groups, strict=True):
            for inner in optimiser.param_groups:
                inner["lr"] = group["lr"]
            optimiser.step()
        for flat in self.flat:
            flat.grad = None
        return None

    def state_dict(self) -> dict[str, Any]:
        """The states of both optimisers."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that `state_dict` gave."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def matrices_in(*modules: nn.Module) -> list[nn.Parameter]:
    """The trainable weights of two or more dimensions, in order: what Muon is for."""
    return [p for m in modules for p in m.parameters() if p.requires_grad and p.ndim >= 2]


def others(model: nn.Module, taken: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The model's trainable parameters that are not among those taken."""
    chosen = {id(p) for p in taken}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]


def make_adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trainable weights of a model; only matrices decay."""
    matrices = matrices_in(model)
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others(model, matrices), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.95))


def make_muon(model: nn.Module, inner: Iterable[nn.Module], weight_decay: float) -> MixedOptimiser:
    """Muon over the trainable matrices of some modules of a model, AdamW over the other weights.

    Raises:
        ValueError: There are no such matrices, or no other weights.
    """
    matrices = matrices_in(*inner)
    rest = others(model, matrices)
    if not matrices or not rest:
        raise ValueError(
            "optimiser.name: muon needs trained matrices of the decoder's or the vision encoder's "
            "layers, and other trained weights beside them: use adamw"
        )
    return MixedOptimiser(matrices, rest, weight_decay)
