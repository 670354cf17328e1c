"""Rounds of rollouts, and the batches of the updates that learn them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from torch import Tensor

from unitok.training.data.order import hashed
from unitok.training.kept_weights import KeptWeights
from unitok.training.packing import PackedBatch, pack_rows
from unitok.training.recipe import FAILURES
from unitok.training.reinforcement.advantages import advantages_of
from unitok.training.reinforcement.grpo_loss import (
    Average,
    LearnedSample,
    RolloutBatch,
    token_weights,
)
from unitok.training.reinforcement.policy import LearnedRollout, RolloutLearner
from unitok.training.reinforcement.prompts import Prompt, PromptStream
from unitok.training.reinforcement.rewarded_rollouts import RewardedGroup, RewardedRollouts
from unitok.training.reinforcement.rewards import RewardsFailedError, check_failures
from unitok.training.reinforcement.rollout_model import follow
from unitok.training.reinforcement.round_report import RoundReport, entropy_of, mean_of
from unitok.training.updates import ConversationUpdates

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RoundOptions:
    """What a round is.

    Attributes:
        groups: Prompts of a round.
        passes: How often its samples are learned.
        minibatches: Updates of each pass.
        normalise: Whether advantages are divided by the deviation of their group.
        average: What counts alike in the loss.
        max_tokens: The most tokens that are computed at once.
        solved: The reward of samples that solve a prompt, which then comes no more; None for never.
        failures: The share of a round's samples that may fail.
        supervised: The weight of the loss of fine-tuning beside.
        seed: Of samples, and of the order in which they are learned.
    """

    groups: int = 32
    passes: int = 1
    minibatches: int = 1
    normalise: bool = True
    average: Average = "sample"
    max_tokens: int = 4096
    solved: float | None = None
    failures: float = FAILURES
    supervised: float = 0.0
    seed: int = 0


class RolloutUpdates:
    """The updates of one round after another. The state resumes exactly between rounds.

    Attributes:
        reports: Of the rounds so far whose reports nobody took.
    """

    def __init__(
        self,
        stream: PromptStream,
        rollouts: RewardedRollouts,
        learner: RolloutLearner,
        options: RoundOptions,
        reference: KeptWeights | None = None,
        supervised: ConversationUpdates | None = None,
    ) -> None:
        """Begin where the stream stands. The rollout model sleeps between rounds.

        Args:
            stream: The prompts.
            rollouts: Samples and rewards them.
            learner: The model in training.
            options: What a round is.
            reference: The weights that the policy shall stay near to; None for none.
            supervised: What is learned beside.
        """
        self._stream, self._rollouts, self._learner = stream, rollouts, learner
        self._options, self._reference, self._supervised = options, reference, supervised
        self._round = self._dropped = 0
        self.reports: list[RoundReport] = []

    def __next__(self) -> list[list[RolloutBatch | PackedBatch]]:
        """The batches of each update of the next round; none if it has nothing to learn.

        Raises:
            StopIteration: All prompts are solved.
            RewardsFailedError: Too many samples have no reward. The state is that before the round.
            RuntimeError: The rollout model failed.
        """
        place = self._stream.state_dict()
        if not (prompts := self._stream.take(self._options.groups)):
            raise StopIteration
        began = time.monotonic()
        groups = self._sampled(prompts)
        try:
            self._check_failures(groups)
        except RewardsFailedError:
            self._stream.load_state_dict(place)
            raise
        solved = [g for g in groups if g.is_solved(self._options.solved)]
        for group in solved:
            self._stream.solve(group.prompt)
        live = [group for group in groups if group.is_live]
        seconds = time.monotonic() - began
        self.reports.append(report_of(groups, len(live), len(solved), seconds))
        updates = self._updates(live)
        self._round += 1
        return updates

    def _sampled(self, prompts: Sequence[Prompt]) -> list[RewardedGroup]:
        model = self._rollouts.collect.model
        follow(model, self._learner.family, self._round)
        model.wake()
        try:
            return self._rollouts(prompts, hashed(self._options.seed, self._round))
        finally:
            model.sleep()

    def _check_failures(self, groups: Sequence[RewardedGroup]) -> None:
        """Log why samples failed, and raise RewardsFailedError if they are too many."""
        failed = [(group.prompt, why) for group in groups for why in group.failed]
        total = len(failed) + sum(len(group.samples) for group in groups)
        for (name, why), count in Counter((p.name, why) for p, why in failed).items():
            logger.warning("left out: %s of the samples of %s: %s", count, name, why)
        check_failures(failed, total, self._options.failures, "grpo.failures")
        self._dropped += len(failed)

    def _updates(self, live: Sequence[RewardedGroup]) -> list[list[RolloutBatch | PackedBatch]]:
        """The batches of each update that learns from groups."""
        samples = self._samples(live)
        made: list[list[RolloutBatch | PackedBatch]] = []
        for number in range(self._options.passes):
            order = list(range(len(samples)))
            Random(hashed(self._options.seed, self._round, number)).shuffle(order)
            for part in parts_of(order, self._options.minibatches):
                made.append([*self._batches([samples[i] for i in part]), *self._beside()])
        return made

    def _samples(self, live: Sequence[RewardedGroup]) -> list[LearnedSample]:
        """What is learned of groups. Its weights are those of an update's, which is not yet known.

        The log-probabilities under the reference are computed here, once for all updates.
        """
        rollouts = [self._learner(each.rollout) for group in live for each in group.samples]
        normalise = self._options.normalise
        advantages = [a for group in live for a in advantages_of(group.rewards, normalise)]
        reference = self._reference_of(rollouts)
        triples = zip(rollouts, advantages, reference, strict=True)
        return [LearnedSample(rollout, a, 0.0, known) for rollout, a, known in triples]

    def _batches(self, samples: Sequence[LearnedSample]) -> list[RolloutBatch]:
        """The batches of one update. A rollout that is longer than a batch has one of its own."""
        weights = token_weights([each.rollout for each in samples], self._options.average)
        weighted = [replace(s, weight=w) for s, w in zip(samples, weights, strict=True)]
        return [RolloutBatch(tuple(row)) for row in pack_rows(weighted, self._most(samples))]

    def _most(self, samples: Sequence[Sized]) -> int:
        return max(self._options.max_tokens, *map(len, samples))

    def _beside(self) -> list[PackedBatch]:
        """The batches of conversations that are learned beside, in one update."""
        if self._supervised is None:
            return []
        share = self._options.supervised
        return [
            replace(batch, weights={kind: share * w for kind, w in batch.weights.items()})
            for batch in next(self._supervised)
        ]

    def _reference_of(self, rollouts: Sequence[LearnedRollout]) -> Sequence[Tensor | None]:
        """The log-probabilities of rollouts under the reference; None of each without one."""
        if self._reference is None or not rollouts:
            return [None] * len(rollouts)
        found: dict[int, Tensor] = {}
        with self._reference.in_place():
            for row in pack_rows(rollouts, self._most(rollouts)):
                values = self._learner.constants(row)
                found |= {id(each): value for each, value in zip(row, values, strict=True)}
        return [found[id(each)] for each in rollouts]

    def left_out(self) -> dict[str, int]:
        """How many samples had no reward, and what was left out of the data beside."""
        beside = {} if self._supervised is None else self._supervised.left_out()
        return {"failed_samples": self._dropped} | beside

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, in plain values."""
        beside = None if self._supervised is None else self._supervised.state_dict()
        place = {"round": self._round, "dropped": self._dropped, "supervised": beside}
        return place | {"prompts": self._stream.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ValueError: The prompts or the data are others.
        """
        self._round, self._dropped = state["round"], state["dropped"]
        self._stream.load_state_dict(state["prompts"])
        if self._supervised is not None:
            self._supervised.load_state_dict(state["supervised"])


def parts_of(order: Sequence[int], count: int) -> list[Sequence[int]]:
    """Places in so many parts of about the same size, fewer if there are fewer places."""
    count = min(count, len(order))
    return [order[i * len(order) // count : (i + 1) * len(order) // count] for i in range(count)]


def report_of(
    groups: Sequence[RewardedGroup], live: int, solved: int, seconds: float
) -> RoundReport:
    """What a round was like."""
    samples = [each for group in groups for each in group.samples]
    rollouts = [each.rollout for each in samples]
    by_kind = {
        kind: [s.reward for s in samples if s.rollout.prompt.kind == kind]
        for kind in ("text", "image")
    }
    answers = [float(each.sampled) for each in rollouts if each.prompt.kind == "text"]
    return RoundReport(
        reward=mean_of([each.reward for each in samples]),
        reward_text=mean_of(by_kind["text"]),
        reward_image=mean_of(by_kind["image"]),
        live_groups=live,
        flat_groups=len(groups) - live,
        solved=solved,
        failed=sum(len(group.failed) for group in groups),
        entropy_text=entropy_of(rollouts, "text"),
        entropy_image=entropy_of(rollouts, "image"),
        answer_tokens=mean_of(answers),
        rollout_seconds=seconds,
    )
