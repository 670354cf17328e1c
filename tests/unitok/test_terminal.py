"""What a person sees in a terminal: text as it comes, bars, warnings; and what --quiet hides."""

import logging
import signal
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

import unitok
from tests.unitok.terminals import terminal_as
from unitok.cli import app
from unitok.conversation import Conversation
from unitok.screen import after, in_one_line, printable, write_live
from unitok.terminal import one_line, speech, uninterrupted


@pytest.fixture
def watch(short_folder, tmp_path, monkeypatch):
    """Run a command whose stdout and stderr are terminals; its exit code and what each showed."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "pink").save("scene.png")

    def watch(*words: str) -> tuple[int, str, str]:
        with ExitStack() as stack:
            out, err = (
                stack.enter_context(terminal_as(name, monkeypatch)) for name in ("stdout", "stderr")
            )
            words = (*words, "--model", str(short_folder))
            code = app(words, prog_name="unitok", standalone_mode=False)
        return code or 0, out.shown, err.shown

    return watch


# --- caption -------------------------------------------------------------------------------------


def test_a_caption_is_streamed_in_the_line_that_a_pipe_gets(watch, short_folder, monkeypatch):
    pieces: list[str] = []
    monkeypatch.setattr("unitok.screen.printable", lambda text: pieces.append(text) or text)
    code, out, err = watch("caption", "scene.png")
    text = unitok.load(short_folder).caption("scene.png").text
    assert (code, out, err) == (0, f"scene.png: {' '.join(text.split())}\n", "")
    assert len(pieces) > 1


def test_several_files_and_json_are_told_as_to_a_pipe(watch):
    code, out, err = watch("caption", "scene.png", "scene.png", "--max-tokens", "4")
    assert (code, err, out.count("scene.png: ")) == (0, "", 2)
    code, out, err = watch("caption", "scene.png", "--json", "--max-tokens", "4")
    assert (code, err, out[:22]) == (0, "", '{"file": "scene.png", ')


def test_a_file_that_cannot_be_read_begins_no_line(watch):
    assert watch("caption", "no.png") == (1, "", "unitok: no.png: no such file\n")


@pytest.mark.parametrize("text", ["a\n b\tc", "  a  ", "", "one", "a\x1c\x85b c"])
def test_streamed_text_in_one_line_is_what_the_whole_would_be(text):
    for size in (1, 2, 3, 100):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert "".join(in_one_line(pieces)) == " ".join(text.split())


def test_a_line_begins_with_its_text_and_ends_whatever_happens(capsys):
    def broken(*pieces: str):
        yield from pieces
        raise RuntimeError

    for pieces in (["a"], []):
        with pytest.raises(RuntimeError):
            write_live(after("file: ", broken(*pieces)))
    write_live(after("empty: ", [""]))
    assert capsys.readouterr().out == "file: a\nempty: \n"


def test_nothing_that_steers_a_terminal_is_shown():
    assert printable("\x1b[2Jäö\r\x07 猫\n\t\x9b1m👨‍👩‍👧") == "[2Jäö 猫\n\t1m👨‍👩‍👧"


def test_an_error_shows_what_would_steer_a_terminal_and_does_not_do_it():
    assert one_line("\x1b[2Jäö\r\x07 猫\n\t\x9b1m") == r"\x1b[2Jäö \x07 猫 \x9b1m"
    assert one_line(FileNotFoundError(2, "no such file", "a\x1bb.png")) == (
        r"a\x1bb.png: no such file"
    )


# --- draw ----------------------------------------------------------------------------------------


def test_a_drawing_shows_its_tokens_and_its_pictures_while_it_is_made(watch):
    code, out, err = watch("draw", "a cat", "-o", "cat.png", "-n", "3", "--seed", "1")
    assert code == 0
    assert out == "".join(f"cat-{i}.png: seed 1, sample {i}\n" for i in range(3))
    assert "192/192" in err and "3 of 3 pictures" in err
    code, out, err = watch("draw", "a cat", "-o", "cat.png", "--seed", "1")
    assert "drawing" in err and "64/64" in err


def test_a_bar_makes_room_for_a_warning(watch):
    _, _, err = watch("draw", "a zebra", "-o", "cat.png")
    assert "warning: this model never saw the word 'zebra'" in err


def test_quiet_hides_bars_and_warnings_but_not_errors(watch):
    code, out, err = watch("draw", "a zebra", "-o", "cat.png", "--seed", "1", "--quiet")
    assert (code, out, err) == (0, "cat.png: seed 1\n", "")
    assert watch("caption", "no.png", "-q") == (1, "", "unitok: no.png: no such file\n")


# --- batch and chat ------------------------------------------------------------------------------


def test_a_batch_counts_its_lines(watch):
    Path("work.jsonl").write_text('{"caption": "scene.png", "max_tokens": 2}\n' * 3)
    code, out, err = watch("batch", "work.jsonl", "-o", "out")
    assert (code, out) == (0, "out/results.jsonl: 3 new, 0 kept, 0 failed\n")
    assert "3/3" in err
    assert watch("batch", "work.jsonl", "-o", "out", "-q")[2] == ""


def test_a_chat_streams_its_answers_and_shows_how_far_a_drawing_is(
    untrained_folder, tmp_path, monkeypatch
):
    model = unitok.load(untrained_folder)
    with terminal_as("stdout", monkeypatch) as out, terminal_as("stderr", monkeypatch) as err:
        talk = Conversation(model, tmp_path, live=True, bars=True)
        talk.talk(["is there a cat?", "/draw a cat", "/dance"])
    answer = talk.chat.messages[1].text
    assert answer == model.chat().send("is there a cat?").text
    assert out.shown.startswith(f"{printable(answer)}\n{tmp_path}/chat-1.png (seed ")
    assert "64/64" in err.shown
    assert "unitok: there is no /dance here" in err.shown


# --- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verbose", "quiet", "said"),
    [
        (0, False, ["warning: be careful", "error: broken: no room", "warning: odd"]),
        (1, False, ["info: done", "warning: be careful", "error: broken: no room", "warning: odd"]),
        (0, True, ["error: broken: no room"]),
    ],
)
def test_logging_is_one_line_a_record(verbose, quiet, said, capsys):
    logger = logging.getLogger("unitok_engine.some.module")
    before = [*logging.getLogger("unitok").handlers]
    with speech(verbose, quiet):
        logger.debug("detail")
        logger.info("done")
        logger.warning("be\ncareful")
        try:
            raise OSError("no\nroom")
        except OSError:
            logger.exception("broken")
        warnings.warn("odd", UserWarning, stacklevel=1)
    assert capsys.readouterr().err.splitlines() == said
    assert logging.getLogger("unitok").handlers == before


def test_twice_verbose_tells_details(capsys):
    with speech(2):
        logging.getLogger("unitok.driver").debug("the %s", "detail")
        logging.getLogger("elsewhere").error("not ours")
    assert "debug: the detail\n" in capsys.readouterr().err


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_waits_until_what_was_done_is_noted():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("all")
    assert done == ["all"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_where_ctrl_c_is_ignored_it_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
