"""Values in messages are short and on one line, whatever a caller gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import unitok
from tests.unitok.tiny import save_tiny
from unitok.api import Model
from unitok.shown import shown

HUGE = 10**5000  # Python writes no number of more than 4,300 digits
LONG = "x" * 1_000_000
LONGEST_MESSAGE = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return unitok.load(save_tiny(tmp_path_factory.mktemp("shown") / "tiny"), device="cpu")


def test_a_value_is_shown_briefly_on_one_line():
    assert shown("a\nb") == "'a\\nb'" and shown(7) == "7" and shown(10**39) == "1" + "0" * 39
    assert shown([HUGE, -HUGE]).count("more than 40 digits") == 2
    assert len(shown(LONG)) < 80 and len(shown(list(range(1000)))) < 80
    assert "\n" not in shown(np.zeros((9, 9)))


@pytest.mark.parametrize(
    ("use", "word"),
    [
        (lambda m: m.draw(HUGE), "prompt must be text"),
        (lambda m: m.draw("a cat", n=HUGE), "n must be at least 1 and at most 1000"),
        (lambda m: m.draw("a cat", width=HUGE, height=HUGE), "width must be"),
        (lambda m: m.draw("a cat", guidance=-(10.0**30)), "guidance must be from -1000 to 1000"),
        (lambda m: m.draw("a cat", guidance=HUGE), "guidance must be finite"),
        (lambda m: m.chat(messages=[{"role": HUGE, "content": "x"}]), "unknown role"),
        (lambda m: m.chat(messages=[{"role": np.arange(3), "content": "x"}]), "unknown role"),
        (lambda m: m.caption("\ud800"), "no such file"),
        (lambda m: unitok.load(LONG), "no such folder"),
        (lambda m: unitok.load(memory=LONG), "memory must be"),
        (lambda m: unitok.load(device=HUGE), "device must be"),  # type: ignore[arg-type]
        (lambda m: unitok.load(dtype=[HUGE]), "dtype must be"),  # type: ignore[arg-type]
        (lambda m: unitok.load(compile=torch.ones(3)), "compile must be"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_of_any_size_is_told_in_a_sentence(
    model: Model, use: Callable[[Model], object], word: str
):
    with pytest.raises((ValueError, TypeError, OSError)) as told:
        use(model)
    assert word in str(told.value) and len(str(told.value)) < LONGEST_MESSAGE


def test_a_long_setting_of_a_checkpoint_is_told_in_a_sentence(tmp_path: Path):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{LONG[:5000]}"}}')
    with pytest.raises(ValueError, match="model_type") as told:
        unitok.load(tmp_path)
    assert len(str(told.value)) < LONGEST_MESSAGE + len(str(tmp_path))
