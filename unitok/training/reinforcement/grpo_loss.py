"""The loss of GRPO, https://arxiv.org/abs/2402.03300, with the clipped ratios of PPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unitok.training.finetuning_loss import FineTuningLoss
from unitok.training.losses import Loss
from unitok.training.packing import PackedBatch
from unitok.training.reinforcement.policy import LearnedRollout, RolloutLearner

Average = Literal["sample", "token"]


@dataclass(frozen=True)
class GrpoOptions:
    """What the loss is made of.

    Attributes:
        clip: Ratios below 1 - clip count as that where they would be rewarded for falling further.
        clip_high: Ratios above 1 + clip_high likewise.
        kl: The weight of the divergence from the reference.
    """

    clip: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0


@dataclass(frozen=True, eq=False)
class LearnedSample:
    """A rollout with what the loss makes of it.

    Attributes:
        rollout: The rollout.
        advantage: How much better it is than others of its prompt.
        weight: Of the loss of each of its tokens.
        reference: The log-probabilities of its targets under the reference; None for none.
    """

    rollout: LearnedRollout
    advantage: float
    weight: float
    reference: Tensor | None = None

    def __len__(self) -> int:
        """The tokens of all its sequences."""
        return len(self.rollout)

    @property
    def name(self) -> str:
        """Where it comes from."""
        return self.rollout.name


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """Samples that are computed together.

    Attributes:
        samples: All with a reference, or none.
    """

    samples: tuple[LearnedSample, ...]

    def __len__(self) -> int:
        """The tokens of all sequences."""
        return sum(map(len, self.samples))

    @property
    def names(self) -> tuple[str, ...]:
        """Where the samples come from."""
        return tuple(sample.name for sample in self.samples)

    @property
    def reference(self) -> list[Tensor]:
        """The log-probabilities of all targets under the reference, by sample; [] without one."""
        return [each.reference for each in self.samples if each.reference is not None]

    def spread(self, values: Sequence[float], like: Tensor) -> Tensor:
        """The value of each sample for each of its targets [targets of all]."""
        counts = torch.tensor([each.rollout.targets for each in self.samples])
        return torch.tensor(values).repeat_interleave(counts).to(like)


def token_weights(rollouts: Sequence[LearnedRollout], average: Average) -> list[float]:
    """What a token of each rollout of an update counts, so that the loss is a mean.

    Args:
        rollouts: All of the update.
        average: Whether each "sample" counts alike, or each "token".
    """
    if average == "token":
        return [1 / sum(each.targets for each in rollouts)] * len(rollouts)
    return [1 / (len(rollouts) * each.targets) for each in rollouts]


class GrpoLoss(nn.Module):
    """The loss of rollouts, and that of fine-tuning for what is learned beside them."""

    def __init__(
        self, learner: RolloutLearner, options: GrpoOptions, supervised: FineTuningLoss
    ) -> None:
        """Hold the model as `model`.

        Args:
            learner: Computes the log-probabilities.
            options: What the loss is made of.
            supervised: The loss of batches that are no rollouts.
        """
        super().__init__()
        self.model, self.supervised = learner.family.model, supervised
        self._learner, self._options = learner, options

    def forward(self, batch: RolloutBatch | PackedBatch, step: int) -> Loss:
        """The loss of a batch.

        Of rollouts, the parts are means over tokens: "policy" the loss without the divergence,
        "clipped" the share whose ratio was cut off, "ratio" the mean ratio, and "kl" the divergence
        from the reference, if there is one.
        """
        if isinstance(batch, PackedBatch):
            return self.supervised(batch, step)
        rollouts = [each.rollout for each in batch.samples]
        now = torch.cat(self._learner.log_probabilities(rollouts))
        before = torch.cat([each.logprobs for each in rollouts]).to(now.device)
        advantages = batch.spread([each.advantage for each in batch.samples], now)
        losses, parts = self._policy(now, before, advantages)
        if known := batch.reference:
            divergence = kl(now, torch.cat(known).to(now.device))
            losses = losses + self._options.kl * divergence
            parts["kl"] = divergence.mean()
        weights = batch.spread([each.weight for each in batch.samples], now)
        return Loss((losses * weights).sum(), parts, len(batch), dict.fromkeys(parts, len(now)))

    def _policy(
        self, now: Tensor, before: Tensor, advantages: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each token [n], and what it is made of."""
        ratio = (now - before).exp()
        cut = ratio.clamp(1 - self._options.clip, 1 + self._options.clip_high)
        losses = -torch.minimum(ratio * advantages, cut * advantages)
        clipped = (cut * advantages < ratio * advantages).float()
        return losses, {"policy": losses.mean(), "clipped": clipped.mean(), "ratio": ratio.mean()}


def kl(now: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence of each token from a reference, never below 0.

    It is the third of http://joschu.net/blog/kl-approx.html: without bias for tokens that are
    sampled from the present policy.

    Args:
        now: Log-probabilities under the present policy.
        reference: Those under the reference.
    """
    difference = reference - now
    return difference.exp() - difference - 1
