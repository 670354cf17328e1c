"""The end of a run: its scores for machines, its report for people, the official format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from unitok.evaluation.report import Finished, report
from unitok.evaluation.run import Run
from unitok.saving import write_whole

REPORT, SCORES = "report.html", "scores.json"


def finish_run(run: Run, facts: Mapping[str, str], notes: Sequence[str] = ()) -> Finished:
    """Sum a run up, and write scores.json, report.html and the suite's official format.

    Args:
        run: A run of which every item is judged.
        facts: What the report says of the model and of this machine, in words.
        notes: Further sentences about how the scores are to be read.

    Raises:
        OSError: A file cannot be written.
        ValueError: Some items are not judged yet.
    """
    judged = run.judged()
    summary = run.suite.summary(judged)
    summary = dataclasses.replace(summary, notes=[*summary.notes, *notes])
    finished = Finished(run.identity, run.folder, run.items, judged, summary, facts)
    run.suite.export(judged, run.folder)
    text = json.dumps(finished.to_json(), ensure_ascii=False, indent=2, allow_nan=False)
    write_whole(f"{text}\n".encode(), run.folder / SCORES)
    write_whole(report(finished).encode(), run.folder / REPORT)
    return finished
