"""One update after another of any model, on any data, by any loss.

In the manner of torchtitan (https://github.com/pytorch/torchtitan): the trainer knows no data set
and no model; a recipe puts the parts together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from unitok.training.losses import Loss, Losses, merge
from unitok.training.schedule import Schedule

Batch = TypeVar("Batch")
BatchOut = TypeVar("BatchOut", covariant=True)


class Updates(Protocol[BatchOut]):
    """An endless iterator whose items are the batches of one update each.

    The gradients of an update's batches add up, so that a batch is as large as memory allows and
    an update is as large as learning wants. The state resumes exactly where it was taken.
    """

    def __next__(self) -> Sequence[BatchOut]:
        """The batches of the next update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the data stand, in plain values and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from where `state_dict` was taken."""
        ...


class Trainer(Generic[Batch]):
    """Owns a model in training, its optimiser and its data; `state_dict` resumes exactly."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Batch, int], Loss],
        optimiser: torch.optim.Optimizer,
        schedule: Schedule,
        updates: Updates[Batch],
        *,
        clip: float = 1.0,
        precision: torch.dtype = torch.bfloat16,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the parts together; nothing is computed yet.

        Args:
            model: The weights that a checkpoint holds. Which of them are trained is the
                optimiser's to know.
            loss: The loss of a batch, given the number of updates so far.
            optimiser: Any optimiser of torch over weights of the model.
            schedule: The learning rate, given the number of updates so far.
            updates: The batches of each update.
            clip: The largest norm of the gradients of all trained weights together.
            precision: The type in which the loss is computed under autocast.
            settings: What checkpoints should say of the run besides, in plain values.
        """
        self.model, self.loss, self.optimiser = model, loss, optimiser
        self.schedule, self.updates = schedule, updates
        self.clip, self.precision, self.settings = clip, precision, dict(settings or {})
        self.step_count = 0

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def trained(self) -> list[Tensor]:
        """The weights that the optimiser changes."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def step(self) -> Losses:
        """Make one update, and return the losses of its batches before it."""
        losses = [self.backward(batch) for batch in next(self.updates)]
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule(self.step_count)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step_count += 1
        return merge(losses)

    def backward(self, batch: Batch) -> Losses:
        """Add the gradients of one batch to those that are there."""
        with torch.autocast(self.device.type, self.precision):
            loss = self.loss(batch, self.step_count)
        loss.total.backward()
        parts = {name: float(value.detach()) for name, value in loss.parts.items()}
        return Losses(parts, loss.tokens)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: weights, optimiser, data, randomness, step."""
        return {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "updates": self.updates.state_dict(),
            "torch": torch.get_rng_state(),
            "step": self.step_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, in this process's random state too."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates.load_state_dict(state["updates"])
        torch.set_rng_state(state["torch"].cpu())
        self.step_count = state["step"]
