"""Drawings of prompts: FID beside a folder of real pictures, and CLIPScore."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tests.evaluation.suites import drawn, failed, judge_drawings, save_pictures, write_lines
from unitok.evaluation.clip_score import clip_scores
from unitok.evaluation.drawings import DrawingsSuite, read_prompts
from unitok.evaluation.folders import compare_folders, compare_pairs
from unitok.evaluation.suite import SuiteOptions

NAMES = [f"{i}.png" for i in range(6)]


class Letters:
    """A CLIP whose features are the mean colour, and the lengths of words."""

    name = "letters"

    def image_features(self, images: Sequence[Any]) -> Tensor:
        colours = [torch.tensor(i.getpixel((0, 0))).float() - 100 for i in images]
        return F.normalize(torch.stack(colours), dim=1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        lengths = [[float(len(w)) for w in t.split()[-3:]] for t in texts]
        return F.normalize(torch.tensor(lengths), dim=1)


def test_clip_score_is_the_formula_worked_by_hand():
    images = [Image.new("RGB", (4, 4), c) for c in ((101, 102, 102), (0, 0, 0))]
    # (1, 2, 2) / 3 beside (2, 1, 2) / 3: a cosine of 8 / 9. Black points away, so it has 0.
    scores = clip_scores(Letters(), images, ["ab c de", "ab c de"])  # type: ignore[arg-type]
    assert scores.tolist() == pytest.approx([2.5 * 8 / 9, 0])
    # The prefix is "A photo depicts ": of one word, (5, 7, 1) / sqrt(75) is read.
    one = clip_scores(Letters(), images[:1], ["a"])  # type: ignore[arg-type]
    assert one.tolist() == pytest.approx([2.5 * (5 + 14 + 2) / 3 / 75**0.5])
    with pytest.raises(ValueError, match="2 pictures and 1 captions"):
        clip_scores(Letters(), images, ["a b c"])  # type: ignore[arg-type]


def made_suite(tmp_path: Path, **options: Any) -> DrawingsSuite:
    data = write_lines(tmp_path / "prompts.txt", "a dog", "two cats", "a red car")
    real = save_pictures(tmp_path / "real", *NAMES)
    return DrawingsSuite(SuiteOptions(data, real=real, extractor="lite0", **options))


def test_drawings_have_the_distances_of_the_folders_they_are_saved_in(tmp_path: Path):
    suite = made_suite(tmp_path, seed=3)
    assert [i.request.seed for i in suite.items()] == [3, 4, 5]  # type: ignore[union-attr]
    images = [Image.new("RGB", (20, 30), (80 * i, 0, 50)) for i in range(3)]
    judged = judge_drawings(suite, images, tmp_path / "run")
    summary = suite.summary(judged)
    both = compare_folders(tmp_path / "real", tmp_path / "run" / "pictures", "lite0", seed=3)
    assert (both.real, both.made) == (6, 3)
    assert summary.scores == pytest.approx(both.scores, rel=1e-4, abs=1e-4)
    assert {"fid_lite0", "kid_lite0", "inception_score_lite0"} < set(summary.scores)
    assert summary.notes[0] == "3 drawings are compared with 6 real pictures."
    assert any("cannot be compared with published" in note for note in summary.notes)
    assert any("FID is biased" in note for note in summary.notes)
    part = suite.summary([judged[0], judged[1], failed(suite.items()[2])])
    assert part.notes[-1] == "1 prompts without a drawing are left out."


def test_a_file_that_cannot_be_read_is_left_out_and_named(tmp_path: Path):
    save_pictures(tmp_path / "real", *NAMES)
    save_pictures(tmp_path / "made", "a.png", "b.png", "c.png")
    (tmp_path / "made" / "b.png").write_bytes(b"no picture")
    scores = compare_folders(tmp_path / "real", tmp_path / "made", "lite0")
    assert (scores.real, scores.made) == (6, 2)
    assert "1 of 3 files" in scores.notes[-1] and "b.png is not a picture" in scores.notes[-1]


def test_drawings_are_scored_with_their_prompts(tmp_path: Path):
    data = write_lines(tmp_path / "prompts.jsonl", {"prompt": "ab c de"}, {"prompt": "a bc de"})
    suite = DrawingsSuite.__new__(DrawingsSuite)
    suite.prompts, suite.seed, suite.real, suite.extractor = ["ab c de", "a bc de"], 0, None, None
    suite.scorer = Letters()
    image = Image.new("RGB", (4, 4), (101, 102, 102))
    judged = judge_drawings(suite, [image, image], tmp_path / "run")
    assert [j.score for j in judged] == pytest.approx([2.5 * 8 / 9, 2.5])
    assert suite.summary(judged).scores == pytest.approx({"clip_score": 2.5 * 17 / 18})
    with pytest.raises(ValueError, match="give --real"):
        DrawingsSuite(SuiteOptions(data))


def test_real_pictures_without_an_extractor_are_an_error(tmp_path: Path):
    data = write_lines(tmp_path / "prompts.txt", "a dog")
    real = save_pictures(tmp_path / "real", *NAMES)
    with pytest.raises(ValueError, match="need an extractor"):
        DrawingsSuite(SuiteOptions(data, real=real))


def test_reconstructions_are_compared_pair_by_pair(tmp_path: Path):
    save_pictures(tmp_path / "real", "1.png", "2.png")
    save_pictures(tmp_path / "made", "1.png", "2.png")
    Image.new("RGB", (16, 16), (30, 30, 30)).save(tmp_path / "made" / "2.png")
    scores = compare_pairs(tmp_path / "real", tmp_path / "made")
    # One is the same; the other is 10 of 255 off: 28.13 dB.
    assert scores.scores["psnr"] == pytest.approx((100 + 28.1308) / 2, abs=1e-3)
    Image.new("RGB", (16, 17)).save(tmp_path / "made" / "1.png")
    with pytest.raises(ValueError, match="1: the original has 16 x 16 pixels"):
        compare_pairs(tmp_path / "real", tmp_path / "made")


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.jsonl"])
def test_a_prompt_that_is_there_twice_is_named(tmp_path: Path, name: str):
    lines = ["a dog", "a cat", "a dog"]
    if name.endswith("jsonl"):
        lines = [json.dumps({"prompt": line}) for line in lines]
    (tmp_path / name).write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"line 3: the prompt 'a dog' is at .*line 1 already"):
        read_prompts(tmp_path / name)


def test_a_line_ends_where_an_editor_ends_it(tmp_path: Path):
    prompts = ["a dog\u2028on grass", "two\x85cats", "a\x0cred car"]
    lines = [json.dumps({"prompt": p}, ensure_ascii=False) for p in prompts]
    (tmp_path / "prompts.jsonl").write_text("\r\n".join(lines), newline="")
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts
    (tmp_path / "prompts.txt").write_text("a dog\ra cat\r\n\na\u2028car", newline="")
    assert read_prompts(tmp_path / "prompts.txt") == ["a dog", "a cat", "a\u2028car"]


def test_an_extractor_without_real_pictures_is_an_error(tmp_path: Path):
    data = write_lines(tmp_path / "prompts.txt", "a dog", "a cat")
    with pytest.raises(ValueError, match="--extractor needs --real"):
        DrawingsSuite(SuiteOptions(data, extractor="lite0", scorer="clip"))


def test_too_few_real_pictures_or_prompts_are_told_before_anything_is_drawn(tmp_path: Path):
    (tmp_path / "real").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "real" / "only.png")
    data = write_lines(tmp_path / "prompts.txt", "a dog", "a cat")
    options = SuiteOptions(data, real=tmp_path / "real", extractor="lite0")
    with pytest.raises(ValueError, match="there are 1 real and 2 made pictures; each side needs 2"):
        DrawingsSuite(options)


def test_where_too_little_was_drawn_there_is_no_fid_and_a_note_says_so(tmp_path: Path):
    suite = made_suite(tmp_path)
    first, *others = suite.items()
    judged = [suite.judge(first, drawn(first, Image.new("RGB", (8, 8)))), *map(failed, others)]
    summary = suite.summary(judged)
    assert summary.scores == {}
    assert "There is no FID: there are 6 real and 1 made pictures" in summary.notes[0]


def test_a_folder_of_which_nothing_can_be_read_is_named(tmp_path: Path):
    save_pictures(tmp_path / "real", *NAMES)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"made: none of its 1 files can be read: .*a\.png is not"):
        compare_folders(tmp_path / "real", tmp_path / "made", "lite0")


def test_the_progress_of_folders_can_be_shown(tmp_path: Path):
    save_pictures(tmp_path / "real", "1.png", "2.png", "3.png")
    shown: list[tuple[int, str, int]] = []

    def watch(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
        found = list(items)
        shown.append((total, Path(what).name, len(found)))
        return found

    compare_folders(tmp_path / "real", tmp_path / "real", "lite0", watch=watch)
    compare_pairs(tmp_path / "real", tmp_path / "real", watch)
    assert shown == [(3, "real", 3), (3, "real", 3), (3, "pairs", 3)]
