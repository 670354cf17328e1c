"""Ids of drawings to pixels, beside the steps or between them: batches, faults, ends.

Batches are what CUDA gets; here they are asked for on the CPU.
"""

import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, wait

import pytest
import torch
from torch import Tensor

from unitok.cores import keep_to, usable_cores
from unitok.image_decoder import IMAGES_PER_CALL_ON_CPU as IMAGES_PER_CALL
from unitok.image_decoder import TOKENS_PER_CALL, ImageDecoder

CPU = torch.device("cpu")
PATIENCE = 60  # seconds, for what takes none


class Brush:
    """Decodes one pixel per id, which is its level; a negative id cannot be decoded."""

    def __init__(self, most: int = 100) -> None:
        self.calls: list[list[int]] = []  # the first ids of each picture of each call
        self.threads: set[str] = set()
        self.most = most  # pictures that find room at once

    def decode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        self.calls.append([one[0] for one in ids])
        self.threads.add(threading.current_thread().name)
        if len(ids) > self.most:
            raise MemoryError("out of memory")
        if min(min(one) for one in ids) < 0:
            raise OSError("no such\ncolour")
        levels = torch.tensor(ids) + 0.5  # as fractions are cut off
        return levels[:, None, None, :].expand(-1, 3, -1, -1) / 255


@pytest.fixture(params=[False, True], ids=["between steps", "in a thread"])
def background(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def decoder(background: bool) -> ImageDecoder:
    return ImageDecoder(CPU, background)


@pytest.fixture
def batcher(background: bool) -> ImageDecoder:
    return ImageDecoder(CPU, background, batched=True)


def decode_all(decoder: ImageDecoder, pictures: Sequence[Future[Tensor]]) -> None:
    for _ in range(len(pictures) + 1):
        decoder.work()
    assert not wait(pictures, timeout=PATIENCE).not_done


ORDERS = [(0, (1, 2)), (0, (3, 4)), (1, (5, 6)), (0, (7,)), (0, (8, 9))]  # a brush, and ids


def test_on_a_cpu_each_picture_is_decoded_alone(decoder: ImageDecoder):
    brushes = Brush(), Brush()
    pictures = [decoder.submit(brushes[i].decode, ids) for i, ids in ORDERS]
    decode_all(decoder, pictures)
    assert brushes[0].calls == [[1], [3], [7], [8]] and brushes[1].calls == [[5]]
    for (_, ids), picture in zip(ORDERS, pictures, strict=True):
        assert picture.result().dtype == torch.uint8
        assert picture.result().tolist() == [[[id] * 3 for id in ids]]
    beside = {name.startswith("unitok-image-decoder") for name in brushes[0].threads}
    assert beside == {decoder._worker is not None}


def test_in_batches_what_waits_together_and_is_alike_is_decoded_in_one_call(batcher: ImageDecoder):
    brushes = Brush(), Brush()
    pictures = [batcher.submit(brushes[i].decode, ids) for i, ids in ORDERS]
    decode_all(batcher, pictures)
    assert brushes[0].calls == [[1, 3, 8], [7]] and brushes[1].calls == [[5]]
    for (_, ids), picture in zip(ORDERS, pictures, strict=True):
        assert picture.result().tolist() == [[[id] * 3 for id in ids]]


def test_a_call_is_bounded_in_pictures_and_in_ids(batcher: ImageDecoder):
    brush, large = Brush(), Brush()
    small = [batcher.submit(brush.decode, (i,)) for i in range(2 * IMAGES_PER_CALL + 3)]
    big = [batcher.submit(large.decode, (i,) * (TOKENS_PER_CALL // 2)) for i in range(3)]
    huge = [batcher.submit(large.decode, (i,) * (2 * TOKENS_PER_CALL)) for i in range(2)]
    decode_all(batcher, [*small, *big, *huge])
    assert list(map(len, brush.calls)) == [IMAGES_PER_CALL, IMAGES_PER_CALL, 3]
    assert list(map(len, large.calls)) == [2, 1, 1, 1]


@pytest.mark.parametrize(("batched", "most"), [(False, 1), (True, IMAGES_PER_CALL)])
def test_between_steps_one_call_is_made_at_a_time(batched: bool, most: int):
    decoder, brush = ImageDecoder(CPU, background=False, batched=batched), Brush()
    for i in range(IMAGES_PER_CALL + 1):
        decoder.submit(brush.decode, (i,))
    decoder.work()
    assert list(map(len, brush.calls)) == [most]


@pytest.mark.parametrize("batched", [False, True])
def test_one_that_cannot_be_decoded_fails_alone(background: bool, batched: bool):
    decoder, brush = ImageDecoder(CPU, background, batched), Brush()
    pictures = [decoder.submit(brush.decode, (id,)) for id in (4, -1, 5)]
    decode_all(decoder, pictures)
    assert isinstance(pictures[1].exception(), OSError)
    assert [pictures[i].result().tolist() for i in (0, 2)] == [[[[4] * 3]], [[[5] * 3]]]
    assert brush.calls == ([[4, -1, 5]] if batched else []) + [[4], [-1], [5]]


def test_a_batch_that_fails_though_each_alone_does_not_is_warned_of():
    decoder, brush = ImageDecoder(CPU, background=False, batched=True), Brush(most=1)
    pictures = [decoder.submit(brush.decode, (id,)) for id in (4, 5)]
    with pytest.warns(UserWarning, match="2 pictures had to be decoded one by one: out of memory"):
        decoder.work()
    assert [int(p.result().max()) for p in pictures] == [4, 5]


def test_fractions_of_levels_are_cut_off(decoder: ImageDecoder):
    """As in the code of the families' authors."""
    levels = torch.tensor([0.0, 0.99, 1.01, 127.5, 254.99, 255.0])
    pixels = (levels / 255).expand(1, 3, 1, -1)
    picture = decoder.submit(lambda ids: pixels, (1,))
    decode_all(decoder, [picture])
    assert picture.result()[0, :, 0].tolist() == [0, 0, 1, 127, 254, 255]


def test_too_few_pictures_are_an_error(decoder: ImageDecoder):
    picture = decoder.submit(lambda ids: torch.zeros(0, 3, 1, 1), (1,))
    decode_all(decoder, [picture])
    with pytest.raises(ValueError, match="0 pictures were decoded, not 1"):
        picture.result()


def test_what_nobody_wants_is_not_decoded(decoder: ImageDecoder):
    brush = Brush()
    kept, dropped = (decoder.submit(brush.decode, (i,)) for i in range(2))
    decoder.cancel([dropped])
    assert dropped.cancelled() and len(decoder._waiting) == 1
    decode_all(decoder, [kept])
    assert brush.calls == [[0]]


@pytest.mark.parametrize("batched", [False, True])
def test_one_that_is_dropped_while_it_is_decoded_harms_no_other(background: bool, batched: bool):
    decoder, brush = ImageDecoder(CPU, background, batched), Brush()

    def decode(ids: Sequence[Sequence[int]]) -> Tensor:
        decoder.cancel([dropped])
        return brush.decode(ids)

    dropped, kept = (decoder.submit(decode, (i,)) for i in range(2))
    decode_all(decoder, [kept])
    assert dropped.cancelled() and int(kept.result().max()) == 1


@pytest.mark.parametrize("batched", [False, True])
def test_what_was_interrupted_is_decoded_later(batched: bool):
    decoder, brush, calls = ImageDecoder(CPU, False, batched), Brush(), []

    def decode(ids: Sequence[Sequence[int]]) -> Tensor:
        calls.append(len(ids))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return brush.decode(ids)

    pictures = [decoder.submit(decode, (i,)) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        decoder.work()
    decode_all(decoder, pictures)
    assert [int(p.result().max()) for p in pictures] == [0, 1, 2]


def test_idle_work_does_nothing(decoder: ImageDecoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            decoder.work()
    assert not decoder.has_work
    if decoder._worker is not None:
        assert not decoder._worker._threads, "no thread was woken"


def test_there_is_work_between_steps_while_something_waits_and_never_beside_a_thread(
    decoder: ImageDecoder, background: bool
):
    """Or the driver's thread would turn in vain instead of waiting to be notified."""
    picture = decoder.submit(Brush().decode, (1,))
    assert decoder.has_work is not background
    decode_all(decoder, [picture])
    assert not decoder.has_work


def test_the_thread_notifies_of_each_call_when_its_pictures_are_there():
    decoder, seen = ImageDecoder(CPU, background=True), []
    told = threading.Semaphore(0)

    def notify() -> None:
        seen.append([picture.done() for picture in pictures])
        told.release()

    decoder.notify = notify
    pictures = [decoder.submit(Brush().decode, (i,)) for i in range(2)]
    decoder.work()
    assert told.acquire(timeout=PATIENCE) and told.acquire(timeout=PATIENCE)
    assert seen == [[True, False], [True, True]]


def test_closing_does_not_wait_for_the_picture_that_is_decoded():
    decoder, begun, go_on = ImageDecoder(CPU, background=True), threading.Event(), threading.Event()

    def slow(ids: Sequence[Sequence[int]]) -> Tensor:
        begun.set()
        assert go_on.wait(PATIENCE)
        return Brush().decode(ids)

    picture = decoder.submit(slow, (1,))
    decoder.work()
    assert begun.wait(PATIENCE)
    decoder.close()
    assert not picture.done()
    go_on.set()
    assert int(picture.result(PATIENCE).max()) == 1


def test_a_decoder_that_is_gone_leaves_no_thread():
    decoder = ImageDecoder(CPU, background=True)
    decode_all(decoder, [decoder.submit(Brush().decode, (1,))])
    assert decoder._worker is not None
    (thread,) = decoder._worker._threads
    del decoder
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


LEAVE = """
import torch
from unitok.image_decoder import ImageDecoder
decoder = ImageDecoder(torch.device("cpu"), background=True)
blank = lambda ids: torch.zeros(len(ids), 3, 8, 8)
pictures = [decoder.submit(blank, (0,)) for _ in range(100)]
decoder.work()
"""


def test_python_ends_while_pictures_wait():
    done = subprocess.run(
        [sys.executable, "-c", LEAVE],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("threads", "cores", "background"),
    [(1, 2, True), (2, 2, False), (1, 1, False), (1, None, False)],
)
def test_a_thread_decodes_where_torch_leaves_a_core(
    threads: int, cores: int | None, background: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert (ImageDecoder(CPU)._worker is not None) == background


@pytest.mark.parametrize(("cores", "background"), [({1}, False), ({0, 3}, True)])
def test_a_core_that_the_process_may_not_use_is_not_idle(
    cores: set[int], background: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: cores, raising=False)
    assert (ImageDecoder(CPU)._worker is not None) == background


@pytest.mark.parametrize(("reserved", "background"), [(1, False), (2, True), (9, True)])
def test_a_core_that_is_not_reserved_for_the_process_is_not_idle(
    reserved: int, background: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr("unitok.cores._reserved", None)
    keep_to(reserved)
    assert usable_cores() == min(reserved, 4)
    assert (ImageDecoder(CPU)._worker is not None) == background
