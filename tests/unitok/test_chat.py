"""Chats that are undone, saved, loaded and full, and pictures that go with a drawing's prompt."""

import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import unitok
from tests.unitok.tiny import PATCHES, save_tiny
from unitok import Chat, chat_file
from unitok.api import Model
from unitok.chat import ChatFullError
from unitok.cli import app
from unitok.conversation import Conversation
from unitok.history import PNG_URI, Said, to_png, what_dropped, without_oldest
from unitok.prompt import EncodedImage, Message
from unitok.requests import Turn
from unitok.results import Dropped
from unitok_engine import Request


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with unitok.load(save_tiny(tmp_path_factory.mktemp("chat") / "tiny"), memory="16MB") as model:
        yield model


@pytest.fixture
def asked(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Gets the requests that the engine is given."""
    seen: list[Request] = []
    add = model.driver.engine.add

    def noting(request: Request, share: object = None) -> int:
        seen.append(request)
        return add(request, share)

    monkeypatch.setattr(model.driver.engine, "add", noting)
    return seen


def picture(seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


def talk(model: Model) -> Chat:
    """A chat in which a picture was shown and one was drawn."""
    chat = model.chat(system="a dog")
    chat.send("what is this?", images=[picture()], max_tokens=3)
    chat.draw("a cat", seed=1)
    return chat


def seen(request: Request) -> list[tuple[Any, ...]]:
    """The token ids and the pictures of a request."""
    return [
        (branch.token_ids, branch.weight, [e.digest for e in branch.embeddings])
        for branch in request.branches
    ]


def texts_of(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of messages, with "#" for each picture."""
    contents = [m["content"] for m in messages]
    return [c if isinstance(c, str) else " ".join(p.get("text", "#") for p in c) for c in contents]


# --- what was said -------------------------------------------------------------------------------


def test_a_chat_gives_its_messages_in_the_form_that_models_take(model: Model, asked: list[Request]):
    chat = talk(model)
    messages = chat.to_messages()
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 2]
    assert texts_of(messages)[1::3] == ["# what is this?", "#"]
    question = {"role": "user", "content": "is there a cat?"}
    result = model.chat(messages=[*messages, question], max_tokens=3)
    assert chat.send("is there a cat?", max_tokens=3).text == result.text
    assert seen(asked[-1]) == seen(asked[-2])


def test_undo_drops_the_last_exchange_and_returns_it(model: Model, asked: list[Request]):
    chat = talk(model)
    chat.send("is there a cat?", max_tokens=3)
    chat.undo()
    assert texts_of(chat.undo()) == ["a cat", "#"]
    assert [m.text for m in chat.messages][:1] == ["what is this?"] and len(chat.messages) == 2
    again = chat.send("is there a cat?", max_tokens=3)
    fresh = model.chat(system="a dog")
    fresh.send("what is this?", images=[picture()], max_tokens=3)
    assert fresh.send("is there a cat?", max_tokens=3).text == again.text
    assert seen(asked[-1]) == seen(asked[-3])
    chat.undo()
    chat.undo()
    with pytest.raises(ValueError, match="nothing to undo: the chat is empty"):
        chat.undo()


def test_tokens_and_room_fill_the_context(model: Model):
    chat = model.chat(system="a dog")
    before = chat.tokens
    result = chat.send("what is this?", images=[picture()], max_tokens=3)
    assert chat.tokens >= result.prompt_tokens + result.completion_tokens
    assert chat.tokens - before > PATCHES
    assert chat.tokens + chat.room == model.info().context


def test_wrong_ways_to_begin_a_chat_are_refused(model: Model):
    with pytest.raises(TypeError, match="system must be text, not 1"):
        model.chat(system=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="when_full must be 'error' or 'drop', not 'forget'"):
        model.chat(when_full="forget")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="sytem"):
        model.chat(sytem="a dog")  # type: ignore[call-overload]


def test_what_a_user_does_to_a_picture_later_changes_no_history(model: Model):
    chat, shown = model.chat(), picture()
    chat.send("what is this?", images=shown, max_tokens=3)
    drawn = chat.draw("a cat", seed=1).image
    before = chat.to_messages()
    for image in (shown, drawn):
        image.paste("red", (0, 0, 64, 64))
    assert chat.to_messages() == before


# --- files ---------------------------------------------------------------------------------------


def test_a_loaded_chat_goes_on_as_the_saved_one(model: Model, tmp_path: Path, asked: list[Request]):
    chat = talk(model)
    chat.save(tmp_path / "talk.json")
    loaded = Chat.load(model, str(tmp_path / "talk.json"))
    assert (repr(loaded), loaded.system) == (repr(chat), "a dog")
    assert loaded.to_messages() == chat.to_messages()
    answers = [c.send("and this?", images=picture(1), max_tokens=6) for c in (chat, loaded)]
    assert answers[0].text == answers[1].text
    assert seen(asked[-1]) == seen(asked[-2])
    assert len(asked[-1].branches[0].embeddings) == 3
    loaded.save(tmp_path / "again.json")
    chat.save(tmp_path / "talk.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "talk.json").read_bytes()


def test_a_chat_is_saved_completely_or_not_at_all(model: Model, tmp_path: Path, monkeypatch):
    path = tmp_path / "talk.json"
    with pytest.raises(ValueError, match="nothing to save"):
        model.chat().save(path)
    chat = talk(model)
    chat.save(path, new=True)
    with pytest.raises(FileExistsError, match=rf"File exists: .*{path}"):
        chat.save(path, new=True)
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        chat.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        chat.save(tmp_path / "nowhere" / "talk.json")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    chat.undo()
    with pytest.raises(OSError, match="No space left"):
        chat.save(path)
    assert (path.read_bytes(), [p.name for p in tmp_path.iterdir()]) == (before, ["talk.json"])


def test_a_chat_that_could_not_be_read_again_is_not_saved(
    model: Model, tmp_path: Path, monkeypatch
):
    chat = talk(model)
    monkeypatch.setattr(chat_file, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"the chat takes [\d,]+ bytes; at most 1,000"):
        chat.save(tmp_path / "talk.json")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_saved_chats_are_named(model: Model, tmp_path: Path, monkeypatch):
    talk(model).save(tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())

    def changed(**keys: object) -> bytes:
        return json.dumps(whole | keys).encode()

    def shown(url: str) -> list[dict[str, Any]]:
        said = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        return [said, {"role": "assistant", "content": "yes"}]

    files = {
        b"": "is not a saved chat, or is damaged",
        b"\xff\xfe\x00": "is not a saved chat, or is damaged",
        (tmp_path / "whole.json").read_bytes()[:-40]: "is not a saved chat, or is damaged",
        b"[" * 200_000: "nested deeper than 64 levels",
        b"[" + b"0," * 600_000 + b"0]": "more than 500,000 values",
        b'{"format": "unitok chat", "format": "unitok chat"}': '"format": this key is given twice',
        b"[]": 'its "format" is not "unitok chat"',
        changed(format="other"): 'its "format" is not',
        changed(version=2): "is of version 2; this unitok reads version 1",
        changed(messages=3): "messages must be a list of messages, not int",
        changed(messages=whole["messages"][:-1]): r"messages\[3\]: the last message must be of the",
        changed(
            messages=shown("/etc/passwd")
        ): r"messages\[0\].content\[0\]: a saved picture begin",
        changed(messages=shown(PNG_URI + "????")): r"messages\[0\].content\[0\]: ",
        changed(messages=shown(PNG_URI + "AAAA")): r"messages\[0\].content\[0\]: ",
    }
    path = tmp_path / "talk.json"
    for data, error in files.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"^{path}.*{error}"):
            Chat.load(model, path)
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        Chat.load(model, tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="not a file"):
        Chat.load(model, tmp_path)
    monkeypatch.setattr(chat_file, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"whole\.json has more than 1,000 bytes"):
        Chat.load(model, tmp_path / "whole.json")


def test_a_picture_is_kept_as_a_png_without_anything_but_its_pixels():
    image = picture()
    image.info |= {"icc_profile": b"x" * 5000, "comment": "secret", "exif": b"secret"}
    with Image.open(BytesIO(to_png(image))) as kept:
        kept.load()
        assert (kept.format, kept.info) == ("PNG", {})
        assert np.array_equal(np.array(kept), np.array(image))


# --- a full context ------------------------------------------------------------------------------


def fill(chat: Chat) -> int:
    """Show pictures until the context is full; gives the number of turns."""
    for turn in range(30):
        try:
            chat.send("what is this?", images=[picture(turn)], max_tokens=2)
        except ValueError:
            return turn
    raise AssertionError("the context is never full")


def test_a_full_chat_tells_the_numbers_and_how_to_go_on(model: Model):
    chat = model.chat()
    turns = fill(chat)
    with pytest.raises(ValueError, match=r"holds 256. Drop the last exchange with undo\(\), start"):
        chat.send("what is this?", images=[picture()], max_tokens=2)
    with pytest.raises(ValueError, match=r"takes \d+ tokens and needs 16 more.*when_full='drop'"):
        chat.draw("a cat " * 15, seed=1)
    with pytest.raises(ValueError, match="shorten it"):  # no undo would help
        chat.send("dog " * 300)
    assert len(chat.messages) == 2 * turns
    chat.undo()
    assert chat.send("what is this?", images=[picture()], max_tokens=2).dropped is None


def test_a_full_chat_goes_on_without_its_oldest_pictures(model: Model, asked: list[Request]):
    chat = model.chat(when_full="drop")
    results = [chat.send("what is this?", picture(i), max_tokens=2) for i in range(12)]
    first = next(i for i, result in enumerate(results) if result.dropped)
    assert first > 2 and results[first].dropped == Dropped(1, 0)
    assert repr(results[first]).endswith("dropped 1 picture>")
    assert max(r.prompt_tokens for r in results) <= 256
    pictures = [len(m.pictures) for m in chat.messages[::2]]
    assert pictures == sorted(pictures) and {0, 1} == set(pictures)
    assert all(m.text for m in chat.messages)
    digests = [e.digest for e in asked[-1].branches[0].embeddings]
    shown = [asked[i].branches[0].embeddings[-1].digest for i in range(12)]
    assert digests == shown[-len(digests) :], "the newest are kept"


def test_an_error_can_be_followed_by_dropping(model: Model):
    chat = model.chat()
    turns = fill(chat)
    chat.when_full = "drop"
    result = chat.draw("a cat " * 15, seed=1)
    assert result.dropped is not None and result.dropped.exchanges == 0
    assert len(chat.messages) == 2 * turns + 2
    *_, last = chat.stream("is there a cat?", images=[picture(i) for i in range(4)], max_tokens=2)
    assert last.result is not None and last.result.dropped is not None
    *_, last = chat.stream_drawing("a dog", seed=2)
    assert last.result is not None and last.result.dropped is not None


def test_a_long_talk_without_pictures_loses_whole_exchanges(model: Model):
    chat = model.chat(when_full="drop")
    results = [chat.send("dog " * 60, max_tokens=2) for _ in range(6)]
    dropped = [result.dropped for result in results if result.dropped]
    assert dropped and set(dropped) == {Dropped(0, 1)}
    assert [m.role for m in chat.messages] == ["user", "assistant"] * (6 - len(dropped))


def test_dropping_leaves_room_for_the_whole_answer(model: Model):
    chat = model.chat(when_full="drop")
    results = [chat.send("dog " * 50, max_tokens=12) for _ in range(6)]
    cut = [r.completion_tokens for r in results if r.finish_reason == "length"]
    assert cut and set(cut) == {12}
    assert any(r.dropped for r in results)


def test_a_message_that_does_not_fit_alone_drops_nothing(model: Model):
    chat = model.chat(when_full="drop")
    chat.send("what is this?", max_tokens=2)
    before = chat.to_messages()
    with pytest.raises(ValueError, match="shorten it"):
        chat.send("dog " * 300)
    assert chat.to_messages() == before


def long_chat(model: Model, tmp_path: Path) -> Chat:
    """A chat of a model with a context many times as long, and a last exchange that fits here."""
    chat = model.chat()
    chat._history = [said(role, "dog " * 256) for role in ("user", "assistant") * 9]
    chat._history += [said("user", "is there a dog?"), said("assistant", "yes")]
    chat.save(tmp_path / "long.json")
    return Chat.load(model, tmp_path / "long.json")


def test_a_loaded_chat_far_longer_than_the_context_is_full(model: Model, tmp_path: Path, capsys):
    chat = long_chat(model, tmp_path)
    before = chat.to_messages()
    for turn in (chat.send, chat.draw):
        with pytest.raises(ChatFullError, match=r"takes more than .* holds 256\. Drop "):
            turn("a cat")
    assert chat.to_messages() == before
    talk = Conversation(model, tmp_path)
    talk.talk([f"/load {tmp_path}/long.json", "is there a cat?"])
    assert "takes more than" in (err := capsys.readouterr().err) and "/undo drops" in err


@pytest.mark.parametrize("name", ["send", "draw"])
def test_a_loaded_chat_far_longer_than_the_context_goes_on_without_its_beginning(
    model: Model, tmp_path: Path, name: str
):
    chat = long_chat(model, tmp_path)
    chat.when_full = "drop"
    result = getattr(chat, name)("a cat")
    assert result.dropped == Dropped(0, 9)
    assert [m.text for m in chat.messages[:3]] == ["is there a dog?", "yes", "a cat"]


@pytest.mark.parametrize("turns", [3, 30, 400])
def test_a_chat_of_hundreds_of_turns_is_not_tried_once_for_each(
    model: Model, monkeypatch: pytest.MonkeyPatch, turns: int
):
    tried: list[int] = []
    answer = model.prepare.answer

    def noting(asked: Any, messages: list[Message], *args: Any, **options: Any) -> Any:
        tried.append(len(messages))
        return answer(asked, messages, *args, **options)

    history = [said(role, f"dog {i}") for i in range(turns) for role in ("user", "assistant")]
    history += [said(role, "dog " * 60) for role in ("user", "assistant")]
    chat = model.chat(when_full="drop")
    chat._history = history
    with monkeypatch.context() as patch:
        patch.setattr(model.prepare, "answer", noting)
        dropped = chat.send("a cat", max_tokens=2).dropped
    assert len(tried) < 25
    exchanges = dropped.exchanges if dropped else 0
    assert len(chat.messages) == len(history) - 2 * exchanges + 2
    if exchanges:  # one exchange less would have been too little
        more = [s.message for s in (*history[2 * exchanges - 2 :], said("user", "a cat"))]
        with pytest.raises(ValueError, match="shorten it"):
            answer(Turn("a cat", max_tokens=2), more, None, room=2)


def said(role: Any, text: str, pictures: int = 0) -> Said:
    shown = (EncodedImage(((3, 4),)),) * pictures
    return Said(Message(role, text, shown), (b"png",) * pictures)


def test_pictures_go_first_and_then_whole_exchanges():
    history = [
        said("user", "a"),
        said("assistant", "b"),
        said("user", "c", 2),
        said("assistant", "d"),
        said("user", "a cat"),
        said("assistant", "", 1),  # a drawing
        said("user", "e"),
        said("assistant", "f"),
    ]
    kept = without_oldest(history)
    assert [(s.message.text, len(s.files)) for s in kept[2:4]] == [("c", 0), ("d", 0)]
    assert [*kept[:2], *kept[4:]] == [*history[:2], *history[4:]]
    assert what_dropped(history, kept) == Dropped(2, 0)
    again = without_oldest(kept)
    assert [s.message.text for s in again] == ["a", "b", "c", "d", "e", "f"]
    assert what_dropped(history, again) == Dropped(3, 1)
    assert str(Dropped(3, 1)) == "3 pictures and 1 exchange"
    assert [s.message.text for s in without_oldest(again)] == ["c", "d", "e", "f"]
    assert what_dropped(history, history) is None


# --- pictures for a drawing ----------------------------------------------------------------------


def test_a_drawing_may_follow_pictures_without_a_chat(model: Model, asked: list[Request]):
    plain, one, two = (
        model.draw("a cat like this", images=images, seed=1)
        for images in ((), picture(), [picture(), picture(1)])
    )
    assert [len(request.branches[0].embeddings) for request in asked] == [0, 1, 2]
    assert len({result.image.tobytes() for result in (plain, one, two)}) == 3
    chat = model.chat()
    chat.draw("a cat like this", images=[picture()], seed=1)
    assert seen(asked[-1]) == seen(asked[1])
    assert [len(m.pictures) for m in chat.messages] == [1, 1]


def test_a_drawing_whose_picture_cannot_be_opened_is_refused(model: Model):
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such file"):
        model.draw("a cat", images=["none.png"])
    with pytest.raises(TypeError, match="a picture is"):
        model.draw("a cat", images=[3])  # type: ignore[list-item]


# --- in the terminal -----------------------------------------------------------------------------


def test_a_conversation_is_saved_loaded_and_undone(model: Model, tmp_path: Path, capsys):
    file = tmp_path / "my talk.json"
    talk = Conversation(model, tmp_path)
    talk.chat.send("what is this?", max_tokens=2)
    typed = [f'/save "{file}"', f'/save "{file}"', "/new", f'/load "{file}"', "/undo"]
    talk.talk([*typed, "/undo", "/save", "/load a b", "/save a"])
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"saved in {file}",
        f"{file}: 1 turn, 0 pictures",
        "dropped: 'what is this?'",
    ]
    assert err.splitlines() == [
        f"unitok: {file} exists; /save! FILE replaces it",
        "unitok: there is nothing to undo: the chat is empty",
        "unitok: /save needs a file: /save FILE",
        "unitok: /load FILE: put a name with blanks in quotes",
        "unitok: there is nothing to save: the chat is empty",
    ]
    before = file.read_text()
    talk.chat.send("is there a dog?", max_tokens=2)
    talk.talk([f'/save! "{file}"'])
    assert file.read_text() != before


def test_the_home_of_nobody_is_told_with_the_file(model: Model, tmp_path: Path, capsys):
    talk = Conversation(model, tmp_path)
    talk.chat.send("what is this?", max_tokens=2)
    talk.talk(["/load ~nobody-here/a.json", "/show ~nobody-here/a.png", "/save ~nobody-here/a"])
    assert capsys.readouterr().err.splitlines() == [
        "unitok: ~nobody-here/a.json: no such file",
        "unitok: ~nobody-here/a.png: no such file",
        "unitok: ~nobody-here: no such folder",
    ]


@pytest.mark.parametrize("live", [True, False])
def test_a_full_conversation_names_the_commands_that_help(
    model: Model, tmp_path: Path, capsys, live: bool
):
    picture().save(tmp_path / "a.png")
    talk = Conversation(model, tmp_path, live=live)
    turns = fill(talk.chat)
    talk.talk([f"/show {tmp_path}/a.png what is this?", f"/draw {'a cat ' * 15}"])
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and len(talk.chat.messages) == 2 * turns
    assert all(
        "and the context holds 256. /undo drops the last exchange, /new starts" in line
        and "--when-full drop" in line
        for line in err
    )
    talk.chat.when_full = "drop"
    talk.talk([f"/draw {'a cat ' * 15}", f"/show {tmp_path}/a.png what is this?"])
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    for line in err:
        assert re.fullmatch(
            r"unitok: the context was full: \d pictures?( and 1 exchange)? dropped, the .*", line
        )


def test_the_command_line_chooses_what_happens_when_the_context_is_full(untrained_folder, tmp_path):
    words = ["chat", "--out", str(tmp_path), "--model", str(untrained_folder)]
    chosen: list[str] = []

    class Noting(Conversation):
        def talk(self, lines: Any, patient: bool = False) -> None:
            chosen.append(self.chat.when_full)
            self.new("")
            chosen.append(self.chat.when_full)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unitok.conversation.Conversation", Noting)
        for flags in ([], ["--when-full", "drop"]):
            assert CliRunner().invoke(app, [*words, *flags]).exit_code == 0
    assert chosen == ["error", "error", "drop", "drop"]
    assert CliRunner().invoke(app, [*words, "--when-full", "forget"]).exit_code == 2
