"""Scores of questions whose answer is yes or no.

As in POPE (https://arxiv.org/abs/2305.10355): a model that says yes to all is found out by its
precision and by the share of yes.
"""

from __future__ import annotations

from collections.abc import Sequence

from unitok.evaluation.suite import Judgement, Table
from unitok.evaluation.tallies import by_group
from unitok.evaluation.words import yes_or_no

COLUMNS = ("group", "accuracy", "precision", "recall", "F1", "share of yes", "neither", "of")


def presence_scores(judged: Sequence[Judgement]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and the share of yes.

    Yes is the positive answer. An answer that begins with neither counts as no, as in POPE's own
    script, but its accuracy is that of the judgement. `wanted` of a judgement is "yes" or "no".
    """
    said = [yes_or_no(judgement.said) == "yes" for judgement in judged]
    true = [judgement.wanted == "yes" for judgement in judged]
    both = sum(s and t for s, t in zip(said, true, strict=True))
    precision, recall = _share(both, sum(said)), _share(both, sum(true))
    scores = {
        "accuracy": _share(sum(bool(judgement.ok) for judgement in judged), len(judged)),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes": _share(sum(said), len(judged)),
    }
    return {name: round(value, 4) for name, value in scores.items()}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def presence_table(judged: Sequence[Judgement]) -> Table:
    """The scores of each group, and of all."""
    rows = []
    for name, members in {**by_group(judged), "all": list(judged)}.items():
        neither = sum(yes_or_no(judgement.said) is None for judgement in members)
        rows.append((name, *presence_scores(members).values(), neither, len(members)))
    return Table("Yes or no", COLUMNS, tuple(rows))
