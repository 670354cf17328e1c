"""What people call: captions, drawings, chats and runs, on an untrained model."""

import dataclasses
import io
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unitok
from tests.unitok.tiny import PATCHES, same, save_tiny
from unitok import Caption, Draw, api
from unitok.api import Model
from unitok.draw_job import DrawJob
from unitok.families.janus import Janus
from unitok.image_decoder import ImageDecoder
from unitok.preparer import split_words
from unitok.prompt import Message
from unitok_engine import EngineConfig, Plan, Request

EOS = 2
PATIENCE = 60  # seconds, for what takes none


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("api") / "tiny")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Model:
    """One loaded model for the file; `model` checks it after each test."""
    return unitok.load(folder, device="cpu", memory="16MB")


@pytest.fixture
def model(shared: Model) -> Iterator[Model]:
    """Whatever a test did, nothing of it is left in the engine."""
    yield shared
    assert_idle(shared)


def assert_idle(model: Model) -> None:
    assert model.driver.wait_until_idle(PATIENCE)
    stats = model.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.free_blocks == model.driver.engine.config.num_blocks
    assert not model.driver.engine.has_work and not model.driver.image_decoder._waiting
    assert not model.driver._flights and not model.driver._decoding_images


def picture(seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


def janus_of(model: Model) -> Janus:
    assert isinstance(model.family, Janus)
    return model.family


def spy_on_requests(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    seen: list[Request] = []
    add = model.driver.engine.add

    def noting(request: Request, share: object = None) -> int:
        seen.append(request)
        return add(request, share)

    monkeypatch.setattr(model.driver.engine, "add", noting)
    return seen


# --- captions ------------------------------------------------------------------------------------


def test_a_caption_tells_how_it_came_about(model: Model):
    result = model.caption(picture(), max_tokens=6)
    assert result.text and "\n" not in result.text.strip("\n")
    assert (result.finish_reason, result.completion_tokens, result.error) == ("length", 6, None)
    question = model.family.defaults.question
    line = model.family.chat_prompt(
        [Message("user", question, (model.family.encode_image(picture()),))], None
    )
    assert result.prompt_tokens == len(line.token_ids)
    assert result.seconds > 0
    assert result.request is not None and result.request.max_tokens == 6


def test_a_list_of_pictures_gives_a_list_in_its_order(model: Model):
    pictures = [picture(i) for i in range(5)]
    together = model.caption(pictures, max_tokens=8)
    assert [r.index for r in together] == list(range(5))
    alone = [model.caption(p, max_tokens=8) for p in pictures]
    assert [r.text for r in together] == [r.text for r in alone]
    assert len({r.text for r in together}) == 5, "other pictures, other words"
    assert model.caption([], max_tokens=8) == []
    assert [r.text for r in model.caption((pictures[0],), max_tokens=8)] == [alone[0].text]


def test_any_kind_of_picture_may_be_captioned(model: Model, tmp_path: Path):
    path = tmp_path / "a.png"
    picture().save(path)
    array = np.array(picture())
    sources = [str(path), path, path.read_bytes(), picture(), array, torch.from_numpy(array)]
    assert len({r.text for r in model.caption(sources, max_tokens=8)}) == 1


def test_the_question_and_the_system_prompt_are_read(model: Model):
    plain = model.caption(picture(), max_tokens=8)
    asked = model.caption(picture(), "how many cats are there?", max_tokens=8)
    told = model.caption(picture(), max_tokens=8, system="a dog")
    assert len({plain.text, asked.text, told.text}) == 3
    assert told.prompt_tokens > plain.prompt_tokens


def test_text_is_greedy_unless_asked_otherwise(model: Model):
    greedy = {model.caption(picture(), seed=s, max_tokens=8).text for s in range(3)}
    assert len(greedy) == 1
    hot = {model.caption(picture(), seed=s, max_tokens=8, temperature=2.0).text for s in range(3)}
    assert len(hot) == 3
    again = model.caption(picture(), seed=1, max_tokens=8, temperature=2.0)
    assert again.text in hot and again.seed == 1
    top = model.caption(picture(), seed=5, max_tokens=8, temperature=2.0, top_k=1)
    assert {top.text} == greedy


def test_max_tokens_is_kept_and_the_context_bounds_it(model: Model):
    assert model.caption(picture(), max_tokens=1).completion_tokens == 1
    long = model.caption(picture(), max_tokens=10_000)
    assert long.prompt_tokens + long.completion_tokens == model.info().context
    assert long.finish_reason == "length"


def test_a_stop_string_cuts_the_text_and_ends_the_request(model: Model):
    whole = model.caption(picture(), max_tokens=60)
    middle = len(whole.text) // 3
    stop = whole.text[middle : middle + 4]
    cut = model.caption(picture(), max_tokens=60, stop=stop)
    assert cut.text == whole.text[: whole.text.find(stop)].strip()
    assert cut.finish_reason == "stop"
    assert cut.completion_tokens < 40, "it did not write on"
    assert_idle(model)
    first = whole.text[2:4]
    several = model.caption(picture(), max_tokens=60, stop=["never there", stop, first])
    assert several.text == whole.text[: whole.text.find(first)].strip()


def test_a_stop_id_is_no_part_of_the_text(model: Model, monkeypatch: pytest.MonkeyPatch):
    logits, steps = model.family.model.logits, []

    def ending(hidden, id_range):
        steps.append(1)
        out = logits(hidden, id_range)
        if len(steps) == 4:
            out[..., EOS] = 1e6
        return out

    whole = model.caption(picture(), max_tokens=3)
    monkeypatch.setattr(model.family.model, "logits", ending)
    result = model.caption(picture(), max_tokens=10)
    assert (result.text, result.finish_reason) == (whole.text, "stop")
    assert result.completion_tokens == 3


def test_min_p_and_repetition_penalty_reach_the_sampler(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    seen = spy_on_requests(model, monkeypatch)
    free = model.caption(picture(), max_tokens=20)
    echo = model.caption(picture(), max_tokens=20, repetition_penalty=1e-3)
    assert echo.text != free.text, "what was said is likelier"
    best = model.caption(picture(), max_tokens=20, temperature=2.0, min_p=1.0)
    assert best.text == free.text, "only the likeliest is left"
    model.draw("a dog", min_p=0.25)
    told = [(r.sampling.min_p, r.sampling.repetition_penalty) for r in seen]
    assert told == [(0.0, 1.0), (0.0, 1e-3), (1.0, 1.0), (0.25, 1.0)]


# --- log-probabilities ---------------------------------------------------------------------------


def test_an_answer_tells_the_logprobs_of_its_ids(model: Model):
    plain = model.caption(picture(), max_tokens=6, temperature=1.0, seed=1)
    assert (plain.logprobs, plain.branch_logprobs) == (None, None)
    options = {"max_tokens": 6, "temperature": 2.0, "seed": 1}
    told = model.caption(picture(), **options, logprobs=True, branch_logprobs=True)
    assert told.logprobs is not None and told.branch_logprobs is not None
    assert len(told.logprobs) == len(told.branch_logprobs) == told.completion_tokens == 6
    assert max(told.logprobs + told.branch_logprobs) <= 0
    assert told.logprobs != told.branch_logprobs, "those of temperature 2 and of 1"
    sure = model.caption(picture(), max_tokens=6, temperature=1.0, top_k=1, logprobs=True)
    assert sure.logprobs == (0.0,) * 6 and sure.branch_logprobs is None


def test_each_picture_tells_the_logprobs_of_its_ids(model: Model):
    options = {"seed": 3, "n": 2, "top_k": 4, "min_p": 0.1}
    told = model.draw("a dog", **options, logprobs=True, branch_logprobs=True)
    for logprobs in (told.logprobs, told.branch_logprobs):
        assert logprobs is not None and [len(one) for one in logprobs] == [PATCHES] * 2
        assert logprobs[0] != logprobs[1]
    assert told.logprobs != told.branch_logprobs
    plain = model.draw("a dog", **options)
    assert (plain.logprobs, plain.branch_logprobs) == (None, None)
    assert all(map(same, told.images, plain.images))


def test_logprobs_count_what_a_stop_string_cut_off(model: Model):
    whole = model.caption(picture(), max_tokens=60, logprobs=True)
    stop = whole.text[len(whole.text) // 3 :][:4]
    cut = model.caption(picture(), max_tokens=60, stop=stop, logprobs=True)
    assert cut.finish_reason == "stop" and cut.logprobs is not None
    assert len(cut.logprobs) == cut.completion_tokens < 60
    assert whole.logprobs is not None
    assert cut.logprobs == pytest.approx(whole.logprobs[: cut.completion_tokens], abs=1e-4)


# --- drawings ------------------------------------------------------------------------------------


def test_a_drawing_tells_how_it_came_about(model: Model):
    result = model.draw("two apples", seed=7)
    assert (result.prompt, result.seed, result.finish_reason) == ("two apples", 7, "complete")
    assert (result.completion_tokens, len(result.images)) == (PATCHES, 1)
    assert result.image is result.images[0]
    assert (result.image.size, result.image.mode) == ((64, 64), "RGB")


def test_the_same_seed_draws_the_same_alone_and_in_a_crowd(model: Model):
    alone = [model.draw("a dog", seed=seed).image for seed in (1, 2)]
    assert not same(*alone)
    crowd = model.draw(["a cat", "a dog", "two apples", "a dog"], seed=2)
    assert same(crowd[1].image, alone[1]) and same(crowd[3].image, alone[1])
    assert not same(crowd[0].image, alone[1])
    mixed = model.run([Caption(picture(), max_tokens=5), Draw("a dog", seed=1), Draw("a cat")])
    assert same(next(r for r in mixed if r.index == 1).image, alone[0])  # type: ignore[union-attr]


def test_a_seed_is_drawn_and_told_when_none_is_given(model: Model):
    first, second = model.draw("a dog"), model.draw("a dog")
    assert first.seed != second.seed
    assert not same(first.image, second.image)
    assert same(model.draw("a dog", seed=first.seed).image, first.image)
    answer = model.caption(picture(), max_tokens=6, temperature=2.0)
    repeated = model.caption(picture(), max_tokens=6, temperature=2.0, seed=answer.seed)
    assert repeated.text == answer.text


def test_n_samples_differ_and_the_first_is_the_one_of_n_1(model: Model):
    three, one = model.draw("a dog", seed=3, n=3), model.draw("a dog", seed=3)
    assert len(three.images) == 3 and three.completion_tokens == 3 * PATCHES
    assert same(three.images[0], one.image)
    pairs = ((0, 1), (0, 2), (1, 2))
    assert not any(same(three.images[i], three.images[j]) for i, j in pairs)
    assert [i.info["sample"] for i in three.images] == ["0", "1", "2"]


def test_guidance_of_one_runs_a_single_line(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen = spy_on_requests(model, monkeypatch)
    for guidance in (None, 1.0, 4.0):
        model.draw("a dog", seed=0, guidance=guidance)
    weights = [[branch.weight for branch in request.branches] for request in seen]
    default = model.family.defaults.guidance
    assert weights == [[default, 1 - default], [1.0], [4.0, -3.0]]


def test_guidance_and_negative_prompts_change_the_drawing(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    seen = spy_on_requests(model, monkeypatch)
    options = [{}, {"guidance": 1.0}, {"guidance": 6.0}, {"negative_prompt": "a cat"}]
    images = [model.draw("a dog", seed=0, **o).image for o in options]
    assert not any(same(a, b) for i, a in enumerate(images) for b in images[:i])
    words = model.family.tokenizer.decode(seen[-1].branches[1].token_ids)
    assert "a cat" in words and "a dog" not in words


def test_sampling_options_override_the_models_own(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen = spy_on_requests(model, monkeypatch)
    model.draw("a dog", seed=0)
    model.draw("a dog", seed=0, temperature=0.0, top_k=5, top_p=0.5)
    own, asked = (request.sampling for request in seen)
    defaults = model.family.defaults
    assert (own.temperature, own.top_k) == (defaults.temperature, defaults.top_k)
    assert (asked.temperature, asked.top_k, asked.top_p) == (0.0, 5, 0.5)


def test_a_saved_png_tells_prompt_seed_and_model(model: Model, tmp_path: Path):
    image = model.draw("a dog", seed=11).image
    image.save(tmp_path / "dog.png")
    with Image.open(tmp_path / "dog.png") as saved:
        saved.load()
        text = {k: saved.info[k] for k in ("prompt", "seed", "model")}
        assert text == {"prompt": "a dog", "seed": "11", "model": "tiny"}
        assert np.array_equal(np.array(saved), np.array(image))
    image.save(tmp_path / "dog.jpg")
    file = io.BytesIO()
    image.save(file, "WEBP")
    image.resize((8, 8)).save(tmp_path / "small.png")
    assert (tmp_path / "dog.jpg").stat().st_size and file.tell()


@pytest.fixture(params=[False, True], ids=["between steps", "in a thread"])
def either(request: pytest.FixtureRequest, shared: Model) -> Iterator[Model]:
    """A model that decodes pictures between its steps, or in a thread beside them."""
    with beside(shared, background=request.param) as model:
        yield model
        assert_idle(model)


def beside(shared: Model, background: bool, batched: bool | None = None) -> Model:
    """Another model with the same weights."""
    config = EngineConfig(memory=2**24, max_context=shared.family.max_context)
    return Model(shared.family, config, ImageDecoder(shared.device, background, batched))


def spy_on_decoding(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call decoded."""
    calls: list[int] = []
    decode = janus_of(model).decode_images

    def noting(ids):
        calls.append(len(ids))
        return decode(ids)

    monkeypatch.setattr(model.family, "decode_images", noting)
    return calls


def test_drawings_that_end_together_are_decoded_one_by_one(
    either: Model, monkeypatch: pytest.MonkeyPatch
):
    """So that a picture's bytes do not depend on its neighbours; CUDA decodes them together."""
    alone = [either.draw("a dog", seed=i, logprobs=True) for i in range(3)]
    calls = spy_on_decoding(either, monkeypatch)
    together = list(either.run(Draw("a dog", seed=i, logprobs=True) for i in range(20)))
    assert calls == [1] * 20
    assert sorted(r.index for r in together) == list(range(20))
    for index, one in enumerate(alone):
        crowd = next(r for r in together if r.index == index)
        assert isinstance(crowd, unitok.DrawResult) and same(crowd.image, one.image)
        assert crowd.logprobs is not None and one.logprobs is not None
        assert crowd.logprobs[0] == pytest.approx(one.logprobs[0], abs=1e-3), "so the same ids"
        assert 0 < crowd.seconds < 60
    n = either.draw("a dog", seed=1, n=17)
    assert calls[20:] == [1] * 17
    assert same(n.images[0], alone[1].image)


@pytest.mark.parametrize("background", [False, True], ids=["between steps", "in a thread"])
def test_in_batches_drawings_that_end_together_are_decoded_together(
    background: bool, shared: Model, monkeypatch: pytest.MonkeyPatch
):
    with beside(shared, background, batched=True) as model:
        calls = spy_on_decoding(model, monkeypatch)
        model.draw(["a dog"] * 20, seed=1)
        assert calls == [8, 8, 4]
        assert len(model.draw("a dog", seed=1, n=17).images) == 17
        assert sum(calls[3:]) == 17 and max(calls) == 8


def test_a_model_waits_while_a_thread_decodes(shared: Model, monkeypatch: pytest.MonkeyPatch):
    begun, go_on, turns = threading.Event(), threading.Event(), []
    decode = janus_of(shared).decode_images

    def slow(ids):
        begun.set()
        assert go_on.wait(PATIENCE)
        return decode(ids)

    with beside(shared, background=True) as model:
        monkeypatch.setattr(model.family, "decode_images", slow)
        work = model.driver.image_decoder.work
        monkeypatch.setattr(model.driver.image_decoder, "work", lambda: turns.append(work()))
        with ThreadPoolExecutor(1) as caller:
            drawn = caller.submit(model.draw, "a dog")
            assert begun.wait(PATIENCE)
            before = len(turns)
            time.sleep(0.05)  # in which a thread that does not wait would turn a thousand times
            assert len(turns) - before <= 2
            go_on.set()
            assert drawn.result(PATIENCE).finish_reason == "complete"


def test_a_picture_that_cannot_be_decoded_fails_alone(
    either: Model, monkeypatch: pytest.MonkeyPatch
):
    marked: list[tuple[int, ...]] = []
    told: dict[tuple[DrawJob, int], list[int]] = {}
    feed, decode = DrawJob.feed, janus_of(either).decode_images

    def noting(job, output):
        if job.asked.prompt == "a cat":
            told.setdefault((job, output.sample), []).extend(output.token_ids)
            if output.finished:
                marked.append(tuple(told[job, output.sample]))
        return feed(job, output)

    def fragile(ids):
        if any(one in marked for one in ids):
            raise OSError("no\npaint left")
        return decode(ids)

    monkeypatch.setattr(DrawJob, "feed", noting)
    monkeypatch.setattr(either.family, "decode_images", fragile)
    with pytest.raises(RuntimeError, match=r"^no paint left$"):
        either.draw(["a dog", "a cat"])
    asked = [Draw("a dog", seed=1), Draw("a cat", seed=1), Draw("a dog", n=2)]
    results = {r.index: r for r in either.run([*asked, Caption(picture(), max_tokens=3)])}
    assert {i: r.error for i, r in results.items() if r.error} == {1: "no paint left"}
    failed = results[1]
    assert isinstance(failed, unitok.DrawResult)
    assert (failed.finish_reason, failed.images) == ("error", ())
    assert failed.completion_tokens == PATCHES


def test_a_caller_that_leaves_leaves_nothing_to_decode(
    either: Model, monkeypatch: pytest.MonkeyPatch
):
    calls = spy_on_decoding(either, monkeypatch)
    decoder = either.driver.image_decoder
    monkeypatch.setattr(decoder, "work", lambda: None)  # the pictures wait for ever
    results = either.run([Draw("a dog"), Draw("a cat"), Caption(picture(), max_tokens=30)])
    assert next(results).index == 2
    assert len(decoder._waiting) == 2
    results.close()
    assert_idle(either)
    assert not decoder._waiting and calls == []


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("background", [False, True], ids=["between steps", "in a thread"])
def test_ctrl_c_while_it_is_decoded_leaves_nothing_behind(
    background: bool, shared: Model, monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    decode = janus_of(shared).decode_images

    def slow(ids):
        press_ctrl_c()
        go_on.wait(PATIENCE)
        return decode(ids)

    with beside(shared, background) as model:
        with monkeypatch.context() as patch:
            patch.setattr(model.family, "decode_images", slow)
            with pytest.raises(KeyboardInterrupt):
                model.draw(["a dog", "a cat"])
            go_on.set()
            assert_idle(model)
        assert model.draw("a dog").finish_reason == "complete", "the thread goes on"


# --- words the model never saw -------------------------------------------------------------------


def test_an_unknown_word_is_warned_of_by_name_and_the_drawing_goes_on(model: Model):
    with pytest.warns(UserWarning, match="never saw the word 'zebra'$"):
        assert model.draw("a zebra").finish_reason == "complete"
    with pytest.warns(UserWarning, match="'quick', 'zebra'"):
        model.draw("a dog", negative_prompt="Quick zebra!")
    with pytest.warns(UserWarning, match="'unicorn'"):
        model.caption(picture(), "is there a unicorn?", max_tokens=2)


def test_known_words_pass_in_silence(model: Model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.draw("Draw two APPLES, on a blue background.")
        model.caption(picture(), max_tokens=2)


def test_words_are_parted_by_what_is_no_letter():
    assert split_words("A cat, left-of\ttwo 3 Häuser") == [
        "a",
        "cat",
        "left",
        "of",
        "two",
        "häuser",
    ]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(model: Model, prompt: str):
    for call in (
        lambda: model.draw(prompt),
        lambda: model.caption(picture(), prompt),
        lambda: model.chat().send(prompt),
        lambda: model.chat().draw(prompt),
    ):
        with pytest.raises(ValueError, match="is empty"):
            call()


def test_a_prompt_that_leaves_no_room_is_refused(model: Model):
    for words in (300, 240):  # longer than the context; without room for a picture
        with pytest.raises(ValueError, match=r"takes \d+ tokens .* context holds 256: shorten it"):
            model.draw("dog " * words)
    with pytest.raises(ValueError, match="shorten it"):
        model.caption(picture(), "dog " * 300)
    with pytest.raises(ValueError, match="shorten it"):
        model.draw("a dog", negative_prompt="dog " * 300)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p must be from 0 to 1"),
        ({"min_p": float("nan")}, "min_p must be finite"),
        ({"guidance": float("nan")}, "finite"),
        ({"seed": 2**70}, "seed must fit in 64 bits"),
    ],
)
def test_options_out_of_range_are_refused(model: Model, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        model.draw("a dog", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"min_p": 2.0}, "min_p must be from 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
    ],
)
def test_options_of_text_out_of_range_are_refused(model: Model, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        model.caption(picture(), **options)
    with pytest.raises(ValueError, match=message):
        model.chat().send("what is this?", **options)
    bad, good = model.run([Caption(picture(), **options), Caption(picture(), max_tokens=2)])
    assert (bad.index, bad.finish_reason, good.finish_reason) == (0, "error", "length")
    assert message in str(bad.error)


def test_other_wrong_options_are_refused(model: Model):
    with pytest.raises(TypeError, match="logprobs must be True or False, not 5"):
        model.caption(picture(), logprobs=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="branch_logprobs must be True or False, not 'yes'"):
        model.draw("a dog", branch_logprobs="yes")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        model.caption(picture(), max_tokens=0)
    with pytest.raises(TypeError, match="guidence"):
        model.draw("a dog", guidence=2.0)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="prompt must be text, not 7"):
        model.draw(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not NoneType"):
        model.caption(None)  # type: ignore[call-overload]


def test_of_a_list_with_one_wrong_item_nothing_is_started(model: Model):
    forwards = model.stats().forwards
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        model.caption([picture(), "none.png"])
    with pytest.raises(ValueError, match="empty"):
        model.draw(["a dog", ""])
    assert model.stats().forwards == forwards
    assert_idle(model)


def test_of_a_list_with_one_too_large_for_the_pool_nothing_is_started(folder: Path):
    small = unitok.load(folder, device="cpu", memory=4 * 32 * 2**9)  # four blocks of 32 ids
    assert small.driver.engine.config.num_blocks == 4
    with pytest.raises(ValueError, match="give the engine more memory"):
        small.draw(["a dog", "a dog " * 40])
    assert_idle(small)
    assert small.draw("a dog").finish_reason == "complete"


def test_a_model_that_fails_to_read_is_one_clear_error(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    def broken(pixels):
        raise RuntimeError("the encoder\nis broken")

    monkeypatch.setattr(model.family, "features", broken)
    with pytest.raises(RuntimeError, match="the encoder is broken"):
        model.caption(picture(), max_tokens=3)
    results = {r.index: r for r in model.run([Caption(picture()), Draw("a dog")])}
    assert (results[0].finish_reason, results[0].error) == ("error", "the encoder is broken")
    assert results[1].finish_reason == "complete"


@dataclasses.dataclass(frozen=True)
class RaisingPlan:
    """Breaks off after two ids."""

    plan: Plan
    max_length = 30
    exact = False

    def next(self, emitted):
        if len(emitted) == 2:
            raise ArithmeticError("the plan\nis lost")
        return self.plan.next(emitted)


class Sabotage:
    """Makes a model fail wherever SICK is read, or its question is asked."""

    SICK = "is there a zebra?"

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.family, self.monkeypatch = janus_of(model), monkeypatch
        self.sick = self.family.preprocess(picture(99))

    def features(self) -> None:
        def broken(pixels, read=self.family.features):
            if any(torch.equal(one, self.sick) for one in pixels):
                raise OSError("the encoder\nis lost")
            return read(pixels)

        self.monkeypatch.setattr(self.family, "features", broken)

    def nan(self) -> None:
        def poisoned(pixels, read=self.family.features):
            sick = torch.tensor([torch.equal(one, self.sick) for one in pixels])
            return read(pixels).masked_fill(sick[:, None, None], torch.nan)

        self.monkeypatch.setattr(self.family, "features", poisoned)

    def plan(self) -> None:
        def plan(max_tokens, make=self.family.text_plan):
            made = make(max_tokens)
            return RaisingPlan(made) if max_tokens == 30 else made

        self.monkeypatch.setattr(self.family, "text_plan", plan)

    def reading(self) -> None:
        def broken(image, read=self.family.preprocess):
            pixels = read(image)
            if torch.equal(pixels, self.sick):
                raise RuntimeError("the reader\nis lost")
            return pixels

        self.monkeypatch.setattr(self.family, "preprocess", broken)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("features", "the encoder is lost"),
        ("nan", "the model gave logits that are not finite"),
        ("plan", "the plan is lost"),
        ("reading", "the reader is lost"),
    ],
)
def test_what_fails_underway_fails_its_request_alone(
    model: Model, way: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    healthy = [Caption(picture(1), max_tokens=9), Draw("a dog", seed=4)]
    expected = list(model.run(healthy))
    getattr(Sabotage(model, monkeypatch), way)()
    sick = Caption(picture(99), max_tokens=30)
    results = {r.index: r for r in model.run([healthy[0], sick, healthy[1], sick])}
    assert {i: r.error for i, r in results.items() if r.error} == {1: message, 3: message}
    for was in expected:
        now = results[2 * was.index]
        assert (now.finish_reason, now.seed) == (was.finish_reason, now.seed)
        if isinstance(now, unitok.TextResult) and isinstance(was, unitok.TextResult):
            assert now.text == was.text
        if isinstance(now, unitok.DrawResult) and isinstance(was, unitok.DrawResult):
            assert same(now.image, was.image)
    assert_idle(model)
    with pytest.raises(RuntimeError, match=message.replace(" ", r"\s")):
        model.caption([picture(1), picture(99)], max_tokens=30)
    chat = model.chat()
    with pytest.raises(RuntimeError, match=message.replace(" ", r"\s")):
        chat.send("is there a dog?", images=picture(99), max_tokens=30)
    assert chat.messages == []


def test_pictures_of_one_step_are_read_in_one_call(model: Model, monkeypatch: pytest.MonkeyPatch):
    family, calls = janus_of(model), []
    read = family.features

    def noting(pixels):
        calls.append(len(pixels))
        return read(pixels)

    monkeypatch.setattr(family, "features", noting)
    pictures = [picture(100 + i) for i in range(5)]
    together = model.caption([*pictures, pictures[0]], max_tokens=4, logprobs=True)
    assert calls == [5]
    alone = [model.caption(p, "what is this?", max_tokens=4) for p in pictures]
    assert len(alone) == 5 and calls[1:] == [1] * 5
    for result, pixels in zip(together, map(family.preprocess, pictures), strict=False):
        assert result.logprobs is not None and len(result.logprobs) == 4
        torch.testing.assert_close(
            read(torch.stack([pixels] * 3))[2], read(pixels[None])[0], atol=1e-5, rtol=0
        )


def test_what_never_fits_the_pool_is_an_error_of_its_own(folder: Path):
    small = unitok.load(folder, device="cpu", memory=4 * 32 * 2**9)  # four blocks of 32 ids
    asked = [Draw("a dog " * 40), Draw("a dog", seed=1), Caption(picture(), max_tokens=250)]
    results = {r.index: r for r in small.run([*asked, Caption(picture(), max_tokens=2)])}
    told = {i: r.error for i, r in results.items() if r.error}
    assert told.keys() == {0, 2}
    assert all("give the engine more memory" in str(error) for error in told.values())
    assert all(isinstance(results[i].cause, ValueError) for i in told)
    assert_idle(small)


# --- run -----------------------------------------------------------------------------------------


def test_run_gives_every_request_once_with_its_index(model: Model):
    requests = [
        Draw("a dog", seed=i) if i % 2 else Caption(picture(i), max_tokens=2 + i) for i in range(9)
    ]
    results = list(model.run(requests))
    assert sorted(r.index for r in results) == list(range(9))
    for result in results:
        assert result.request is requests[result.index]
    order = [r.index for r in results if r.index % 2 == 0]
    assert order == sorted(order), "shorter answers finish first"


def test_run_takes_requests_lazily(model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "IN_FLIGHT", 3)
    taken = 0

    def source():
        nonlocal taken
        while True:  # without end
            taken += 1
            yield Draw("a dog", seed=taken)

    results = model.run(source())
    assert taken == 0
    for finished in range(1, 8):
        next(results)
        assert taken <= 3 + finished
    results.close()


def test_a_request_that_fails_is_a_result_and_the_others_go_on(model: Model):
    requests = [
        Caption("none.png", seed=4),
        Draw("a dog", seed=1),
        Draw("", seed=9),
        Caption(b"no picture"),
        "a dog",
        Caption(picture(), max_tokens=2),
        Draw("dog " * 300),
    ]
    results = {r.index: r for r in model.run(requests)}  # type: ignore[arg-type]
    assert len(results) == 7
    failed = {i: r.error for i, r in results.items() if r.finish_reason == "error"}
    assert failed.keys() == {0, 2, 3, 4, 6}
    assert "none.png" in str(failed[0]) and "not a picture" in str(failed[3])
    assert "a Draw or an Edit, not str" in str(failed[4]) and "shorten it" in str(failed[6])
    assert (results[0].seed, results[2].seed) == (4, 9)
    assert results[2].images == ()  # type: ignore[union-attr]
    assert {i: results[i].finish_reason for i in (1, 5)} == {1: "complete", 5: "length"}


def test_errors_of_the_iterable_itself_pass_through(model: Model):
    def source():
        yield Draw("a dog")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(model.run(source()))


def test_a_run_left_early_frees_its_blocks(model: Model):
    results = model.run([Caption(picture(), max_tokens=i * 30 + 2) for i in range(6)])
    assert next(results).index == 0
    assert model.stats().running > 0
    results.close()
    assert_idle(model)


def test_another_call_in_the_midst_of_a_run_takes_nothing_from_it(model: Model):
    results = model.run([Caption(picture(i), max_tokens=3 + 4 * i) for i in range(4)])
    first = next(results)
    drawn = model.draw("a dog", seed=5)
    rest = list(results)
    assert sorted(r.index for r in [first, *rest]) == list(range(4))
    assert same(drawn.image, model.draw("a dog", seed=5).image)


def test_two_threads_may_call_at_once(either: Model):
    model = either
    expected_text = model.caption(picture(), max_tokens=20).text
    expected_image = model.draw("a dog", seed=5).image
    answers: list[str] = []
    images: list[Image.Image] = []

    def read() -> None:
        for _ in range(4):
            answers.append(model.caption(picture(), max_tokens=20).text)

    def paint() -> None:
        for _ in range(4):
            images.append(model.draw("a dog", seed=5).image)

    threads = [threading.Thread(target=t) for t in (read, paint, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert answers == [expected_text] * 8
    assert len(images) == 4 and all(same(i, expected_image) for i in images)


def test_an_interrupted_call_leaves_nothing_behind(model: Model, monkeypatch: pytest.MonkeyPatch):
    steps, step = [], model.driver.engine.step

    def interrupted():
        steps.append(1)
        if len(steps) == 3:
            press_ctrl_c()
        return step()

    with monkeypatch.context() as patch:
        patch.setattr(model.driver.engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.draw(["a dog", "a cat"], n=20)
    assert_idle(model)


# --- chat ----------------------------------------------------------------------------------------


def test_a_chat_remembers_words_and_pictures(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen = spy_on_requests(model, monkeypatch)
    chat = model.chat()
    first = chat.send("what is this?", images=[picture(0)], max_tokens=4)
    chat.send("is there a dog?", max_tokens=4)
    chat.send("and a cat?", images=[picture(1), picture(2)], max_tokens=4)
    ids = [request.branches[0].token_ids for request in seen]
    assert ids[1][: len(ids[0])] == ids[0] and ids[2][: len(ids[1])] == ids[1]
    said = model.family.tokenizer.decode(ids[2])
    assert "what is this?" in said and "and a cat?" in said
    assert model.family.tokenizer.decode(ids[1][len(ids[0]) :]).strip().startswith(first.text[:3])
    assert [len(request.branches[0].embeddings) for request in seen] == [1, 1, 3]
    digests = [[f.digest for f in request.branches[0].embeddings] for request in seen]
    assert digests[2][:1] == digests[0] and len(set(digests[2])) == 3
    assert [len(m.pictures) for m in chat.messages] == [1, 0, 0, 0, 2, 0]


def test_one_picture_need_not_be_a_list(model: Model, tmp_path: Path):
    path = tmp_path / "a.png"
    picture().save(path)
    said = [
        model.chat().send("what is this?", images=images, max_tokens=4).text
        for images in (str(path), picture(), [picture()])
    ]
    assert said[0] == said[1] == said[2]


def test_a_negative_prompt_without_guidance_is_warned_of(model: Model):
    with pytest.warns(UserWarning, match="does nothing at guidance 1"):
        model.draw("a dog", guidance=1.0, negative_prompt="a cat")


def test_history_matters_to_the_answer(model: Model):
    def told(seed: int) -> str:
        chat = model.chat()
        chat.send("what is this?", images=[picture(seed)], max_tokens=1)
        return chat.send("is there a dog?", max_tokens=8).text

    assert told(0) == told(0) != told(1)


def test_a_drawing_is_read_when_it_is_talked_about(model: Model, monkeypatch: pytest.MonkeyPatch):
    family, seen = janus_of(model), []
    read = family.features

    def noting(pixels):
        seen.append(pixels)
        return read(pixels)

    monkeypatch.setattr(family, "features", noting)
    chat = model.chat()
    drawn = chat.draw("a dog", seed=3)
    assert seen == [], "drawing reads nothing"
    answer = chat.send("what is this?", max_tokens=8)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0][0], family.preprocess(drawn.image))
    assert [len(m.pictures) for m in chat.messages] == [0, 1, 0, 0]
    other = model.chat()
    other.draw("a dog", seed=4)
    assert other.send("what is this?", max_tokens=8).text != answer.text


def test_a_drawing_in_a_chat_sees_the_talk_before_it(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen = spy_on_requests(model, monkeypatch)
    chat = model.chat()
    chat.send("what is this?", images=[picture()], max_tokens=2)
    chat.draw("a dog", seed=0, n=2)
    chat.draw("a cat", seed=0)
    asked, against = seen[1].branches
    assert len(asked.embeddings) == 1 and against.embeddings == ()
    assert len(asked.token_ids) > len(against.token_ids)
    assert len(seen[2].branches[0].embeddings) == 3


def test_what_raises_is_no_part_of_the_history(model: Model):
    chat = model.chat()
    chat.send("what is this?", images=[picture()], max_tokens=2)
    before = list(chat.messages)
    with pytest.raises(FileNotFoundError):
        chat.send("and this?", images=["none.png"])
    with pytest.raises(ValueError, match="shorten it"):
        chat.send("dog " * 300)
    with pytest.raises(TypeError, match="n_samples"):
        chat.draw("a dog", n_samples=2)  # type: ignore[call-arg]
    assert chat.messages == before
    assert chat.send("is there a dog?", max_tokens=2).completion_tokens == 2


def test_a_chat_that_outgrows_the_context_says_so(model: Model):
    chat = model.chat()
    with pytest.raises(ValueError, match=r"is full: .* context holds 256. Drop .* undo\(\)"):
        for _ in range(30):
            chat.send("what is this?", images=[picture()], max_tokens=2)
    assert 2 <= len(chat.messages) // 2 < 30


def test_a_system_prompt_holds_for_the_whole_chat(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen = spy_on_requests(model, monkeypatch)
    chat = model.chat(system="a dog")
    chat.send("what is this?", max_tokens=2)
    chat.send("is there a cat?", max_tokens=2)
    for request in seen:
        assert model.family.tokenizer.decode(request.branches[0].token_ids).startswith("a dog\n\n")
