"""A run of reinforcement learning, from a recipe to a folder that `unitok.load` opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok.training.data.sources import Source
from unitok.training.kept_weights import KeptWeights
from unitok.training.losses import Losses
from unitok.training.ranks import world_size
from unitok.training.recipe import GrpoKeys, Recipe, RolloutKeys
from unitok.training.reinforcement.grpo_loss import GrpoLoss, GrpoOptions
from unitok.training.reinforcement.policy import RolloutLearner
from unitok.training.reinforcement.prompts import PromptStream, read_prompts
from unitok.training.reinforcement.reward_names import (
    BUILT_IN,
    RewardEntry,
    check_names,
    find_rewards,
)
from unitok.training.reinforcement.rewarded_rollouts import RewardedRollouts
from unitok.training.reinforcement.rewards import RewardsFailedError
from unitok.training.reinforcement.rollout_model import open_rollout_model
from unitok.training.reinforcement.rollout_updates import RolloutUpdates, RoundOptions
from unitok.training.reinforcement.rollouts import RolloutCollector, RolloutOptions
from unitok.training.reinforcement.round_report import merged
from unitok.training.reinforcement.round_trainer import RoundTrainer
from unitok.training.result import DTYPES
from unitok.training.run import FineTuning, status_of
from unitok.training.setting_up import make_supervised_loss
from unitok.training.trainer import Trainer


class Reinforcement(FineTuning):
    """A run whose steps are rounds: samples of prompts, their rewards, and updates from them.

    It has one rank. The samples come from a rollout model, which is a copy of the model in
    training, and sleeps between rounds.

    Attributes:
        prompts: What is asked.
        rollout_model: Makes the samples.
    """

    loss_parts = (*FineTuning.loss_parts, "policy", "clipped", "ratio", "kl")

    def __init__(self, recipe: Recipe, rewards: Mapping[str, RewardEntry] = BUILT_IN) -> None:
        """Open models, prompts and data, and go on from the last checkpoint if there is one.

        Args:
            recipe: With a section [rollout].
            rewards: The rewards that recipes can name, beside entry points.

        Raises:
            ImportError, FileNotFoundError, ValueError: As `FineTuning`, or there is no such reward,
                a prompt is wrong, or there are several ranks.
        """
        if recipe.rollout is None:
            raise ValueError("the recipe has no [rollout]: there is nothing to be rewarded")
        if world_size() > 1:
            raise ValueError("a run with [rollout] has one rank: start it without torchrun")
        check_names((each.name for each in recipe.reward), rewards)
        self._rewards, self._keys = rewards, recipe.rollout
        self.prompts = read_prompts(recipe.rollout.prompts)
        super().__init__(recipe)

    def make_updates(self, sources: list[Source]) -> RolloutUpdates:
        """The rounds; see `FineTuning.make_updates`."""
        recipe, keys, grpo = self.recipe, self._keys, self.recipe.grpo
        dtype = self.precision if keys.precision == "auto" else DTYPES[keys.precision]
        device = self.ranks.accelerator.device
        self.rollout_model = open_rollout_model(recipe.model, device, dtype, keys.memory)
        self.rollout_model.sleep()
        rewards = find_rewards(recipe.reward, self.rollout_model, self._rewards)
        rewards.check(self.prompts)
        self._learner = RolloutLearner(self.family, grpo.policy, self.precision)
        trained = {n: p for n, p in self.family.model.named_parameters() if p.requires_grad}
        collect = RolloutCollector(self.rollout_model, rollout_options(keys))
        return RolloutUpdates(
            PromptStream(self.prompts, recipe.seed),
            RewardedRollouts(collect, rewards),
            self._learner,
            round_options(recipe, keys),
            KeptWeights(trained) if grpo.kl else None,
            super().make_updates(sources) if grpo.supervised else None,
        )

    def make_trainer(self) -> Trainer[Any]:
        """See `FineTuning.make_trainer`."""
        supervised = make_supervised_loss(self.family, self.recipe)
        loss = GrpoLoss(self._learner, grpo_options(self.recipe.grpo), supervised)
        self._trainer = RoundTrainer(self.family.model, loss, **self.trainer_parts())
        return self._trainer

    def run(self, shown: bool = True) -> Path:
        """See `FineTuning.run`. The rollout model is closed at its end.

        Raises:
            RewardsFailedError: Too many samples of a round have no reward. There is a checkpoint of
                the last update, if one was made.
        """
        try:
            return super().run(shown)
        except RewardsFailedError:
            if self.trainer.step_count not in (0, *self.checkpoints.steps()):
                self.save()
            raise
        finally:
            self.rollout_model.close()

    def numbers(self) -> dict[str, float]:
        """See `FineTuning.numbers`: what the rounds were like, and the time of the last updates."""
        reports, self.updates.reports = self.updates.reports, []
        times = {"update_seconds": self._trainer.update_seconds}
        return self.updates.left_out() | merged(reports) | times

    def status(self, losses: Losses) -> str:
        """See `FineTuning.status`."""
        last = self.updates.reports[-1]
        reward = "" if last.reward is None else f"reward {last.reward:.3f} "
        return f"{reward}live {last.live_groups} {status_of(losses)}"


def rollout_options(keys: RolloutKeys) -> RolloutOptions:
    """How the prompts of a recipe are sampled."""
    names = ("samples", "temperature", "top_k", "top_p", "guidance", "max_tokens")
    return RolloutOptions(**{name: getattr(keys, name) for name in names})


def grpo_options(keys: GrpoKeys) -> GrpoOptions:
    """What the loss of a recipe is made of."""
    high = keys.clip if keys.clip_high is None else keys.clip_high
    return GrpoOptions(keys.clip, high, keys.kl)


def round_options(recipe: Recipe, keys: RolloutKeys) -> RoundOptions:
    """What a round of a recipe is."""
    grpo = recipe.grpo
    return RoundOptions(
        groups=keys.groups,
        passes=grpo.passes,
        minibatches=grpo.minibatches,
        normalise=grpo.advantage == "normalised",
        average=grpo.average,
        max_tokens=recipe.batch.max_tokens,
        solved=keys.solved if keys.drop_solved else None,
        failures=grpo.failures,
        supervised=grpo.supervised,
        seed=recipe.seed,
    )
