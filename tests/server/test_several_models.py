"""`unitok serve A B --adapters NAME=FOLDER`: every name gives what the library gives."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

import unitok
from tests.server.live import data_url, png
from tests.server.process import started
from tests.unitok.adapters import opened, random_adapter, saved
from tests.unitok.tiny import save_tiny
from unitok import Model

ADAPTER = "styled"
NAMES = ("one", "two", ADAPTER)
PICTURE = Image.new("RGB", (64, 64), "red")
QUESTION = "what is this?"
BOX = (16, 16, 48, 48)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of different numbers, and an adapter of the first."""
    place = tmp_path_factory.mktemp("several")
    one, two = (save_tiny(place / name, seed=seed) for seed, name in enumerate(("one", "two")))
    adapter = saved(random_adapter(opened(one).model, 1), place / "adapter", one)
    return {"one": one, "two": two, ADAPTER: adapter}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[openai.OpenAI]:
    one, two, adapter = folders.values()
    with started(str(one), str(two), "--adapters", f"{ADAPTER}={adapter}") as server:
        yield openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def library(folders: dict[str, Path], name: str) -> Iterator[tuple[Model, str | None]]:
    """The model that a name stands for, and its adapter."""
    if name != ADAPTER:
        with unitok.load(folders[name]) as loaded:
            yield loaded, None
    else:
        with unitok.load(folders["one"], adapters={ADAPTER: folders[ADAPTER]}) as loaded:
            yield loaded, ADAPTER


def test_every_name_is_listed(client: openai.OpenAI):
    listed = {one.id: one.model_extra or {} for one in client.models.list()}
    assert {name: told["unitok"]["adapter"] for name, told in listed.items()} == {
        "one": None,
        ADAPTER: ADAPTER,
        "two": None,
    }
    assert listed[ADAPTER]["unitok"]["root"] == "one"


def test_every_name_gives_what_the_library_gives(
    client: openai.OpenAI, library: tuple[Model, str | None], name: str
):
    model, adapter = library
    expected = model.caption(PICTURE, QUESTION, max_tokens=8, adapter=adapter).text
    url, text = data_url(PICTURE), {"type": "text", "text": QUESTION}
    content: Any = [{"type": "image_url", "image_url": {"url": url}}, text]
    chat = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": content}], max_tokens=8
    )
    assert (chat.model, chat.choices[0].message.content) == (name, expected)
    content = [{"type": "input_image", "image_url": url}, {**text, "type": "input_text"}]
    response = client.responses.create(
        model=name, input=[{"role": "user", "content": content}], max_output_tokens=8
    )
    assert (response.model, response.output_text) == (name, expected)


def test_every_name_paints_what_the_library_paints(
    client: openai.OpenAI, library: tuple[Model, str | None], name: str
):
    model, adapter = library
    drawn = client.images.generate(model=name, prompt="a cat", extra_body={"seed": 5})
    expected = model.draw("a cat", seed=5, adapter=adapter).image
    assert opened_first(drawn).tobytes() == expected.tobytes()
    box = {"box": ",".join(map(str, BOX)), "seed": 5}
    edited = client.images.edit(model=name, image=png(PICTURE), prompt="a cat", extra_body=box)
    expected = model.edit(PICTURE, "a cat", box=BOX, seed=5, adapter=adapter).image
    assert opened_first(edited).tobytes() == expected.tobytes()


def opened_first(answer: openai.types.ImagesResponse) -> Image.Image:
    (picture,) = answer.data or []
    return Image.open(BytesIO(base64.b64decode(picture.b64_json or "")))
