"""One update after another of any model, on any data, by any loss.

In the manner of torchtitan (https://github.com/pytorch/torchtitan): the trainer knows no data set
and no model; a recipe puts the parts together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unitok.training.ema import Ema
from unitok.training.losses import Loss, Losses, merge
from unitok.training.ranks import Ranks
from unitok.training.schedule import Schedule

MOST_NAMES = 20  # of sequences in an error

Batch = TypeVar("Batch")
BatchOut = TypeVar("BatchOut", covariant=True)


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is infinite or not a number; the weights are those before the update."""


class Updates(Protocol[BatchOut]):
    """An endless iterator whose items are the batches of one update each.

    The gradients of an update's batches add up, so that a batch is as large as memory allows and
    an update is as large as learning wants. The state resumes exactly where it was taken. What the
    batches are made of is for the iterator to know: files, a simulation, or what the model itself
    has just sampled.
    """

    def __next__(self) -> Sequence[BatchOut]:
        """This rank's batches of the next update, as many as every other rank's.

        Each holds its weight, so that the totals of all batches of all ranks add up to the loss of
        the update.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the data stand, in plain values and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from where `state_dict` was taken."""
        ...


class Trainer(Generic[Batch]):
    """Owns a model in training, its optimiser and its data; `state_dict` resumes exactly.

    Attributes:
        ema: The averages of the trained weights, if they are kept.
        step_count: The number of updates so far.
    """

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
        ranks: Ranks | None = None,
        ema: float | None = None,
    ) -> None:
        """Put the parts together; nothing is computed yet.

        Args:
            model: The weights that a checkpoint holds. Which of them are trained is the
                optimiser's to know.
            loss: The loss of a batch, given the number of updates so far. If there are several
                ranks, it is a module that holds the model.
            optimiser: Any optimiser of torch over weights of the model.
            schedule: The learning rate, given the number of updates so far.
            updates: The batches of each update.
            clip: The largest norm of the gradients of all trained weights together.
            precision: The type in which the loss is computed under autocast.
            settings: What checkpoints should say of the run besides, in plain values.
            ranks: The processes that train together; None for this one alone.
            ema: The decay of averages of the trained weights; None keeps none.
        """
        self.model, self.loss, self.optimiser = model, loss, optimiser
        self.schedule, self.updates = schedule, updates
        self.clip, self.precision, self.settings = clip, precision, dict(settings or {})
        self.ranks = ranks or Ranks()
        self.prepared: Callable[[Batch, int], Loss] = self.ranks.prepare(loss, optimiser)
        self.ema = None if ema is None else Ema(self.trained_by_name, ema)
        self.step_count = 0

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def trained(self) -> list[Tensor]:
        """The weights that the optimiser changes."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    @property
    def trained_by_name(self) -> dict[str, Tensor]:
        """The weights that the optimiser changes, by their names in the model."""
        trained = {id(p) for p in self.trained}
        return {name: p for name, p in self.model.named_parameters() if id(p) in trained}

    def step(self) -> Losses:
        """Make one update, and return the losses of this rank's batches before it.

        Raises:
            NotFiniteError: A loss or a gradient is not finite. No weight has changed.
        """
        losses = self.learn(next(self.updates))
        self.step_count += 1
        return losses

    def learn(self, batches: Sequence[Batch]) -> Losses:
        """Make an update from its batches, and return the losses of these before it.

        Args:
            batches: At least one.

        Raises:
            NotFiniteError: As for `step`.
        """
        losses = [self.backward(batch) for batch in batches[:-1]]
        losses.append(self.backward(batches[-1], last=True))
        norm = self.clip_gradients()
        if not math.isfinite(norm):
            self.optimiser.zero_grad()
            raise NotFiniteError(self._what_is_not_finite(batches, losses))
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule(self.step_count)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update()
        return replace(merge(losses), gradient_norm=norm)

    def backward(self, batch: Batch, last: bool = False) -> Losses:
        """Add the gradients of one batch to those that are there.

        Args:
            batch: The batch.
            last: Whether it is the update's last one, after which the ranks share their gradients.
        """
        with nullcontext() if last else self.ranks.without_exchange(self.prepared):
            loss = self._compute(batch)
            # Ranks take the mean of their gradients, and the loss of an update is a sum.
            (loss.total * self.ranks.count if self.ranks.count > 1 else loss.total).backward()
        return as_numbers(loss)

    @torch.no_grad()
    def without_gradients(self, batch: Batch) -> Losses:
        """The losses of a batch that is not learned."""
        return as_numbers(self._compute(batch))

    def _compute(self, batch: Batch) -> Loss:
        mixed = self.precision is not torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=mixed):
            return self.prepared(batch, self.step_count)

    def clip_gradients(self) -> float:
        """Scale the gradients down to the norm `clip`, and return the norm that they had."""
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _what_is_not_finite(self, batches: Sequence[Batch], losses: Sequence[Losses]) -> str:
        """Which sequences are in the batches whose losses are not finite, or else in all."""
        wrong = [
            batch
            for batch, loss in zip(batches, losses, strict=True)
            if not all(map(math.isfinite, loss.parts.values()))
        ]
        names = [name for batch in wrong or batches for name in getattr(batch, "names", ())]
        everywhere = self.ranks.gather_text(("!" if wrong else "?") + ", ".join(names[:MOST_NAMES]))
        named = [text[1:] for text in everywhere if text[0] == "!"]
        what = "a loss" if named else "a gradient"
        listed = ", ".join(text for text in named or [t[1:] for t in everywhere] if text)
        where = f"; in the batch: {listed}" if listed else ""
        return f"{what} is infinite or not a number in update {self.step_count + 1}{where}"

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


def as_numbers(loss: Loss) -> Losses:
    """The losses of a batch as plain numbers."""
    parts = {name: float(value.detach()) for name, value in loss.parts.items()}
    return Losses(parts, loss.tokens, loss.counts)
