"""What was measured as a plot, and what went wrong as a sheet of pictures."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.emoji.baselines.table import SHARES, TITLES, Measured, by_kind
from unitok.emoji.scenes import KINDS

COLUMNS = 6  # failures of a kind of model


def _pyplot() -> Any:
    """matplotlib, which draws to files alone; ImportError if it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError(
            "plots need matplotlib, which is not installed: pip install 'unitok-engine[eval]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_plot(runs: Sequence[Measured], curve: Mapping[str, Any] | None, path: Path) -> None:
    """Save scores by kind, with the range of the seeds, and errors over the number of drawings.

    Raises:
        ImportError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), width_ratios=(2.4, 1.8, 1.5))
    groups = by_kind(runs)
    _bars(axes[0], groups, [f"draw_{kind}" for kind in KINDS] + ["draw_mean"], "drawings right")
    _bars(axes[1], groups, ["matching", "caption", "question_mean"], "pictures understood")
    if curve is None:
        axes[2].set_visible(False)
    else:
        _lines(axes[2], curve)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(
    axes: Any, groups: Mapping[str, Sequence[Measured]], names: Sequence[str], title: str
) -> None:
    """A bar for each score of each kind of model that has it, with a line over its range."""
    shown = {k: g for k, g in groups.items() if any(n in g[0].record["scores"] for n in names)}
    width = 0.8 / max(1, len(shown))
    for place, (kind, group) in enumerate(shown.items()):
        for x, name in enumerate(names):
            values = [r.record["scores"][name] for r in group if name in r.record["scores"]]
            if values:
                _bar(axes, x + width * (place - (len(shown) - 1) / 2), values, width, kind)
    axes.set_xticks(range(len(names)), [_label(name) for name in names])
    axes.set(ylim=(0, 1.2), ylabel="share right, held out", title=title)  # room for the legend
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.tick_params(axis="x", labelsize=8)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(unique.values(), unique.keys(), fontsize=8, loc="upper right", ncols=3)


def _bar(axes: Any, x: float, values: Sequence[float], width: float, kind: str) -> None:
    mean = sum(values) / len(values)
    reach = [[mean - min(values)], [max(values) - mean]]
    colour = f"C{list(TITLES).index(kind)}"
    axes.bar(x, mean, width, yerr=reach, capsize=2, color=colour, label=TITLES[kind])


def _label(name: str) -> str:
    title = SHARES[name].strip("*").removeprefix("drawings").strip(":, ")
    return textwrap.fill(title, 14)


def _lines(axes: Any, curve: Mapping[str, Any]) -> None:
    found: Mapping[str, Mapping[str, float]] = curve["errors"]
    for name, line in (("all", "o-"), ("least", "k:")):
        counts = [int(n) for n in found[name]]
        label = {"all": "kept by the CLIP", "least": "if it knew"}[name]
        axes.plot(counts, list(found[name].values()), line, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set(ylim=(0, None), xlabel="drawings of a prompt", ylabel="share wrong", title="reranking")
    axes.legend(fontsize=8)


def save_failures(runs: Sequence[Measured], path: Path) -> None:
    """Save a sheet: a row for each kind of model, with what its first run got wrong.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: A picture of a failure is missing.
    """
    groups = {kind: group[0] for kind, group in by_kind(runs).items()}
    rows = len(groups)
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(2.5 * COLUMNS, 3.1 * rows), squeeze=False
    )
    for row, (kind, run) in zip(axes, groups.items(), strict=True):
        for cell in row:
            cell.axis("off")
        row[0].set_title(TITLES[kind], loc="left", fontweight="bold", y=1.32)
        for cell, failure in zip(row, run.record["failures"], strict=False):
            with Image.open(run.folder / failure["picture"]) as image:
                cell.imshow(image.convert("RGB"), interpolation="nearest")
            cell.text(0.5, 1.03, _wrapped(failure["asked"]), **_OVER, transform=cell.transAxes)
            cell.text(0.5, -0.03, _wrapped(failure["found"]), **_UNDER, transform=cell.transAxes)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.88, bottom=0.06, hspace=0.9)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


_OVER: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8}
_UNDER: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8, "color": "firebrick"}


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 30)[:3])
