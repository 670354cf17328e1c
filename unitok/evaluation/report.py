"""The report of a run: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.journal import Identity
from unitok.evaluation.markup import Child, Markup, element, number_text, page, table
from unitok.evaluation.matching import Match
from unitok.evaluation.plots import histogram, share_bars
from unitok.evaluation.suite import Item, Judgement, Summary
from unitok.evaluation.tallies import Tally, by_group, tallies, tally
from unitok.evaluation.thumbnails import Thumbnails
from unitok.pictures import PictureLike
from unitok.requests import Caption, Edit
from unitok.results import counted

SAMPLES = 8  # of each group
MOST_GROUPS = 24  # that have samples and bars
WORST = 40
MOST_TEXT = 2_000  # characters of a prompt or an answer that are shown
MARKS = {"right": "✓ right", "wrong": "✗ wrong", "failed": "! failed", "scored": "scored"}
GROUP_COLUMNS = ("group", "right", "of", "share", "95% interval", "failed", "mean score")


@dataclass(frozen=True)
class Finished:
    """A run that has ended, as its report shows it.

    Attributes:
        identity: What it is of.
        folder: The run's folder.
        items: All that was asked.
        judged: What became of it, in the same order.
        summary: What it comes to.
        facts: What else is known of the model and of this machine, in words.
    """

    identity: Identity
    folder: Path
    items: Sequence[Item]
    judged: Sequence[Judgement]
    summary: Summary
    facts: Mapping[str, str]

    @property
    def overall(self) -> Tally:
        """All judgements, counted."""
        return tally("all", self.judged)

    def to_json(self) -> dict[str, Any]:
        """What scores.json and --json hold."""
        overall = self.overall
        return {
            "suite": self.identity.suite,
            "model": self.identity.model,
            "scores": self.summary.scores,
            "groups": {one.group: group_json(one) for one in tallies(self.judged)},
            "items": overall.count,
            "failed": overall.failed,
            "seconds": round(overall.seconds, 3),
            "settings": self.identity.settings,
            "options": self.identity.options,
            "facts": dict(self.facts),
            "notes": self.summary.notes,
        }


def group_json(one: Tally) -> dict[str, Any]:
    """A group for machines."""
    low, high = one.interval
    judged = {"right": one.right, "judged": one.judged, "share": one.share}
    bounds = {"low": round(low, 4), "high": round(high, 4)} if one.judged else {}
    score = {} if one.mean_score is None else {"mean_score": round(one.mean_score, 6)}
    counts = {"items": one.count, "failed": one.failed}
    return counts | (judged if one.judged else {}) | bounds | score


def report(run: Finished) -> str:
    """The page of a run."""
    pictures = Thumbnails()
    identity, overall = run.identity, run.overall
    title = f"{identity.suite}: {identity.model}"
    failed = f", of which {overall.failed:,} failed" if overall.failed else ""
    sections = [
        element("h1", title),
        element("p", counted(overall.count, "item") + failed, class_="soft"),
        score_cards(run.summary.scores),
        *(element("p", note) for note in run.summary.notes),
        groups(run),
        *(section(one.title, table(one.columns, list(one.rows))) for one in run.summary.tables),
        worst(run, pictures),
        samples(run, pictures),
        settings(run),
        time(run),
    ]
    if pictures.left_out:
        sections.append(
            element(
                "p", f"{pictures.left_out:,} pictures found no room on this page.", class_="soft"
            )
        )
    return page(title, *sections)


def section(title: str, *children: Child, name: str = "") -> Markup:
    """A part of the page with a heading."""
    named = {"id": name} if name else {}
    return element("section", element("h2", title), *children, **named)


def score_cards(scores: Mapping[str, float]) -> Markup:
    """Each score, large."""
    cards = (
        element(
            "div", element("b", number_text(float(value))), element("span", name), class_="card"
        )
        for name, value in scores.items()
    )
    return element("div", *cards, class_="cards")


def groups(run: Finished) -> Markup:
    """What is right in each group: bars and a table; and how the scores lie."""
    found = tallies(run.judged)
    right = [one for one in found if one.judged]
    parts = [share_bars(right[:MOST_GROUPS])] if right else []
    parts.append(table(GROUP_COLUMNS, [group_row(one) for one in [*found, run.overall]]))
    values = [j.score for j in run.judged if j.score is not None]
    if values:
        parts += [element("h2", "Scores"), histogram(values, "How often which scores occur")]
    return section("By group", *parts)


def group_row(one: Tally) -> tuple[object, ...]:
    """The row of a group."""
    low, high = one.interval
    share = None if one.share is None else f"{one.share:.1%}"
    bounds = f"{low:.1%} to {high:.1%}".replace(" ", "\u00a0") if one.judged else None
    right = one.right if one.judged else None
    return one.group, right, one.count, share, bounds, one.failed or None, one.mean_score


# --- samples -------------------------------------------------------------------------------------


def samples(run: Finished, pictures: Thumbnails) -> Markup:
    """The first items of each group."""
    items = {item.key: item for item in run.items}
    sheets = []
    for group, members in list(by_group(run.judged).items())[:MOST_GROUPS]:
        shown = [figure(run, items[j.key], j, pictures) for j in members[:SAMPLES]]
        sheets.append(
            element("details", element("summary", group), element("div", *shown, class_="sheet"))
        )
    return section("Samples", *sheets)


def worst(run: Finished, pictures: Thumbnails) -> Markup:
    """What failed, then what is wrong, then what scores least."""
    items = {item.key: item for item in run.items}
    chosen = worst_cases(run.judged)
    if not chosen:
        return section("Worst cases", element("p", "Nothing is wrong."))
    shown = (figure(run, items[j.key], j, pictures) for j in chosen)
    wrong = sum(kind_of(j) in ("wrong", "failed") for j in run.judged)
    said = (
        element("p", f"{len(chosen):,} shown of {wrong:,} that are wrong or failed.")
        if wrong
        else ""
    )
    return section("Worst cases", said, element("div", *shown, class_="sheet"))


def worst_cases(judged: Sequence[Judgement]) -> list[Judgement]:
    """Some of what is not right, from every group: the failed, the wrong, the lowest scores."""
    rank = {"failed": 0, "wrong": 1, "scored": 2}
    found: list[tuple[int, tuple[float, ...], int, Judgement]] = []
    for members in by_group(judged).values():
        poor = [j for j in members if kind_of(j) in rank]
        poor.sort(key=lambda j: (rank[kind_of(j)], _score(j)))
        # The worst of each group come before the second worst of any.
        found += [
            (place, (rank[kind_of(j)], _score(j)), len(found), j) for place, j in enumerate(poor)
        ]
    return [j for *_, j in sorted(found, key=lambda one: one[:3])[:WORST]]


def _score(judgement: Judgement) -> float:
    return 0.0 if judgement.score is None else judgement.score


def kind_of(judgement: Judgement) -> str:
    """Right, wrong, failed or scored."""
    if judgement.error is not None:
        return "failed"
    return "scored" if judgement.ok is None else "right" if judgement.ok else "wrong"


def figure(run: Finished, item: Item, judgement: Judgement, pictures: Thumbnails) -> Markup:
    """An item with its pictures and what became of it."""
    shown = [pictures.picture(source, words) for source, words in pictures_of(run, item, judgement)]
    return element("figure", *shown, words_of(judgement), class_=kind_of(judgement))


def pictures_of(run: Finished, item: Item, judgement: Judgement) -> list[tuple[PictureLike, str]]:
    """The picture that was shown and the one that was drawn, if there are any."""
    found: list[tuple[PictureLike, str]] = []
    if isinstance(item.request, Caption | Edit | Match):
        found.append((item.request.image, f"shown for {item.key}"))
    if judgement.picture is not None:
        found.append((run.folder / judgement.picture, judgement.asked or item.key))
    return found


def words_of(judgement: Judgement) -> Markup:
    """What was asked, what was said, and what was wanted."""
    score = "" if judgement.score is None else f" {number_text(judgement.score)}"
    lines = [element("p", MARKS[kind_of(judgement)] + score, class_="mark")]
    if judgement.asked:
        lines.append(element("p", element("b", excerpt(judgement.asked))))
    lines.append(element("p", excerpt(judgement.said)))
    if judgement.wanted is not None and judgement.wanted != judgement.asked and not judgement.ok:
        wanted = excerpt(wanted_text(judgement.wanted))
        lines.append(element("p", f"wanted: {wanted}", class_="soft"))
    lines.append(element("p", judgement.key, class_="soft"))
    return element("figcaption", *lines)


def excerpt(text: str) -> str:
    """The beginning of a long text, so that the page stays small."""
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]} ... ({len(text):,} characters)"


def wanted_text(wanted: Any) -> str:
    """What was wanted, in words."""
    if isinstance(wanted, str):
        return wanted
    if isinstance(wanted, list) and all(isinstance(one, str) for one in wanted):
        return " | ".join(wanted)
    return json.dumps(wanted, ensure_ascii=False)


# --- how it was made -----------------------------------------------------------------------------


def settings(run: Finished) -> Markup:
    """The model, the suite's settings, the options, the versions."""
    rows: dict[str, object] = {"suite": run.identity.suite, "model": run.identity.model}
    rows |= {"digest of the model's files": run.identity.digest[:16]}
    rows |= run.identity.settings | run.identity.options | dict(run.facts)
    shown = [
        (name, "all" if value is None else setting_text(value)) for name, value in rows.items()
    ]
    return section("Settings", table(("what", "value"), list(shown)))


def setting_text(value: object) -> str:
    """A setting, in words."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def time(run: Finished) -> Markup:
    """How long the run took, by group. This is all that differs between two equal runs."""
    rows = [
        (one.group, one.count, round(one.seconds, 2), round(1000 * one.seconds / one.count, 1))
        for one in [*tallies(run.judged), run.overall]
    ]
    said = "Requests are batched, so these are times from one result to the next."
    columns = ("group", "items", "seconds", "ms an item")
    return section("Time", element("p", said), table(columns, list(rows)), name="time")
