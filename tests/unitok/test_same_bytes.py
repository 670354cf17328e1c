"""A seed gives the same bytes on a CPU: alone, in a crowd of any size, and in any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unitok
from tests.unitok.tiny import save_tiny
from unitok import Caption, Draw, DrawResult, Model, TextResult

REQUESTS = 100
PROMPTS = ("a dog", "two apples", "a cat left of a house", "three stars")
GUIDANCE = (None, 1.0, 2.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bytes") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    with unitok.load(folder, device="cpu", memory="64MB") as made:
        yield made


def picture(seed: int) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


def asked(index: int) -> Caption | Draw:
    """The requests of the crowd: captions of several lengths, drawings of 1, 2 and 3 samples."""
    if index % 3 == 0:
        length = 3 + index % 11
        return Caption(picture(index % 7), max_tokens=length, seed=index, temperature=1.0)
    return Draw(
        PROMPTS[index % 4],
        seed=index,
        n=1 + index % 5 % 3,
        guidance=GUIDANCE[index % 7 % 3],
        negative_prompt="a boat" if index % 7 == 2 else None,
    )


def contents(result: TextResult | DrawResult) -> str | list[bytes]:
    """What a result holds that must not depend on other requests."""
    if isinstance(result, TextResult):
        return result.text
    return [image.tobytes() for image in result.images]


def run(model: Model, requests: Sequence[Caption | Draw]) -> list[str | list[bytes]]:
    """The contents of all results, in the order of the requests."""
    results = sorted(model.run(requests), key=lambda result: result.index)
    assert all(result.error is None for result in results)
    return [contents(result) for result in results]


@pytest.fixture(scope="module")
def alone(model: Model) -> list[str | list[bytes]]:
    return [run(model, [asked(index)])[0] for index in range(REQUESTS)]


def test_100_mixed_requests_give_the_bytes_of_each_alone(
    model: Model, alone: list[str | list[bytes]]
):
    assert run(model, [asked(index) for index in range(REQUESTS)]) == alone
    drawn = [picture for made in alone if isinstance(made, list) for picture in made]
    assert len(drawn) > 100 and len(set(drawn)) == len(drawn), "the pictures must differ"


def test_neither_order_nor_another_process_of_the_model_matters(
    folder: Path, alone: list[str | list[bytes]]
):
    with unitok.load(folder, device="cpu", memory="64MB") as other:
        backwards = run(other, [asked(index) for index in reversed(range(REQUESTS))])
    assert backwards[::-1] == alone


def test_the_first_samples_of_16_are_those_of_fewer(model: Model):
    many = model.draw("two apples", seed=3, n=16).images
    for count in (1, 2, 5):
        few = model.draw("two apples", seed=3, n=count).images
        assert [image.tobytes() for image in few] == [i.tobytes() for i in many[:count]]
    assert len({image.tobytes() for image in many}) == 16
