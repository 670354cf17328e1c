"""`unitok eval`: from flags to a report, and the same after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.colours import Colourist
from unitok.baselines import opening
from unitok.evaluation.registry import SUITES

KILLED = """
import os, signal, sys
from unitok.evaluation import journal
whole, lines = journal.write_all, int(sys.argv.pop(1))

def write(file, data):  # half of one line is written, then the process is gone
    global lines
    lines -= 1
    if lines < 0:
        file.write(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, data)

journal.write_all = write
from unitok.cli import main
main()
"""


def test_a_killed_run_ends_with_the_same_scores_and_report(evaluate, untrained_folder: Path):
    words = ["emoji", "--limit", "1", "--seed", "3", "--set", "max_tokens=8"]
    assert evaluate(*words, "--out", "whole").exit_code == 0
    broken = [*words, "--out", "broken", "--model", str(untrained_folder)]
    roots = os.pathsep.join(path for path in sys.path if path)
    gone = subprocess.run(
        [sys.executable, "-c", KILLED, "6", "eval", *broken],
        env={**os.environ, "PYTHONPATH": roots},
        check=False,
        capture_output=True,
    )
    assert gone.returncode == -signal.SIGKILL
    lines = Path("broken/journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 7 and not lines[-1].endswith(b"\n")
    assert evaluate(*words, "--out", "broken").exit_code == 0
    assert outcome("broken") == outcome("whole")


def outcome(folder: str) -> tuple[dict[str, object], str, list[bytes]]:
    """Scores, report and pictures of a run, but for its time."""
    scores = json.loads(Path(folder, "scores.json").read_text())
    del scores["seconds"]
    report = Path(folder, "report.html").read_text(encoding="utf-8")
    without, count = re.subn(r'<section id="time">.*?</section>', "", report)
    assert count == 1
    drawn = [file.read_bytes() for file in sorted(Path(folder, "pictures").iterdir())]
    return scores, without, drawn


def test_json_is_printed_for_machines(evaluate):
    done = evaluate("emoji", "--limit", "1", "--only", "draw_*", "--set", "guidance=1", "--json")
    scores = json.loads(done.stdout)
    assert done.exit_code == 0
    assert set(scores["groups"]) == {
        f"draw_{k}" for k in ("single", "colour", "two", "count", "position")
    }
    assert scores["options"] == {"guidance": 1, "only": ["draw_*"]}
    assert Path(f"evaluations/emoji-{scores['model']}/report.html").is_file()


def test_the_users_questions_are_asked(evaluate, tmp_path: Path):
    Image.new("RGB", (64, 64), "pink").save("pink.png")
    Path("asked.jsonl").write_text('{"image": "pink.png", "answers": ["a cat"]}\n')
    done = evaluate("questions", "asked.jsonl", "--out", "q", "--set", "max_tokens=4")
    assert done.exit_code == 0 and "accepted" in done.stdout
    assert "report.html: 1 item\n" in done.stdout


def test_a_folder_is_reconstructed_and_what_is_no_picture_is_named(evaluate, tmp_path: Path):
    Path("in").mkdir()
    for name, colour in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (80, 64), colour).save(f"in/{name}")
    Path("in/broken.png").write_bytes(b"no picture")
    Path("in/notes.txt").write_text("no picture either")
    done = evaluate("reconstruction", "in", "--out", "r", "--json")
    scores = json.loads(done.stdout)
    assert done.exit_code == 1 and (scores["items"], scores["failed"]) == (3, 1)
    assert "picture-0000002: " in done.stderr and "broken.png" in done.stderr
    assert 0 < scores["scores"]["psnr"] < 60 and 0 < scores["scores"]["ssim"] <= 1
    assert Image.open("r/pictures/picture-0000000.png").size == (64, 64)


@pytest.fixture
def colourist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Colourist:
    """A baseline in two folders: as a captioner in `theirs`, as a generator in `paints`."""
    model = Colourist()
    for folder in ("theirs", "paints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(f'{{"model_type": "{folder}"}}')
    opened: list[dict[str, object]] = []

    def load(source, role, *, device, silent, **options):
        opened.append({"role": role, **options})
        return model

    monkeypatch.setattr(opening, "load", load)
    monkeypatch.setitem(opening.ADAPTERS["captioner"], "theirs", "none:None")
    monkeypatch.setitem(opening.ADAPTERS["generator"], "paints", "none:None")
    model.opened = opened  # type: ignore[attr-defined]
    return model


def test_a_baseline_is_asked_what_it_can_do(evaluate, colourist):
    Image.new("RGB", (8, 8), "red").save("red.png")
    Path("asked.jsonl").write_text('{"image": "red.png", "answers": ["red"]}\n')
    # The lines of the questions have no colour that a drawing could have, so only answers count.
    colourist.colour_of = lambda request: "red"
    words = ["--model", "theirs", "--set", "beams=2", "--set", "max_tokens=9", "--json"]
    done = evaluate("questions", "asked.jsonl", *words, model=False)
    assert json.loads(done.stdout)["scores"]["accepted"] == 1.0
    assert colourist.opened == [{"role": "captioner", "beams": 2}]
    assert colourist.asked[0].max_tokens == 9 and colourist.closed


def test_a_captioner_that_cannot_answer_is_asked_captions_alone(evaluate, colourist):
    colourist.colour_of = lambda request: "red"
    colourist.can_take = lambda request: request.question is None
    done = evaluate("emoji", "--limit", "1", "--model", "theirs", "--json", model=False)
    scores = json.loads(done.stdout)
    assert scores["items"] == 5 and scores["failed"] == 0
    assert "4 items are left out, as colourist cannot do them." in scores["notes"]
    colourist.can_take = lambda request: False
    none = evaluate("emoji", "--limit", "1", "--model", "theirs", "--out", "x", model=False)
    assert none.exit_code == 2 and "asks nothing that colourist does" in none.stderr


def test_the_names_of_groups_are_printed_as_they_are(evaluate):
    Image.new("RGB", (64, 64), "pink").save("pink.png")
    kinds = ("[/b]", "[red]x", "a\x1bb")
    asked = [{"image": "pink.png", "question": k, "answers": ["x"], "kind": k} for k in kinds]
    Path("asked.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in asked))
    done = evaluate("questions", "asked.jsonl", "--set", "max_tokens=1")
    assert (done.exit_code, done.exception) == (0, None)
    assert all(name in done.stdout for name in ("accepted_[/b]", "accepted_[red]x", "accepted_ab"))


def test_what_a_baseline_cannot_do_is_left_out_and_said(evaluate, colourist):
    colourist.colour_of = lambda request: "red"
    done = evaluate("emoji", "--limit", "1", "--model", "theirs", "--json", model=False)
    scores = json.loads(done.stdout)
    assert scores["items"] == 9 and "5 items are left out" in " ".join(scores["notes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["emoji", "--limit", "0"], "limit must be at least 1, not 0"),
        (["emoji", "--set", "guidance"], "--set takes KEY=VALUE, not 'guidance'"),
        (["emoji", "--set", "guidance=x"], "guidance must be a number, not 'x'"),
        (["emoji", "--set", "top_p=2"], "top_p must be"),
        (["emoji", "--set", "guidanc=2"], "no option 'guidanc'; did you mean 'guidance'?"),
        (["emoji", "--set", "n=2"], "--set n: the suite decides this"),
        (["emoji", "--only", "drawings"], "--only drawings: the groups are draw_single"),
        (["questions", "none.jsonl"], "none.jsonl: no such file"),
        (["reconstruction", "none"], "none is not a folder"),
        (["emoji-matching"], "asks nothing that a model of unitok does"),
        (["reconstruction", "."], "has no pictures"),
        (["compare", "a", "b"], "a has no journal.jsonl"),
    ],
)
def test_a_mistake_is_one_line(evaluate, words: list[str], said: str):
    done = evaluate(*words, model=words[0] != "compare")
    assert done.exit_code == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["emoji", "--model", "paints", "--dtype", "bf16"], "--dtype is for models of unitok"),
        (["reconstruction", ".", "--model", "paints"], "is for models of unitok"),
        (["emoji-presence", "--model", "paints"], "asks nothing that a generator does"),
        (["emoji-matching", "--model", "paints"], "asks nothing that a generator does"),
        (["emoji", "--model", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_about_a_baseline_is_one_line(evaluate, colourist, words, said: str):
    Image.new("RGB", (8, 8)).save("a.png")
    done = evaluate(*words, model=False)
    assert done.exit_code == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_many_failures_stop_the_command_with_the_reason(evaluate, colourist):
    colourist.colour_of, colourist.fails = (lambda request: "red"), ["red"]
    done = evaluate("emoji", "--limit", "5", "--model", "paints", "--out", "x", model=False)
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert "16 requests failed one after another" in last and "out of paint; x keeps" in last


def test_runs_are_compared_on_the_command_line(evaluate, colourist):
    Image.new("RGB", (8, 8), "red").save("red.png")
    Path("asked.jsonl").write_text('{"image": "red.png", "answers": ["red"]}\n')
    colourist.colour_of = lambda request: "red"
    theirs = evaluate("questions", "asked.jsonl", "--model", "theirs", "--out", "b", model=False)
    ours = evaluate("questions", "asked.jsonl", "--out", "a", "--set", "max_tokens=4")
    assert (theirs.exit_code, ours.exit_code) == (0, 0)
    done = evaluate("compare", "a", "b", "-o", "c.html", "--json", model=False)
    groups = json.loads(done.stdout)["differences"][0]["groups"]
    assert [group["delta"] for group in groups] == [1.0, 1.0]
    assert "colourist against" in Path("c.html").read_text(encoding="utf-8")


def test_every_suite_has_a_command_that_explains_itself(evaluate):
    for name, entry in SUITES.items():
        done = evaluate(name, "--help", model=False)
        assert done.exit_code == 0 and entry.help.split()[0] in done.stdout
