"""`unitok chat`, by what is typed and what is answered."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import unitok
from unitok.cli import app
from unitok.conversation import Conversation, save_new, typed_lines
from unitok.terminal import half_blocks


@pytest.fixture
def talk(untrained_folder, tmp_path):
    """Pipe lines into `unitok chat`."""

    def talk(*lines: str):
        words = ["chat", "--out", str(tmp_path), "--model", str(untrained_folder)]
        return CliRunner().invoke(app, words, input="\n".join(lines))

    return talk


def test_plain_text_is_answered_as_the_api_answers(talk, untrained_folder):
    done = talk("what is this?", "", "/quit", "nothing more is heard")
    wanted = unitok.load(untrained_folder).chat().send("what is this?").text
    assert done.exit_code == 0
    assert done.stdout == wanted + "\n"


def test_pictures_are_shown_drawn_and_talked_about(untrained_folder, tmp_path, monkeypatch):
    Image.new("RGB", (64, 64), "pink").save(tmp_path / "my scene.png")
    conversation = Conversation(unitok.load(untrained_folder), tmp_path)
    conversation.talk(
        [f'/show "{tmp_path}/my scene.png" what is this?', "/draw a cat", "is there a cat?"]
    )
    said = [(m.role, m.text, len(m.pictures)) for m in conversation.chat.messages]
    assert said[0] == ("user", "what is this?", 1)
    assert said[2:4] == [("user", "a cat", 0), ("assistant", "", 1)]
    assert said[4] == ("user", "is there a cat?", 0)
    assert (tmp_path / "chat-1.png").is_file()
    conversation.talk(["/new"])
    assert conversation.chat.messages == []


@pytest.mark.parametrize(
    ("typed", "question"),
    [
        ("/show {}/my\\ scene.png", "what is this?"),
        ("/show '{}/my scene.png'", "what is this?"),
        ("/show {}/plain.png 'is there a cat?", "'is there a cat?"),
    ],
)
def test_file_names_may_hold_blanks(typed, question, untrained_folder, tmp_path):
    for name in ("my scene.png", "plain.png"):
        Image.new("RGB", (64, 64), "pink").save(tmp_path / name)
    conversation = Conversation(unitok.load(untrained_folder), tmp_path)
    conversation.talk([typed.format(tmp_path)])
    assert [(m.text, len(m.pictures)) for m in conversation.chat.messages[:1]] == [(question, 1)]


def test_errors_are_one_line_each_and_the_chat_goes_on(talk, tmp_path):
    done = talk("/show nowhere.png", "/show", "/draw", "/dance", "/draw a cat")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "unitok: nowhere.png: no such file",
        "unitok: /show needs a file: /show FILE [QUESTION]",
        "unitok: the prompt is empty",
        "unitok: there is no /dance here; /help lists what there is",
    ]
    assert done.stdout.startswith(f"{tmp_path / 'chat-1.png'} (seed ")


def test_help_lists_the_commands(talk):
    assert "/draw PROMPT" in talk("/help").stdout


def test_ctrl_c_ends_it_politely(talk, monkeypatch):
    def interrupted(self, line):
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "answer", interrupted)
    done = talk("hello")
    assert (done.exit_code, done.stderr) == (0, "")


def test_drawings_never_overwrite_a_file(tmp_path):
    (tmp_path / "chat-1.png").write_text("mine")
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    paths = [save_new(picture, tmp_path) for picture in pictures]
    assert paths == [tmp_path / "chat-2.png", tmp_path / "chat-3.png"]
    assert (tmp_path / "chat-1.png").read_text() == "mine"


def test_a_preview_shows_two_pixels_per_character_within_the_width():
    picture = Image.new("RGB", (4, 4), "red")
    picture.paste((0, 0, 255), (0, 1, 4, 2))
    rows = half_blocks(picture, 80).split("\n")
    assert len(rows) == 2
    assert rows[0] == "\x1b[38;2;255;0;0;48;2;0;0;255m▀" * 4 + "\x1b[0m"
    assert half_blocks(Image.new("RGB", (64, 64)), 20).split("\n")[0].count("▀") == 20


def test_a_preview_is_printed_where_it_is_wanted(untrained_folder, tmp_path: Path, capsys):
    model = unitok.load(untrained_folder)
    Conversation(model, tmp_path, preview=True).talk(["/draw a cat"])
    assert capsys.readouterr().out.count("▀") == 64 * 32


def test_a_drawing_counts_as_one_where_its_progress_is_shown(
    untrained_folder, tmp_path, monkeypatch
):
    told = []

    def watched(events, drawings, bars):
        told.append((drawings, bars))
        return events

    monkeypatch.setattr("unitok.conversation.watched", watched)
    Conversation(unitok.load(untrained_folder), tmp_path, bars=True).talk(["/draw a cat"])
    assert told == [(1, True)]


def test_ctrl_c_drops_a_half_typed_line_and_ends_at_an_empty_one(monkeypatch, capsys):
    typed = iter(["hello", KeyboardInterrupt, "again", KeyboardInterrupt])
    half = iter(["half a li", ""])

    def read(prompt):
        line = next(typed)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("unitok.conversation.half_typed_line", lambda: next(half))
    lines = typed_lines()
    assert [next(lines), next(lines)] == ["hello", "again"]
    with pytest.raises(KeyboardInterrupt):
        next(lines)
