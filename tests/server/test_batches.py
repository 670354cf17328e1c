"""/v1/batches, driven by OpenAI's client: every line is answered once, as by `unitok batch`."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

import unitok
from tests.server.keeping import (
    CHAT,
    IMAGES,
    begin,
    chat,
    drawing,
    ended,
    jsonl,
    keeping,
    line,
    records,
    send,
)
from tests.server.live import KEYS, Live, data_url
from unitok import Draw, Model, Reply
from unitok.batch.runner import run_batch
from unitok.batch.source import Source
from unitok.openai_wire.body import WireError
from unitok.picture_sources import Refused
from unitok.server.served import ServedModels
from unitok.server.state.lines import BACKGROUND, EDITS, ServedLines

PICTURE = Image.new("RGB", (64, 64), "red")
MASK = Image.new("RGBA", (64, 64), (0, 0, 0, 255))  # its left half is painted anew
MASK.paste((0, 0, 0, 0), (0, 0, 32, 64))
SHOWN = [
    {"type": "text", "text": "what is this?"},
    {"type": "image_url", "image_url": {"url": data_url(PICTURE)}},
]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(record), object_hook=lambda o: {**o, "created": 0})


@pytest.mark.parametrize(
    ("endpoint", "lines"),
    [
        (CHAT, [chat("a"), chat("b", SHOWN), chat("c", seed=5, temperature=2.0)]),
        (IMAGES, [drawing("a", n=2), drawing("b", seed=7, guidance=2.0)]),
    ],
)
def test_results_are_those_of_the_batch_command(
    client: openai.OpenAI, tiny: Model, tmp_path: Path, endpoint: str, lines: list[Any]
):
    batch = begin(client, lines, endpoint, metadata={"for": "a test"})
    assert (batch.status, batch.object, batch.endpoint) == ("validating", "batch", endpoint)
    assert batch.expires_at == batch.created_at + 24 * 60 * 60
    done = ended(client, batch)
    assert done.status == "completed" and done.error_file_id is None and done.errors is None
    assert done.metadata == {"for": "a test"} and done.model == tiny.name
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (len(lines), len(lines), 0)
    assert done.in_progress_at and done.finalizing_at and done.completed_at
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines))
    assert all(
        o.status == "new" for o in run_batch(tiny, Source(tmp_path / "in.jsonl"), tmp_path, "i")
    )
    theirs = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    told = records(client, done.output_file_id)
    assert list(map(without_times, told)) == sorted(
        map(without_times, theirs), key=lambda record: record["line"]
    )


@pytest.mark.parametrize("seed", [7, [7, 3]])
def test_several_pictures_of_a_line_are_those_of_a_live_request(kept: Live, seed: object):
    client, asked = kept.openai(), drawing("a", n=2, seed=seed)
    (told,) = records(client, ended(client, begin(client, [asked], IMAGES)).output_file_id)
    with kept.http() as http:
        live = http.post(IMAGES, json=asked["body"]).json()
    assert told["response"]["body"] == {**live, "created": told["response"]["body"]["created"]}


def test_each_of_several_pictures_without_a_seed_can_be_had_again(
    client: openai.OpenAI, tiny: Model
):
    done = ended(client, begin(client, [drawing("a", n=2)], IMAGES))
    (told,) = records(client, done.output_file_id)
    first, second = told["response"]["body"]["data"]
    assert second["seed"] == first["seed"] + 1
    with Image.open(BytesIO(base64.b64decode(second["b64_json"]))) as read:
        assert read.tobytes() == tiny.draw("a cat", seed=second["seed"]).image.tobytes()


def test_a_picture_of_a_batch_is_the_librarys(client: openai.OpenAI, tiny: Model):
    done = ended(client, begin(client, [drawing("a", seed=7)], IMAGES))
    (told,) = records(client, done.output_file_id)
    assert told["custom_id"] == "a" and told["response"]["status_code"] == 200
    (made,) = told["response"]["body"]["data"]
    with Image.open(BytesIO(base64.b64decode(made["b64_json"]))) as read:
        assert read.tobytes() == tiny.draw("a cat", seed=7).image.tobytes()


def test_lines_that_fail_are_in_the_file_of_errors_and_the_others_go_on(
    client: openai.OpenAI, kept: Live
):
    lines = [
        chat("good"),
        chat("unknown", temprature=1),
        chat("long", "cat " * 3000),
        chat("path", [{"type": "image_url", "image_url": {"url": "/etc/hostname"}}]),
        chat("address", [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]),
        chat("own", [{"type": "image", "path": "/etc/hostname"}]),
        chat(
            "damaged", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
        ),
    ]
    done = ended(client, begin(client, lines))
    assert done.status == "completed" and done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 6)
    assert [r["custom_id"] for r in records(client, done.output_file_id)] == ["good"]
    wrong = records(client, done.error_file_id)
    assert [r["custom_id"] for r in wrong] == [one["custom_id"] for one in lines[1:]]
    errors = {r["custom_id"]: r["response"]["body"]["error"] for r in wrong}
    assert {r["response"]["status_code"] for r in wrong} == {400}
    assert errors["unknown"]["param"] == "temprature"
    for name in ("path", "address", "own"):
        assert "must be a data URL" in errors[name]["message"]
        assert errors[name]["param"].startswith("messages[0].content[0]")
    with kept.http() as http:
        for one in lines[1:3] + lines[-1:]:
            live = http.post(CHAT, json=one["body"]).json()["error"]
            assert errors[one["custom_id"]] == live
    assert errors["long"]["code"] == "context_length_exceeded"
    assert errors["damaged"]["code"] == "invalid_image_format"


@pytest.mark.parametrize("body", [{"size": "1x1"}, {"seed": 2**64 - 1, "n": 2}, {"top_p": 5}])
def test_a_drawing_is_refused_as_a_live_one(kept: Live, body: dict[str, Any]):
    client, asked = kept.openai(), drawing("a", **body)
    (wrong,) = records(client, ended(client, begin(client, [asked], IMAGES)).error_file_id)
    with kept.http() as http:
        live = http.post(IMAGES, json=asked["body"])
    assert (wrong["response"]["status_code"], wrong["response"]["body"]) == (400, live.json())


def test_what_the_engine_refuses_is_refused_as_in_a_live_request(
    untrained_folder: Path, tmp_path: Path
):
    asked = drawing("a", prompt="a cat " * 60)  # whose two branches need more than there is
    with (
        unitok.load(untrained_folder, memory=2**14) as small,
        keeping(tmp_path, small) as kept,
        kept.http() as http,
    ):
        client = kept.openai()
        (wrong,) = records(client, ended(client, begin(client, [asked], IMAGES)).error_file_id)
        live = http.post(IMAGES, json=asked["body"])
    assert "give the engine more memory" in live.json()["error"]["message"]
    assert (wrong["response"]["status_code"], wrong["response"]["body"]) == (400, live.json())


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"response_format": "url"}, "response_format", '"b64_json"'),
        ({"n": 17}, "n", "at most 16"),
        ({"seed": list(range(17))}, "seed", "at most 16"),
    ],
)
def test_drawings_are_bounded_as_those_of_live_requests(
    client: openai.OpenAI, body: dict[str, Any], param: str, told: str
):
    done = ended(client, begin(client, [drawing("a", **body)], IMAGES))
    (wrong,) = records(client, done.error_file_id)
    error = wrong["response"]["body"]["error"]
    assert error["param"] == param and told in error["message"]
    assert done.output_file_id is None


def editing(name: str, **body: Any) -> dict[str, Any]:
    images = [{"image_url": data_url(PICTURE)}]
    mask = {"image_url": data_url(MASK)}
    given = {"images": images, "mask": mask, "prompt": "a cat", "seed": 3, **body}
    return line(name, EDITS, **given)


def test_an_edit_of_a_batch_is_the_librarys(client: openai.OpenAI, tiny: Model):
    done = ended(client, begin(client, [editing("a", n=2)], EDITS))
    (told,) = records(client, done.output_file_id)
    made = told["response"]["body"]["data"]
    white = Image.new("L", MASK.size, 0)
    white.paste(255, (0, 0, 32, 64))
    expected = [tiny.edit(PICTURE, "a cat", mask=white, seed=seed).image for seed in (3, 4)]
    for picture, image in zip(made, expected, strict=True):
        with Image.open(BytesIO(base64.b64decode(picture["b64_json"]))) as read:
            assert read.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"images": None}, "images"),
        ({"images": []}, "images"),
        ({"images": [{"file_id": "file-1"}]}, "images[0].file_id"),
        ({"images": [{"image_url": "/etc/hostname"}]}, "images[0].image_url"),
        ({"images": [{"image_url": "http://127.0.0.1/"}]}, "images[0].image_url"),
        ({"mask": {"image_url": "mask.png"}}, "mask.image_url"),
        ({"mask": {"image_url": data_url(PICTURE)}}, "mask"),
        ({"image": "cat.png"}, "image"),
        ({"stream": True}, "stream"),
        ({"output_format": "jpeg"}, "output_format"),
        ({"n": 17}, "n"),
    ],
)
def test_wrong_edits_are_refused_by_name(
    tiny: Model, tmp_path: Path, body: dict[str, Any], param: str
):
    form = ServedLines(EDITS, ServedModels([tiny], 0).first, 16)
    with pytest.raises(WireError) as caught:
        form.request(1, editing("a", **body), tmp_path)
    assert caught.value.param == param


def test_bombs_in_lines_are_refused_by_their_headers(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bomb, served = data_url(Image.new("L", (5600, 5600))), ServedModels([tiny], 0).first
    content = [{"type": "image_url", "image_url": {"url": bomb}}]
    lines = [
        (chat("a", content), "messages[0].content[0]"),
        (editing("a", images=[{"image_url": bomb}]), "image"),
        (editing("a", mask={"image_url": bomb}), "mask"),
    ]
    monkeypatch.setattr("unitok.pictures.to_rgb", None)  # nothing is decoded
    monkeypatch.setattr("unitok.server.masks._alpha", None)
    for one, place in lines:
        with pytest.raises(Refused) as caught:
            ServedLines(one["url"], served, 16).request(1, one, tmp_path)
        assert (caught.value.reason, caught.value.where) == ("pixels", place)


@pytest.mark.parametrize(
    ("lines", "number", "param", "code"),
    [
        ([], None, None, "empty_file"),
        ([chat("a"), "{"], 2, None, "invalid_json_line"),
        ([chat("a"), "7"], 2, None, "invalid_json_line"),
        ([chat("a"), chat("a")], 2, "custom_id", "invalid_line"),
        ([chat("a"), drawing("b")], 2, "url", "mismatched_endpoint"),
        ([line("a", "/v1/embeddings")], 1, "url", "invalid_line"),
        ([chat("a") | {"method": "GET"}], 1, "method", "invalid_line"),
        ([{"caption": "/etc/hostname"}], 1, "custom_id", "invalid_line"),
        ([chat("a") | {"more": 1}], 1, "more", "invalid_line"),
        ([chat("a") | {"body": 3}], 1, "body", "invalid_line"),
        ([chat("a" * 513)], 1, "custom_id", "invalid_line"),
        ([chat("a", model="nope")], 1, "model", "model_not_found"),
        ([chat(str(i)) for i in range(41)], None, None, "too_many_lines"),
    ],
)
def test_a_file_of_wrong_lines_fails_and_says_why(
    client: openai.OpenAI, lines: list[Any], number: int | None, param: str | None, code: str
):
    done = ended(client, begin(client, lines))
    assert done.status == "failed" and done.failed_at and done.output_file_id is None
    assert done.errors is not None and done.errors.data is not None
    (error,) = done.errors.data
    assert (error.line, error.param, error.code) == (number, param, code)
    assert error.message


def test_all_lines_name_one_model(tiny: Model, model: Model, tmp_path: Path):
    with keeping(tmp_path, tiny, model) as two:
        names = [tiny.name, model.name]
        lines = [chat(name, model=name) for name in names]
        done = ended(two.openai(), begin(two.openai(), lines))
        assert done.errors is not None and done.errors.data is not None
        assert [error.code for error in done.errors.data] == ["mismatched_model"]
        done = ended(two.openai(), begin(two.openai(), [chat("a", model=names[1])]))
        assert done.model == names[1]
        (told,) = records(two.openai(), done.output_file_id)
        assert told["response"]["body"]["model"] == names[1]


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"input_file_id": "file-none"}, 404, "input_file_id", "file_not_found"),
        ({"input_file_id": None}, 400, "input_file_id", None),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint", None),
        ({"completion_window": "1h"}, 400, "completion_window", None),
        ({"completion_window": None}, 400, "completion_window", None),
        ({"output_expires_after": {}}, 400, "output_expires_after", None),
        ({"metadata": []}, 400, "metadata", None),
        ({"metadata": {"a": 1}}, 400, "metadata.a", None),
        ({"metadata": {"a": "x" * 513}}, 400, "metadata.a", None),
        ({"metadata": {"x" * 65: "a"}}, 400, "metadata", None),
        ({"metadata": {str(i): "" for i in range(17)}}, 400, "metadata", None),
    ],
)
def test_wrong_batches_are_refused_by_name(
    kept: Live, change: dict[str, Any], status: int, param: str, code: str | None
):
    file = send(kept.openai(), b"{}")
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | change
    with kept.http() as http:
        response = http.post("/v1/batches", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)


def test_the_lines_come_from_a_file_that_is_for_that(client: openai.OpenAI):
    file = send(client, b"{}", "vision")
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert (caught.value.param, caught.value.code) == ("input_file_id", "invalid_purpose")


def test_nobody_sees_the_batch_or_the_file_of_another(kept: Live, client: openai.OpenAI):
    batch, other = begin(client, [chat("a")]), kept.openai(KEYS[1])
    for look in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError) as caught:
            look(batch.id)
        assert caught.value.code == "batch_not_found"
    with pytest.raises(openai.NotFoundError):
        other.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        )
    assert list(other.batches.list()) == []
    done = ended(client, batch)
    assert done.output_file_id is not None
    with pytest.raises(openai.NotFoundError):
        other.files.content(done.output_file_id)
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"


def test_batches_are_listed_page_by_page(tiny: Model, tmp_path: Path):
    with keeping(tmp_path, tiny) as live:
        client = live.openai()
        made = [begin(client, [chat("a")]).id for _ in range(3)]
        assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
        page = client.batches.list(limit=1, after=made[2])
        assert [batch.id for batch in page.data] == [made[1]] and page.has_more
        with pytest.raises(openai.BadRequestError) as caught:
            client.batches.list(limit=101)
        assert caught.value.param == "limit"


def test_live_requests_come_before_a_batch_and_are_never_refused_for_it(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[type, int]] = []
    job = tiny.prepare.job_or_failure

    def noted(request: Any, *rest: Any) -> Any:
        asked.append((type(request), request.priority))
        return job(request, *rest)

    monkeypatch.setattr(tiny.prepare, "job_or_failure", noted)
    with keeping(tmp_path, tiny, max_requests=1) as live:
        client = live.openai()
        lines = [drawing(str(i), priority=-5) for i in range(12)]
        batch = begin(client, lines, IMAGES)
        for _ in range(5):
            answer = client.chat.completions.create(
                model=tiny.name,
                messages=[{"role": "user", "content": "what is this?"}],
                max_tokens=2,
            )
            assert answer.choices
        assert ended(client, batch).status == "completed"
    assert set(asked) == {(Draw, BACKGROUND)}
    assert Reply.__dataclass_fields__["priority"].default < BACKGROUND


def test_a_line_that_is_refused_says_the_code_that_a_request_would():
    picture = {"type": "image_url", "image_url": {"url": "http://pictures.example/a.png"}}
    asked = chat("a", [picture])
    form = ServedLines(CHAT)
    with pytest.raises(WireError) as caught:
        form.request(1, asked, Path())
    told = form.failure(1, asked, caught.value, ran=False)["response"]["body"]["error"]
    assert told["code"] == "invalid_image_url"
    assert told["param"] == "messages[0].content[0]"
