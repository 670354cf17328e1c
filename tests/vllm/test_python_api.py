"""`unitok.load(backend="vllm")`: the results of our own engine, from the same calls."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

import unitok
from tests.vllm.work import ids_of, own_ids, to_pictures, work
from unitok import Caption, Draw, Edit, Model, Reply

pytestmark = pytest.mark.timeout(1200)  # vLLM takes its time to start
WORDS = "two apples on a blue background"
GREEDY: dict[str, Any] = {"temperature": 0.0}
SAMPLED: dict[str, Any] = {"temperature": 1.0}


@pytest.fixture(scope="module")
def own() -> Iterator[Model]:
    """The embedded model on our engine."""
    with unitok.load(device="cpu", dtype="float32", drafts=False) as model:
        yield model


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """The embedded model on vLLM's."""
    options: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 64, "enforce_eager": True}
    with unitok.load(device="cpu", dtype="float32", backend="vllm", **options) as model:
        yield model


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """A picture of the embedded model's world."""
    return to_pictures(1)[0]


def png(image: Image.Image) -> bytes:
    """The pixels of a picture."""
    return image.convert("RGB").tobytes()


def test_a_run_of_all_kinds_gives_the_ids_and_log_probabilities_of_our_engine(
    own: Model, model: Model
):
    asked = work(16, 8, 4)
    ours = sorted(own.run(asked.asked), key=lambda result: result.index)
    results = sorted(model.run(asked.asked), key=lambda result: result.index)
    assert [result.error for result in results] == [None] * 28
    assert [ids_of(result.token_ids) for result in results] == own_ids(own, asked)
    for result, one in zip(results, ours, strict=True):
        assert result.finish_reason == one.finish_reason
        assert result.prompt_tokens == one.prompt_tokens
        assert flat(result.logprobs) == pytest.approx(flat(one.logprobs), abs=1e-3)


def flat(logprobs: Any) -> list[float]:
    """The log-probabilities of an answer, or of a drawing's one picture."""
    nested = bool(logprobs) and not isinstance(logprobs[0], float)
    return list(logprobs[0] if nested else logprobs)


def test_calls_give_the_pictures_and_texts_of_our_engine(
    own: Model, model: Model, scene: Image.Image
):
    drawn = model.draw([WORDS, "a cat"], guidance=2.0, **GREEDY)
    assert list(map(png, (d.image for d in drawn))) == [
        png(d.image) for d in own.draw([WORDS, "a cat"], guidance=2.0, **GREEDY)
    ]
    assert drawn[0].image.info["prompt"] == WORDS
    assert model.caption(scene).text == own.caption(scene).text
    messages = [{"role": "user", "content": "a cat"}]
    assert (
        model.chat(messages=messages, max_tokens=9).text
        == own.chat(messages=messages, max_tokens=9).text
    )


def test_a_conversation_with_pictures_is_that_of_our_engine(
    own: Model, model: Model, scene: Image.Image
):
    def talk(model: Model) -> list[str]:
        chat = model.chat(system="Be short.")
        said = [chat.send("what is this?", images=[scene], max_tokens=8).text]
        said.append(chat.send("and this?", images=[scene.rotate(90)], max_tokens=8).text)
        return said

    assert talk(model) == talk(own)


def test_a_stop_string_ends_an_answer(own: Model, model: Model, scene: Image.Image):
    stop = own.caption(scene).text.split()[-1]
    ended = model.caption(scene, stop=stop)
    assert (ended.text, ended.finish_reason) == (own.caption(scene, stop=stop).text, "stop")


def test_streams_give_the_text_in_pieces_and_the_progress_of_drawings(
    own: Model, model: Model, scene: Image.Image
):
    events = list(model.stream(Caption(scene)))
    assert "".join(event.text for event in events) == own.caption(scene).text
    assert events[-1].result is not None
    drawing = list(model.stream(Draw(WORDS, **GREEDY)))
    kinds = [event.kind for event in drawing]
    assert kinds[-2:] == ["image", "result"] and kinds[0] == "tokens"
    done = [event.done for event in drawing if event.kind == "tokens"]
    assert done == sorted(done) and done[-1] == drawing[-1].total == 64
    (image,) = [event.image for event in drawing if event.kind == "image"]
    assert image is not None and png(image) == png(own.draw(WORDS, **GREEDY).image)


def test_await_gives_the_same(own: Model, model: Model):
    async def both() -> tuple[unitok.DrawResult, unitok.DrawResult]:
        return await asyncio.gather(model.adraw(WORDS, **GREEDY), model.adraw("a cat", **GREEDY))

    drawn = asyncio.run(both())
    expected = own.draw([WORDS, "a cat"], **GREEDY)
    assert [png(d.image) for d in drawn] == [png(e.image) for e in expected]


def test_a_seed_repeats_alone_and_in_a_crowd(model: Model):
    alone = model.draw(WORDS, seed=7, n=2, **SAMPLED)
    crowd: list[Draw] = [Draw(f"{i} cats", seed=i, **SAMPLED) for i in range(12)]
    crowd.insert(5, Draw(WORDS, seed=7, n=2, **SAMPLED))
    results = sorted(model.run(crowd), key=lambda result: result.index)
    again = results[5]
    assert isinstance(again, unitok.DrawResult)
    assert list(map(png, again.images)) == list(map(png, alone.images))
    assert png(alone.images[0]) != png(alone.images[1])
    assert png(alone.images[0]) == png(model.draw(WORDS, seed=7, **SAMPLED).image)
    assert png(alone.images[0]) != png(model.draw(WORDS, seed=8, **SAMPLED).image)
    large = [model.draw(WORDS, seed=seed, **SAMPLED).image for seed in (-1, 2**64 - 1, -1)]
    assert png(large[0]) == png(large[2]) != png(large[1])


def test_a_cancelled_stream_and_a_timeout_leave_nothing_behind(model: Model):
    events = model.stream(Draw(WORDS, n=4))
    next(events)
    events.close()
    with pytest.raises(TimeoutError, match=r"timeout of 0\.001 s"):
        model.draw(WORDS, timeout=0.001)
    assert model.draw(WORDS, **GREEDY).finish_reason == "complete"
    assert model.driver.wait_until_idle(60)
    stats = model.stats()
    assert (stats.running, stats.waiting, stats.running_requests) == (0, 0, 0)
    assert stats.generated_tokens > 64 and stats.forwards > 64


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Draw(WORDS, negative_prompt="blue"), "negative_prompt is not for the vLLM backend"),
        (Draw(WORDS, images=[Image.new("RGB", (64, 64))]), "images in the prompt of a drawing"),
        (Draw(WORDS, branch_logprobs=True), "branch_logprobs is not for"),
        (Draw(WORDS, adapter="mine"), "adapter 'mine' is not for"),
        (
            Edit(Image.new("RGB", (64, 64)), WORDS, box=(0, 0, 32, 32)),
            "painting a part of a picture is not for",
        ),
        (
            Reply([{"role": "user", "content": "a"}], regex="[a-z]+"),
            "an answer of a form .json_schema, regex, choice. is not for",
        ),
        (
            Reply([{"role": "user", "content": "a"}], choice=["a", "b"]),
            "an answer of a form .json_schema, regex, choice. is not for",
        ),
        (
            Reply([{"role": "user", "content": "a"}], branch_logprobs=True),
            "branch_logprobs is not for",
        ),
    ],
)
def test_what_vllm_cannot_do_is_refused_by_name(model: Model, asked: Any, why: str):
    (result,) = model.run([asked])
    assert result.finish_reason == "error" and re.search(why, result.error or "")
    with pytest.raises(ValueError, match=why):
        list(model.stream(asked))


def test_calls_that_need_the_weights_or_their_log_probabilities_are_refused(
    model: Model, scene: Image.Image, tmp_path: Any
):
    with pytest.raises(ValueError, match="scoring given tokens is not for"):
        model.score(scene, "a cat")
    with pytest.raises(ValueError, match="scoring given tokens is not for"):
        model.score_tokens(Draw(WORDS), [model.family.model.vocabulary.image_start])
    with pytest.raises(ValueError, match="save needs the weights"):
        model.save(tmp_path)
    with pytest.raises(ValueError, match="load_adapter needs the weights"):
        model.load_adapter("mine", tmp_path)
    with pytest.raises(ValueError, match="unload_adapter needs the weights"):
        model.unload_adapter("mine")
    with pytest.raises(ValueError, match="update_weights needs the weights"):
        model.update_weights({})
    with pytest.raises(ValueError, match="update_adapter needs the weights"):
        model.update_adapter("mine", {})
    assert model.adapters == () and model.weight_version == 0


def test_a_drawing_inside_a_chat_is_refused_and_the_first_message_is_not(model: Model):
    chat = model.chat()
    assert chat.draw(WORDS, **GREEDY).finish_reason == "complete"
    with pytest.raises(ValueError, match="a drawing inside a chat is not for"):
        chat.draw("a cat")
    assert chat.size == "1 turn, 1 picture"


def test_the_model_says_what_it_is(own: Model, model: Model):
    ours, info = own.info(), model.info()
    assert info.parameters == ours.parameters and info.picture_size == ours.picture_size
    assert (info.dtype, info.device, info.context) == ("float32", "cpu", 256)
    assert info.kv_memory > 0 and info.kv_tokens > 256
