"""The pictures that an image tokenizer learns, and the report of its reconstructions."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.tiny_image_tokenizer import tiny_pictures, tiny_tokenizer
from unitok.emoji.rendering import to_pil
from unitok.training.image_tokenizer.pictures import (
    Batching,
    Cropping,
    PictureUpdates,
    find_pictures,
)
from unitok.training.image_tokenizer.report import reconstruction_report
from unitok_tokenizers.losses import psnr


def plain(colour: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, colour)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    plain("red").save(tmp_path / "b.png")
    plain("lime").save(tmp_path / "deep" / "a.JPG", "JPEG")
    plain("blue").save(tmp_path / "deep" / "er" / "c.webp")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


# --- where pictures are found --------------------------------------------------------------------


def test_all_pictures_of_a_folder_count_in_order(folder: Path):
    found = [path.relative_to(folder).as_posix() for path in find_pictures(folder)]
    assert found == ["b.png", "deep/a.JPG", "deep/er/c.webp"]


def test_json_lines_name_pictures_once_each(folder: Path):
    parts = [{"type": "text", "text": "b"}, {"type": "image", "path": "b.png"}]
    lines = [
        {"messages": [{"role": "user", "content": parts}]},
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "image", "image": "deep/a.JPG"}]}
            ]
        },
        {"messages": [{"role": "user", "content": parts}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "data:image/png,"}]}]},
    ]
    file = folder / "train.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    assert find_pictures(file) == [folder / "b.png", folder / "deep" / "a.JPG"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n[1,\n", r"train\.jsonl:2: this is no JSON"),
        ('{"type": "image", "path": "no.png"}', r"train\.jsonl:1: 'no\.png': no such file"),
        ("{}\n", r"train\.jsonl has no pictures"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, text: str, message: str):
    file = tmp_path / "train.jsonl"
    file.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_pictures(file)


def test_a_place_without_pictures_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder or file"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no pictures: \.jpeg, \.jpg, \.png, \.webp"):
        find_pictures(tmp_path)
    plain("red").save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"one\.png: give a folder"):
        find_pictures(tmp_path / "one.png")


# --- crops ---------------------------------------------------------------------------------------


def test_a_whole_square_picture_of_the_right_size_stays_as_it_is():
    pixels = tiny_pictures(1)[0]
    picture = to_pil(pixels)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    cropping = Cropping(16)
    assert torch.equal(cropping.random(picture, Random(0)), expected)
    assert torch.equal(cropping.centre(picture), expected)


def test_the_centre_is_the_largest_square_in_the_middle():
    wide = plain("red", (24, 8))
    wide.paste("blue", (8, 0, 16, 8))
    centre = Cropping(8).centre(wide)
    assert torch.equal(centre, torch.tensor([0.0, 0, 1])[:, None, None].expand(3, 8, 8))


def gradient_picture() -> Image.Image:
    """Its red tells the column, from 0 to 255."""
    return Image.fromarray(
        np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(64, 0)
    )


def test_random_crops_have_the_sides_asked_for_and_flips_mirror_half_of_them():
    cropping = Cropping(16, smallest=0.5, flip=True)
    crops = torch.stack([cropping.random(gradient_picture(), Random(i)) for i in range(200)])
    left, right = crops[:, 0, 0, 0] * 255, crops[:, 0, 0, -1] * 255
    widths = (right - left).abs() * 16 / 15  # from the middle of a pixel to that of the last
    assert 30 < widths.min() < 36 and 60 < widths.max() < 66
    assert 0.4 < (right < left).float().mean() < 0.6
    assert torch.minimum(left, right).min() < 15 and torch.maximum(left, right).max() > 240
    unflipped = Cropping(16, smallest=0.5)
    assert all(
        (pixels := unflipped.random(gradient_picture(), Random(i)))[0, 0, 0] < pixels[0, 0, -1]
        for i in range(20)
    )


# --- order ---------------------------------------------------------------------------------------


def updates_of(count: int, **batching: int) -> PictureUpdates:
    """Pictures that are all of one grey value each, 1 / 255 of their number."""
    pictures = [plain(f"#{i:02x}{i:02x}{i:02x}") for i in range(count)]
    return PictureUpdates(pictures, Cropping(8), Batching(**{"update": 4, "micro": 4, **batching}))


def numbers(updates: PictureUpdates, count: int) -> list[int]:
    """Which pictures the next updates hold."""
    batches = [batch for _ in range(count) for batch in next(updates)]
    return [round(float(p.mean()) * 255) for batch in batches for p in batch.pixels]


def test_each_epoch_has_all_pictures_in_an_order_of_its_own():
    taken = numbers(updates_of(10), 5)
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:] and taken[:10] != list(range(10))
    assert numbers(updates_of(10, seed=1), 5) != taken
    assert max(Counter(numbers(updates_of(3), 3)).values()) == 4, "an update may span epochs"


def test_micro_batches_and_ranks_share_an_update():
    whole = numbers(updates_of(10), 4)
    assert numbers(updates_of(10, micro=3), 4) == whole
    first, second = (updates_of(10, micro=1, rank=rank, ranks=2) for rank in (0, 1))
    shared = [n for _ in range(4) for each in (first, second) for n in numbers(each, 1)]
    assert shared == whole
    weights = [batch.weight for batch in next(updates_of(10, micro=3))]
    assert weights == [0.75, 0.25]
    with pytest.raises(ValueError, match="batch 4 must be a multiple of the number of ranks, 3"):
        updates_of(10, ranks=3)


def test_updates_resume_exactly():
    cropping, pictures = Cropping(8, 0.3, flip=True), list(map(to_pil, tiny_pictures(5)))

    def made() -> PictureUpdates:
        return PictureUpdates(pictures, cropping, Batching(3, 2))

    first, second = made(), made()
    for _ in range(2):
        next(first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(3):
        for left, right in zip(next(first), next(second), strict=True):
            assert torch.equal(left.pixels, right.pixels) and left.names == right.names


def test_a_picture_that_cannot_be_read_is_named(folder: Path):
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    updates = PictureUpdates(find_pictures(folder), Cropping(8), Batching(3, 3))
    with pytest.raises(ValueError, match=r"b\.png"):
        next(updates)
    with pytest.raises(ValueError, match="no pictures to learn"):
        PictureUpdates([], Cropping(8), Batching(3, 3))


def test_batches_name_their_pictures(folder: Path):
    updates = PictureUpdates(find_pictures(folder), Cropping(8), Batching(3, 3))
    assert sorted(next(updates)[0].names) == list(map(str, find_pictures(folder)))
    assert sorted(next(updates_of(4))[0].names) == [f"picture {i}" for i in range(4)]


# --- the report ----------------------------------------------------------------------------------


def test_the_report_has_the_quality_of_all_pictures_and_a_sheet_of_the_first():
    model, pixels = tiny_tokenizer(), tiny_pictures(5)
    codes = model.encode(pixels)
    decoded = model.decode(codes)
    quality = psnr(decoded, pixels)
    report = reconstruction_report(model, pixels, shown=3, at_once=2)
    assert report.pictures == 5 and report.used == len(codes.unique())
    assert report.psnr == pytest.approx(quality.mean().item(), abs=1e-3)
    assert report.worst == pytest.approx(quality.min().item(), abs=1e-3)
    assert 1 <= report.perplexity <= report.used
    assert report.sheet.size == (3 * 16, 2 * 16)
    sheet = torch.from_numpy(np.array(report.sheet)).permute(2, 0, 1) / 255
    assert (sheet[:, :16, 16:32] - pixels[1]).abs().max() < 1 / 255
    assert (sheet[:, 16:, 16:32] - decoded[1]).abs().max() < 0.02
    assert report.scores == {
        "psnr": report.psnr,
        "worst": report.worst,
        "used": report.used,
        "perplexity": report.perplexity,
    }


def test_the_report_takes_files_and_cuts_their_middle(folder: Path):
    def expected(pixels: Tensor) -> float:
        model = tiny_tokenizer()
        return psnr(model.decode(model.encode(pixels)), pixels).mean().item()

    red = torch.tensor([1.0, 0, 0])[:, None, None].expand(1, 3, 16, 16)
    plain("red", (40, 20)).save(folder / "b.png")
    report = reconstruction_report(tiny_tokenizer(), [folder / "b.png"])
    assert report.pictures == 1 and report.psnr == pytest.approx(expected(red), abs=1e-3)
    with pytest.raises(ValueError, match="no pictures to reconstruct"):
        reconstruction_report(tiny_tokenizer(), [])
