"""/v1/images/edits, driven by OpenAI's client: what the library gives, and clear refusals."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

import unitok
from tests.server.live import Live, png, served
from tests.unitok.tiny import save_tiny
from unitok import Model
from unitok.server.edits import white_mask

URL = "/v1/images/edits"
PROMPT = "a dog"
SIZE = (64, 64)
BOX = (0, 0, 32, 64)


def scene() -> Image.Image:
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), "red")
    return image


def see_through(box: tuple[int, int, int, int] = BOX) -> Image.Image:
    """A mask as OpenAI's clients give it: transparent where the picture is to be changed."""
    mask = Image.new("RGBA", SIZE, "black")
    mask.paste((0, 0, 0, 0), box)
    return mask


def white(box: tuple[int, int, int, int] = BOX) -> Image.Image:
    """The same as the library takes it."""
    mask = Image.new("RGB", SIZE, "black")
    mask.paste("white", box)
    return mask


PICTURE, MASK = ("scene.png", png(scene())), ("mask.png", png(see_through()))


def bytes_of(picture: Any) -> bytes:
    return base64.b64decode(picture.b64_json, validate=True)


def test_a_mask_is_transparent_where_the_picture_is_painted_anew(live: Live, model: Model):
    answer = live.openai().images.edit(
        image=PICTURE, mask=MASK, prompt=PROMPT, extra_body={"seed": 5, "tries": 1}
    )
    (picture,) = answer.data or []
    expected = model.edit(scene(), PROMPT, mask=white(), seed=5, tries=1)
    assert bytes_of(picture) == png(expected.image)
    assert answer.usage is not None
    assert answer.usage.output_tokens == expected.completion_tokens


def test_options_come_as_text(live: Live, model: Model):
    answer = live.openai().images.edit(
        image=[PICTURE],
        prompt=PROMPT,
        n=2,
        output_format="webp",
        output_compression=90,
        extra_body={
            "box": list(BOX),
            "seed": 5,
            "strength": 0.5,
            "guidance": 2.5,
            "tries": 2,
            "decode_all": True,
        },
    )
    options: dict[str, Any] = {"strength": 0.5, "guidance": 2.5, "tries": 2, "decode_all": True}
    for seed, picture in zip((5, 6), answer.data or [], strict=True):
        file = BytesIO()
        image = model.edit(scene(), PROMPT, box=BOX, seed=seed, **options).image
        image.save(file, "WEBP", quality=90)
        assert bytes_of(picture) == file.getvalue()
        assert picture.seed == seed  # type: ignore[attr-defined]


def test_a_margin_can_be_one_text(live: Live, model: Model):
    form = {"prompt": PROMPT, "margin": "16, 16,16,16", "seed": "5", "tries": "1"}
    with live.http() as http:
        response = http.post(URL, data=form, files={"image": PICTURE})
    expected = model.edit(scene(), PROMPT, margin=(16, 16, 16, 16), seed=5, tries=1).image
    assert base64.b64decode(response.json()["data"][0]["b64_json"]) == png(expected)


def test_a_stream_of_an_edit(live: Live, model: Model):
    events: Any = live.openai().images.edit(
        image=PICTURE,
        mask=MASK,
        prompt=PROMPT,
        stream=True,
        partial_images=1,
        extra_body={"seed": 5, "tries": 1},
    )
    *previews, last = events
    assert last.type == "image_edit.completed"
    expected = model.edit(scene(), PROMPT, mask=white(), seed=5, tries=1).image
    assert bytes_of(last) == png(expected)
    assert last.usage.total_tokens > 64
    assert [(p.type, p.partial_image_index) for p in previews] in (
        [("image_edit.partial_image", 0)],
        [],  # it was not decoded before the picture was complete
    )


def test_a_model_that_follows_instructions_needs_no_mask(tmp_path: Path):
    folder = save_tiny(tmp_path / "tiny-Janus-4o")
    with unitok.load(folder, memory="16MB") as editor, served(editor) as live:
        answer = live.openai().images.edit(image=PICTURE, prompt=PROMPT, extra_body={"seed": 5})
        (picture,) = answer.data or []
        assert bytes_of(picture) == png(editor.edit(scene(), PROMPT, seed=5).image)


@pytest.mark.parametrize(
    "mask",
    [
        see_through(),
        see_through().convert("LA"),
        see_through().quantize(8),
    ],
    ids=lambda mask: mask.mode,
)
def test_every_kind_of_transparency_becomes_white(mask: Image.Image):
    made = Image.open(BytesIO(white_mask(png(mask))))
    assert made.convert("RGB").tobytes() == white().tobytes()


def test_only_what_is_fully_transparent_is_painted_anew():
    mask = Image.new("RGBA", (2, 1), (0, 0, 0, 1))
    mask.putpixel((1, 0), (255, 255, 255, 0))
    made = Image.open(BytesIO(white_mask(png(mask))))
    assert list(made.tobytes()) == [0, 255]


def jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("fields", "files", "param", "code"),
    [
        ({}, {}, "mask", None),
        ({}, {"image": None}, "image", None),
        ({}, {"image": ("a.png", b"")}, "image", "empty_image_file"),
        ({}, {"image": ("a.png", b"no picture"), "mask": MASK}, "image", "invalid_image_format"),
        ({}, {"image": ("a.png", PICTURE[1][:80]), "mask": MASK}, "image", "image_parse_error"),
        ({}, {"image": ("a.pdf", b"%PDF")}, "image", "unsupported_image_media_type"),
        ({"image": "https://example.org/a.png"}, {"image": None}, "image", "invalid_image"),
        ({}, {"mask": ("a.png", b"")}, "mask", "empty_image_file"),
        ({}, {"mask": ("a.png", b"no picture")}, "mask", "invalid_image_format"),
        ({}, {"mask": ("a.jpg", jpeg(see_through()))}, "mask", "invalid_image_format"),
        ({}, {"mask": ("a.png", MASK[1][:60])}, "mask", "image_parse_error"),
        ({}, {"mask": PICTURE}, "mask", None),
        ({}, {"mask": ("a.png", png(see_through().resize((8, 8))))}, "mask", None),
        ({}, {"mask": ("a.png", png(see_through((0, 0, 64, 64))))}, "mask", None),
        ({"box": "0,0,9,9"}, {"mask": MASK}, "box", None),
        ({"box": "0,0,9"}, {}, "box", None),
        ({"box": "0,0,9,x"}, {}, "box", None),
        ({"box": "0,0,65,9"}, {}, "box", None),
        ({"margin": "0,0,0,0"}, {}, "margin", None),
        ({"tries": "2"}, {}, "tries", None),
        ({"prompt": ""}, {"mask": MASK}, "prompt", None),
        ({"prompt": None}, {"mask": MASK}, "prompt", None),
        ({"n": "0"}, {"mask": MASK}, "n", None),
        ({"n": "17"}, {"mask": MASK}, "n", None),
        ({"n": "two"}, {"mask": MASK}, "n", None),
        ({"strength": "nan"}, {"mask": MASK}, "strength", None),
        ({"strength": "1e999"}, {"mask": MASK}, "strength", None),
        ({"guidance": "9" * 1000}, {"mask": MASK}, "guidance", None),
        ({"stream": "maybe"}, {"mask": MASK}, "stream", None),
        ({"partial_images": "1"}, {"mask": MASK}, "partial_images", None),
        (
            {"partial_images": "1", "stream": "true", "tries": "2"},
            {"mask": MASK},
            "partial_images",
            None,
        ),
        ({"size": "128x128"}, {"mask": MASK}, "size", None),
        ({"response_format": "url"}, {"mask": MASK}, "response_format", None),
        ({"input_fidelity": "high"}, {"mask": MASK}, "input_fidelity", None),
        ({"seed": ["1", "2"]}, {"mask": MASK}, "seed", None),
        ({}, {"mask": MASK, "prompt": ("a.txt", b"a dog")}, "prompt", None),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    live: Live, fields: dict[str, Any], files: dict[str, Any], param: str, code: str | None
):
    form = {n: v for n, v in ({"prompt": PROMPT} | fields).items() if v is not None}
    if "prompt" in files:
        del form["prompt"]
    sent = {name: file for name, file in ({"image": PICTURE} | files).items() if file is not None}
    sent = sent or {"unknown": ("", b"")}
    with live.http() as http:
        response = http.post(URL, data=form, files=sent)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error["message"]


def test_a_model_that_does_not_exist(live: Live):
    with live.http() as http:
        form = {"prompt": PROMPT, "model": "nope"}
        response = http.post(URL, data=form, files={"image": PICTURE, "mask": MASK})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_several_pictures_are_refused(live: Live):
    with live.http() as http:
        files = [("image[]", PICTURE), ("image[]", PICTURE), ("mask", MASK)]
        response = http.post(URL, data={"prompt": PROMPT}, files=files)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "image"
    assert "must be one picture, not 2" in response.json()["error"]["message"]
