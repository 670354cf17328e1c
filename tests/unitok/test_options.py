"""Options of requests: types, seeds, timeouts, priorities, lists; where warnings point; stats."""

import asyncio
import json
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import unitok
from tests.unitok.tiny import PATCHES, save_tiny
from unitok import Caption, Draw, Edit, driver, handles
from unitok.api import Model
from unitok.cli import app
from unitok.prompt_length import CHARACTERS, MARGIN, check_length
from unitok.requests import Turn, check_ranges
from unitok.stats import Stats
from unitok.throughput import Throughput
from unitok_engine import EngineConfig, Output, Request
from unitok_engine.user_warnings import warn

PATIENCE = 60  # seconds, for what takes none


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("options") / "tiny")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Model]:
    with unitok.load(folder, device="cpu", memory="16MB") as model:
        yield model


@pytest.fixture
def model(shared: Model) -> Iterator[Model]:
    """Whatever a test did, nothing of it is left."""
    yield shared
    assert shared.driver.wait_until_idle(PATIENCE)
    assert shared.stats().free_blocks == shared.stats().num_blocks
    assert not shared.driver._flights and not shared.driver._deadlines


def picture(seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


# --- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (Caption, {"question": 3}, "question must be text, not 3"),
        (Caption, {"system": 1}, "system must be text, not 1"),
        (Caption, {"stop": 5}, "stop must be text or a list of texts, not 5"),
        (Caption, {"stop": ["a", 5]}, "stop must be text or a list of texts, not"),
        (Caption, {"seed": [1, 2]}, r"seed must be a whole number, not \[1, 2\]"),
        (Draw, {"prompt": 3}, "prompt must be text, not 3"),
        (Draw, {"prompt": b"a" * 10**6}, "prompt must be text, not b'a"),
        (Draw, {"negative_prompt": 3}, "negative_prompt must be text, not 3"),
        (Draw, {"seed": "five"}, "seed must be a whole number or a list of whole numbers, not 'f"),
        (Draw, {"seed": [1, True]}, r"seed must be .*, not \[1, True\]"),
        (Draw, {"seed": {1, 2}}, "seed must be a whole number or a list"),
        (Draw, {"seed": b"12"}, "seed must be a whole number or a list"),
        (Draw, {"seed": iter([1, 2])}, "seed must be a whole number or a list"),
        (Draw, {"n": 2.0}, "n must be a whole number, not 2.0"),
        (Draw, {"n": True}, "n must be a whole number, not True"),
        (Draw, {"n": np.True_}, "n must be a whole number, not"),
        (Draw, {"guidance": np.True_}, "guidance must be a number, not"),
        (Draw, {"timeout": "5"}, "timeout must be a number, not '5'"),
        (Draw, {"priority": 1.5}, "priority must be a whole number, not 1.5"),
        (Edit, {"prompt": 3}, "prompt must be text, not 3"),
        (Turn, {"text": 3}, "text must be text, not 3"),
    ],
)
def test_an_option_of_a_wrong_type_is_named_and_says_what_it_must_be(
    made: Any, options: dict, message: str
):
    needed = {Caption: {"image": "a.png"}, Draw: {"prompt": "a"}, Edit: {"image": "a.png"}}
    with pytest.raises(TypeError, match=f"^{message}") as told:
        made(**needed.get(made, {}) | options)
    assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    "value", [float("inf"), float("nan"), 10**400, np.float32("inf"), Fraction(10**400)]
)
def test_a_number_must_be_finite(value: Any):
    with pytest.raises(ValueError, match="temperature must be finite"):
        Draw("a dog", temperature=value)


def test_a_number_too_long_to_be_written_is_refused_in_our_words():
    huge = 10**10_000
    with pytest.raises(
        ValueError, match="temperature must be finite, not a number of more than 40 digits"
    ):
        Draw("a dog", temperature=huge)
    with pytest.raises(
        ValueError,
        match="n must be at least 1 and at most 1000, not a number of more than 40 digits",
    ):
        check_ranges(Draw("a dog", n=huge))
    with pytest.raises(TypeError, match="prompt must be text, not a number of more than 40 digits"):
        Draw(huge)  # type: ignore[arg-type]


@pytest.mark.parametrize("guidance", [1e12, -1e300, 1001])
def test_guidance_whose_weights_cannot_be_told_apart_is_refused_by_name(model: Model, guidance):
    with pytest.raises(ValueError, match="guidance must be from -1000 to 1000, not"):
        model.draw("a dog", guidance=guidance)


def test_a_chat_and_its_turns_refuse_what_is_no_text(model: Model):
    with pytest.raises(TypeError, match="system must be text, not 1"):
        model.chat(system=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text must be text, not 3"):
        model.chat().send(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompt must be text, not 3"):
        model.chat().draw(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompt must be text, not Draw"):
        model.draw(Draw("a dog"))  # type: ignore[call-overload]


def test_stop_may_be_none_but_not_empty(model: Model):
    free = model.caption(picture(), max_tokens=5)
    assert model.caption(picture(), max_tokens=5, stop=None).text == free.text
    assert model.caption(picture(), max_tokens=5, stop=[]).text == free.text
    for stop in ("", ["\n", ""]):
        with pytest.raises(ValueError, match="stop holds an empty text, which would end every"):
            model.caption(picture(), stop=stop)


class Index:
    """Has __index__ alone."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize(
    "three",
    [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), Index()],
    ids=["int64", "uint8", "array", "tensor", "index"],
)
def test_whatever_is_a_whole_number_becomes_an_int(three: Any):
    drawing = Draw("a dog", seed=three, n=three, top_k=three, width=three, height=three)
    assert type(drawing.seed) is type(drawing.n) is type(drawing.top_k) is int
    assert drawing == Draw("a dog", seed=3, n=3, top_k=3, width=3, height=3)
    caption = Caption("a.png", seed=three, max_tokens=three, priority=three)
    assert (caption.seed, caption.max_tokens, caption.priority) == (3, 3, 3)


def test_numbers_of_numpy_become_those_of_python_so_that_results_are_json(model: Model):
    asked = Draw(
        "a dog",
        seed=np.arange(5, 7),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        guidance=np.int64(2),  # type: ignore[arg-type]
        top_p=np.float64(0.5),
    )
    assert (asked.seed, asked.temperature, asked.guidance) == ((5, 6), 0.5, 2)
    assert type(asked.temperature) is type(asked.top_p) is float and type(asked.guidance) is int
    result = model.draw("a dog", seed=np.arange(5, 7))  # type: ignore[call-overload]
    assert json.dumps([result.seed, result.seeds, asked.seed]) == "[5, [5, 6], [5, 6]]"
    assert hash(asked) == hash(replace(asked))


# --- lists of prompts and of requests ------------------------------------------------------------


def test_one_request_text_or_dict_is_no_list_of_requests(model: Model):
    for wrong in ("abc", b"abc", Draw("a dog"), Caption("a.png"), Turn("hello"), {"a": 1}, 5, None):
        kind = type(wrong).__name__
        with pytest.raises(TypeError, match=rf"^run takes a list of requests.*not one {kind}$"):
            model.run(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=rf"^arun takes a list of requests.*not one {kind}$"):
            model.arun(wrong)  # type: ignore[arg-type]


def test_any_iterable_of_prompts_is_drawn_together(model: Model):
    prompts = ["a dog", "a cat"]
    wanted = [result.image.tobytes() for result in model.draw(prompts, seed=1)]
    keys = dict.fromkeys(prompts).keys()
    for things in (iter(prompts), (p for p in prompts), keys, map(str, prompts)):
        drawn = model.draw(things, seed=1)
        assert [result.image.tobytes() for result in drawn] == wanted
    captions = model.caption((picture(i) for i in range(3)), max_tokens=2)
    assert [result.index for result in captions] == [0, 1, 2]
    assert model.draw(iter(())) == []

    async def later() -> list[unitok.DrawResult]:
        return await model.adraw((p for p in prompts), seed=1)

    assert [result.image.tobytes() for result in asyncio.run(later())] == wanted


def test_what_is_one_picture_is_never_taken_for_several(model: Model, tmp_path: Path):
    path = tmp_path / "a.png"
    picture().save(path)
    array = np.array(picture())
    for one in (str(path), path, path.read_bytes(), picture(), array, torch.from_numpy(array)):
        assert isinstance(model.caption(one, max_tokens=2), unitok.TextResult)


def test_a_dict_of_prompts_is_refused(model: Model):
    with pytest.raises(TypeError, match="a list of them, not a dict"):
        model.draw({"a dog": 1})
    with pytest.raises(TypeError, match="a list of them, not a dict"):
        asyncio.run(model.acaption({"a.png": 1}))  # type: ignore[arg-type]


# --- warnings ------------------------------------------------------------------------------------


def warned(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The file and the text of the line that each warning points at."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return [(w.filename, lines[w.lineno - 1].strip()) for w in caught]


def draws(model: Model) -> None:
    model.draw("a zebra", seed=1)  # here


def draws_several(model: Model) -> None:
    model.draw(["a zebra", "a dog"])  # here


def has_no_guidance(model: Model) -> None:
    model.draw("a dog", guidance=1.0, negative_prompt="a cat")  # here


def streams(model: Model) -> None:
    list(model.stream(Draw("a zebra")))  # here


def runs(model: Model) -> None:
    for _ in model.run([Draw("a zebra")]):  # here
        pass


def sends(model: Model) -> None:
    model.chat().send("a zebra", max_tokens=1)  # here


def awaits(model: Model) -> None:
    async def later() -> None:
        await model.adraw("a zebra")  # here

    asyncio.run(later())


def runs_later(model: Model) -> None:
    async def later() -> None:
        async for _ in model.arun([Draw("a zebra")]):  # it is prepared in a task of its own
            pass

    asyncio.run(later())  # here


CALLS = [draws, draws_several, has_no_guidance, streams, runs, sends, awaits, runs_later]


@pytest.mark.parametrize("call", CALLS)
def test_a_warning_points_at_the_callers_line(model: Model, call: Callable[[Model], None]):
    ((file, line),) = warned(lambda: call(model))
    assert file == __file__ and line.endswith("# here")


def test_in_a_thread_of_ours_a_warning_points_at_our_line():
    names: dict[str, Any] = {"__name__": "unitok.helper", "warn": warn}
    exec(compile("def work(): warn('be careful')", "ours.py", "exec"), names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=names["work"])
        thread.start()
        thread.join()
    assert [(w.filename, w.lineno, w.category) for w in caught] == [("ours.py", 1, UserWarning)]


def test_a_line_that_warned_warns_once_as_python_does_by_default(model: Model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            model.draw("a zebra", seed=1)
    assert len(caught) == 1


def test_a_warning_of_loading_points_at_the_callers_line(folder: Path, tmp_path: Path):
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in folder.iterdir():
        (odd / file.name).write_bytes(file.read_bytes())
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"mystery": 1}))
    ((file, line),) = warned(lambda: unitok.load(odd, device="cpu", memory="1MB").close())
    assert file == __file__ and "unitok.load(odd" in line


# --- long prompts --------------------------------------------------------------------------------


class Counting:
    """A tokenizer of one token for each word, which notes the lengths of what it gets."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def encode_plain(self, text: str) -> list[int]:
        self.lengths.append(len(text))
        return [1] * len(text.split())


def test_a_text_far_too_long_is_refused_after_a_bounded_part_of_it():
    counting = Counting()
    with pytest.raises(ValueError, match="the prompt has 10,000,000 characters, and the first"):
        check_length("x, " * 3_000_000 + "y" * 1_000_000, counting, 100)
    assert max(counting.lengths) <= CHARACTERS * 100
    assert sum(counting.lengths) <= CHARACTERS * 100 * (MARGIN + 1)


def test_a_short_text_is_not_looked_at_and_blanks_do_not_count():
    counting = Counting()
    check_length("x" * CHARACTERS * 100, counting, 100)
    check_length(" " * 10**6 + "a dog" + "\n" * 10**6, counting, 100)
    assert counting.lengths == [5]
    check_length("a" + " " * 10**6 + "dog", counting, 100)  # its tokens are few
    check_length("dog " * 200, counting, 100)


@pytest.mark.parametrize("what", ["prompt", "negative", "question", "system", "text"])
def test_no_text_is_split_or_tokenized_as_a_whole_before_it_is_refused(
    model: Model, what: str, monkeypatch: pytest.MonkeyPatch
):
    long = "cat dog " * 125_000
    seen: list[int] = []
    encode = type(model.tokenizer).encode_plain

    def noting(self: Any, text: str) -> list[int]:
        seen.append(len(text))
        return encode(self, text)

    monkeypatch.setattr(type(model.tokenizer), "encode_plain", noting)
    monkeypatch.setattr("unitok.preparer.split_words", lambda text: seen.append(len(text)) or [])
    call = {
        "prompt": lambda: model.draw(long),
        "negative": lambda: model.draw("a dog", negative_prompt=long),
        "question": lambda: model.caption(picture(), long),
        "system": lambda: model.caption(picture(), system=long),
        "text": lambda: model.chat().send(long),
    }[what]
    with pytest.raises(ValueError, match=r"has 999,999 characters.* context holds 256: shorten"):
        call()
    assert sum(seen) <= CHARACTERS * 256 * (MARGIN + 1)


def test_a_prompt_that_fits_is_never_refused_for_its_characters(model: Model):
    padded = " " * 50_000 + "a dog" + "\n" * 50_000
    assert model.draw(padded, seed=1).image.tobytes() == model.draw("a dog", seed=1).image.tobytes()


# --- seeds ---------------------------------------------------------------------------------------

SEEDS = [5, 6, 7, 5]


def test_each_picture_of_several_seeds_is_that_of_its_seed_alone(model: Model):
    together = model.draw("a dog", seed=SEEDS)
    assert (together.seed, together.seeds, len(together.images)) == (5, tuple(SEEDS), 4)
    assert together.completion_tokens == 4 * PATCHES
    for seed, image in zip(SEEDS, together.images, strict=True):
        alone = model.draw("a dog", seed=seed)
        assert image.tobytes() == alone.image.tobytes()
        assert image.info == alone.image.info, "so that a file names what gives it again"
        assert image.info["seed"] == str(seed) and image.info["sample"] == "0"
    assert together.images[0].tobytes() == together.images[3].tobytes()
    assert together.images[0].tobytes() != together.images[1].tobytes()


def test_one_seed_for_several_pictures_numbers_them(model: Model):
    result = model.draw("a dog", seed=5, n=3)
    assert (result.seed, result.seeds) == (5, (5, 5, 5))
    assert [(i.info["seed"], i.info["sample"]) for i in result.images] == [
        ("5", "0"),
        ("5", "1"),
        ("5", "2"),
    ]


def test_several_seeds_are_told_by_streams_runs_and_lists(model: Model):
    events = [(e.sample, e.image) for e in model.stream(Draw("a dog", seed=[8, 9])) if e.image]
    assert sorted((i, image.info["seed"]) for i, image in events) == [(0, "8"), (1, "9")]
    wanted = [image.tobytes() for image in model.draw("a dog", seed=[8, 9]).images]
    both = model.draw(["a dog", "a cat"], seed=[8, 9])
    assert [image.tobytes() for image in both[0].images] == wanted
    (ran,) = model.run([Draw("a dog", seed=range(8, 10))])
    assert [image.tobytes() for image in ran.images] == wanted  # type: ignore[union-attr]
    drawn = model.chat().draw("a dog", seed=(8, 9))
    assert drawn.seeds == (8, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": [1, 2], "n": 3}, "seed holds 2 seeds, and n is 3"),
        ({"seed": [1, 2], "n": 1}, "seed holds 2 seeds, and n is 1"),
        ({"seed": []}, "seed must hold 1 to 1000 seeds, not 0"),
        ({"seed": range(1001)}, "seed must hold 1 to 1000 seeds, not 1001"),
        ({"seed": [1, 2**64]}, "64 bits"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(model: Model, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        model.draw("a dog", **options)


def test_n_may_be_given_beside_as_many_seeds():
    assert Draw("a dog", seed=[1, 2], n=2).samples == 2
    assert Draw("a dog", seed=[1, 2]).samples == 2
    assert Draw("a dog", seed=1, n=3).samples == 3
    assert Draw("a dog").samples == 1
    assert replace(Draw("a dog"), seed=[1, 2]).samples == 2


def test_a_request_that_cannot_be_prepared_tells_the_first_of_its_seeds(model: Model):
    (failed,) = model.run([Draw("", seed=[7, 8])])
    assert (failed.finish_reason, failed.seed) == ("error", 7)


# --- timeouts ------------------------------------------------------------------------------------


class Clock:
    """Stands in for the module `time`: its seconds pass only when the engine steps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def ticking(shared: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """A model whose every step takes 20 ms of a clock of its own."""
    config = EngineConfig(memory=2**24, max_context=shared.family.max_context)
    with Model(shared.family, config) as model:
        clock, step = Clock(), model.driver.engine.step

        def timed() -> list[Output]:
            clock.now += 0.02
            return step()

        monkeypatch.setattr(model.driver.engine, "step", timed)
        monkeypatch.setattr(driver, "time", clock)
        monkeypatch.setattr(handles, "time", clock)
        yield model
        assert model.driver.wait_until_idle(PATIENCE)
        assert model.stats().free_blocks == model.stats().num_blocks
        assert not model.driver._flights and not model.driver._deadlines


async def awaited(model: Model, **options: Any) -> unitok.TextResult:
    return await model.acaption(picture(), max_tokens=150, **options)


MESSAGE = r"^the request was not done within its timeout of 0\.1 s$"


def test_a_request_that_takes_too_long_is_ended_and_its_blocks_are_free(ticking: Model):
    model = ticking
    for call in (
        lambda: model.caption(picture(), max_tokens=150, timeout=0.1),
        lambda: model.draw(["a dog", "a cat"], n=3, timeout=0.1, guidance=2.0),
        lambda: model.chat().send("a dog", max_tokens=150, timeout=0.1),
        lambda: list(model.chat().stream("a dog", max_tokens=150, timeout=0.1)),
        lambda: asyncio.run(awaited(model, timeout=0.1)),
    ):
        with pytest.raises(TimeoutError, match=MESSAGE):
            call()


async def streamed(model: Model, asked: Caption) -> list[unitok.Event]:
    return [event async for event in model.astream(asked)]


def test_run_and_stream_tell_a_timeout_with_the_text_so_far(ticking: Model):
    model = ticking
    late, free = Caption(picture(), max_tokens=150, timeout=0.1), Caption(picture(1), max_tokens=3)
    results = {r.index: r for r in model.run([late, free, Draw("a dog", timeout=0.1)])}
    assert [results[i].finish_reason for i in range(3)] == ["timeout", "length", "timeout"]
    assert all(re.match(MESSAGE, str(results[i].error)) for i in (0, 2))
    assert isinstance(results[0], unitok.TextResult) and isinstance(results[2], unitok.DrawResult)
    assert results[0].completion_tokens == 5 and results[0].text and results[2].images == ()
    for events in (list(model.stream(late)), asyncio.run(streamed(model, late))):
        result = events[-1].result
        assert isinstance(result, unitok.TextResult) and result.finish_reason == "timeout"
        assert result.text == "".join(event.text for event in events) != ""


def test_a_turn_that_takes_too_long_is_no_part_of_the_history(ticking: Model):
    model = ticking
    chat = model.chat()
    with pytest.raises(TimeoutError):
        chat.send("a dog", max_tokens=150, timeout=0.1)
    assert chat.messages == []


def test_enough_time_changes_nothing(model: Model):
    free = model.caption(picture(), max_tokens=5, logprobs=True)
    timed = model.caption(picture(), max_tokens=5, logprobs=True, timeout=1e300, priority=-7)
    assert (timed.text, timed.logprobs) == (free.text, free.logprobs)


def test_a_timeout_comes_while_only_a_picture_is_waited_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    decoder = model.driver.image_decoder
    monkeypatch.setattr(decoder, "work", lambda: None)  # the picture waits for ever
    monkeypatch.setattr(type(decoder), "has_work", False)  # as if a thread had it
    with pytest.raises(TimeoutError):
        model.draw("a dog", timeout=0.5)
    assert not decoder._waiting


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_timeout_must_be_above_0(model: Model, timeout: float):
    with pytest.raises(ValueError, match="timeout must be above 0"):
        model.draw("a dog", timeout=timeout)


def test_a_timeout_on_the_command_line_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    picture().save("a.png")
    common = ["--model", str(folder), "--timeout", "1e-9"]
    for words in (
        ["draw", "a dog", "-o", "dog.png"],
        ["caption", "a.png"],
        ["caption", "a.png", "--json"],
    ):
        result = CliRunner().invoke(app, [*words, *common])
        assert result.exit_code in (1, 2) and result.stdout == ""
        assert result.stderr == "unitok: the request was not done within its timeout of 1e-09 s\n"
    assert not Path("dog.png").exists()


def test_a_live_caption_that_takes_too_long_is_told(folder: Path, capsys):
    from unitok.captioning import print_live

    with unitok.load(folder, device="cpu", memory="16MB") as model:
        assert not print_live(model, Caption(picture(), timeout=1e-9), "a.png")
    assert "was not done within its timeout" in capsys.readouterr().err


# --- priorities ----------------------------------------------------------------------------------


def test_priority_and_seeds_reach_the_engine(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen: list[Request] = []
    add = model.driver.engine.add
    noting = lambda request, share: seen.append(request) or add(request, share)  # noqa: E731
    monkeypatch.setattr(model.driver.engine, "add", noting)
    model.caption(picture(), max_tokens=1, priority=4)
    model.draw("a dog", priority=-2, seed=[3, 4])
    assert [(r.priority, r.seeds) for r in seen] == [(4, ()), (-2, (3, 4))]


def test_requests_of_a_lower_number_are_done_first(shared: Model):
    config = EngineConfig(memory=2**24, max_running=1, max_context=shared.family.max_context)
    with Model(shared.family, config) as model:
        requests = [Draw("a dog", priority=p, guidance=1.0, seed=p) for p in (3, 1, 2, -1)]
        assert [result.index for result in model.run(requests)] == [3, 1, 2, 0]


# --- the command line and JSON lines -------------------------------------------------------------


def test_the_flag_for_seeds_may_be_given_several_times(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Model
):
    monkeypatch.chdir(tmp_path)
    words = ["draw", "a dog", "--model", str(folder), "-o", "dog.png", "--json"]
    told = CliRunner().invoke(app, [*words, "--seed", "5", "--seed", "6"])
    assert told.exit_code == 0, told.output
    said = json.loads(told.stdout)
    assert (said["seed"], said["seeds"], said["files"]) == (5, [5, 6], ["dog-0.png", "dog-1.png"])
    for seed, name in ((5, "dog-0.png"), (6, "dog-1.png")):
        with Image.open(name) as saved:
            assert saved.tobytes() == shared.draw("a dog", seed=seed).image.tobytes()
            assert saved.info["seed"] == str(seed)
    one = CliRunner().invoke(app, [*words, "--seed", "5", "-n", "2"])
    assert "seeds" not in json.loads(one.stdout) and json.loads(one.stdout)["seed"] == 5
    wrong = CliRunner().invoke(app, [*words, "--seed", "5", "--seed", "6", "-n", "3"])
    assert wrong.exit_code == 2 and wrong.stderr.startswith("unitok: seed holds 2 seeds")


def test_seeds_timeout_and_priority_are_keys_of_json_lines(folder: Path, tmp_path: Path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    lines = [
        {"draw": "a dog", "seed": [5, 6], "priority": 1},
        {"draw": "a dog", "seed": [5, "6"]},
        {"draw": "a dog", "timeout": 1e-9},
        {"draw": "a dog", "seed": [5, 6], "n": 3},
    ]
    source.write_text("\n".join(map(json.dumps, lines)))
    words = ["batch", str(source), "-o", str(out), "--model", str(folder)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 1 and "1 new, 0 kept, 3 failed" in told.stdout
    errors = {line.split(": ")[1]: line for line in told.stderr.splitlines()}
    assert '"seed" must be a whole number or a list of whole numbers' in errors["line 2"]
    assert "within its timeout" in errors["line 3"]
    assert "seed holds 2 seeds, and n is 3" in errors["line 4"]
    record = json.loads((out / "results.jsonl").read_text())
    images = [Image.open(out / name) for name in record["pictures"]]
    assert [image.info["seed"] for image in images] == ["5", "6"]
    assert record["seeds"] == [5, 6]


# --- stats ---------------------------------------------------------------------------------------


def test_stats_count_tokens_hits_requests_and_blocks(folder: Path):
    with unitok.load(folder, device="cpu", memory="16MB") as model:
        empty = model.stats()
        assert (empty.generated_tokens, empty.tokens_per_second, empty.hit_rate) == (0, 0.0, 0.0)
        model.caption(picture(), "a dog " * 20, max_tokens=7)
        first = model.stats()
        assert isinstance(first, Stats) and first.generated_tokens == 7
        assert first.tokens_per_second > 0
        model.caption(picture(), "a dog " * 20, max_tokens=7)
        again = model.stats()
        assert again.cached_tokens > first.cached_tokens and 0 < again.hit_rate < 1
        assert again.cached_tokens + again.computed_tokens == again.prompt_tokens
        results = model.run([Caption(picture(i), max_tokens=9 * i + 2) for i in range(4)])
        next(results)
        assert model.stats().used_blocks > 0
        results.close()
        assert model.driver.wait_until_idle(PATIENCE)
        done = model.stats()
        assert (done.running_requests, done.waiting_requests, done.used_blocks) == (0, 0, 0)


def test_stats_are_a_line_for_people(model: Model):
    counts = vars(model.driver.engine.stats) | {
        "running_requests": 2,
        "waiting_requests": 3,
        "generated_tokens": 1024,
        "prompt_tokens": 8000,
        "cached_tokens": 2000,
        "num_blocks": 100,
        "free_blocks": 60,
    }
    assert repr(Stats(**counts, tokens_per_second=349.6)) == (
        "<unitok.Stats: requests: 2 running, 3 waiting; generated: 1,024 tokens, 350 per second; "
        "prompts: 8,000 tokens, 25% from the cache; blocks: 40 used, 60 free>"
    )


def test_the_rate_is_that_of_the_last_seconds_with_work():
    meter = Throughput()
    assert meter.rate == 0
    meter.begin(100.0, 50)
    assert meter.rate == 0
    meter.note(100.5, 60)
    assert meter.rate == 20
    for second in range(1, 31):  # 20 tokens a second, then 40
        meter.begin(100.0 + second, 0)
        meter.note(100.0 + second, 50 + 20 * second + 20 * max(second - 15, 0))
    assert meter.rate == 40, "of the last ten seconds"
    meter.rest()
    assert meter.rate == 40, "it stays while nothing is done"
    meter.begin(500.0, 1000)
    meter.note(502.0, 1010)
    assert meter.rate == 5, "the rest does not count"


def test_the_rate_forgets_what_was_more_than_ten_seconds_ago_to_the_second():
    meter = Throughput()
    meter.begin(0.0, 0)
    for second in range(1, 24):  # 100 tokens in the thirteenth second alone
        meter.note(float(second), 100 if second >= 13 else 0)
        assert (meter.rate > 0) == (13 <= second < 23), second
