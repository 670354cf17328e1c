"""A plot of a training run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitok.training.log import TrainingLog

BESIDE = {"step", "minutes", "speed"}  # what records hold besides losses and scores


def plot(log: TrainingLog, path: Path) -> None:
    """Save the losses and the scores of a run against its steps as a picture.

    Scores are shares: what is above 1, such as decibels, lies outside the plot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    _draw(left, log.losses())
    _draw(right, log.scores())
    left.set(xlabel="step", ylabel="cross-entropy (nats per token)", yscale="log")
    right.set(xlabel="step", ylabel="share right, held out", ylim=(0, 1.02))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    for key in sorted({key for record in records for key in record} - BESIDE):
        having = [record for record in records if key in record]
        axes.plot([r["step"] for r in having], [r[key] for r in having], label=key)
    if records:
        axes.legend(fontsize=7)
