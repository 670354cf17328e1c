"""The programs in examples/ do what their docstrings say, on the embedded model."""

import ast
import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image

import unitok
from tests.test_arrows import ENGINE, TOKENIZERS, UNITOK, breaches

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NAMES = [path.stem for path in EXAMPLES]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def model() -> Iterator[unitok.Model]:
    with unitok.load() as model:
        yield model


@pytest.fixture
def children_import_this_tree(monkeypatch) -> None:
    """Whatever is installed where the tests run."""
    roots = (ROOT, ROOT / "engine", ROOT / "tokenizers")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, roots)))


@pytest.fixture
def run(tmp_path, monkeypatch, capfd, children_import_this_tree) -> Run:
    """Run an example in an empty folder; what it printed. Its process is this one, for speed.

    A program that ends as failed raises SystemExit with what it says, as Python does.
    """
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> str:
        path = ROOT / "examples" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
        return capfd.readouterr().out

    return run


def pixels(image: Path | Image.Image) -> bytes:
    if isinstance(image, Path):
        with Image.open(image) as opened:
            return opened.convert("RGB").tobytes()
    return image.tobytes()


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# --- what each of them does ----------------------------------------------------------------------


def test_a_folder_is_captioned_in_the_order_of_names(run, tmp_path, model):
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn = model.draw(["a dog on a green background", "three stars"], seed=1)
    drawn[0].image.save(folder / "b.png")
    drawn[1].image.save(folder / "a.PNG")
    (folder / "c.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not even by name")
    printed = run("caption_a_folder", folder)

    first, second, wrong = read_lines(tmp_path / "out/captions/captions.jsonl")
    assert first == {"file": "a.PNG", "text": model.caption(drawn[1].image).text}
    assert second == {"file": "b.png", "text": model.caption(drawn[0].image).text}
    assert set(wrong) == {"file", "error"} and "c.jpg" in wrong["error"]
    assert [line.split(": ")[0] for line in printed.splitlines()] == ["a.PNG", "b.png", "c.jpg"]


def test_a_question_is_asked_of_every_picture(run, tmp_path, model):
    drawing = model.draw("two apples on a blue background", seed=7).image
    drawing.save(tmp_path / "apples.png")
    question = "what colour is the background?"
    run("caption_a_folder", tmp_path, "--question", question, "--out", tmp_path / "answers")
    (record,) = read_lines(tmp_path / "answers/captions.jsonl")
    assert record["text"] == model.caption(drawing, question).text
    assert record["text"] != model.caption(drawing).text


def test_variations_have_a_row_per_guidance_scale(run, tmp_path, model):
    run("draw_variations", "a dog", "--samples", 2, "--guidance", 1, 2.5, "--seed", 1)
    out = tmp_path / "out/variations"
    names = [f"guidance-{scale}-{number}.png" for scale in ("1", "2.5") for number in (0, 1)]
    assert files_in(out) == {*names, "variations.png"}
    drawn = {name: pixels(out / name) for name in names}
    assert len(set(drawn.values())) == len(drawn)

    side, _ = model.info().picture_size
    with Image.open(out / "variations.png") as table:
        assert table.size == (2 * side + 4, 2 * side + 4)
        corner = table.crop((side + 4, side + 4, 2 * side + 4, 2 * side + 4))
    assert pixels(corner) == drawn["guidance-2.5-1.png"]
    with Image.open(out / "guidance-1-0.png") as image:
        assert image.info["prompt"] == "a dog"


def test_a_chat_answers_about_the_drawing_itself(run, tmp_path, model):
    question = "how many stars are there?"
    printed = run("chat_about_a_drawing", "three stars on a pink background", question, "--seed", 1)
    out = tmp_path / "out/chat"
    chat = model.chat()
    drawing = chat.draw("three stars on a pink background", seed=1).image
    assert pixels(out / "drawing.png") == pixels(drawing)
    answer = chat.send(question).text
    transcript = (out / "transcript.txt").read_text(encoding="utf-8").splitlines()
    assert transcript == [
        "> draw: three stars on a pink background",
        "drawing.png",
        f"> {question}",
        answer,
    ]
    assert printed.splitlines()[-2:] == [f"> {question}", answer]


def test_a_killed_batch_is_resumed_and_has_each_result_once(run, tmp_path):
    prompts = ["a dog", "a cat left of a house"]
    printed = run("resume_a_batch", *prompts)
    results = tmp_path / "out/batch/results"
    records = read_lines(results / "results.jsonl")
    assert sorted(record["line"] for record in records) == [1, 2, 3, 4]
    assert len({record["key"] for record in records}) == 4
    pictures = {path for record in records for path in record.get("pictures", ())}
    assert len(pictures) == len(prompts)
    assert files_in(results) == {"results.jsonl", *pictures}

    first, second = printed.splitlines()[-2:]
    killed_after = int(first.removeprefix("killed after ").split()[0])
    assert killed_after >= 1
    assert second.endswith(f": {4 - killed_after} new, {killed_after} kept, 0 failed")


def test_drawings_are_ranked_by_their_log_probabilities(run, tmp_path, model):
    prompt = "two apples on a blue background"
    run("log_probabilities", prompt, "--samples", 3, "--seed", 6)
    out = tmp_path / "out/logprobs"
    records = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert [record["file"] for record in records] == ["0.png", "1.png", "2.png"]
    scores = [record["mean_logprob"] for record in records]
    assert scores == sorted(scores, reverse=True)

    drawn = model.draw(prompt, n=3, seed=6, temperature=1.0, branch_logprobs=True)
    expected = {
        pixels(i): fmean(p) for i, p in zip(drawn.images, drawn.branch_logprobs, strict=True)
    }
    assert len(expected) == 3
    assert {pixels(out / r["file"]): r["mean_logprob"] for r in records} == pytest.approx(expected)
    for record in records:
        caption = model.caption(out / record["file"], logprobs=True)
        assert record["caption"] == caption.text
        likelihood = math.exp(sum(caption.logprobs))
        assert record["perplexity"] ** -len(caption.logprobs) == pytest.approx(likelihood, rel=1e-3)


def test_a_saved_checkpoint_draws_as_the_embedded_model(run, tmp_path, model):
    printed = run("your_own_checkpoint", "--prompt", "a dog", "--seed", 4)
    out = tmp_path / "out/checkpoint"
    expected = pixels(model.draw("a dog", seed=4).image)
    assert pixels(out / "original.png") == pixels(out / "loaded.png") == expected
    assert (out / "checkpoint/model.safetensors").is_file()
    assert printed.splitlines()[-1] == "both draw the same picture"


def test_a_checkpoint_of_another_folder_is_copied(run, tmp_path, untrained_folder, model):
    run("your_own_checkpoint", untrained_folder, "--out", "copied")
    assert pixels(tmp_path / "copied/original.png") == pixels(tmp_path / "copied/loaded.png")
    with unitok.load(tmp_path / "copied/checkpoint") as copy:
        assert copy.info().parameters < model.info().parameters


def test_a_checkpoint_is_not_copied_onto_itself(run, tmp_path, untrained_folder, capfd):
    (tmp_path / "checkpoint").symlink_to(untrained_folder)
    before = {path: path.read_bytes() for path in untrained_folder.iterdir()}
    with pytest.raises(SystemExit, match="2"):
        run("your_own_checkpoint", tmp_path / "checkpoint", "--out", tmp_path)
    assert "cannot be its own copy" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in untrained_folder.iterdir()} == before


# --- what all of them do -------------------------------------------------------------------------


def test_there_are_six():
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_an_example_does(name, children_import_this_tree):
    doc = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text("utf-8")))
    command = [sys.executable, ROOT / "examples" / f"{name}.py", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert doc and " ".join(doc.splitlines()[0].split()) in " ".join(ended.stdout.split())
    assert f"examples/{name}.py" in doc and "--out" in ended.stdout and "out/" in ended.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("caption_a_folder", ["no/folder"], "no/folder"),
        ("draw_variations", ["a dog", "--samples", 0], "n must be at least 1"),
        ("your_own_checkpoint", ["no/folder/here"], "no/folder/here"),
    ],
)
def test_a_mistake_is_told_in_a_line(name, arguments, told, run, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run(name, *arguments)
    message = str(ended.value.code)
    assert message.startswith("error: ") and told in message and "\n" not in message


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_uses_what_is_public_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("unitok"), node.module
        if isinstance(node, ast.Import):
            assert all(not alias.name.startswith("unitok.") for alias in node.names)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr
            if isinstance(node.value, ast.Name) and node.value.id == "unitok":
                assert node.attr in unitok.__all__, node.attr


@pytest.mark.parametrize("package", [ENGINE, TOKENIZERS, UNITOK], ids=lambda path: path.name)
def test_no_package_imports_an_example(package):
    assert breaches(package, {"examples"}) == []
