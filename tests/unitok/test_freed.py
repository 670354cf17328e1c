"""What a request held is free once its result is gone, without Python's garbage collector.

The collector counts objects and not their bytes, so pictures that wait for it pile up.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from PIL import Image

import unitok
from unitok import Caption, Draw, Edit, Model, Reply
from unitok.requests import AnyRequest

PICTURE = Image.new("RGB", (64, 64), "pink")
BOX = (0, 0, 32, 32)
REQUESTS: tuple[AnyRequest, ...] = (
    Draw("a red zebra", n=2, seed=1),  # words that the model never saw, of which it warns
    Draw("a cat", seed=1, preview=True),
    Edit(PICTURE, "a cat", box=BOX, seed=1),
    Edit(PICTURE, "a cat", box=BOX, seed=1, tries=2),
    Caption(PICTURE, "is it a zebra?", max_tokens=4),
    Reply([{"role": "user", "content": "a zebra?"}], max_tokens=4),
)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with unitok.load() as model:
        yield model


def run(model: Model) -> None:
    results = list(model.run(REQUESTS))
    assert not [result.error for result in results if result.error]


def stream(model: Model) -> None:
    for asked in REQUESTS[:2]:
        assert list(model.stream(asked))


def submit(model: Model) -> None:
    async def one(asked: AnyRequest) -> None:
        async for _ in await model.asubmit(asked, stream=True):
            pass

    for asked in REQUESTS:
        asyncio.run(one(asked))


@pytest.mark.parametrize("ask", [run, stream, submit])
@pytest.mark.filterwarnings("ignore:this model never saw")
def test_what_a_request_held_is_in_no_cycle(model: Model, ask: Callable[[Model], None]):
    ask(model)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        ask(model)
        gc.collect()
        kept = Counter(type(one) for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = {kind for kind in kept if kind.__module__.partition(".")[0].startswith("unitok")}
    assert not ours and not kept[torch.Tensor], kept
