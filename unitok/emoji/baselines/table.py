"""Scores of many runs as one table: a column for each kind of model, the mean of its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.checkpoints.folders import read_json
from unitok.emoji.baselines.scoring import SCORES
from unitok.emoji.scenes import KINDS

CURVE = "reranking.json"
BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"

TITLES = {
    "clip": "CLIP",
    "lit": "LiT",
    "diffusion": "diffusion",
    "ours": "ours",
}
SHARES = {
    "draw_single": "drawings: one object",
    "draw_colour": "drawings: object on a colour",
    "draw_two": "drawings: two objects",
    "draw_count": "drawings: two to four of a kind",
    "draw_position": "drawings: left of, right of, above, below",
    "draw_mean": "**drawings, mean**",
    "caption": "captions, true and complete",
    "question_mean": "answers to questions",
    **{f"matching_{kind}": f"matching: {kind}" for kind in KINDS},
    "matching": "**matching among 10 captions**",
}
SECONDS = {
    "seconds_alone": "milliseconds a picture, alone",
    "seconds_in_batch": "milliseconds a picture, in a batch",
}


@dataclass(frozen=True)
class Measured:
    """A run, as its scores.json tells.

    Attributes:
        folder: The run's.
        record: What the file holds.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Which recipe it is of."""
        return self.record["kind"]


def read_run(folder: Path) -> Measured:
    """A run's scores.

    Raises:
        FileNotFoundError: The run has no scores.json yet.
        ValueError: It is broken, or of no kind that is known.
    """
    path = folder / SCORES
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: has the run ended?")
    record = read_json(path)
    missing = {"kind", "seed", "scores", "failures", "minutes", "parameters"} - record.keys()
    if missing:
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}")
    if record["kind"] not in TITLES:
        raise ValueError(f"{path} is of kind {record['kind']!r}; kinds are {', '.join(TITLES)}")
    return Measured(folder, record)


def read_curve(folder: Path) -> Mapping[str, Any]:
    """Errors over the number of drawings.

    Raises:
        FileNotFoundError: The folder has no reranking.json.
        ValueError: It is broken.
    """
    path = folder / CURVE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: make it with `train_baseline.py rerank`")
    record = read_json(path)
    if "errors" not in record:
        raise ValueError(f"{path} has no errors")
    return record


def by_kind(runs: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Runs of each kind, in the order of the columns.

    Raises:
        ValueError: Two runs are of the same kind and seed, or runs have other minutes or threads.
    """
    groups = {kind: [run for run in runs if run.kind == kind] for kind in TITLES}
    for kind, group in groups.items():
        seeds = [run.record["seed"] for run in group]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"two runs of {kind} have the same seed: leave one of them out")
    for name in ("minutes", "threads"):
        found = {run.record.get(name) for run in runs}
        if len(found) > 1:
            raise ValueError(f"the runs' {name} are {sorted(map(str, found))}: they must be equal")
    return {kind: group for kind, group in groups.items() if group}


def results_table(runs: Sequence[Measured]) -> str:
    """The table in Markdown."""
    groups = by_kind(runs)
    rows = [["", *(TITLES[kind] for kind in groups)], ["---"] * (len(groups) + 1)]
    rows += _score_rows(groups, SHARES, 100, "%")
    rows += _score_rows(groups, SECONDS, 1000, "")
    rows.append(["trained parameters, millions", *_numbers(groups, "parameters", 1e-6)])
    rows.append(["updates", *_numbers(groups, "updates", 1)])
    rows.append(["core-minutes", *(f"{group[0].record['minutes']:g}" for group in groups.values())])
    rows.append(["given", *(group[0].record["given"] for group in groups.values())])
    rows.append(["seeds", *(str(len(group)) for group in groups.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _score_rows(
    groups: Mapping[str, Sequence[Measured]], names: Mapping[str, str], scale: float, unit: str
) -> list[list[str]]:
    """Rows of those scores that any run has."""
    rows = []
    for name, title in names.items():
        cells = [
            _cell([run.record["scores"].get(name) for run in g], scale, unit)
            for g in groups.values()
        ]
        if any(cells):
            rows.append([title, *cells])
    return rows


def _numbers(groups: Mapping[str, Sequence[Measured]], name: str, scale: float) -> list[str]:
    return [_cell([run.record.get(name) for run in g], scale, "") for g in groups.values()]


def _cell(values: Sequence[float | None], scale: float, unit: str) -> str:
    """A mean, and in brackets the lowest and the highest; nothing if there are no values.

    What is counted is told in whole numbers, and so is its mean.
    """
    known = [value * scale for value in values if value is not None]
    if not known:
        return ""
    digits = 0 if all(isinstance(value, int) for value in known) else 1
    numbers = (sum(known) / len(known), min(known), max(known))
    mean, low, high = (_number(number, digits) for number in numbers)
    return f"{mean}{unit}" if low == high else f"{mean}{unit} ({low} - {high})"


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.{digits}f}"


def curve_table(curve: Mapping[str, Any]) -> str:
    """Errors over the number of drawings, in Markdown."""
    found: Mapping[str, Mapping[str, float]] = curve["errors"]
    counts = list(found["all"])
    rows = [["wrong drawings", *(f"best of {n}" for n in counts)], ["---"] * (len(counts) + 1)]
    rows += [[name, *(f"{100 * found[name][n]:.1f}%" for n in counts)] for name in found]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def replace_measured(page: Path, text: str) -> None:
    """Put text between the marks of a page, in place of what is there.

    Raises:
        ValueError: The page has no such marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} ... {END}: put both where the table shall be")
    page.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}", encoding="utf-8")
