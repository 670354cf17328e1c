"""`unitok batch`: each result exactly once, whatever stops it and whatever the lines hold."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import unitok
from tests.unitok.batches import WORK, results, runner, work_in, write
from tests.unitok.tiny import same
from unitok.api import IN_FLIGHT
from unitok.batch import journal as journal_module
from unitok.batch.journal import Journal
from unitok.batch.keys import model_identity
from unitok.batch.runner import run_batch
from unitok.batch.source import Source


@pytest.fixture
def source(tmp_path) -> Path:
    return work_in(tmp_path / "input")


@pytest.fixture
def batch(short_folder, tmp_path):
    return runner(short_folder, tmp_path)


def outputs(folder: Path) -> dict[int, str | list[Image.Image]]:
    """Line number -> what it gave: text or pictures."""
    return {
        r["line"]: r.get("text") or [Image.open(folder / p) for p in r["pictures"]]
        for r in results(folder)
    }


def assert_same(left: Path, right: Path) -> None:
    """Two folders hold the same texts, and the same pictures byte for byte."""
    one, other = outputs(left), outputs(right)
    assert one.keys() == other.keys()
    for line, made in one.items():
        again = other[line]
        if isinstance(made, str) or isinstance(again, str):
            assert made == again
        else:
            assert all(same(a, b) and a.info == b.info for a, b in zip(made, again, strict=True))


def stop_after(monkeypatch, count: int, error: type[BaseException]) -> None:
    """Make Model.run raise once it has given `count` results."""
    run = unitok.Model.run

    def cut(self, requests):
        yield from itertools.islice(run(self, requests), count)
        raise error

    monkeypatch.setattr(unitok.Model, "run", cut)


# --- what a run writes ---------------------------------------------------------------------------


def test_every_line_gives_one_result_and_its_pictures(batch, source, tmp_path):
    done = batch(source)
    assert done.exit_code == 0, done.output
    by_line = {r["line"]: r for r in results(tmp_path / "out")}
    assert sorted(by_line) == [1, 2, 3, 4, 5, 6]
    assert [by_line[i + 1]["request"] for i in range(6)] == WORK
    assert len({r["key"] for r in by_line.values()}) == 6
    assert by_line[1]["id"] == "first"
    assert len(by_line[1]["pictures"]) == 2
    assert by_line[2]["finish_reason"] == "length"
    assert by_line[2]["completion_tokens"] == 8
    assert by_line[2]["text"] == by_line[6]["text"]
    assert by_line[3]["seed"] == 5
    pictures = {p for r in by_line.values() for p in r.get("pictures", [])}
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/pictures").iterdir()}
    assert files == pictures and len(files) == 4
    assert "6 new, 0 kept, 0 failed" in done.stdout


def test_a_batch_draws_what_the_api_draws(batch, source, tmp_path, short_folder):
    batch(source)
    (drawing,) = [r for r in results(tmp_path / "out") if r["line"] == 5]
    model = unitok.load(short_folder)
    alone = model.draw("a cat", negative_prompt="a dog", seed=drawing["seed"]).image
    with Image.open(tmp_path / "out" / drawing["pictures"][0]) as saved:
        assert same(saved, alone)
        assert saved.info["seed"] == str(drawing["seed"])


def test_another_run_elsewhere_gives_the_same_with_the_same_seeds(batch, source, tmp_path):
    batch(source)
    batch(source, "elsewhere")
    assert_same(tmp_path / "out", tmp_path / "elsewhere")


def test_logprobs_are_written_where_they_are_asked_for(batch, source, tmp_path):
    more = {"logprobs": True, "branch_logprobs": True, "min_p": 0.1}
    write(source, [WORK[0] | more, WORK[1] | more | {"repetition_penalty": 1.5}, WORK[2]])
    assert batch(source).exit_code == 0
    drawn, text, plain = sorted(results(tmp_path / "out"), key=lambda r: r["line"])
    for name in ("logprobs", "branch_logprobs"):
        assert sum(map(len, drawn[name])) == drawn["completion_tokens"] and len(drawn[name]) == 2
        assert len(text[name]) == text["completion_tokens"]
        assert name not in plain


def test_blank_lines_a_byte_order_mark_and_a_missing_last_newline_do_not_matter(
    batch, source, tmp_path
):
    source.write_bytes(b'\xef\xbb\xbf{"draw": "a cat"}\r\n\r\n   \n{"draw": "a dog", "seed": null}')
    assert batch(source).exit_code == 0
    assert sorted(r["line"] for r in results(tmp_path / "out")) == [1, 4]


def test_an_empty_input_gives_no_results(batch, source, tmp_path):
    source.write_text("")
    assert batch(source).exit_code == 0
    assert results(tmp_path / "out") == []


# --- going on ------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_again(batch, source, tmp_path):
    batch(source)
    before = (tmp_path / "out/results.jsonl").read_bytes()
    done = batch(source)
    assert done.exit_code == 0
    assert "0 new, 6 kept, 0 failed" in done.stdout
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


@pytest.mark.parametrize("finished", [0, 1, 4])
def test_after_ctrl_c_what_finished_is_kept_and_the_rest_follows(
    finished, batch, source, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_after(patch, finished, KeyboardInterrupt)
        stopped = batch(source)
    assert stopped.exit_code == 130
    assert stopped.stderr.count("\n") == 1 and "unitok: stopped" in stopped.stderr
    assert len(results(tmp_path / "out")) == finished
    assert f"{6 - finished} new, {finished} kept" in batch(source).stdout
    batch(source, "whole")
    assert_same(tmp_path / "out", tmp_path / "whole")
    assert len(results(tmp_path / "out")) == 6


def test_a_result_that_is_being_written_at_ctrl_c_is_kept(batch, source, tmp_path, monkeypatch):
    sync = os.fsync

    def interrupted(file: int) -> None:
        signal.raise_signal(signal.SIGINT)
        sync(file)

    write(source, WORK[1:2])
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", interrupted)
        assert batch(source).exit_code == 130
    assert len(results(tmp_path / "out")) == 1
    assert "0 new, 1 kept, 0 failed" in batch(source).stdout


def test_a_half_written_last_line_is_done_again(batch, source, tmp_path):
    batch(source)
    batch(source, "whole")
    path = tmp_path / "out/results.jsonl"
    for cut in (1, 40):
        path.write_bytes(path.read_bytes()[:-cut])
        assert "1 new, 5 kept" in batch(source).stdout
        assert_same(tmp_path / "out", tmp_path / "whole")
        assert len(results(tmp_path / "out")) == 6


def test_a_killed_process_leaves_results_that_a_second_one_completes(batch, tmp_path, short_folder):
    source = write(tmp_path / "work.jsonl", [{"draw": "a cat", "n": 4}] * 40)
    out = tmp_path / "out"
    words = ["batch", source, "-o", out, "--model", short_folder]
    process = subprocess.Popen(
        [sys.executable, "-m", "unitok.cli", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    journal = out / "results.jsonl"
    while process.poll() is None and not (journal.is_file() and journal.stat().st_size):
        time.sleep(0.005)
    process.kill()
    assert process.wait() != 0
    assert batch(source).exit_code == 0
    found = results(out)
    assert len(found) == len({r["key"] for r in found}) == 40
    assert sorted(r["line"] for r in found) == list(range(1, 41))
    assert all((out / name).is_file() for r in found for name in r["pictures"])
    assert len({r["seed"] for r in found}) == 40


def test_pictures_without_a_result_are_written_again_under_the_same_names(
    batch, source, tmp_path, monkeypatch
):
    def killed(self, record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        batch(write(source, WORK[:1]))
    left = sorted((tmp_path / "out/pictures").iterdir())
    assert len(left) == 2
    batch(source)
    assert sorted((tmp_path / "out/pictures").iterdir()) == left
    assert len(results(tmp_path / "out")) == 1


def test_what_a_killed_run_was_writing_is_removed(batch, source, tmp_path):
    (tmp_path / "out/pictures").mkdir(parents=True)
    (tmp_path / "out/pictures/.unitok-1.part").write_text("half a picture")
    assert batch(source).exit_code == 0
    assert not list((tmp_path / "out/pictures").glob("*.part"))


def test_lines_may_be_moved_and_added_between_runs(batch, source, tmp_path):
    batch(source)
    write(source, [{"draw": "a key"}, *WORK[::-1], WORK[1]])
    assert "2 new, 6 kept, 0 failed" in batch(source).stdout
    assert len({r["key"] for r in results(tmp_path / "out")}) == 8


def test_another_option_another_picture_and_another_model_are_other_results(
    batch, source, tmp_path, short_folder
):
    write(source, [{"caption": "scene.png", "max_tokens": 3}])
    assert "1 new, 0 kept" in batch(source).stdout
    Image.new("RGB", (64, 64), "green").save(source.parent / "scene.png")
    assert "1 new, 0 kept" in batch(source).stdout
    write(source, [{"caption": "scene.png", "max_tokens": 4}])
    assert "1 new, 0 kept" in batch(source).stdout
    other = shutil.copytree(short_folder, tmp_path / "other")
    extra = json.loads((other / "unitok.json").read_text()) | {"question": "what do you see?"}
    (other / "unitok.json").write_text(json.dumps(extra))
    assert "1 new, 0 kept" in batch(source, model=other).stdout
    assert "0 new, 1 kept" in batch(source).stdout
    assert len(results(tmp_path / "out")) == 4


def test_two_runs_into_one_folder_at_once_are_refused(batch, source, tmp_path):
    with Journal(tmp_path / "out"):
        done = batch(source)
    assert done.exit_code == 2
    assert "another run is writing to" in done.stderr


def test_a_damaged_results_file_is_not_written_to(batch, source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.jsonl").write_text("my notes\nof the day\n")
    done = batch(source)
    assert done.exit_code == 2
    assert "line 1 is not a result" in done.stderr
    assert (tmp_path / "out/results.jsonl").read_text() == "my notes\nof the day\n"


def test_lines_are_read_as_they_are_needed(short_folder, tmp_path):
    source = write(tmp_path / "work.jsonl", [{"draw": "a cat"}] * 100)
    model, taken = unitok.load(short_folder), []
    run = model.run

    def counting(requests):
        return run(taken.append(r) or r for r in requests)

    model.run = counting
    outcomes = run_batch(model, Source(source), tmp_path / "out", model_identity(short_folder))
    next(outcomes)
    assert 0 < len(taken) <= IN_FLIGHT


def test_every_file_of_a_model_tells_it_from_another(tmp_path: Path):
    for name in ("config.json", "models/7b/consolidated.pth", "tokenizer/vqgan.ckpt", "x.tiktoken"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    identities = {model_identity(tmp_path)}
    for path in [p for p in sorted(tmp_path.rglob("*")) if p.is_file()]:
        path.write_text("two")
        identities.add(model_identity(tmp_path))
    assert len(identities) == 5
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").write_text("")
    assert model_identity(tmp_path) in identities


# --- conversations -------------------------------------------------------------------------------


def test_a_line_may_hold_a_conversation(batch, source, tmp_path):
    shown = {"type": "image", "path": "scene.png"}
    asked = {"role": "user", "content": [shown, {"type": "text", "text": "is there a cat?"}]}
    write(source, [{"messages": [asked], "max_tokens": 4, "stop": ["z"]}, WORK[3]])
    assert batch(source).exit_code == 0
    said, same_question = sorted(results(tmp_path / "out"), key=lambda r: r["line"])
    assert said["text"] == same_question["text"]
    assert said["request"]["messages"] == [asked]
    assert "0 new, 2 kept" in batch(source).stdout
    Image.new("RGB", (64, 64), "green").save(source.parent / "scene.png")
    assert "2 new, 0 kept" in batch(source).stdout


# --- results that are not JSON -------------------------------------------------------------------


def test_a_number_that_is_not_finite_fails_its_line_and_is_not_written(
    short_folder, source, tmp_path, monkeypatch
):
    model = unitok.load(short_folder)
    run = model.run

    def overflowing(requests):
        for result in run(requests):
            broken = isinstance(result, unitok.TextResult) and result.index == 1
            yield dataclasses.replace(result, logprobs=(-math.inf,)) if broken else result

    monkeypatch.setattr(model, "run", overflowing)
    identity = model_identity(short_folder)
    outcomes = {o.line: o for o in run_batch(model, Source(source), tmp_path / "out", identity)}
    assert [line for line, o in outcomes.items() if o.status == "failed"] == [2]
    assert outcomes[2].error == "the result has a number that is not finite"
    assert {r["line"] for r in results(tmp_path / "out")} == {1, 3, 4, 5, 6}


# --- what failed is written too ------------------------------------------------------------------


def test_errors_jsonl_has_the_lines_that_failed_in_the_last_run(batch, source, tmp_path):
    write(source, [WORK[1], {"caption": "late.png", "id": 7}, "nonsense"])
    errors = tmp_path / "out/errors.jsonl"
    for _ in range(2):  # the second run starts the file anew
        assert batch(source).exit_code == 1
        missing, nonsense = map(json.loads, errors.read_text().splitlines())
        assert missing == {"line": 2, "id": 7, "error": f"{source.parent}/late.png: no such file"}
        assert nonsense["line"] == 3 and nonsense["error"].startswith("not JSON")
    write(source, WORK[1:2])
    assert batch(source).exit_code == 0
    assert not errors.exists()


# --- lines that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"draw": "a cat"', "not JSON"),
        ("[1, 2]", "a line must be an object"),
        ('{"draw": "a cat", "guidance": NaN}', "NaN is not a number"),
        ("[" * 100_000, "not JSON"),
        ('{"draw": "\\ud800"}', "surrogates"),
        ('{"draw": "a cat", "id": 1e400}', '"id": 1e400 is not finite'),
        ('{"draw": "a cat", "seed": 1, "seed": 2}', '"seed": this key is given twice'),
        ('{"draw": "a cat", "seed": ' + "1" * 10_000 + "}", '"seed": a number of 10,000 digits'),
        ('{"draw": "a cat", "guidance": ' + "[" * 60 + "]" * 60 + "}", '"guidance" must be'),
        ('{"caption": "a\\u0000.png"}', "has a null character"),
        ('{"caption": "' + "a" * 300 + '.png"}', "is too long for a path"),
        ('{"caption": "http://example.org/cat.png"}', "download the picture"),
        ('{"caption": "/dev/stdin"}', "give the file of a picture"),
        ('{"messages": []}', "messages has no message"),
        ('{"messages": "hello"}', "messages must be"),
        ('{"messages": [{"role": "user", "content": "hi"}], "n": 2}', 'unknown key "n"'),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image", "path": "none.png"}]}]}',
            "no such file",
        ),
        ('{"prompt": "a cat"}', 'either "caption"'),
        ('{"draw": "a cat", "caption": "scene.png"}', 'either "caption"'),
        ('{"draw": "a cat", "sede": 7}', 'unknown key "sede"'),
        ('{"draw": "a cat", "sede": 7}', 'did you mean "seed"?'),
        ('{"draw": "a cat", "question": "what?"}', 'the keys beside "draw" are id, '),
        ('{"draw": "a cat", "question": "what?"}', ", seed, guidance, n, "),
        ('{"draw": "a cat", "question": "what?"}', 'unknown key "question"'),
        ('{"caption": "scene.png", "image": "x"}', 'unknown key "image"'),
        ('{"draw": 7}', '"draw" must be text, not 7'),
        ('{"draw": "a cat", "id": []}', '"id" must be'),
        ('{"draw": "a cat", "seed": "7"}', '"seed" must be a whole number'),
        ('{"draw": "a cat", "seed": "7"}', ', not "7"'),
        ('{"draw": "a cat", "seed": true}', '"seed" must be a whole number'),
        ('{"draw": "a cat", "seed": true}', ", not true"),
        ('{"draw": "a cat", "n": 1.5}', '"n" must be a whole number, not 1.5'),
        ('{"draw": "a cat", "n": 1000000000}', '"n" must be at most'),
        ('{"draw": "a cat", "n": 0}', "n must be at least 1"),
        ('{"draw": "a cat", "top_p": 3}', "top_p"),
        ('{"draw": "a cat", "guidance": 1e999}', "finite"),
        ('{"draw": " "}', "the prompt is empty"),
        ('{"caption": "nowhere.png"}', "no such file"),
        ('{"caption": "."}', "is a folder; give the file of a picture"),
        ('{"caption": "work.jsonl"}', "is not a picture"),
        ('{"caption": "scene.png", "stop": [1]}', '"stop" must be text or a list of texts'),
        ('{"caption": "scene.png", "max_tokens": 0}', "max_tokens must be at least 1"),
        ('{"caption": "scene.png", "temperature": -1}', "temperature must be 0 or more"),
        ('{"caption": "scene.png", "top_p": 0}', "top_p must be above 0"),
        ('{"caption": "scene.png", "min_p": 1.5}', "min_p must be from 0 to 1"),
        ('{"caption": "scene.png", "repetition_penalty": 0}', "repetition_penalty must be above"),
        ('{"draw": "a cat", "repetition_penalty": 2}', 'unknown key "repetition_penalty"'),
        ('{"draw": "a cat", "min_p": "1"}', '"min_p" must be a number, not "1"'),
        ('{"draw": "a cat", "logprobs": 1}', '"logprobs" must be true or false, not 1'),
        ('{"draw": "' + "cat " * 3000 + '"}', "shorten it"),
        ('{"caption": "scene.png", "question": "' + "cat " * 3000 + '"}', "shorten it"),
    ],
)
def test_a_wrong_line_is_told_by_number_and_the_others_go_on(line, told, batch, source, tmp_path):
    write(source, [WORK[1], "", line, WORK[2]])
    done = batch(source)
    assert done.exit_code == 1
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith("unitok: line 3: ")
    assert told in complaint
    assert sorted(r["line"] for r in results(tmp_path / "out")) == [1, 4]
    assert "2 new, 0 kept, 1 failed" in done.stdout


@pytest.mark.parametrize(
    ("part", "fault", "told"),
    [
        ("features", lambda x: (x * 0)[:, :1], "embeddings must be"),
        ("features", lambda x: x * torch.nan, "the model gave logits that are not finite"),
        ("decode_images", lambda x: x[:0], "0 pictures were decoded, not"),
    ],
)
def test_what_fails_underway_fails_its_lines_alone(
    part, fault, told, short_folder, source, tmp_path, monkeypatch
):
    model = unitok.load(short_folder)
    right = getattr(model.family, part)
    monkeypatch.setattr(model.family, part, lambda x: fault(right(x)))
    identity = model_identity(short_folder)
    outcomes = {o.line: o for o in run_batch(model, Source(source), tmp_path / "out", identity)}
    drawings = {line for line, asked in enumerate(WORK, 1) if "draw" in asked}
    sick = drawings if part == "decode_images" else outcomes.keys() - drawings
    assert {o.line for o in outcomes.values() if o.status == "failed"} == sick
    assert all(told in str(outcomes[line].error) for line in sick)
    assert {r["line"] for r in results(tmp_path / "out")} == outcomes.keys() - sick
    assert model.stats().free_blocks == model.driver.engine.config.num_blocks


def test_what_never_fits_the_pool_is_told_by_line(untrained_folder, source, tmp_path):
    block = 32 * 2 * 2 * 16 * 4  # ids, K and V, heads, head_dim, bytes
    model = unitok.load(untrained_folder, memory=8 * block)
    write(source, [WORK[1], {"draw": "cat " * 200}, WORK[2]])
    identity = model_identity(untrained_folder)
    outcomes = {o.line: o for o in run_batch(model, Source(source), tmp_path / "out", identity)}
    assert {line: o.status for line, o in outcomes.items()} == {1: "new", 2: "failed", 3: "new"}
    assert "give the engine more memory" in str(outcomes[2].error)
    assert model.stats().free_blocks == 8


def test_a_batch_that_is_left_gives_its_blocks_back(short_folder, source, tmp_path):
    model = unitok.load(short_folder)
    outcomes = run_batch(model, Source(source), tmp_path / "out", model_identity(short_folder))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert model.driver.wait_until_idle(60)
    assert model.stats().free_blocks == model.driver.engine.config.num_blocks
    assert not model.driver.engine.has_work and not model.driver.image_decoder._waiting


def test_lines_that_need_no_run_are_told_before_the_next_ones_are_read(
    batch, short_folder, source, tmp_path, monkeypatch
):
    write(source, WORK[:1])
    assert batch(source).exit_code == 0
    write(source, [WORK[0], {"drow": "a cat"}, {"caption": "none.png"}, WORK[1]])
    read: list[int] = []
    lines = Source.lines

    def noting(source: Source):
        for line in lines(source):
            read.append(line.number)
            yield line

    monkeypatch.setattr(Source, "lines", noting)
    identity = model_identity(short_folder)
    model = unitok.load(short_folder)
    outcomes = run_batch(model, Source(source), tmp_path / "out", identity)
    told = [(o.line, o.status, max(read)) for o in outcomes]
    assert (1, "kept", 1) in told and (3, "failed", 3) in told
    assert sorted(told)[-1][:2] == (4, "new") and len(told) == 4


def test_the_name_of_a_picture_cannot_command_the_terminal(batch, source):
    write(source, [{"caption": "\x1b]0;title\x07\x1b[2J.png"}])
    done = batch(source)
    assert done.exit_code == 1 and r"\x1b]0;title\x07\x1b[2J.png: no such file" in done.stderr
    assert done.stderr.replace("\n", "").isprintable()


def test_a_line_that_failed_is_tried_again(batch, source, tmp_path):
    write(source, [{"caption": "late.png", "max_tokens": 2}, WORK[1]])
    assert batch(source).exit_code == 1
    Image.new("RGB", (64, 64), "green").save(source.parent / "late.png")
    done = batch(source)
    assert done.exit_code == 0
    assert "1 new, 1 kept, 0 failed" in done.stdout


def test_no_name_in_a_line_leads_out_of_the_folder(batch, source, tmp_path):
    write(source, [{"draw": "../../cat", "id": "../../escape"}])
    before = {p for p in tmp_path.rglob("*") if (tmp_path / "out") not in p.parents}
    assert batch(source).exit_code == 0
    after = {p for p in tmp_path.rglob("*") if (tmp_path / "out") not in p.parents}
    assert after - before == {tmp_path / "out"}


@pytest.mark.parametrize(("missing", "out"), [(True, "out"), (False, "input/scene.png")])
def test_what_cannot_be_read_or_written_is_one_line(missing, out, batch, source):
    done = batch(source.with_name("none.jsonl") if missing else source, out)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert ("no such file" if missing else "is not a folder") in done.stderr
