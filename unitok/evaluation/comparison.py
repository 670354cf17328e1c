"""Several runs of one suite side by side: scores, differences, and the same items' results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.finishing import SCORES
from unitok.evaluation.intervals import mean_interval
from unitok.evaluation.journal import Identity, read_journal
from unitok.evaluation.markup import Markup, element, number_text, page, table
from unitok.evaluation.report import kind_of, section, setting_text, words_of
from unitok.evaluation.suite import Judgement
from unitok.evaluation.tallies import by_group
from unitok.evaluation.thumbnails import Thumbnails
from unitok.strict_json import parse_json

MOST_ITEMS = 60  # that are shown beside each other


@dataclass(frozen=True)
class PastRun:
    """A run that has ended, read from its folder.

    Attributes:
        folder: The run's folder.
        name: What it is called beside others.
        identity: What it is of.
        judged: Its judgements by the keys of their items.
        scores: By name.
    """

    folder: Path
    name: str
    identity: Identity
    judged: Mapping[str, Judgement]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """How much better a run is than the first one, on the items of both.

    Attributes:
        group: The group of the items.
        count: How many items both have.
        first: The mean of the first run.
        other: The mean of the other one.
        low: The lower end of the paired interval of the difference, at 95%.
        high: Its upper end.
    """

    group: str
    count: int
    first: float
    other: float
    low: float
    high: float

    @property
    def delta(self) -> float:
        """The difference of the means."""
        return self.other - self.first


def read_runs(folders: Sequence[Path]) -> list[PastRun]:
    """Runs of one suite with the same settings, from their folders.

    Raises:
        OSError: A folder has no journal.
        ValueError: There are fewer than two, one is not finished, or they asked different things.
    """
    if len(folders) < 2:
        raise ValueError("give at least two folders of runs to compare")
    runs = [read_run(folder) for folder in folders]
    first = runs[0].identity
    for run in runs[1:]:
        own = run.identity
        if (own.suite, own.settings) != (first.suite, first.settings):
            asked = Identity(own.suite, first.model, first.digest, own.settings, first.options)
            differences = "; ".join(first.differences(asked))
            raise ValueError(
                f"{run.folder} did not ask the same as {folders[0]}: {differences}"
            )  # fmt: skip
    return named_apart(runs)


def read_run(folder: Path) -> PastRun:
    """A run from its folder.

    Raises:
        OSError: There is no journal.
        ValueError: It is damaged, or the run is not finished.
    """
    identity, judged = read_journal(folder)
    path = folder / SCORES
    if not path.is_file():
        raise ValueError(f"{folder} is not finished; give the command that began it again")
    try:
        written = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove it, and give the command again") from None
    scores = written.get("scores") if isinstance(written, dict) else None
    if not isinstance(scores, dict) or not all(isinstance(s, int | float) for s in scores.values()):
        raise ValueError(f"{path} holds no scores; remove it, and give the command again")
    return PastRun(folder, identity.model, identity, judged, scores)


def named_apart(runs: Sequence[PastRun]) -> list[PastRun]:
    """The runs by the names of their models, with their folders where two names are the same."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return list(runs)
    return [
        PastRun(run.folder, f"{run.name} ({run.folder})", run.identity, run.judged, run.scores)
        for run in runs
    ]


def values_of(judged: Mapping[str, Judgement]) -> dict[str, float]:
    """A number for each item that has one: its score, or 1 for right and 0 for wrong, by key."""
    numbers = {key: j.score if j.ok is None else float(j.ok) for key, j in judged.items()}
    return {key: float(number) for key, number in numbers.items() if number is not None}


def differences(first: PastRun, other: PastRun) -> list[Difference]:
    """How much better the other run is, by group and in all, on the items of both."""
    ours, theirs = values_of(first.judged), values_of(other.judged)
    common = [first.judged[key] for key in sorted(ours.keys() & theirs.keys())]
    groups = [*by_group(common).items(), ("all", common)]  # a group of a user may be called "all"
    return [
        difference(group, [ours[j.key] for j in members], [theirs[j.key] for j in members])
        for group, members in groups
        if members
    ]


def difference(group: str, first: Sequence[float], other: Sequence[float]) -> Difference:
    """The difference of two means over the same items, with its paired interval."""
    low, high = mean_interval([b - a for a, b in zip(first, other, strict=True)])
    count = len(first)
    return Difference(group, count, sum(first) / count, sum(other) / count, low, high)


def to_json(runs: Sequence[PastRun]) -> dict[str, Any]:
    """The comparison for machines. Runs are in the order given."""
    return {
        "suite": runs[0].identity.suite,
        "runs": [{"name": run.name, "scores": dict(run.scores)} for run in runs],
        "differences": [
            {"name": run.name, "groups": [vars(d) | {"delta": d.delta} for d in found]}
            for run, found in ((run, differences(runs[0], run)) for run in runs[1:])
        ],
    }


# --- the page ------------------------------------------------------------------------------------


def comparison(runs: Sequence[PastRun]) -> str:
    """The page that shows runs side by side."""
    pictures, first = Thumbnails(), runs[0]
    title = f"{first.identity.suite}: {' and '.join(run.name for run in runs)}"
    sections = [
        element("h1", title),
        element("p", f"Differences are to {first.name}, item by item.", class_="soft"),
        score_table(runs),
        *(difference_table(first, run) for run in runs[1:]),
        side_by_side(runs, pictures),
        options_table(runs),
    ]
    return page(title, *sections)


def score_table(runs: Sequence[PastRun]) -> Markup:
    """The scores of all runs, and how far each lies from the first."""
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    rows = [(name, *(score_cell(run, runs[0], name) for run in runs)) for name in names]
    return section("Scores", table(("score", *(run.name for run in runs)), list(rows)))


def score_cell(run: PastRun, first: PastRun, name: str) -> str | None:
    """A score, and its difference from the first run's."""
    score, base = run.scores.get(name), first.scores.get(name)
    if score is None:
        return None
    delta = "" if run is first or base is None else f" ({score - base:+.4f})"
    return number_text(float(score)) + delta


COLUMNS = ("group", "items of both", "first", "this one", "difference", "95% interval, paired")


def difference_table(first: PastRun, other: PastRun) -> Markup:
    """The differences of one run from the first, by group."""
    found = differences(first, other)
    if not found:
        said = element("p", "No item is judged in both.")
        return section(f"{other.name} against {first.name}", said)
    rows = [
        (d.group, d.count, d.first, d.other, f"{d.delta:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}")
        for d in found
    ]
    return section(f"{other.name} against {first.name}", table(COLUMNS, list(rows)))


def side_by_side(runs: Sequence[PastRun], pictures: Thumbnails) -> Markup:
    """The same items' results, first those where the runs differ most."""
    keys = chosen_keys(runs)
    shown = [pair(runs, key, pictures) for key in keys]
    said = element("p", "First those that the runs judge most differently.", class_="soft")
    return section("Item by item", said, *shown)


def chosen_keys(runs: Sequence[PastRun]) -> list[str]:
    """The items of all runs: those with the greatest differences first, and drawings first."""
    values = [values_of(run.judged) for run in runs]
    common = [key for key in runs[0].judged if all(key in run.judged for run in runs)]

    def spread(key: str) -> float:
        found = [one[key] for one in values if key in one]
        return max(found) - min(found) if found else 0.0

    answers = {key for key in common if runs[0].judged[key].picture is None}
    return sorted(common, key=lambda key: (-spread(key), key in answers, key))[:MOST_ITEMS]


def pair(runs: Sequence[PastRun], key: str, pictures: Thumbnails) -> Markup:
    """One item's results beside each other."""
    return element("div", *(one_result(run, key, pictures) for run in runs), class_="pair")


def one_result(run: PastRun, key: str, pictures: Thumbnails) -> Markup:
    """One run's result of an item."""
    judgement = run.judged[key]
    named = element("p", run.name, class_="soft")
    shown = []
    if judgement.picture is not None:
        shown.append(pictures.picture(run.folder / judgement.picture, judgement.asked or key))
    return element("figure", named, *shown, words_of(judgement), class_=kind_of(judgement))


def options_table(runs: Sequence[PastRun]) -> Markup:
    """The settings that all share, and the options of each run."""
    identity = runs[0].identity
    rows: list[tuple[object, ...]] = [
        (name, *(setting_text(value) for _ in runs)) for name, value in identity.settings.items()
    ]
    names = dict.fromkeys(name for run in runs for name in run.identity.options)
    for name in names:
        values = (run.identity.options.get(name) for run in runs)
        rows.append((name, *(None if v is None else setting_text(v) for v in values)))
    rows.append(("folder", *(str(run.folder) for run in runs)))
    return section("Settings", table(("what", *(run.name for run in runs)), rows))
