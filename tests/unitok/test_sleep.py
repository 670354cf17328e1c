"""A model that is paused or asleep keeps requests waiting, and then gives what it would have."""

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import torch

import unitok
from tests.unitok.test_weight_updates import PATIENCE, changed, draw, fresh, seen, wait_for
from tests.unitok.tiny import save_tiny
from unitok_engine import Engine

LONG = "a dog and " * 10 + "a cat"  # longer than a block of keys and values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(folder: Path) -> Iterator[unitok.Model]:
    with unitok.load(folder, device="cpu", dtype="float32", memory="8MB", drafts=False) as made:
        yield made


def test_a_pause_in_the_middle_of_a_drawing_changes_nothing(model: unitok.Model):
    whole = seen(model.draw("a dog", seed=5, guidance=2.0))
    events = model.stream(draw(5))
    next(events)  # it has begun
    model.pause()
    paused_at = model.stats().forwards
    late = model.driver.submit(model.prepare.job(draw(6)))
    wait_for(lambda: model.stats().waiting_requests == 1)
    assert model.stats().forwards == paused_at
    assert not model.driver.wait_until_idle(0.05)
    model.resume()
    *_, last = events
    assert last.result is not None and seen(last.result) == whole
    assert late.result(PATIENCE).error is None
    assert model.driver.wait_until_idle(PATIENCE)


def test_weights_are_not_updated_while_a_pause_holds_what_has_begun(
    folder: Path, model: unitok.Model
):
    events = model.stream(draw(5))
    next(events)
    model.pause()
    with pytest.raises(RuntimeError, match="the model is paused, and requests have begun"):
        model.update_weights(changed(folder))
    with pytest.raises(RuntimeError, match="resume it first"):
        model.sleep()
    model.resume()
    *_, last = events
    assert last.result is not None and last.result.weight_version == 0


def test_sleep_gives_the_memory_of_keys_and_values_back(model: unitok.Model):
    before = seen(model.draw(LONG, seed=5, guidance=2.0))
    awake = model.stats()
    assert awake.cached_blocks > 0
    keys = weakref.ref(cast(Engine, model.driver.engine).runner.attention)
    model.sleep()
    model.sleep()  # sleeping again does nothing
    assert keys() is None, "something holds the old keys and values"
    asleep = model.stats()
    assert asleep.memory * awake.num_blocks == awake.memory and asleep.cached_blocks == 0
    model.wake()
    model.wake()
    assert model.stats().memory == awake.memory
    cached = model.stats().cached_tokens
    assert seen(model.draw(LONG, seed=5, guidance=2.0)) == before
    assert model.stats().cached_tokens == cached, "nothing is found of what was computed before"


def test_weights_may_be_updated_in_sleep_and_requests_wait_for_the_end_of_it(
    folder: Path, model: unitok.Model
):
    new = changed(folder)
    with fresh(folder, new) as one:
        expected = seen(one.draw("a dog", seed=5, guidance=2.0))
    model.sleep()
    waiting = model.driver.submit(model.prepare.job(draw(5)))
    assert model.update_weights(new) == 1
    assert model.stats().forwards == 0 and not waiting.done
    model.wake()
    result = waiting.result(PATIENCE)
    assert (result.weight_version, seen(result)) == (1, expected)


def test_sleep_waits_for_what_has_begun(model: unitok.Model):
    whole = seen(model.draw("a dog", seed=5, guidance=2.0))
    events = model.stream(draw(5))
    next(events)
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(model.sleep)
        *_, last = events
        sleeping.result(PATIENCE)
    assert last.result is not None and seen(last.result) == whole
    assert model.driver.engine.paused


def test_a_model_that_sleeps_can_be_closed_and_its_requests_end(folder: Path):
    with unitok.load(folder, device="cpu", dtype="float32", memory="8MB") as model:
        model.sleep()
        waiting = model.driver.submit(model.prepare.job(draw(5)))
    assert waiting.result(PATIENCE).finish_reason == "abort"


def test_a_timeout_ends_a_request_that_waits_for_a_model_asleep(model: unitok.Model):
    model.sleep()
    with pytest.raises(TimeoutError):
        model.draw("a dog", seed=5, timeout=0.05)
    model.wake()
    assert torch.isfinite(torch.tensor(model.stats().tokens_per_second))
    assert model.draw("a dog", seed=5).error is None
