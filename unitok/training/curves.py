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
PAIRS = {"margin", "chosen_reward", "rejected_reward"}  # of answers, in nats times beta
ROLLOUTS = {"entropy_text", "entropy_image", "kl", "clipped"}  # beside rewards of samples
SAMPLES = "reward"  # the names of rewards of samples begin so


@dataclass(frozen=True)
class Panel:
    """A part of the plot, which there is only if something is drawn in it.

    Attributes:
        label: Of its vertical axis.
        learned: Whether a key of a record of losses is drawn there.
        held_out: Whether a key of a record of scores is drawn there.
        scale: Of the axis.
        limits: Of the axis; None for those of what is drawn.
    """

    label: str
    learned: Callable[[str], bool]
    held_out: Callable[[str], bool] = lambda key: False
    scale: str = "linear"
    limits: tuple[float, float] | None = None

    def is_in(self, losses: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]) -> bool:
        """Whether any record has something to draw there."""
        pairs = (losses, self.learned), (scores, self.held_out)
        return any(has(key) for records, has in pairs for record in records for key in record)


def _is_share(key: str) -> bool:
    return key.removeprefix(HELD_OUT) in SHARES


def _is_of_pairs(key: str) -> bool:
    return key.removeprefix(HELD_OUT) in PAIRS


def _is_of_samples(key: str) -> bool:
    return key.startswith(SAMPLES)


def _is_loss(key: str) -> bool:
    others = (_is_share, _is_of_pairs, _is_of_samples, ROLLOUTS.__contains__, BESIDE.__contains__)
    return not any(is_other(key) for is_other in others)


def _is_held_out_loss(key: str) -> bool:
    return key.startswith(HELD_OUT) and _is_loss(key)


def _is_score(key: str) -> bool:
    return _is_share(key) or (_is_loss(key) and not key.startswith(HELD_OUT))


LOSSES = "loss (nats; cross-entropies are per token)"
PANELS = (
    Panel(LOSSES, _is_loss, _is_held_out_loss, scale="log"),
    Panel("share right", _is_share, _is_score, limits=(0, 1.02)),
    Panel("rewards of answers", _is_of_pairs, _is_of_pairs),
    Panel("mean reward of samples", _is_of_samples),
    Panel("nats per token; share clipped", ROLLOUTS.__contains__),
)


def plot(log: TrainingLog, path: Path) -> None:
    """Save the losses and the scores of a run against its steps as a picture.

    What is measured of what is not learned stands beside the rest, in broken lines. Scores are
    shares: what is above 1, such as decibels, lies outside the plot. Pairs of answers and samples
    that are rewarded have plots of their own.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    losses, scores = log.losses(), log.scores()
    panels = [panel for panel in PANELS if panel.is_in(losses, scores)] or PANELS[:1]
    size = (max(11, 5 * len(panels)), 4)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for panel, drawn in zip(panels, axes[0], strict=True):
        _draw(drawn, losses, panel.learned)
        _draw(drawn, scores, panel.held_out, "--")
        drawn.set(xlabel="step", ylabel=panel.label, yscale=panel.scale, ylim=panel.limits)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(
    axes: Any, records: Sequence[dict[str, Any]], chosen: Callable[[str], bool], line: str = "-"
) -> None:
    keys = {key for record in records for key in record if chosen(key)}
    for key in sorted(keys):
        having = [record for record in records if key in record]
        axes.plot([r["step"] for r in having], [r[key] for r in having], line, label=key)
    if keys:
        axes.legend(fontsize=7)
