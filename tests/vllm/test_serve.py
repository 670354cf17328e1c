"""`vllm serve` with the plugin, driven by OpenAI's client: chats with pictures, and pictures."""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

import unitok
from tests.vllm.server import vllm_serve
from tests.vllm.work import to_pictures
from unitok import Model
from unitok.loading import DEFAULT_FOLDER as FOLDER

pytestmark = pytest.mark.timeout(1200)  # vLLM takes its time to start
WORDS = "two apples on a blue background"
TOY = ("--dtype=float32", "--enforce-eager", "--max-model-len=256", "--max-num-seqs=32")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the embedded model under two names."""
    work = tmp_path_factory.mktemp("serve")
    names = ("--served-model-name", "emoji", "gpt-image-1")
    with vllm_serve(FOLDER, work, *TOY, *names) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    """OpenAI's client."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def own() -> Iterator[Model]:
    """The embedded model on our engine."""
    with unitok.load(device="cpu", dtype="float32", drafts=False) as model:
        yield model


def png(image: Image.Image) -> bytes:
    """A picture as a file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pixels(data: Any) -> bytes:
    """The pixels of a picture in an answer."""
    return Image.open(BytesIO(base64.b64decode(data.b64_json))).tobytes()


def test_a_chat_with_a_picture_is_answered_as_our_engine_does(client: openai.OpenAI, own: Model):
    (scene,) = to_pictures(1)
    question = "what color is the background?"
    address = f"data:image/png;base64,{base64.b64encode(png(scene)).decode()}"
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": question},
    ]
    answer = client.chat.completions.create(
        model="emoji", messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=20
    )
    said = answer.choices[0].message.content
    assert said is not None and said.strip() == own.caption(scene, question, max_tokens=20).text


def test_a_greedy_picture_is_that_of_our_engine(client: openai.OpenAI, own: Model):
    made = client.images.generate(
        model="gpt-image-1", prompt=WORDS, extra_body={"temperature": 0.0, "guidance": 3.0}
    )
    (data,) = made.data or []
    drawn = own.draw(WORDS, temperature=0.0, guidance=3.0)
    assert pixels(data) == drawn.image.tobytes()
    assert made.usage is not None and made.usage.output_tokens == 64
    assert made.usage.input_tokens == drawn.prompt_tokens


def test_pictures_over_http_are_the_librarys_of_the_same_seeds(client: openai.OpenAI):
    made = client.images.generate(model="emoji", prompt=WORDS, n=3, extra_body={"seed": 7})
    options: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 32, "enforce_eager": True}
    with unitok.load(device="cpu", dtype="float32", backend="vllm", **options) as model:
        drawn = [model.draw(WORDS, seed=seed).image.tobytes() for seed in (7, 8, 9)]
    assert [pixels(data) for data in made.data or ()] == drawn
    assert len(set(drawn)) == 3


def test_a_stream_has_previews_and_the_picture(client: openai.OpenAI, own: Model):
    events = list(
        client.images.generate(
            model="emoji",
            prompt=WORDS,
            stream=True,
            partial_images=1,
            extra_body={"temperature": 0.0},
        )
    )
    assert events[-1].type == "image_generation.completed"
    assert pixels(events[-1]) == own.draw(WORDS, temperature=0.0).image.tobytes()
    assert all(event.type == "image_generation.partial_image" for event in events[:-1])


@pytest.mark.parametrize(
    ("body", "status", "param", "said"),
    [
        ({"model": "emoji"}, 400, "prompt", "missing"),
        ({"model": "emoji", "prompt": " "}, 400, "prompt", "empty"),
        ({"model": "other", "prompt": "a"}, 404, "model", "there is no model"),
        ({"prompt": "a", "size": "1024x1024"}, 400, "size", "64 x 64"),
        ({"prompt": "a", "n": 99}, 400, "n", "at most 16"),
        ({"prompt": "a", "seeed": 1}, 400, "seeed", "did you mean"),
        (
            {"prompt": "a", "negative_prompt": "b"},
            400,
            "negative_prompt",
            "negative_prompt is not for the vLLM backend",
        ),
        ({"prompt": "a", "priority": 1}, 400, "priority", "--scheduling-policy priority"),
    ],
)
def test_errors_are_openais(
    url: str, body: dict[str, Any], status: int, param: str | None, said: str
):
    response = httpx2.post(f"{url}/v1/images/generations", json=body, timeout=60)
    error = response.json()["error"]
    assert response.status_code == status and said in error["message"]
    assert error["param"] == param and error["type"].endswith("_error")
    assert response.headers["x-request-id"].startswith("req_")


def test_a_body_that_is_no_json_and_another_method_are_refused(url: str):
    address = f"{url}/v1/images/generations"
    broken = httpx2.post(address, content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400 and "error" in broken.json()
    assert httpx2.get(address).status_code == 405
