"""A plot of a training run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.training.log import TrainingLog

# What records hold besides losses and scores.
BESIDE = {"step", "minutes", "speed", "gradient_norm", "learning_rate", "memory"}
BESIDE |= {"dropped", "cut", "skipped", "failed", "failed_samples", "solved", "answer_tokens"}
BESIDE |= {"live_groups", "flat_groups", "rollout_seconds", "update_seconds", "ratio", "policy"}
HELD_OUT = "held_out_"  # the names of losses of what is not learned begin so
SHARES = {"accuracy"}  # of pairs of answers
REWARDS = {"margin", "chosen_reward", "rejected_reward"}  # of pairs of answers


def plot(log: TrainingLog, path: Path) -> None:
    """Save the losses and the scores of a run against its steps as a picture.

    What is measured of what is not learned stands beside the rest, in broken lines. Scores are
    shares: what is above 1, such as decibels, lies outside the plot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    losses, scores = log.losses(), log.scores()
    panels = [_LOSSES, *(p for p in (_SCORES, _REWARDS) if p.is_in(losses, scores))]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(11, 4), squeeze=False)
    for panel, drawn in zip(panels, axes[0], strict=True):
        _draw(drawn, losses, panel.learned)
        _draw(drawn, scores, panel.held_out, "--" if panel is not _SCORES else "-")
        drawn.set(xlabel="step", ylabel=panel.label, yscale=panel.scale)
        if panel is _SCORES:
            drawn.set(ylim=(0, 1.02))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@dataclass(frozen=True)
class _Panel:
    """A part of the plot: which keys of the records of losses and of scores it has."""

    label: str
    learned: Callable[[str], bool]
    held_out: Callable[[str], bool]
    scale: str = "linear"

    def is_in(self, losses: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]) -> bool:
        """Whether any record has something to draw there."""
        pairs = (losses, self.learned), (scores, self.held_out)
        return any(has(key) for records, has in pairs for record in records for key in record)


def _is_share(key: str) -> bool:
    return key.removeprefix(HELD_OUT) in SHARES


def _is_reward(key: str) -> bool:
    return key.removeprefix(HELD_OUT) in REWARDS


def _is_loss(key: str) -> bool:
    return key not in BESIDE and not _is_share(key) and not _is_reward(key)


_LOSSES = _Panel(
    "loss (nats; cross-entropies per token)",
    _is_loss,
    lambda key: _is_loss(key) and key.startswith(HELD_OUT),
    "log",
)
_SCORES = _Panel(
    "share right",
    _is_share,
    lambda key: _is_share(key) or (_is_loss(key) and not key.startswith(HELD_OUT)),
)
_REWARDS = _Panel("rewards of answers", _is_reward, _is_reward)


def _draw(
    axes: Any,
    records: Sequence[dict[str, Any]],
    chosen: Callable[[str], bool] = lambda key: True,
    line: str = "-",
) -> None:
    keys = {key for record in records for key in record if chosen(key)} - BESIDE
    for key in sorted(keys):
        having = [record for record in records if key in record]
        axes.plot([r["step"] for r in having], [r[key] for r in having], line, label=key)
    if keys:
        axes.legend(fontsize=7)
