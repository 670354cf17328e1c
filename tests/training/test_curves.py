"""What is drawn where in the plot of a run."""

from pathlib import Path

import pytest
from PIL import Image

from unitok.training.curves import BESIDE, PANELS, plot
from unitok.training.log import TrainingLog


def drawn_in(key: str, held_out: bool) -> list[str]:
    """The labels of the panels that have a key of a record."""
    return [p.label for p in PANELS if (p.held_out if held_out else p.learned)(key)]


@pytest.mark.parametrize(
    ("key", "held_out", "label"),
    [
        ("text", False, PANELS[0].label),
        ("dpo", False, PANELS[0].label),
        ("held_out_image", True, PANELS[0].label),
        ("held_out_dpo", True, PANELS[0].label),
        ("draw_count", True, "share right"),
        ("accuracy", False, "share right"),
        ("held_out_accuracy", True, "share right"),
        ("margin", False, "rewards of answers"),
        ("held_out_margin", True, "rewards of answers"),
        ("reward_image", False, "mean reward of samples"),
        ("entropy_text", False, "nats per token; share clipped"),
    ],
)
def test_every_number_is_drawn_in_one_panel(key: str, held_out: bool, label: str):
    assert drawn_in(key, held_out) == [label]


@pytest.mark.parametrize("key", sorted(BESIDE))
def test_what_is_no_loss_is_not_drawn(key: str):
    assert drawn_in(key, False) == drawn_in(key, True) == []


def test_a_run_has_the_panels_that_it_needs(tmp_path: Path):
    log = TrainingLog(tmp_path / "log.jsonl")
    log.append({"step": 1, "minutes": 0.1, "speed": 9.0, "text": 2.0})
    plot(log, tmp_path / "one.png")
    log.append({"step": 2, "minutes": 0.1, "speed": 9.0, "dpo": 0.6, "accuracy": 1, "margin": -0.2})
    log.append({"step": 2, "minutes": 0.1, "held_out_dpo": 0.6})
    log.append({"step": 3, "minutes": 0.1, "speed": 9.0, "reward": 0.5, "entropy_text": 0.4})
    plot(log, tmp_path / "five.png")
    widths = [Image.open(tmp_path / f"{name}.png").width for name in ("one", "five")]
    assert widths == [11 * 110, 25 * 110]
