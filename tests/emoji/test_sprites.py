import pytest
import torch

from unitok.emoji.sprites import DATA, MARGIN, NAMES, SIZES, TILE, glyphs, sprites


def test_there_are_forty_objects_with_one_lower_case_word_each():
    assert len(NAMES) == len(set(NAMES)) == len(set(glyphs().values())) == 40
    assert all(name.isascii() and name.isalpha() and name.islower() for name in NAMES)


def test_no_plural_is_another_objects_name():
    assert not {f"{name}s" for name in NAMES} & set(NAMES)


@pytest.mark.parametrize("size", SIZES)
def test_sprites_are_premultiplied_and_leave_their_margin_free(size):
    side, margin = size * TILE, MARGIN[size]
    images = sprites(size)
    assert images.shape == (40, 4, side, side) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert (images[:, :3] <= images[:, 3:]).all()
    border = torch.ones(side, side, dtype=torch.bool)
    border[margin:-margin, margin:-margin] = False
    assert not images[..., border].any()


@pytest.mark.parametrize("size", SIZES)
def test_every_sprite_fills_its_room_and_is_centred(size):
    side, margin = size * TILE, MARGIN[size]
    for name, alpha in zip(NAMES, sprites(size)[:, 3], strict=True):
        rows, columns = alpha.amax(1).nonzero()[:, 0], alpha.amax(0).nonzero()[:, 0]
        assert max(len(rows), len(columns)) >= side - 2 * margin - 2, name
        for hit in (rows, columns):
            assert abs(hit[0] - (side - 1 - hit[-1])) <= 2, name


@pytest.mark.parametrize("size", SIZES)
def test_no_two_sprites_look_alike_on_white(size):
    images = sprites(size)
    looks = (images[:, :3] + 1 - images[:, 3:]).flatten(1)
    distance = torch.cdist(looks, looks).square() / looks.shape[1]
    assert distance.fill_diagonal_(1).min() > 0.02


def test_an_unknown_size_is_an_error():
    with pytest.raises(ValueError, match="sizes"):
        sprites(4)


def test_the_data_are_small_and_carry_their_licence():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 1_000_000
    assert "SIL OPEN FONT LICENSE Version 1.1" in (DATA / "OFL.txt").read_text()
    assert "Noto Color Emoji" in (DATA / "NOTICE").read_text()
    assert {path.stem for path in (DATA / "sprites").iterdir()} == set(NAMES)
