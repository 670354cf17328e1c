"""`unitok data check` and `unitok data make`: what they print, write and end with."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.training.conversations import (
    asked,
    assistant,
    noise,
    picture,
    png,
    user,
    write_lines,
    write_tar,
)
from unitok.cli import app
from unitok.training.data.checking import MOST_ERRORS, DataReport, Samples, histogram_lines


@pytest.fixture
def run(untrained_folder: Path, tmp_path: Path, monkeypatch):
    """Run `unitok data` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *arguments: str):
        model = ["--model", str(untrained_folder)] if command == "check" else []
        return CliRunner().invoke(app, ["data", command, *arguments, *model], prog_name="unitok")

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of ten pictures with captions beside them."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i in range(10):
        path = folder / ("more" if i > 6 else "") / f"{i}.png"
        noise(i).save(path)
        path.with_suffix(".txt").write_text(f"noise {i}\n")
    return folder


def lines(path: Path) -> list[Any]:
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "make", "pairs"])
def test_help_teaches_with_an_example(command, run):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: unitok data {command}" in result.stdout
    assert ("--device" in result.stdout) == (command != "make")
    assert "--quiet" in result.stdout


# --- check ---------------------------------------------------------------------------------------


def good_file(folder: Path) -> Path:
    noise(1).save(folder / "a.png")
    return write_lines(
        folder / "good.jsonl",
        [
            {"messages": [user(picture("a.png"), "what is this?"), assistant("a cat")]},
            {"messages": [user("a cat"), assistant(picture("a.png"))]},
            asked("hello", "a dog"),
        ],
    )


def test_a_data_set_that_is_right_is_counted(run, tmp_path: Path):
    good_file(tmp_path)
    result = run("check", "good.jsonl")
    assert (result.exit_code, result.stderr) == (0, "")
    told = " ".join(result.stdout.split())
    for counted in ("conversations 3", "wrong records 0", "turns 6", "pictures to read 1"):
        assert counted in told
    assert "pictures to paint 1" in told and "image tokens learned 64" in told
    assert "128 | ████" in told


def test_programs_are_told_the_same(run, tmp_path: Path):
    good_file(tmp_path)
    result = run("check", "good.jsonl", "--json")
    told = json.loads(result.stdout)
    assert (told["conversations"], told["sequences"], told["wrong"]) == (3, 3, 0)
    assert (told["text_tokens"], told["image_tokens"]) == (6, 64)
    lengths = told["lengths"]
    assert sum(bin["count"] for bin in lengths["histogram"]) == 3
    assert lengths["median"] <= lengths["longest"] < lengths["total"]


def test_what_is_wrong_is_told_by_line_and_the_rest_goes_on(run, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with good_file(tmp_path).open("a") as file:
        for record in (
            {"messages": [user(picture("none.png"), "a"), assistant("b")]},
            {"messages": [user("a"), assistant(picture("bad.png"))]},
            {"messages": [user("a")]},
            asked("more", "a cow"),
        ):
            file.write(json.dumps(record) + "\n")
    result = run("check", "good.jsonl")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "unitok: good.jsonl:4: messages[0].content[0]: none.png: no such file",
        "unitok: good.jsonl:5: messages[1].content[0]: bad.png is not a picture",
        "unitok: good.jsonl:6: messages[0]: the last message must be of the assistant, not the "
        "user",
    ]
    assert "conversations 4" in " ".join(result.stdout.split())


def test_errors_are_listed_up_to_a_bound_and_all_counted(run, tmp_path: Path):
    write_lines(tmp_path / "bad.jsonl", [{}] * (MOST_ERRORS + 30))
    result = run("check", "bad.jsonl", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (len(told["errors"]), told["wrong"]) == (MOST_ERRORS, MOST_ERRORS + 30)
    assert result.stderr.splitlines()[-1] == "unitok: and 30 more records are wrong"


def test_what_is_too_long_is_named_but_is_not_wrong(run, tmp_path: Path):
    write_lines(tmp_path / "a.jsonl", [asked("a", "b"), asked("a", "cat " * 5000)])
    result = run("check", "a.jsonl")
    assert result.exit_code == 0
    assert result.stderr == "warning: 1 answers or pictures are too long, in a.jsonl:2\n"
    assert "too long 1 " in " ".join(result.stdout.split())
    write_lines(tmp_path / "a.jsonl", [asked("a", "two apples on a blue background")])
    cut = run("check", "a.jsonl", "--max-length", "10", "--too-long", "cut", "--json")
    assert json.loads(cut.stdout)["lengths"]["longest"] == 10


def test_a_sheet_shows_samples(run, tmp_path: Path):
    good_file(tmp_path)
    result = run("check", "good.jsonl", "--sheet", "sheet.png", "--samples", "2")
    assert result.exit_code == 0
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 400 and 200 < sheet.height < 400
        colours = sheet.convert("RGB").getcolors(10**6)
    assert colours is not None and len(colours) > 100  # a picture, not only text
    assert run("check", "good.jsonl", "--sheet", "none/sheet.png").exit_code == 2


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("sheet", "sheet: name a picture, such as sheet.png"),
        ("folder.png", "folder.png is a folder; name a file"),
        ("none/sheet.png", "none: no such folder"),
    ],
)
def test_a_sheet_that_cannot_be_written_is_told_at_once(sheet: str, message: str, run, tmp_path):
    (tmp_path / "folder.png").mkdir()
    result = run("check", "not read yet", "--sheet", sheet)
    assert (result.exit_code, result.stderr) == (2, f"unitok: {message}\n")


def test_tars_are_checked_too_and_a_damaged_one_is_told(run, tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(), "1.txt": b"a cat"})
    result = run("check", "a.tar", "--json")
    assert json.loads(result.stdout)["conversations"] == 2
    path.write_bytes(path.read_bytes()[:700] + b"x" * 900)
    result = run("check", "a.tar")
    assert result.exit_code == 1 and "a.tar" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "none.jsonl: no such file"),
        ("", "none.jsonl is empty: it has no line with a conversation"),
    ],
)
def test_what_cannot_be_checked_is_a_usage_error(content, message, run, tmp_path: Path):
    if content is not None:
        (tmp_path / "none.jsonl").write_text(content)
    result = run("check", "none.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"unitok: {message}\n"


def test_an_empty_tar_is_a_usage_error(run, tmp_path: Path):
    write_tar(tmp_path / "a.tar", {})
    result = run("check", "a.tar")
    assert result.exit_code == 2
    assert result.stderr == "unitok: a.tar is empty: it has no conversation\n"


def test_samples_are_chosen_evenly_and_always_the_same():
    def chosen(most: int) -> list[Any]:
        samples = Samples(most)
        for i in range(100):
            samples.add(_Named(f"line {i}"))  # type: ignore[arg-type]
        return [int(c.name.split()[1]) for c in samples.conversations]

    assert chosen(10) == chosen(10) == sorted(chosen(10))
    assert len(chosen(10)) == 10 and max(chosen(10)) > 40 > min(chosen(10))
    assert chosen(200) == list(range(100))


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_a_histogram_has_a_bar_for_each_bin():
    report = DataReport()
    report.lengths.update([3, 16, 17, 32, 33, 100, 100])
    assert report.histogram() == [(16, 2), (32, 2), (64, 1), (128, 2)]
    assert (report.quantile(0.5), report.quantile(1)) == (32, 100)
    assert list(histogram_lines(report.histogram(), 4)) == [
        "       16 | ████ 2",
        "       32 | ████ 2",
        "       64 | ██ 1",
        "      128 | ████ 2",
    ]
    assert DataReport().histogram() == list(histogram_lines([])) == []


# --- make ----------------------------------------------------------------------------------------


def test_a_folder_becomes_conversations_both_ways(run, pictures: Path, tmp_path: Path):
    result = run("make", "pictures", "--out", "train.jsonl", "--question", "what is this?")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "train.jsonl: 20 conversations of 10 pictures\n"
    made = lines(tmp_path / "train.jsonl")
    image = {"type": "image", "image": "pictures/0.png"}
    question = {"type": "text", "text": "what is this?"}
    assert made[:2] == [
        [
            {"role": "user", "content": [image, question]},
            {"role": "assistant", "content": "noise 0"},
        ],
        [{"role": "user", "content": "noise 0"}, {"role": "assistant", "content": [image]}],
    ]
    assert made[-1][1]["content"][0]["image"] == "pictures/more/9.png"
    assert run("check", "train.jsonl", "--quiet").exit_code == 0


def test_a_name_that_is_not_utf8_is_told(run, tmp_path: Path):
    name = bytes(tmp_path) + b"/caf\xe9"
    with open(name + b".png", "wb") as file:
        noise().save(file, "PNG")
    with open(name + b".txt", "w") as file:
        file.write("a cat")
    result = run("make", ".", "--out", "a.jsonl")
    assert result.exit_code == 2 and "JSON holds UTF-8 alone" in result.stderr
    assert "caf" in result.stderr and result.stderr.count("\n") == 1


def test_one_way_alone_can_be_asked_for(run, pictures: Path, tmp_path: Path):
    for way, role in (("--read", 0), ("--paint", 1)):
        assert run("make", "pictures", "--out", "one.jsonl", way).exit_code == 0
        made = lines(tmp_path / "one.jsonl")
        assert len(made) == 10
        assert all(isinstance(m[role]["content"], list) for m in made)
        assert all(isinstance(m[1 - role]["content"], str) for m in made)
    run("make", "pictures", "--out", "two.jsonl", "--read", "--paint")
    assert len(lines(tmp_path / "two.jsonl")) == 20


def test_held_out_pictures_are_written_beside_and_are_always_the_same(run, pictures, tmp_path):
    asked_for = ("make", "pictures", "--out", "a.jsonl", "--held-out", "0.3", "--paint")
    assert run(*asked_for).stdout.splitlines() == [
        "a.jsonl: 7 conversations of 7 pictures",
        "a-held-out.jsonl: 3 conversations of 3 pictures",
    ]
    learned, held = (
        (tmp_path / "a.jsonl").read_bytes(),
        (tmp_path / "a-held-out.jsonl").read_bytes(),
    )
    names = [[m[1]["content"][0]["image"] for m in lines(tmp_path / f"{n}.jsonl")]
             for n in ("a", "a-held-out")]  # fmt: skip
    assert len({*names[0], *names[1]}) == 10
    run(*asked_for)
    assert (tmp_path / "a.jsonl").read_bytes() == learned
    assert (tmp_path / "a-held-out.jsonl").read_bytes() == held


def test_captions_can_stand_in_a_list(run, pictures: Path, tmp_path: Path):
    records = [
        {"file_name": "more/9.png", "text": "nine", "width": 32},
        {"file_name": "0.png", "text": "zero"},
    ]
    write_lines(pictures / "metadata.jsonl", records)
    (tmp_path / "out").mkdir()
    result = run("make", "pictures", "--out", "out/a.jsonl", "--paint")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: 8 pictures have no caption and are left out, such as 1.png\n"
    )
    told = [(m[0]["content"], m[1]["content"][0]["image"]) for m in lines(Path("out/a.jsonl"))]
    assert told == [("zero", "../pictures/0.png"), ("nine", "../pictures/more/9.png")]
    assert run("check", "out/a.jsonl").exit_code == 0


WRONG_LISTS = [
    ({"file_name": "none.png", "text": "a"}, "none.png: no such file"),
    ({"file_name": "../secret.png", "text": "a"}, "'../secret.png' leads out of the folder"),
    ({"file_name": "/etc/passwd", "text": "a"}, "'/etc/passwd' leads out of the folder"),
    ({"file_name": "0.png"}, "text must be text, not None"),
    ({"file_name": "0.png", "text": " "}, "text must be text, not ' '"),
    (["0.png"], "file_name must be text, not None"),
]


@pytest.mark.parametrize(("record", "message"), WRONG_LISTS)
def test_a_wrong_line_of_the_list_is_a_usage_error(record, message, run, pictures, tmp_path):
    noise().save(tmp_path / "secret.png")
    write_lines(pictures / "metadata.jsonl", [{"file_name": "1.png", "text": "b"}, record])
    result = run("make", "pictures", "--out", "a.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "metadata.jsonl:2: " in result.stderr and message in result.stderr
    assert not (tmp_path / "a.jsonl").exists()


def test_two_captions_of_a_picture_are_an_error(run, pictures: Path):
    write_lines(pictures / "metadata.jsonl", [{"file_name": "1.png", "text": "b"}] * 2)
    result = run("make", "pictures", "--out", "a.jsonl")
    assert (
        result.exit_code == 2 and "metadata.jsonl:2: 1.png has a caption already" in result.stderr
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("nowhere", "--out", "a.jsonl"), "nowhere is not a folder"),
        (("empty", "--out", "a.jsonl"), "empty has no captions"),
        (("pictures", "--out", "a.jsonl", "--held-out", "1"), "--held-out must be a share"),
        (("pictures", "--out", "a.jsonl", "--held-out", "0.99"), "leave none to learn"),
        (("pictures", "--out", "a.jsonl", "--question", " "), "--question is empty"),
        (("pictures", "--out", "none/a.jsonl"), "none: no such folder"),
    ],
)
def test_wrong_use_is_told(flags, message, run, pictures: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    result = run("make", *flags)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
