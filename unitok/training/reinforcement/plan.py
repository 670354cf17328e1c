"""What a run of reinforcement learning would do, for people, without an update."""

from __future__ import annotations

from collections import Counter

from unitok.training.plan import trained_parts
from unitok.training.reinforcement.round_report import RoundReport
from unitok.training.reinforcement.run import Reinforcement


def plan_of(run: Reinforcement) -> dict[str, str]:
    """What is trained, on what, and what the first round is like, whose samples are made.

    Raises:
        RewardsFailedError: Too many samples have no reward.
        ValueError: There is nothing left to be learned.
    """
    try:
        updates = next(run.updates)
    except StopIteration:
        raise ValueError("all prompts are solved: there is nothing left to learn") from None
    recipe, keys = run.recipe, run.recipe.rollout
    assert keys is not None
    rewards = ", ".join(f"{each.weight:g} x {each.name}" for each in recipe.reward)
    tokens = sum(len(batch) for batches in updates for batch in batches)
    return {
        "model": run.family.name,
        "trained": ", ".join(trained_parts(run)),
        "device": f"{run.trainer.device}, {run.trainer.precision}",
        "prompts": prompts_in_words(run),
        "rewards": rewards,
        "steps": f"{run.steps:,} of {keys.groups} prompts, {keys.samples} samples each; "
        f"{run.trainer.step_count:,} made",
        "first step": f"{in_words(run.updates.reports[-1])}; {len(updates)} updates of "
        f"{tokens:,} tokens",
        "writes": str(run.folder),
    }


def prompts_in_words(run: Reinforcement) -> str:
    """How many prompts there are of each kind."""
    kinds = Counter(prompt.kind for prompt in run.prompts)
    names = {"image": "to draw", "text": "to answer"}
    return ", ".join(f"{kinds[kind]:,} {name}" for kind, name in names.items() if kinds[kind])


def in_words(report: RoundReport) -> str:
    """What a round was like."""
    reward = "no reward" if report.reward is None else f"mean reward {report.reward:.3f}"
    return (
        f"{reward}, {report.live_groups} groups of unequal rewards, {report.solved} solved, "
        f"{report.failed} samples failed"
    )
