"""`unitok draw`: several prompts, larger files, files that must not be replaced."""

import json
from pathlib import Path

import pytest
from PIL import Image

import unitok
from unitok.drawing import numbered


def names() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


def lines(text: str) -> list[str]:
    return text.splitlines()


# --- several prompts -----------------------------------------------------------------------------


def test_several_prompts_are_drawn_together_and_numbered_in_their_order(run, short_folder):
    prompts = ["a cat", "a dog", "a cat"]
    result = run("draw", *prompts, "-o", "a.png", "--seed", "7")
    assert result.exit_code == 0
    assert lines(result.stdout) == [f"a-{i}.png: seed 7" for i in range(3)]
    assert names() == ["a-0.png", "a-1.png", "a-2.png"]
    drawn = unitok.load(short_folder).draw(prompts, seed=7)
    for name, one in zip(names(), drawn, strict=True):
        with Image.open(name) as saved:
            assert saved.info["prompt"] == one.prompt
            assert saved.tobytes() == one.image.tobytes()


def test_the_picture_that_prompts_speak_of_may_come_from_stdin(run, scene):
    words = ["draw", "a cat", "a dog", "--seed", "7"]
    for name, picture in (("file", str(scene)), ("stdin", "-")):
        result = run(*words, "--image", picture, "-o", f"{name}.png", typed=scene.read_bytes())
        assert (result.exit_code, result.stderr) == (0, "")
    for i in range(2):
        with Image.open(f"file-{i}.png") as one, Image.open(f"stdin-{i}.png") as other:
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("size", ["9" * 5000 + "x3", "3x" + "9" * 5000])
def test_a_size_of_thousands_of_digits_is_refused_in_our_words(run, size):
    result = run("draw", "a cat", "-o", "a.png", "--size", size, model=None)
    assert result.exit_code == 2
    assert result.stderr.startswith("unitok: --size must be width x height in pixels")
    assert len(result.stderr) < 200


def test_they_share_one_run_of_the_engine(run, monkeypatch):
    def stream(*_):
        raise AssertionError("one by one")

    monkeypatch.setattr(unitok.Model, "stream", stream)
    assert run("draw", "a cat", "a dog", "-o", "a.png").exit_code == 0


def test_samples_of_several_prompts_are_numbered_through(run):
    result = run("draw", "a cat", "a dog", "-n", "2", "-o", "a.png", "--seed", "7")
    assert lines(result.stdout) == [
        "a-0.png: seed 7, sample 0",
        "a-1.png: seed 7, sample 1",
        "a-2.png: seed 7, sample 0",
        "a-3.png: seed 7, sample 1",
    ]
    infos = [unitok.read_info(name) for name in names()]
    assert [(i["prompt"], i["sample"]) for i in infos] == [
        ("a cat", "0"),
        ("a cat", "1"),
        ("a dog", "0"),
        ("a dog", "1"),
    ]


def test_what_is_printed_is_what_the_pictures_say(run):
    told = lines(run("draw", "a cat", "a dog", "-n", "2", "-o", "a.png").stdout)
    infos = [unitok.read_info(name) for name in names()]
    assert [line.split(": ")[1] for line in told] == [
        f"seed {info['seed']}, sample {info['sample']}" for info in infos
    ]


def test_json_has_a_line_for_each_prompt(run):
    result = run("draw", "a cat", "a dog", "-n", "2", "-o", "a.png", "--json", "--seed", "3")
    said = [json.loads(line) for line in lines(result.stdout)]
    assert [(one["prompt"], one["files"], one["seed"]) for one in said] == [
        ("a cat", ["a-0.png", "a-1.png"], 3),
        ("a dog", ["a-2.png", "a-3.png"], 3),
    ]


def test_a_wrong_prompt_does_not_stop_the_others(run):
    result = run("draw", "a cat", " ", "a dog", "-o", "a.png", "--seed", "7")
    assert result.exit_code == 1
    assert result.stderr == "unitok: a-1.png: the prompt is empty\n"
    assert lines(result.stdout) == ["a-0.png: seed 7", "a-2.png: seed 7"]
    assert names() == ["a-0.png", "a-2.png"]


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_tells_what_is_saved(as_json, run, monkeypatch):
    whole = unitok.Model.run

    def interrupted(model, asked):
        results = list(whole(model, asked))
        yield from sorted(results, key=lambda result: -result.index)[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(unitok.Model, "run", interrupted)
    words = ["draw", "a cat", "a dog", "a house", "-o", "a.png", "--seed", "7"]
    result = run(*words, *(["--json"] if as_json else []))
    assert result.exit_code == 130
    assert result.stderr == "unitok: stopped; 2 of 3 pictures are saved\n"
    told = lines(result.stdout)
    if as_json:
        assert [json.loads(line)["files"] for line in told] == [["a-1.png"], ["a-2.png"]]
    else:
        assert told == ["a-1.png: seed 7", "a-2.png: seed 7"]
    assert names() == ["a-1.png", "a-2.png"]


def test_one_file_has_no_number():
    assert numbered(Path("b/a.png"), 1) == [Path("b/a.png")]
    assert numbered(Path("b/a.png"), 2) == [Path("b/a-0.png"), Path("b/a-1.png")]


# --- larger --------------------------------------------------------------------------------------


def test_scale_saves_every_pixel_as_a_square(run):
    for name, scale in (("small.png", "1"), ("large.png", "3")):
        words = ["draw", "a cat", "-o", name, "--seed", "7", "--scale", scale]
        assert run(*words).stdout == f"{name}: seed 7\n"
    with Image.open("small.png") as small, Image.open("large.png") as large:
        assert large.size == (192, 192) and small.size == (64, 64)
        assert large.info == small.info
        assert large.tobytes() == small.resize(large.size, Image.Resampling.NEAREST).tobytes()


@pytest.mark.parametrize("scale", ["0", "9", "1.5"])
def test_a_scale_out_of_range_is_a_usage_error(scale, run):
    result = run("draw", "a cat", "-o", "a.png", "--scale", scale, model=Path("nowhere"))
    assert result.exit_code == 2 and "'--scale'" in result.stderr
    assert names() == []


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff"])
def test_other_formats_remember_prompt_and_seed_too(suffix, run):
    run("draw", "a cat", "-o", f"a.{suffix}", "--seed", "7", "--scale", "2")
    info = unitok.read_info(f"a.{suffix}")
    assert (info["prompt"], info["seed"]) == ("a cat", "7")


# --- files that are there ------------------------------------------------------------------------


def test_no_clobber_tells_of_a_file_before_a_model_is_looked_for(run):
    Path("a-1.png").write_text("mine")
    words = ["draw", "a cat", "-n", "2", "-o", "a.png", "--no-clobber"]
    result = run(*words, model=Path("nowhere"))
    told = "unitok: a-1.png exists; name another file, or drop --no-clobber\n"
    assert (result.exit_code, result.stderr) == (2, told)
    assert Path("a-1.png").read_text() == "mine" and names() == ["a-1.png"]


def test_no_clobber_keeps_a_link_that_leads_nowhere(run):
    Path("a.png").symlink_to("there.png")
    assert run("draw", "a cat", "-o", "a.png", "--no-clobber").exit_code == 2
    assert names() == ["a.png"] and Path("a.png").is_symlink()


def test_no_clobber_keeps_a_file_that_came_meanwhile(run, monkeypatch):
    stream = unitok.Model.stream

    def slow(model, asked):
        Path("a.png").write_text("mine")
        return stream(model, asked)

    monkeypatch.setattr(unitok.Model, "stream", slow)
    result = run("draw", "a cat", "-o", "a.png", "--no-clobber")
    assert (result.exit_code, result.stderr) == (2, "unitok: a.png: File exists\n")
    assert Path("a.png").read_text() == "mine" and names() == ["a.png"]


def test_without_it_a_file_is_replaced_and_with_it_a_new_one_is_made(run):
    Path("a.png").write_text("old")
    assert run("draw", "a cat", "-o", "a.png").exit_code == 0
    assert run("draw", "a cat", "-o", "b.png", "--no-clobber").exit_code == 0
    assert unitok.read_info("a.png")["prompt"] == unitok.read_info("b.png")["prompt"] == "a cat"


def test_seeds_of_samples_are_printed_as_the_pictures_say(run):
    words = ["draw", "a cat", "-o", "a.png", "--seed", "7", "--seed", "8"]
    assert lines(run(*words).stdout) == ["a-0.png: seed 7, sample 0", "a-1.png: seed 8, sample 0"]
    assert [unitok.read_info(name)["seed"] for name in names()] == ["7", "8"]
