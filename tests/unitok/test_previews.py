"""Previews of drawings: when they come, what they show, and that they change nothing."""

import asyncio
import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import unitok
from tests.unitok.golden import folders
from tests.unitok.tiny import same, save_tiny
from unitok import Caption, Draw, Edit, Event
from unitok.api import Model
from unitok.batch.own_lines import check_option
from unitok.image_decoder import ImageDecoder
from unitok.previews import Previews, filled, marks
from unitok.requests import streamed_options
from unitok_engine import EngineConfig, FixedPlan, GridPlan, IdRange, Output

PATIENCE = 60  # seconds, for what takes none
IDS = IdRange(10, 30)
ALL = Draw("a", preview=True, preview_count=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("previews") / "tiny")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Model]:
    with unitok.load(folder, device="cpu", memory="16MB") as model:
        yield model


def beside(shared: Model, background: bool = False, **options: object) -> Model:
    """Another model with the same weights."""
    config = EngineConfig(memory=2**24, max_context=shared.family.max_context)
    decoder = ImageDecoder(shared.device, background, **options)  # type: ignore[arg-type]
    return Model(shared.family, config, decoder)


def between_steps(folder: Path) -> Model:
    """A model that decodes between steps, so that no preview comes too late."""
    with unitok.load(folder, device="cpu", memory="16MB") as loaded:
        return beside(loaded)


@pytest.fixture
def model(shared: Model) -> Iterator[Model]:
    """A model that decodes between steps. Whatever a test did, nothing of it is left."""
    with beside(shared) as model:
        yield model
        check_idle(model)


def check_idle(model: Model) -> None:
    gc.collect()
    assert model.driver.wait_until_idle(PATIENCE)
    assert model.stats().free_blocks == model.stats().num_blocks
    assert not model.driver._flights and not model.driver._decoding_images
    assert not model.driver.image_decoder._previews and not model.driver.image_decoder._waiting


def previews_of(events: Sequence[Event], sample: int = 0) -> list[Event]:
    return [e for e in events if e.kind == "preview" and e.sample == sample]


def output(ids: Sequence[int], start: int = 0) -> Output:
    return Output(0, 0, tuple(ids), start, 1)


# --- parts ---------------------------------------------------------------------------------------


def test_previews_are_spread_evenly_over_the_rows():
    assert marks(24, 3) == (6, 12, 18)
    assert marks(8, 3) == (2, 4, 6)
    assert marks(8, None) == tuple(range(1, 8))
    assert marks(8, 1) == (4,)
    assert marks(4, 100) == (1, 2, 3), "never of no row, nor of all"
    assert marks(1, 3) == marks(1, None) == ()


@pytest.mark.parametrize(("row_end", "closing"), [(None, ()), (5, (6, 7))])
def test_the_rest_of_a_picture_is_its_most_frequent_token(row_end, closing):
    plan = GridPlan(IDS, 3, 2, row_end, closing)
    ends = [] if row_end is None else [row_end]
    row, other = [11, 12, *ends], [12, 13, *ends]
    assert plan.image_ids(filled(plan, [*row, *other, 11])) == [11, 12, 12, 13, 12, 12]
    assert len(filled(plan, row)) == plan.max_length
    whole = [*row, *other, *row, *closing]
    assert plan.image_ids(filled(plan, whole)) == plan.image_ids(whole)
    edited = GridPlan(IDS, 3, 2, row_end, closing, known=(12, None, None, 14, 13, None))
    assert edited.image_ids(filled(edited, row)) == [11, 12, 11, 14, 13, 11], "what is known stays"


class Recorder(ImageDecoder):
    """Decodes nothing until it is told to, and then all."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), background=False)

    def finish(self) -> None:
        while self._previews:
            self.work()


def levels(ids: Sequence[Sequence[int]]) -> Tensor:
    return (torch.tensor(ids) + 0.5)[:, None, None, :].expand(-1, 3, -1, -1) / 255


def rows_made(previews: Previews) -> list[int]:
    return [preview.rows for preview in previews.take()]


def test_a_preview_that_waits_gets_the_newest_rows_and_the_next_comes_at_the_next_mark():
    plan, decoder = GridPlan(IDS, 8, 1), Recorder()
    previews = Previews(Draw("a", preview=True, preview_count=3), plan, levels, decoder)
    outputs = []
    for row in range(3):
        outputs.append(output([20 + row], row))
        previews.update(0, outputs)
    assert len(decoder._previews) == 1
    decoder.finish()
    (made,) = previews.take()
    assert (made.sample, made.rows, made.of) == (0, 3, 8), "due after 2 rows, and 3 were there"
    assert made.pixels[0, :3, 0].tolist() == [20, 21, 22]
    assert rows_made(previews) == [], "each is taken once"
    previews.update(0, outputs)
    assert not decoder._previews
    previews.update(0, [*outputs, output([23], 3)])
    decoder.finish()
    assert rows_made(previews) == [4]


def test_the_first_preview_of_all_shows_half_of_the_picture():
    """What it costs is not known yet, so that the budget cannot tell when to have it."""
    plan, decoder = GridPlan(IDS, 8, 1), Recorder()
    previews = Previews(Draw("a", preview=True), plan, levels, decoder)
    outputs = [output([20 + row], row) for row in range(4)]
    for rows in (1, 2, 3):
        previews.update(0, outputs[:rows])
        assert not decoder._previews
    previews.update(0, outputs)
    decoder.finish()
    assert rows_made(previews) == [4]
    decoder.preview_cost.note(0.0, tokens=1, previews=True)
    later = Previews(Draw("a", preview=True), plan, levels, decoder)
    later.update(0, outputs[:1])
    decoder.finish()
    assert rows_made(later) == [1]


def test_of_several_tokens_a_step_only_whole_rows_are_shown():
    plan, decoder = GridPlan(IDS, 4, 3, row_end=5), Recorder()
    previews = Previews(ALL, plan, levels, decoder)
    previews.update(0, [output([11, 11])])
    assert not decoder._previews
    previews.update(0, [output([11, 11]), output([11, 5, 12, 12, 12, 5, 13], 2)])
    decoder.finish()
    (made,) = previews.take()
    assert made.rows == 2
    assert plan.image_ids(made.pixels[0, :, 0].tolist())[:9] == [11] * 3 + [12] * 3 + [11] * 3


def test_what_has_ended_has_no_preview():
    decoder = Recorder()
    previews = Previews(ALL, GridPlan(IDS, 4, 1), levels, decoder)
    for sample in range(2):
        previews.update(sample, [output([11])])
    (first, _) = previews.pictures
    previews.end(0)
    assert first.cancelled() and len(decoder._previews) == 1
    decoder.finish()
    assert [preview.sample for preview in previews.take()] == [1]
    previews.end(7)


def test_a_preview_that_cannot_be_decoded_is_the_last(caplog: pytest.LogCaptureFixture):
    def fragile(ids: Sequence[Sequence[int]]) -> Tensor:
        raise MemoryError("no\nroom")

    decoder = Recorder()
    previews = Previews(ALL, GridPlan(IDS, 4, 1), fragile, decoder)
    previews.update(0, [output([11])])
    decoder.finish()
    with caplog.at_level(logging.WARNING, "unitok"):
        assert rows_made(previews) == []
    assert "no more previews, as one failed: no room" in caplog.text
    previews.update(0, [output([11, 12])])
    assert not decoder._previews


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_shows_the_rows_so_far_and_the_picture_is_the_same(model: Model):
    plain = model.draw("a dog", seed=3, logprobs=True)
    events = list(model.stream(Draw("a dog", seed=3, logprobs=True, preview=True, preview_count=3)))
    result = events[-1].result
    assert isinstance(result, unitok.DrawResult)
    assert result.token_ids == plain.token_ids and result.logprobs == plain.logprobs
    assert same(result.image, plain.image)
    shown = previews_of(events)
    assert [event.rows for event in shown] == [1, 2, 3], "of 4 rows"
    assert all(event.image is not None and event.image.size == (64, 64) for event in shown)
    kinds = [event.kind for event in events]
    assert kinds[-2:] == ["image", "result"] and kinds.index("image") > kinds.index("preview")
    assert plain.token_ids is not None
    plan, ids = model.family.plan, plain.token_ids[0]  # type: ignore[attr-defined]
    pixels = model.family.decode_images([filled(plan, ids[:8])])[0]  # type: ignore[attr-defined]
    array = pixels.mul(255).byte().permute(1, 2, 0).numpy()
    assert same(shown[1].image, Image.fromarray(array))  # type: ignore[arg-type]


def test_a_preview_says_what_it_is(model: Model, tmp_path: Path):
    events = list(model.stream(Draw("a dog", seed=3, preview=True, preview_count=1)))
    (event,) = previews_of(events)
    assert repr(event) == "<Event preview: number 0, 64 x 64 pixels, 2 rows>"
    assert event.image is not None
    event.image.save(tmp_path / "half.png")
    said = unitok.read_info(tmp_path / "half.png")
    assert said["preview"] == "2 of 4 rows"
    assert (said["prompt"], said["seed"], said["sample"]) == ("a dog", "3", "0")


def test_each_of_several_pictures_has_its_own_and_none_after_its_end(model: Model):
    asked = Draw("a dog", seed=3, n=3, preview=True, preview_count=2)
    events = list(model.stream(asked))
    for sample in range(3):
        assert [event.rows for event in previews_of(events, sample)] == [1, 3]
        places = [i for i, e in enumerate(events) if e.image is not None and e.sample == sample]
        assert events[places[-1]].kind == "image"
    assert events[-1].result is not None
    assert same(events[-1].result.images[2], model.draw("a dog", seed=3, n=3).images[2])  # type: ignore[union-attr]


def test_who_did_not_ask_or_does_not_look_has_none_decoded(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise AssertionError("a preview")

    monkeypatch.setattr(model.driver.image_decoder, "submit_preview", refuse)
    assert not previews_of(list(model.stream(Draw("a dog", seed=3))))
    model.draw("a dog", seed=3, preview=True)
    (result,) = model.run([Draw("a dog", seed=3, preview=True, preview_count=3)])
    assert result.error is None


def test_without_a_stream_a_warning_says_that_there_are_no_previews(model: Model):
    async def ask() -> None:
        await model.adraw("a dog", preview=True)

    for call in (
        lambda: model.draw("a dog", preview=True),
        lambda: asyncio.run(ask()),
        lambda: list(model.run([Draw("a dog", preview=True, preview_count=1)])),
        lambda: model.chat().draw("a dog", preview=True),
    ):
        with pytest.warns(UserWarning, match="preview does nothing here: only a stream has"):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.draw("a dog")
        list(model.stream(Draw("a dog", preview=True, preview_count=1)))


def test_what_is_for_streams_is_marked_in_the_table_of_options():
    assert streamed_options(Edit) == ("preview", "preview_count", "preview_budget")
    for made in (Draw, Edit):
        kind = made.__name__.lower()
        for name in streamed_options(made):
            with pytest.raises(ValueError, match=f'"{name}" is for pictures that are watched'):
                check_option(kind, name, True)
    assert streamed_options(Caption) == ()


def test_a_reader_who_is_slow_gets_the_newest_of_each_picture(model: Model):
    asked = Draw("a dog", seed=3, n=2, preview=True, preview_count=3)
    handle = model.driver.submit(model.prepare.job(asked), stream=True)
    handle.result(PATIENCE)
    kinds = [event.kind for event in handle]
    assert kinds.count("preview") == 0, "the pictures themselves are newer"
    assert kinds.count("image") == 2 and kinds[-1] == "result"


def test_unread_previews_become_one(model: Model):
    job = model.prepare.job(Draw("a dog", preview=True))
    one, other = Event("preview", sample=0, rows=1), Event("preview", sample=0, rows=2)
    assert job.merge(one, other) is other
    assert job.merge(one, Event("image", sample=0)) is not None
    for new in (Event("preview", sample=1), Event("image", sample=1), Event("tokens")):
        assert job.merge(one, new) is None
    assert job.merge(Event("tokens"), one) is None
    assert job.merge(Event("image"), one) is None


def test_a_budget_limits_them_and_a_count_alone_does_not(shared: Model):
    """By a clock that stands still, no time passes in which previews could have a share."""
    with beside(shared, clock=lambda: 0.0) as model:
        model.driver.image_decoder.preview_cost.note(1.0, tokens=16, previews=False)
        options: tuple[dict[str, Any], ...] = ({}, {"preview_budget": 1.0}, {"preview_count": 3})
        model.driver.image_decoder.preview_cost.note = lambda *_, **__: None
        counts = [
            len(previews_of(list(model.stream(Draw("a dog", seed=3, preview=True, **given)))))
            for given in options
        ]
        assert counts == [0, 0, 3]
        check_idle(model)


def test_a_stream_that_is_closed_leaves_nothing(model: Model):
    events = model.stream(Draw("a dog", n=4, preview=True, preview_count=3))
    for event in events:
        if event.kind == "preview":
            break
    events.close()
    check_idle(model)


def test_no_preview_follows_the_end(model: Model):
    asked = Draw("a dog", n=4, preview=True, preview_count=3)
    handle = model.driver.submit(model.prepare.job(asked), stream=True)
    events = iter(handle)
    while next(events).kind != "preview":
        pass
    handle.cancel()
    rest = list(events)
    result = rest[-1].result
    assert result is not None and result.finish_reason in ("abort", "complete")
    assert handle._flight.job.new_events() == []


@pytest.mark.parametrize("background", [False, True], ids=["between steps", "in a thread"])
def test_async_streams_have_them_and_a_cancelled_task_leaves_nothing(
    shared: Model, background: bool
):
    async def first(model: Model) -> Event:
        asked = Draw("a dog", seed=3, n=2, preview=True, preview_count=100)
        async for event in model.astream(asked):
            if event.kind == "preview":
                return event
        raise AssertionError("no preview came")

    async def broken_off(model: Model) -> None:
        task = asyncio.create_task(first(model))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with beside(shared, background) as model:
        if not background:  # a thread may be too slow for any, on a busy machine
            assert asyncio.run(first(model)).image is not None
        asyncio.run(broken_off(model))
        check_idle(model)


def test_a_thread_decodes_them_too_and_the_picture_is_the_same(shared: Model):
    plain = shared.draw("a dog", seed=3, n=3)
    with beside(shared, background=True) as model:
        result = list(model.stream(Draw("a dog", seed=3, n=3, preview=True)))[-1].result
        assert isinstance(result, unitok.DrawResult)
        assert all(map(same, result.images, plain.images))
        check_idle(model)


def test_a_preview_that_fails_leaves_the_picture(model: Model, monkeypatch: pytest.MonkeyPatch):
    plan = model.family.plan  # type: ignore[attr-defined]
    decode = model.family.decode_images  # type: ignore[attr-defined]
    whole = model.draw("a dog", seed=3, logprobs=True)
    assert whole.token_ids is not None
    final = plan.image_ids(whole.token_ids[0])

    def fragile(ids):
        if plan.image_ids(ids[0]) != final:
            raise OSError("no paint")
        return decode(ids)

    monkeypatch.setattr(model.family, "decode_images", fragile)
    events = list(model.stream(Draw("a dog", seed=3, preview=True, preview_count=3)))
    assert not previews_of(events)
    assert same(events[-1].result.image, whole.image)  # type: ignore[union-attr]


# --- families and drafts -------------------------------------------------------------------------

FAMILIES: dict[str, dict[str, Any]] = {
    "janus": {},
    "anole": {},
    "unitoken-base": {},
    "emu3": {"width": 32, "height": 24},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_that_draws_in_rows_has_previews(name: str, tmp_path: Path):
    options = FAMILIES[name]
    with between_steps(folders.FOLDERS[name](tmp_path / name)) as model:
        plain = model.draw("a dog", seed=3, **options)
        asked = Draw("a dog", seed=3, preview=True, preview_count=2, **options)
        events = list(model.stream(asked))
        assert same(events[-1].result.image, plain.image)  # type: ignore[union-attr]
        shown = previews_of(events)
        assert len(shown) == 2
        assert [e.image.size for e in shown] == [plain.image.size] * 2  # type: ignore[union-attr]
        check_idle(model)


def test_a_model_that_does_not_draw_in_rows_says_so_and_draws(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    spec_of = model.family.generation_spec

    def without_rows(messages, options):
        spec = spec_of(messages, options)
        plan = FixedPlan(spec.plan.id_range, spec.plan.max_length)  # type: ignore[attr-defined]
        return type(spec)(spec.branches, plan, spec.decode)

    monkeypatch.setattr(model.family, "generation_spec", without_rows)
    with pytest.warns(UserWarning, match="tiny does not draw row by row: there are no previews"):
        events = list(model.stream(Draw("a dog", seed=3, preview=True)))
    assert not previews_of(events) and events[-1].result is not None


def test_an_edit_has_previews_too(tmp_path: Path):
    with between_steps(save_tiny(tmp_path / "tiny-Janus-4o")) as model:
        picture = Image.new("RGB", (64, 64), "pink")
        asked = Edit(picture, "a cat on a blue background", seed=3, preview=True, preview_count=1)
        events = list(model.stream(asked))
        assert len(previews_of(events)) == 1
        plain = model.edit(picture, "a cat on a blue background", seed=3)
        assert same(events[-1].result.image, plain.image)  # type: ignore[union-attr]


def test_of_a_part_that_is_painted_only_one_try_has_previews(model: Model):
    asked = Edit(Image.new("RGB", (64, 64), "pink"), "a cat", box=(0, 16, 64, 48), preview=True)
    asked = replace(asked, seed=3, preview_count=3)
    with pytest.warns(UserWarning, match="there are no previews of several tries: give tries=1"):
        events = list(model.stream(asked))
    assert not previews_of(events) and events[-1].result is not None
    assert previews_of(list(model.stream(replace(asked, tries=1))))


def test_with_drafts_previews_show_whole_rows_and_the_picture_is_the_same():
    with unitok.load() as loaded:
        decoder = ImageDecoder(loaded.device, background=False)
        model = Model(loaded.family, image_decoder=decoder, drafts=True)
    with model:
        plain = model.draw("two apples", seed=1)
        asked = Draw("two apples", seed=1, preview=True, preview_count=3)
        events = list(model.stream(asked))
        result = events[-1].result
        assert isinstance(result, unitok.DrawResult) and result.tokens_per_step > 1
        assert same(result.image, plain.image)
        assert 1 <= len(previews_of(events)) <= 3


def test_a_chat_shows_them_while_it_draws(model: Model):
    events = list(model.chat().stream_drawing("a dog", seed=3, preview=True, preview_count=3))
    assert len(previews_of(events)) == 3


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"preview_count": 3}, {"preview_budget": 0.1}])
def test_what_does_nothing_without_previews_is_refused(options: dict):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} does nothing without preview: give both$"):
        Draw("a dog", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preview_count": 0}, "preview_count must be at least 1 and at most 100, not 0"),
        ({"preview_count": 101}, "preview_count must be at least 1 and at most 100, not 101"),
        ({"preview_budget": 0}, "preview_budget must be above 0 and at most 1, not 0"),
        ({"preview_budget": 1.5}, "preview_budget must be above 0 and at most 1, not 1.5"),
    ],
)
def test_options_have_ranges(model: Model, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        model.draw("a dog", preview=True, **options)
