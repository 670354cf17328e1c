"""DPG-Bench: the folder of prompts, and the grids that the official scorer cuts up."""

from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.suites import drawn, failed, judge_drawings
from unitok.evaluation.public.dpg_bench import DpgBenchSuite
from unitok.evaluation.suite import SuiteOptions, asked_of


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "12.txt").write_text("A long prompt,\nof two lines.\n")
    (folder / "COCOval2014000000000042.txt").write_text("Another prompt.")
    return folder


def test_four_drawings_become_a_grid_with_the_name_of_the_prompt(prompts: Path, tmp_path: Path):
    suite = DpgBenchSuite(SuiteOptions(prompts, seed=5))
    items = suite.items()
    assert [i.key for i in items[:5]] == [
        "12_0",
        "12_1",
        "12_2",
        "12_3",
        "COCOval2014000000000042_0",
    ]
    assert asked_of(items[1]) == "A long prompt, of two lines."
    assert [i.request.seed for i in items] == [5, 6, 7, 8, 5, 6, 7, 8]  # type: ignore[union-attr]
    images = [Image.new("RGB", (10, 10), (20 * i, 0, 0)) for i in range(8)]
    run = tmp_path / "run"
    judged = judge_drawings(suite, images, run)
    judged[7] = failed(items[7])
    suite.export(judged, run)
    assert [p.name for p in (run / "dpg_bench").iterdir()] == ["12.png"]  # the other lacks one
    with Image.open(run / "dpg_bench" / "12.png") as grid:
        assert grid.size == (20, 20)
        # Cut as compute_dpg_bench.py does: left to right, then down.
        corners = [(0, 0), (10, 0), (0, 10), (10, 10)]
        assert [grid.getchannel(0).getpixel((x + 5, y + 5)) for x, y in corners] == [0, 20, 40, 60]
    notes = suite.summary(judged).notes
    assert "--resolution 10 --pic-num 4" in notes[0]
    assert notes[1] == "1 prompts lack a drawing, and have no grid."
    nothing = suite.summary([failed(item) for item in items])
    assert nothing.notes == ["There is no drawing.", "2 prompts lack a drawing, and have no grid."]


def test_a_drawing_that_is_not_square_is_refused(prompts: Path):
    suite = DpgBenchSuite(SuiteOptions(prompts))
    item = suite.items()[0]
    with pytest.raises(ValueError, match="10 x 20 pixels, and DPG-Bench's scorer cuts squares"):
        suite.judge(item, drawn(item, Image.new("RGB", (10, 20))))


def test_drawings_of_two_sizes_make_no_grid(prompts: Path, tmp_path: Path):
    suite = DpgBenchSuite(SuiteOptions(prompts, limit=4))
    images = [Image.new("RGB", (side, side)) for side in (8, 8, 8, 9)]
    judged = judge_drawings(suite, images, tmp_path / "run")
    with pytest.raises(ValueError, match=r"12_0\.png and the other drawings of its prompt differ"):
        suite.export(judged, tmp_path / "run")


def test_errors_name_the_file(prompts: Path, tmp_path: Path):
    (prompts / "0.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"0\.txt is empty"):
        DpgBenchSuite(SuiteOptions(prompts))
    (prompts / "0.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"0\.txt is not text in UTF-8 at byte 0"):
        DpgBenchSuite(SuiteOptions(prompts))
    (prompts / "0.txt").rename(prompts / "a b.txt")
    (prompts / "a b.txt").write_text("a dog")
    with pytest.raises(ValueError, match=r"a b\.txt: the name of a prompt"):
        DpgBenchSuite(SuiteOptions(prompts))
    with pytest.raises(ValueError, match="holds no prompts"):
        DpgBenchSuite(SuiteOptions(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        DpgBenchSuite(SuiteOptions(tmp_path / "none"))
