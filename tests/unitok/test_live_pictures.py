"""Previews in the terminal: `unitok draw --preview`, `unitok chat`; how pictures are laid out."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import unitok
from tests.unitok.terminals import screen, terminal_as
from unitok.cli import app
from unitok.conversation import Conversation
from unitok.live_pictures import GAP, LINES_BELOW, MOST, HalfBlocks, arranged
from unitok.terminal import HALF_BLOCK

RED, BLUE = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")


def shown(images: list, width: int = 80, height: int = 50, colours: str | None = "truecolor"):
    file = io.StringIO()
    console = Console(
        file=file,
        force_terminal=True,
        color_system=colours,  # type: ignore[arg-type]
        width=width,
        height=height,
        legacy_windows=False,
        _environ={},
    )
    console.print(HalfBlocks(images), end="")
    return file.getvalue()


# --- the layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "columns", "lines", "size"),
    [
        (1, 80, 50, (64, 64)),
        (1, 80, 20, (40, 40)),
        (1, 20, 50, (20, 20)),
        (2, 80, 50, (49, 49 * 2 + GAP)),
        (2, 80, 80, (64, 64 * 2 + GAP)),
        (2, 80, 20, (39 * 2 + GAP, 40)),
        (4, 200, 100, (64 * 3 + GAP * 2, 64 * 2 + GAP)),
        (3, 1, 1, None),
    ],
)
def test_pictures_are_as_large_as_the_room_allows_and_no_larger_than_they_are(
    n: int, columns: int, lines: int, size: tuple[int, int] | None
):
    whole = arranged([RED] * n, columns, lines)
    assert whole.height % 2 == 0
    if size is not None:
        assert whole.size == size
        assert whole.width <= columns and whole.height <= 2 * lines


def test_one_without_a_preview_is_grey_in_its_place():
    whole = arranged([None, BLUE], 200, 50)
    assert whole.getpixel((10, 10)) == (105, 105, 105)
    assert whole.getpixel((64 + GAP + 10, 10)) == (0, 0, 255)
    assert whole.getpixel((64 + GAP // 2, 10)) == (0, 0, 0)


def test_equal_neighbours_are_written_together():
    text = shown([RED])
    assert text.count(HALF_BLOCK) == 64 * 32
    assert text.count("\x1b[38;2;255;0;0") == 32, "once a line"
    assert len(shown([RED], height=20).splitlines()) == 20 - LINES_BELOW


def test_a_terminal_of_few_colours_gets_those_and_one_of_none_gets_nothing():
    assert "\x1b[38;5;" in shown([RED], colours="256")
    assert shown([RED], colours=None) == ""


def test_only_the_first_pictures_of_very_many_are_shown():
    assert len(HalfBlocks([RED] * 1000).images) == MOST
    assert shown([None] * MOST + [RED]) == ""


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def watch(short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command whose stdout and stderr are terminals; its exit code and what each showed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "25")

    def watch(*words: str) -> tuple[int, str, str]:
        with ExitStack() as stack:
            out, err = (
                stack.enter_context(terminal_as(name, monkeypatch)) for name in ("stdout", "stderr")
            )
            words = (*words, "--model", str(short_folder))
            code = app(words, prog_name="unitok", standalone_mode=False)
        return code or 0, out.shown, err.shown

    return watch


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[unitok.Draw]:
    """The requests that are streamed."""
    seen: list[unitok.Draw] = []
    stream: Callable = unitok.Model.stream
    noting = lambda model, asked: (seen.append(asked), stream(model, asked))[1]  # noqa: E731
    monkeypatch.setattr(unitok.Model, "stream", noting)
    return seen


def test_draw_shows_the_picture_in_one_place_and_leaves_the_finished_one(watch):
    words = ("draw", "a cat", "-o", "cat.png", "--seed", "1", "--preview", "--preview-count", "3")
    code, out, err = watch(*words)
    assert (code, out) == (0, "cat.png: seed 1\n")
    picture = [HALF_BLOCK * 44] * 22  # in a terminal of 25 lines
    assert screen(err) == picture
    while_drawn = screen(err[: err.rindex("64/64") + 5])
    assert while_drawn[:22] == picture and while_drawn[22].startswith("drawing ")
    assert len(while_drawn) == 23, "one picture and one bar, though both were painted often"
    plain = watch("draw", "a cat", "-o", "plain.png", "--seed", "1")
    assert HALF_BLOCK not in plain[2]
    assert Path("cat.png").read_bytes() == Path("plain.png").read_bytes()


def test_several_pictures_of_a_prompt_are_shown_together(watch):
    code, out, err = watch("draw", "a cat", "-o", "cat.png", "-n", "3", "--preview")
    assert code == 0 and out.count("\n") == 3
    assert HALF_BLOCK in err and "3 of 3 pictures" in err
    assert sorted(path.name for path in Path.cwd().glob("*.png")) == [
        f"cat-{i}.png" for i in range(3)
    ]


def test_in_a_pipe_nothing_is_shown_and_nothing_is_decoded_for_it(run, streamed):
    words = ("draw", "a cat", "-o", "cat.png", "--seed", "1", "--preview", "--preview-count", "3")
    done = run(*words)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "cat.png: seed 1\n", "")
    assert [(one.preview, one.preview_count) for one in streamed] == [(False, None)]


def test_quiet_shows_no_previews(watch, streamed):
    code, out, err = watch("draw", "a cat", "-o", "a.png", "--seed", "1", "--preview", "--quiet")
    assert (code, out, err) == (0, "a.png: seed 1\n", "")
    assert [one.preview for one in streamed] == [False]


def test_of_several_prompts_there_are_no_previews(run):
    done = run("draw", "a cat", "a dog", "-o", "a.png", "--preview")
    assert done.exit_code == 2
    assert done.stderr == "unitok: --preview shows the pictures of one prompt, not of 2\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preview-count", "3"], "preview_count does nothing without preview: give both"),
        (["--preview", "--preview-budget", "2"], "preview_budget must be above 0 and at most 1"),
    ],
)
def test_wrong_options_are_one_line(run, words: list[str], message: str):
    done = run("draw", "a cat", "-o", "a.png", *words)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"unitok: {message}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("preview", [False, True])
def test_a_chat_shows_a_drawing_while_it_is_painted(
    preview: bool, short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLORTERM", "truecolor")
    model = unitok.load(short_folder)
    with terminal_as("stdout", monkeypatch) as out, terminal_as("stderr", monkeypatch) as err:
        Conversation(model, tmp_path, preview, live=True, bars=True).talk(["/draw a cat"])
    assert (HALF_BLOCK in err.shown, HALF_BLOCK in out.shown) == (preview, preview)
    assert "64/64" in err.shown and "chat-1.png (seed " in out.shown


def test_lines_of_a_batch_have_no_previews_and_say_so(run, tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"draw": "a cat", "preview": true, "preview_count": 3}\n')
    done = run("batch", "in.jsonl", "-o", "out")
    assert done.exit_code != 0 and "0 new, 0 kept, 1 failed" in done.stdout
    told = (tmp_path / "out" / "errors.jsonl").read_text()
    assert '\\"preview\\" is for pictures that are watched' in told
