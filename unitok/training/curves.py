"""A plot of a training run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unitok.training.log import TrainingLog

# What records hold besides losses and scores.
BESIDE = {"step", "minutes", "speed", "gradient_norm", "learning_rate", "memory"}
BESIDE |= {"dropped", "cut", "skipped", "failed", "failed_samples", "solved", "answer_tokens"}
BESIDE |= {"live_groups", "flat_groups", "rollout_seconds", "update_seconds", "ratio", "policy"}
HELD_OUT = "held_out_"  # the names of losses of what is not learned begin so
REWARD = "reward"  # the names of rewards begin so
OF_ROLLOUTS = {"entropy_text", "entropy_image", "kl", "clipped"}  # beside rewards


def plot(log: TrainingLog, path: Path) -> None:
    """Save the losses and the scores of a run against its steps as a picture.

    Losses of what is not learned stand beside the others. Scores are shares: what is above 1, such
    as decibels, lies outside the plot. Rewards and what else there is of rollouts have plots of
    their own.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    has_scores = any(map(_is_score, (key for record in log.scores() for key in record)))
    has_rewards = any(map(_is_reward, (key for record in log.losses() for key in record)))
    count = 1 + has_scores + 2 * has_rewards
    figure, axes = pyplot.subplots(1, count, figsize=(max(11, 5 * count), 4), squeeze=False)
    left, *others = axes[0]
    _draw(left, log.losses(), _is_loss)
    _draw(left, log.scores(), lambda key: key.startswith(HELD_OUT), "--")
    left.set(xlabel="step", ylabel="cross-entropy (nats per token)", yscale="log")
    if has_scores:
        _draw(others[0], log.scores(), _is_score)
        others[0].set(xlabel="step", ylabel="share right, held out", ylim=(0, 1.02))
    if has_rewards:
        _draw(others[-2], log.losses(), _is_reward)
        others[-2].set(xlabel="step", ylabel="mean reward of samples")
        _draw(others[-1], log.losses(), OF_ROLLOUTS.__contains__)
        others[-1].set(xlabel="step", ylabel="nats per token; share clipped")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _is_reward(key: str) -> bool:
    return key.startswith(REWARD)


def _is_loss(key: str) -> bool:
    return not _is_reward(key) and key not in OF_ROLLOUTS


def _is_score(key: str) -> bool:
    return key not in BESIDE and not key.startswith(HELD_OUT)


def _draw(
    axes: Any,
    records: Sequence[dict[str, Any]],
    chosen: Callable[[str], bool],
    line: str = "-",
) -> None:
    keys = {key for record in records for key in record if chosen(key)} - BESIDE
    for key in sorted(keys):
        having = [record for record in records if key in record]
        axes.plot([r["step"] for r in having], [r[key] for r in having], line, label=key)
    if keys:
        axes.legend(fontsize=7)
