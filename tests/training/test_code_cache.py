"""Picture codes are computed once, kept whole, and never taken for those of something else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.training.conversations import assistant, conversation, noise, picture, user
from tests.unitok.tiny import save_tiny, tiny_model
from unitok.families import Family, open_folder
from unitok.training.data.code_cache import CodeCache
from unitok.training.data.sequence_maker import CodesError, SequenceMaker


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_model().image_tokenizer


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Family:
    return open_folder(save_tiny(tmp_path_factory.mktemp("tiny")), "cpu", torch.float32)


def pixels(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_codes_are_computed_once(tokenizer, tmp_path: Path):
    cache = CodeCache(tmp_path / "codes", tokenizer)
    first, again = cache(pixels()), cache(pixels())
    assert torch.equal(first, tokenizer.encode(pixels()[None])[0])
    assert torch.equal(first, again) and again.dtype == torch.int64
    assert (cache.hits, cache.misses) == (1, 1)
    later = CodeCache(tmp_path / "codes", tokenizer)
    assert torch.equal(later(pixels()), first) and (later.hits, later.misses) == (1, 0)
    assert not torch.equal(later(pixels(1)), first) and later.misses == 1


def test_another_tokenizer_or_precision_has_codes_of_its_own(tokenizer, tmp_path: Path):
    folder = tmp_path / "codes"
    CodeCache(folder, tokenizer)(pixels())
    other = tiny_model(seed=1).image_tokenizer
    halved = tiny_model().image_tokenizer.bfloat16()
    for changed in (other, halved):
        cache = CodeCache(folder, changed)
        assert torch.equal(cache(pixels()), changed.encode(pixels()[None])[0])
        assert cache.misses == 1
    assert len(files(folder)) == 3


def test_a_file_of_codes_is_written_whole(tokenizer, tmp_path: Path, monkeypatch):
    cache = CodeCache(tmp_path / "codes", tokenizer)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            cache(pixels())
    assert files(cache.folder) == []
    cache(pixels())
    assert [path.suffix for path in files(cache.folder)] == [".safetensors"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "is damaged; remove it"),
        ({"other": torch.zeros(4, 4, dtype=torch.int32)}, "is damaged; remove it"),
        ({"codes": torch.zeros(4, 4)}, "is damaged; remove it"),
        ({"codes": torch.full((4, 4), 48, dtype=torch.int32)}, "codes that the image tokenizer"),
        ({"codes": torch.full((4, 4), -1, dtype=torch.int32)}, "codes that the image tokenizer"),
        (b"0" * (2**20 + 1), "is no file of codes; remove it"),
    ],
)
def test_a_damaged_file_is_named(tokenizer, tmp_path: Path, content: Any, message: str):
    cache = CodeCache(tmp_path / "codes", tokenizer)
    path = cache.path_of(pixels())
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        cache(pixels())
    assert str(path) in str(caught.value)


def test_painted_pictures_have_the_codes_that_are_kept(family: Family, tmp_path: Path):
    noise(1, 80, 64).save(tmp_path / "a.png")
    tokenizer = family.model.image_tokenizer
    cache = CodeCache(tmp_path / "codes", tokenizer)
    maker = SequenceMaker(family, codes=cache)
    talk = conversation(user("a"), assistant(picture("a.png")), folder=tmp_path)
    images = [maker(talk)[0].painted[0] for _ in range(2)]
    expected = tokenizer.encode(family.picture_pixels(noise(1, 80, 64))[None])[0]
    for image in images:
        assert image.codes is not None and torch.equal(image.codes, expected)
        assert torch.equal(image.pixels(), family.picture_pixels(noise(1, 80, 64)))
    assert (cache.hits, cache.misses) == (1, 1)


def test_a_folder_that_is_full_leaves_no_conversation_out(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError("no space left")

    noise().save(tmp_path / "a.png")
    cache = CodeCache(tmp_path / "codes", family.model.image_tokenizer)
    maker = SequenceMaker(family, codes=cache, on_error="skip")
    monkeypatch.setattr("unitok.training.data.code_cache.write_whole", full)
    with pytest.raises(CodesError, match="codes: no space left"):
        maker(conversation(user("a"), assistant(picture("a.png")), folder=tmp_path))
    assert maker.left_out.skipped == 0
