"""Plots of a report, as SVG within its page, in the page's colours."""

from __future__ import annotations

from collections.abc import Sequence

from unitok.evaluation.markup import Markup, element
from unitok.evaluation.tallies import Tally

WIDTH, ROW, LEFT, RIGHT, FOOT = 720, 26, 200, 60, 26  # pixels
BINS = 20
HEIGHT = 150  # of a histogram


def share_bars(groups: Sequence[Tally]) -> Markup:
    """A bar for the share of each group that is right, with its interval at 95%."""
    height = ROW * len(groups)
    marks = [_gridline(share / 4, height) for share in range(5)]
    for row, group in enumerate(groups):
        marks += _bar(group, row * ROW)
    return _svg(height + FOOT, "The share of each group that is right", marks)


def _bar(group: Tally, top: int) -> list[Markup]:
    low, high = group.interval
    share, middle = group.share or 0.0, top + ROW / 2
    return [
        _text(LEFT - 8, middle + 4, _short(group.group), text_anchor="end"),
        element("rect", x=LEFT, y=top + 5, width=_x(share) - LEFT, height=ROW - 10, class_="bar"),
        _line(_x(low), middle, _x(high), middle, "whisker"),
        _line(_x(low), middle - 4, _x(low), middle + 4, "whisker"),
        _line(_x(high), middle - 4, _x(high), middle + 4, "whisker"),
        _text(WIDTH - RIGHT + 8, middle + 4, f"{share:.1%}"),
    ]


def _gridline(share: float, height: int) -> Markup:
    mark = _text(_x(share), height + 18, f"{share:.0%}", class_="soft", text_anchor="middle")
    return element("g", _line(_x(share), 0, _x(share), height, "grid"), mark)


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def histogram(values: Sequence[float], title: str) -> Markup:
    """How often which values occur.

    Args:
        values: At least one.
        title: What it shows, in words.
    """
    low, high = min(values), max(values)
    counts = bins(values)
    width, most = WIDTH / BINS, max(counts)
    bars = [
        element(
            "rect",
            x=round(i * width + 1, 2),
            y=round(HEIGHT * (1 - count / most), 2),
            width=round(width - 2, 2),
            height=round(HEIGHT * count / most, 2),
            class_="bar",
        )
        for i, count in enumerate(counts)
    ]
    ends = [
        _text(0, HEIGHT + 18, f"{low:.4g}", class_="soft"),
        _text(WIDTH, HEIGHT + 18, f"{high:.4g}", class_="soft", text_anchor="end"),
    ]
    return _svg(HEIGHT + FOOT, title, [*bars, *ends])


def bins(values: Sequence[float]) -> list[int]:
    """How many values lie in each of the bins between the least and the greatest."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / span * BINS))] += 1
    return counts


def _svg(height: float, title: str, marks: Sequence[Markup]) -> Markup:
    named = element("title", title)
    return element("svg", named, *marks, viewBox=f"0 0 {WIDTH} {height}", role="img")


def _text(x: float, y: float, text: str, **attributes: str) -> Markup:
    return element("text", text, x=x, y=y, **attributes)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
