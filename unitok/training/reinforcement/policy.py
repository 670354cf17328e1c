"""Log-probabilities of rollouts under the weights in training, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unitok.families import Family
from unitok.image_decoder import ImageDecoder
from unitok.preparer import Preparer
from unitok.training.held_out import in_evaluation
from unitok.training.log_probabilities import log_probabilities, sampled_log_probabilities
from unitok.training.reinforcement.rollouts import Rollout
from unitok.training.sampling_shape import SamplingShape
from unitok.training.sequences import TrainingSequence
from unitok.training.targets import text_range_of
from unitok_engine import Branch

Policy = Literal["sampled", "conditional"]


@dataclass(frozen=True, eq=False)
class LearnedRollout:
    """A rollout as sequences of the model in training.

    Attributes:
        name: Where it comes from.
        sequences: One for each branch; of the conditional policy the first branch alone.
        shape: How was sampled; None for the conditional policy.
        logprobs: Of each target when it was sampled [targets], in fp32 on the CPU.
    """

    name: str
    sequences: tuple[TrainingSequence, ...]
    shape: SamplingShape | None
    logprobs: Tensor

    def __len__(self) -> int:
        """The tokens of all sequences."""
        return sum(map(len, self.sequences))

    @property
    def targets(self) -> int:
        """How many tokens were sampled."""
        return len(self.logprobs)


class RolloutLearner:
    """Turns rollouts into what the model in training computes.

    Attributes:
        family: The model in training.
        policy: "sampled" for what tokens were sampled from, with guidance and filters;
            "conditional" for the first branch's own distribution.
    """

    def __init__(
        self, family: Family, policy: Policy, precision: torch.dtype = torch.float32
    ) -> None:
        """Keep the model.

        Args:
            family: The model in training.
            policy: Which log-probabilities are learned from.
            precision: The type in which the run computes under autocast.
        """
        self.family, self.policy, self._precision = family, policy, precision
        self.text_range = text_range_of(family)
        self._mask = family.text_plan(1).mask
        # Its jobs only tell the prompts: nothing is ever decoded for them.
        self._prepare = Preparer(family, ImageDecoder(torch.device("cpu"), background=False))

    def __call__(self, rollout: Rollout) -> LearnedRollout:
        """The sequences of a rollout. Its prompt is made anew, with this model's own encoders.

        Raises:
            ValueError, OSError: A picture of the prompt cannot be opened any more.
        """
        branches = self._prepare.job(rollout.request).request.branches
        told = rollout.logprobs
        shape = SamplingShape.of(rollout.sampling, self._mask)
        if self.policy == "conditional":
            branches, told = (replace(branches[0], weight=1.0),), rollout.branch_logprobs
        sequences = tuple(with_emitted(branch, rollout) for branch in branches)
        kept = [p for p, target in zip(told, rollout.targets, strict=True) if target]
        own = None if self.policy == "conditional" else shape
        return LearnedRollout(rollout.name, sequences, own, torch.tensor(kept))

    def log_probabilities(self, rollouts: Sequence[LearnedRollout]) -> list[Tensor]:
        """The log-probability of each target of each rollout, [targets] in fp32, together."""
        model, requests = self.family.model, [each.sequences for each in rollouts]
        if self.policy == "conditional":
            return log_probabilities(model, [first for (first,) in requests], self.text_range)
        shapes = [each.shape or SamplingShape() for each in rollouts]
        return sampled_log_probabilities(model, requests, shapes, self.text_range)

    @torch.no_grad()
    def constants(self, rollouts: Sequence[LearnedRollout]) -> list[Tensor]:
        """As `log_probabilities`, without gradients and dropout, on the CPU."""
        device, mixed = self.family.model.device.type, self._precision is not torch.float32
        with (
            in_evaluation(self.family.model),
            torch.autocast(device, self._precision, enabled=mixed),
        ):
            return [found.cpu() for found in self.log_probabilities(rollouts)]


def with_emitted(branch: Branch, rollout: Rollout) -> TrainingSequence:
    """A prompt and what was emitted behind it; what was sampled are the targets."""
    whole = replace(branch, token_ids=(*branch.token_ids, *rollout.token_ids))
    targets = (*[False] * len(branch.token_ids), *rollout.targets)
    return TrainingSequence(whole, targets, name=rollout.name)
