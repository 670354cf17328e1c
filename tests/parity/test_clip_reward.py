"""The reward `clip`, opened by its name: the cosines that transformers itself computes."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from tests.parity.tiny_scorers import TEXTS, clip_folder, pictures
from tests.training.rollouts import opened, rollout_model
from unitok.requests import Draw
from unitok.results import DrawResult
from unitok.training.recipe import RewardKeys
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.reward_names import find_rewards
from unitok.training.reinforcement.rewards import Pair


def drawn() -> list[Pair]:
    """A drawing of each text; the last one's caption stands beside its prompt."""
    prompts = [Prompt(f"p:{i}", Draw(text)) for i, text in enumerate(TEXTS[:-1])]
    prompts.append(Prompt("p:last", Draw("paint"), (TEXTS[-1],)))
    results = [
        DrawResult(text, (image,), 0, "complete", 1, 1, 0.0)
        for text, image in zip(TEXTS, pictures(), strict=True)
    ]
    return list(zip(prompts, results, strict=True))


def cosines(folder: Path) -> list[float]:
    """The cosine of each text and its picture, by the library alone."""
    model, processor = (
        CLIPModel.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    inputs = processor(text=TEXTS, images=pictures(), return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model(**inputs)
    return (found.image_embeds * found.text_embeds).sum(1).tolist()


def test_the_reward_clip_is_opened_by_its_name(untrained_folder: Path, tmp_path: Path):
    folder = clip_folder(tmp_path / "clip")
    with rollout_model(opened(untrained_folder)) as model:
        keys = RewardKeys(name="clip", scorer=str(folder), weight=2.0)
        rewards = find_rewards([keys], model)
    assert rewards.chosen[0].kinds == {"image"}
    expected = cosines(folder)
    assert len(set(expected)) == len(TEXTS)
    assert rewards(drawn()) == pytest.approx([2 * one for one in expected], abs=1e-5)


def test_a_folder_that_is_no_clip_is_told(untrained_folder: Path, tmp_path: Path):
    with (
        rollout_model(opened(untrained_folder)) as model,
        pytest.raises(FileNotFoundError, match="gone"),
    ):
        find_rewards([RewardKeys(name="clip", scorer=str(tmp_path / "gone"))], model)
