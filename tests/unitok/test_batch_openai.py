"""Lines of OpenAI's Batch API give results and errors in the form that its clients read."""

import base64
import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import unitok
from tests.unitok.batches import WORK, by_line, results, runner, work_in, write
from unitok.batch.keys import model_identity
from unitok.batch.runner import run_batch
from unitok.batch.source import Source

CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"
ASKED = [
    {"type": "text", "text": "is there a cat?"},
    {"type": "image_url", "image_url": {"url": "scene.png"}},
]


@pytest.fixture
def source(tmp_path) -> Path:
    return work_in(tmp_path / "input")


@pytest.fixture
def batch(short_folder, tmp_path):
    return runner(short_folder, tmp_path)


def line(name: str, url: str, **body) -> dict:
    return {"custom_id": name, "method": "POST", "url": url, "body": {"model": "gpt-4o", **body}}


def chat(name: str, content: object = ASKED, **body) -> dict:
    messages = [{"role": "user", "content": content}]
    return line(name, CHAT, messages=messages, **({"max_tokens": 4} | body))


def drawing(name: str, **body) -> dict:
    return line(name, IMAGES, **({"prompt": "a cat"} | body))


def errors(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]


def test_results_are_in_the_form_of_the_batch_api(batch, source, tmp_path, short_folder):
    write(source, [chat("question"), drawing("cats", n=2, seed=7), drawing("file", seed=7) | {}])
    done = batch(source)
    assert done.exit_code == 0 and "3 new, 0 kept, 0 failed" in done.stdout, done.output
    said, drawn, _ = by_line(tmp_path / "out")
    for result, name in ((said, "question"), (drawn, "cats")):
        assert result["custom_id"] == name and result["error"] is None
        assert result["id"].startswith("batch_req_")
        assert result["response"]["status_code"] == 200
        assert result["response"]["request_id"].startswith("req_")
    completion = said["response"]["body"]
    model = unitok.load(short_folder)
    assert completion["object"] == "chat.completion" and completion["model"] == model.name
    assert completion["choices"][0]["finish_reason"] in ("stop", "length")
    assert completion["usage"]["completion_tokens"] <= 4
    pictures = drawn["response"]["body"]["data"]
    assert len(pictures) == 2
    for picture, seed in zip(pictures, (7, 8), strict=True):  # each can be had again alone
        with Image.open(BytesIO(base64.b64decode(picture["b64_json"]))) as read:
            assert read.tobytes() == model.draw("a cat", seed=seed).image.tobytes()
            assert read.info["seed"] == str(seed) == str(picture["seed"])
    assert not list((tmp_path / "out/pictures").iterdir())


def test_a_question_is_answered_as_in_our_own_form(batch, source, tmp_path):
    asked = [{"role": "user", "content": ASKED}]
    write(source, [chat("question"), {"messages": asked, "max_tokens": 4}])
    assert batch(source).exit_code == 0
    theirs, ours = by_line(tmp_path / "out")
    message = theirs["response"]["body"]["choices"][0]["message"]
    assert message["content"] == ours["text"] != ""


def test_pictures_are_saved_in_files_if_urls_are_asked_for(batch, source, tmp_path):
    write(source, [drawing("cats", n=2, response_format="url")])
    assert batch(source).exit_code == 0
    (drawn,) = results(tmp_path / "out")
    names = [picture["url"] for picture in drawn["response"]["body"]["data"]]
    assert len(names) == 2
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/pictures").iterdir()}
    assert files == set(names)


def test_a_picture_may_be_a_data_uri(batch, source, tmp_path):
    data = base64.b64encode((source.parent / "scene.png").read_bytes()).decode()
    inline = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    write(source, [chat("file"), chat("inline", [ASKED[0], inline])])
    done = batch(source)
    assert done.exit_code == 0, done.stderr
    texts = [r["response"]["body"]["choices"][0]["message"] for r in by_line(tmp_path / "out")]
    assert texts[0] == texts[1]


def test_a_second_run_keeps_the_results_and_mixes_them_with_lines_of_our_own(
    batch, source, tmp_path
):
    write(source, [chat("question"), WORK[1]])
    assert "2 new, 0 kept" in batch(source).stdout
    write(source, [drawing("cat"), WORK[1], chat("question"), chat("question 2")])
    assert "2 new, 2 kept, 0 failed" in batch(source).stdout
    Image.new("RGB", (64, 64), "green").save(source.parent / "scene.png")
    assert "3 new, 1 kept, 0 failed" in batch(source).stdout
    assert len({r["key"] for r in results(tmp_path / "out")}) == 7


@pytest.mark.parametrize(
    ("asked", "told", "param"),
    [
        (drawing("a", n="2"), '"n" must be a whole number, not "2"', "n"),
        (drawing("a", style="vivid"), '"style" is not supported', "style"),
        (drawing("a", size="1x1"), "not 1 x 1", "size"),
        (drawing("a") | {"url": "/v1/embeddings"}, '"url" must be "/v1/chat/completions"', "url"),
        (drawing("a") | {"method": "GET"}, '"method" is supported only as "POST"', "method"),
        (drawing("a") | {"method": None}, '"method" must be text; it is missing', "method"),
        (drawing("a") | {"body": None}, '"body" must be an object, not null', None),
        (drawing("a") | {"priority": 1}, '"priority" is not supported', "priority"),
        (chat("a", stream=True), '"stream" is supported only as false', "stream"),
        (chat("a", [{"type": "audio"}]), "messages[0].content[0]", "messages[0].content[0]"),
        (
            chat("a", [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]),
            "is a URL; download the picture, and give its file",
            None,
        ),
        (
            chat("a", [{"type": "image_url", "image_url": {"url": "none.png"}}]),
            "no such file",
            None,
        ),
        (chat("a", "cat " * 3000), "shorten it", None),
    ],
)
def test_a_wrong_line_gives_an_error_of_the_api_and_the_others_go_on(
    asked, told, param, batch, source, tmp_path
):
    write(source, [drawing("first"), asked, chat("last")])
    done = batch(source)
    assert done.exit_code == 1
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith("unitok: line 2: ") and told in complaint
    (error,) = errors(tmp_path / "out")
    assert error["custom_id"] == "a" and error["error"] is None and error["line"] == 2
    assert error["response"]["status_code"] == 400
    reason = error["response"]["body"]["error"]
    assert told in reason["message"] and reason["param"] == param
    assert reason["type"] == "invalid_request_error"
    assert [r["custom_id"] for r in by_line(tmp_path / "out")] == ["first", "last"]


@pytest.mark.parametrize("name", [None, 7, ["a"]])
def test_a_custom_id_must_be_there(name, batch, source, tmp_path):
    write(source, [drawing("a") | {"custom_id": name}])
    assert '"custom_id" must be text' in batch(source).stderr
    assert errors(tmp_path / "out")[0]["custom_id"] == name


def test_a_custom_id_may_not_come_twice(batch, source, tmp_path):
    write(source, [drawing("a"), "", drawing("a", seed=4), drawing("b")])
    done = batch(source)
    assert 'line 3: the custom_id "a" is that of line 1 already' in done.stderr
    assert "2 new, 0 kept, 1 failed" in done.stdout
    assert errors(tmp_path / "out")[0]["response"]["body"]["error"]["param"] == "custom_id"


def test_what_the_model_fails_at_is_an_error_of_the_server(
    short_folder, source, tmp_path, monkeypatch
):
    model = unitok.load(short_folder)
    monkeypatch.setattr(model.family, "decode_images", lambda codes: codes[:0])
    write(source, [drawing("a")])
    identity = model_identity(short_folder)
    (outcome,) = run_batch(model, Source(source), tmp_path / "out", identity)
    assert outcome.status == "failed"
    (error,) = errors(tmp_path / "out")
    assert error["response"]["status_code"] == 500
    reason = error["response"]["body"]["error"]
    assert (reason["type"], reason["code"]) == ("server_error", "generation_failed")


def test_a_line_whose_time_is_over_is_an_error_of_the_server(short_folder, source, tmp_path):
    model = unitok.load(short_folder)
    write(source, [drawing("a", timeout=1e-6)])
    list(run_batch(model, Source(source), tmp_path / "out", model_identity(short_folder)))
    (error,) = errors(tmp_path / "out")
    assert error["response"]["status_code"] == 504
    assert error["response"]["body"]["error"]["code"] == "timeout"
