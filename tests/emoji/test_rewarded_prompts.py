"""Prompts for reinforcement learning are of training scenes, and their rewards can be computed."""

import json
from pathlib import Path

import pytest
from PIL import Image

from unitok.emoji import captions
from unitok.emoji.checker import find
from unitok.emoji.reward import emoji_reward
from unitok.emoji.rewarded_prompts import HARD_KINDS, write_rewarded_prompts
from unitok.emoji.scenes import Scene
from unitok.emoji.split import counted, heldout, is_heldout, on_colour, pair, related
from unitok.requests import Caption, Draw
from unitok.results import TextResult
from unitok.training.data.sources import open_source
from unitok.training.recipe_file import read_recipe
from unitok.training.reinforcement.prompts import Prompt, read_prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    write_rewarded_prompts(made, drawings=40, questions=12, kept=4)
    return made


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[Prompt]:
    return read_prompts([str(folder / "prompts.jsonl")])


def combinations(claim: captions.Claim) -> list[str]:
    """All combinations that a prompt states."""
    found = [
        on_colour(n, claim.background) for n, _ in claim.objects if claim.background != "white"
    ]
    found += [counted(name, count) for name, count in claim.objects if count > 1]
    if len(claim.objects) == 2:
        found.append(pair(*(name for name, _ in claim.objects)))
    return found + ([related(*claim.relation)] if claim.relation else [])


def test_no_prompt_states_a_combination_that_is_held_out(prompts: list[Prompt]):
    drawings = [p.request.prompt for p in prompts if isinstance(p.request, Draw)]
    assert len(drawings) == len(set(drawings)) == 40
    claims = [captions.parse(text) for text in drawings]
    stated = [each for claim in claims if claim for each in combinations(claim)]
    assert None not in claims and len(stated) >= 40 * len(HARD_KINDS) / 4
    assert not any(map(heldout, stated))


def test_questions_are_about_places_and_their_answers_are_right(prompts: list[Prompt]):
    questions = [prompt for prompt in prompts if prompt.kind == "text"]
    assert len(questions) == 12
    for prompt in questions:
        asked = prompt.request
        assert isinstance(asked, Caption) and isinstance(asked.image, Path)
        with Image.open(asked.image) as image:
            found = find(image)
        assert not is_heldout(Scene("found", found.background, found.items))
        (answer,) = prompt.answers
        assert emoji_reward(prompt, TextResult(answer, 0, "stop", 1, 1, 0.0)) == 1
        assert emoji_reward(prompt, TextResult("no", 0, "stop", 1, 1, 0.0)) == 0


def test_the_conversations_beside_can_be_read_and_the_files_are_the_same_each_time(
    folder: Path, tmp_path: Path
):
    source = open_source(str(folder / "data.jsonl"))
    assert source.size == 8
    write_rewarded_prompts(tmp_path, drawings=40, questions=12, kept=4)
    for name in ("prompts.jsonl", "data.jsonl"):
        lines = (folder / name).read_text()
        assert lines == (tmp_path / name).read_text() and json.loads(lines.splitlines()[0])


def test_the_recipe_of_the_embedded_model_is_one():
    recipe = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "embedded_grpo.toml")
    assert recipe.rollout is not None and recipe.grpo.supervised == 0.1
    assert recipe.rollout.prompts == ("runs/embedded_grpo/prompts.jsonl",)
