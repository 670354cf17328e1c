"""The updates of a round of rollouts as one step of a run."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from unitok.training.losses import Losses, merge
from unitok.training.trainer import Trainer

NOTHING = Losses({}, 0)


class RoundTrainer(Trainer[Any]):
    """A trainer whose steps are rounds: what `updates` gives are the batches of several updates.

    Attributes:
        update_seconds: How long the updates of the last step took.
    """

    update_seconds: float = 0.0

    def step(self) -> Losses:
        """Make the updates of the next round, and return their losses; none if it has none.

        Raises:
            NotFiniteError: A loss or a gradient is not finite. The weights are those before the
                update.
            StopIteration: There is no further round.
        """
        updates = next(self.updates)
        began = time.monotonic()
        losses = [self.learn(batches) for batches in updates]
        self.update_seconds = time.monotonic() - began
        self.step_count += 1
        if not losses:
            return NOTHING
        norms = [each.gradient_norm or 0.0 for each in losses]
        return replace(merge(losses), gradient_norm=sum(norms) / len(norms))
