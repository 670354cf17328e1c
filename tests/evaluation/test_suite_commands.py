"""`unitok eval` with public suites on small made data, by an untrained model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.evaluation.suites import save_pictures, write_lines
from unitok.cli import app

Run = Callable[..., Result]


@pytest.fixture
def run(untrained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `unitok eval` in a folder with pictures."""
    monkeypatch.chdir(tmp_path)
    save_pictures(tmp_path / "images", "1.png", "2.png", side=40)

    def run(suite: str, *words: str, model: bool = True) -> Result:
        given = ["--model", str(untrained_folder), "--out", "out"] if model else []
        return CliRunner().invoke(app, ["eval", suite, *words, *given], prog_name="unitok")

    return run


def scores(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["scores"]


def test_questions_are_answered_scored_and_written(run: Run):
    lines = [
        {"question_id": i, "image": f"{i}.png", "text": "Is there a dog?", "label": label}
        for i, label in ((1, "yes"), (2, "no"))
    ]
    write_lines(Path("pope.json"), *lines)
    words = ("pope", "pope.json", "--images", "images", "--json")
    first = scores(run(*words))
    assert set(first) >= {"accuracy", "precision", "recall", "f1", "yes_ratio"}
    assert len(Path("out/pope_answers.jsonl").read_text().splitlines()) == 2
    assert Path("out/report.html").is_file()
    assert scores(run(*words)) == first  # nothing is left to ask


def test_captions_are_scored_and_written(run: Run):
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)],
        "annotations": [{"image_id": i, "caption": "a grey square"} for i in (1, 2)],
    }
    Path("captions.json").write_text(json.dumps(document))
    found = scores(run("coco-captions", "captions.json", "--images", "images", "--json"))
    assert {"bleu_4", "cider", "rouge_l"} <= set(found)
    written = json.loads(Path("out/captions_results.json").read_text())
    assert [entry["image_id"] for entry in written] == [1, 2]


def test_drawings_are_laid_out_for_the_scorers_of_others(run: Run):
    record = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs"}
    write_lines(Path("evaluation_metadata.jsonl"), record)
    assert run("geneval", "evaluation_metadata.jsonl").exit_code == 0
    assert len(list(Path("out/geneval/00000/samples").iterdir())) == 4


def test_drawings_are_compared_with_real_pictures(run: Run):
    write_lines(Path("prompts.txt"), "a dog", "two cats")
    words = ("--real", "images", "--extractor", "lite0", "--json")
    found = scores(run("drawings", "prompts.txt", *words))
    again = json.loads(run("fid", "images", "out/pictures", *words[2:], model=False).stdout)
    assert again["made"] == 2
    assert found["fid_lite0"] == pytest.approx(again["scores"]["fid_lite0"], rel=1e-4)


def test_pairs_are_compared(run: Run):
    result = run("pairs", "images", "images", "--json", model=False)
    assert json.loads(result.stdout)["scores"]["psnr"] == pytest.approx(100)
    table = run("pairs", "images", "images", model=False).stdout
    assert "psnr  100.0000" in table and "2 pictures beside 2 real ones" in table


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fid", "images", "images"], "need an extractor"),
        (["fid", "images", "images", "--extractor", "none.pth"], "none.pth: no such file"),
        (["fid", "images", "nowhere", "--extractor", "lite0"], "nowhere: no such folder"),
        (["pairs", "images", "."], "lacks 2 pictures (1, 2)"),
        (["pope", "none.json"], "none.json: no such file"),
        (["mme", "images"], "holds no task of MME"),
        (["dpg-bench", "images"], "holds no prompts"),
        (["drawings", "none.txt"], "give --real"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(run: Run, words: list[str], told: str):
    result = run(*words, model=False)
    assert result.exit_code == 2
    assert told in result.stderr and result.stderr.count("\n") == 1


def test_a_suite_has_the_flags_that_its_data_need(run: Run):
    assert "--images" in run("pope", "--help", model=False).stdout
    told = run("drawings", "--help", model=False).stdout
    assert all(flag in told for flag in ("--real", "--extractor", "--scorer"))
    assert "--images" not in told


def test_without_the_extra_one_line_says_what_to_install(run: Run):
    code = (
        "import sys\n"
        "sys.modules['sacrebleu'] = sys.modules['sacrebleu.metrics'] = None\n"
        "from unitok.evaluation.caption_metrics import Described, bleu\n"
        "bleu([Described(['a'], [['a']])])"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: this needs sacrebleu, which is not installed: pip install "
        "'unitok-engine[eval]'"
    )


def test_evaluation_is_imported_without_the_libraries_of_the_extra():
    heavy = {"torchmetrics", "sacrebleu", "transformers", "scipy", "efficientnet_lite_pytorch"}
    code = (
        "import sys, unitok.evaluation.drawings, unitok.evaluation.folders\n"
        "import unitok.evaluation.public.coco_captions, unitok.evaluation.public.geneval\n"
        f"sys.exit(', '.join(set(sys.modules) & {heavy!r}) or None)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "library"),
    [
        (["coco-captions", "captions.json"], "sacrebleu"),
        (["fid", "images", "images", "--extractor", "lite0"], "torchmetrics"),
        (["reconstruction", "images", "--extractor", "lite0"], "torchmetrics"),
    ],
)
def test_a_missing_library_is_one_line_before_a_model_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], library: str
):
    monkeypatch.setitem(sys.modules, library, None)
    result = run(*words, model=False)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"unitok: this needs {library}, which is not installed: pip install 'unitok-engine[eval]'\n"
    )


def test_a_device_that_is_not_there_is_one_line(run: Run):
    words = ("fid", "images", "images", "--extractor", "lite0", "--device", "cuda:99")
    result = run(*words, model=False)
    assert result.exit_code == 2
    assert "device 'cuda:99' cannot be used here" in result.stderr


def test_one_picture_has_no_fid_but_all_else(run: Run, tmp_path: Path):
    (tmp_path / "images" / "2.png").unlink()
    found = run("reconstruction", "images", "--extractor", "lite0", "--json")
    assert {"psnr", "ssim"} == set(scores(found))
    assert "There is no rFID" in json.loads(found.stdout)["notes"][-1]


@pytest.mark.parametrize("words", [["emoji"], ["fid", "images", "images"]])
def test_a_seed_that_no_request_can_have_is_refused_at_once(run: Run, words: list[str]):
    result = run(*words, "--seed", "1" * 30, model=False)
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.stderr and str(2**53) in result.stderr
