"""Rewards: what they say, what becomes of those that fail, and how they are named."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.rollouts import opened, rollout_model
from unitok.commands.train import known_rewards
from unitok.emoji import captions
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.reward import emoji_reward, says_what_is_drawn
from unitok.emoji.sampler import SceneSampler
from unitok.requests import Caption, Draw, Reply
from unitok.results import DrawResult, Result, TextResult
from unitok.training.recipe import RewardKeys
from unitok.training.reinforcement import reward_names
from unitok.training.reinforcement.exact_answer import ExactAnswer
from unitok.training.reinforcement.match_score import MatchScore
from unitok.training.reinforcement.own_caption import OwnCaption
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.reward_names import check_names, find_rewards
from unitok.training.reinforcement.rewarded_rollouts import Rewarded, RewardedGroup
from unitok.training.reinforcement.rewards import (
    ChosenReward,
    Pair,
    RewardFailure,
    Rewards,
    judged,
)

PLAIN = Image.new("RGB", (64, 64), "red")


def drawn(prompt: str = "two cats", image: Image.Image = PLAIN, *answers: str) -> Pair:
    result = DrawResult(prompt, (image,), 0, "complete", 1, 1, 0.0)
    return Prompt(f"drawing of {prompt}", Draw(prompt), answers), result


def answered(text: str, *answers: str) -> Pair:
    asked = Reply([{"role": "user", "content": "?"}])
    return Prompt("answer", asked, answers), TextResult(text, 0, "stop", 1, 1, 0.0)


# --- those that come with unitok -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "right"),
    [("Two cats.", 1), (" two  cats", 1), ("a dog", 1), ("two", 0), ("two cats!", 0), ("", 0)],
)
def test_an_exact_answer_is_one_of_those_that_are_right(text: str, right: float):
    assert ExactAnswer()(*answered(text, "two cats", "A dog")) == right


def test_an_exact_answer_needs_a_text_and_an_answer():
    assert 'there is no "answer"' in why(judged(ExactAnswer(), [answered("a")])[0])
    assert "it judges answers" in why(judged(ExactAnswer(), [drawn()])[0])


def why(found: float | RewardFailure) -> str:
    assert isinstance(found, RewardFailure)
    return found.why


class Captioner:
    """Says the same of all pictures, and counts its calls."""

    def __init__(self, text: str) -> None:
        self.text, self.calls = text, 0

    def caption(self, images: Sequence[Image.Image]) -> list[TextResult]:
        self.calls += 1
        return [TextResult(self.text, 0, "stop", 1, 1, 0.0) for _ in images]


def test_a_drawing_is_captioned_as_it_was_asked_for():
    model: Any = Captioner("Two cats")
    reward = OwnCaption(model)
    pairs = [drawn("two cats"), drawn("a dog"), drawn("a dog", PLAIN, "a cat", "two cats")]
    assert judged(reward, pairs) == [1.0, 0.0, 1.0] and model.calls == 1
    emoji = OwnCaption(model, says_what_is_drawn)
    pairs = [drawn("paint two cats"), drawn("two cats on a blue background")]
    assert judged(emoji, pairs) == [1.0, 0.0]
    assert "it judges drawings" in why(judged(reward, [answered("a")])[0])


def test_a_prompt_without_a_relation_is_true_of_a_caption_with_one():
    assert says_what_is_drawn("a cat left of a dog", "draw a dog and a cat")
    assert not says_what_is_drawn("a cat and a dog", "a cat left of a dog")
    assert not says_what_is_drawn("a cat left of a dog", "a dog left of a cat")
    assert not says_what_is_drawn("hello", "a cat")


class Axes:
    """An `ImageTextScorer` by colour: red and blue are axes of their own."""

    name = "axes"

    def image_features(self, images: Sequence[Any]) -> Tensor:
        pixels = [image.getpixel((0, 0)) for image in images]
        return torch.nn.functional.normalize(torch.tensor(pixels, dtype=torch.float32))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        rows = [[float(word in text) for word in ("red", "green", "blue")] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows))


def test_a_match_score_is_the_cosine_of_a_drawing_and_its_prompt():
    scorer: Any = Axes()
    pairs = [drawn("red"), drawn("blue"), drawn("red and blue"), drawn("blue", PLAIN, "red")]
    assert judged(MatchScore(scorer), pairs) == pytest.approx([1, 0, 0.5**0.5, 1])


def test_the_emoji_reward_is_that_of_its_checker():
    scene = SceneSampler(0, "train").sample("position")
    image, text = to_pil(render([scene])[0]), captions.caption(scene)
    assert emoji_reward(*drawn(text, image)) == 1
    assert emoji_reward(*drawn(text, PLAIN)) == 0
    told = Prompt("caption", Caption(image), (text,))
    said = [TextResult(t, 0, "stop", 1, 1, 0.0) for t in (text, "a cat", "nonsense")]
    assert [emoji_reward(told, one) for one in said] == [1, 0, 0]
    asked = Prompt("question", Caption(image, "what colour is the background?"), ("blue",))
    assert emoji_reward(asked, said[0]) == 0
    assert emoji_reward(asked, TextResult("blue", 0, "stop", 1, 1, 0.0)) == 1
    assert "cannot read the prompt 'a unicorn'" in why(
        judged(emoji_reward, [drawn("a unicorn")])[0]
    )


# --- failures and sums ---------------------------------------------------------------------------


def test_a_reward_that_raises_or_gives_no_finite_number_fails_for_its_sample_alone():
    given: dict[str, Any] = {"a": 2, "b": float("nan"), "c": "much", "d": None, "e": True}
    given |= {"f": -float("inf"), "g": torch.tensor(0.5)}

    def reward(prompt: Prompt, result: Result) -> Any:
        assert isinstance(result, TextResult)
        return given[result.text]

    found = judged(reward, [answered(text) for text in "abcdefgh"])
    assert [found[i] for i in (0, 4, 6)] == [2.0, 1.0, 0.5]
    told = ["it gave nan", "gave no number, but str", "but NoneType", "it gave -inf", "KeyError"]
    for i, part in zip((1, 2, 3, 5, 7), told, strict=True):
        assert part in why(found[i])


class Together:
    """Judges texts together, unless one is too long."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, prompt: Prompt, result: Result) -> float:
        return self.many([(prompt, result)])[0]

    def many(self, pairs: Sequence[Pair]) -> list[float]:
        self.calls.append(len(pairs))
        lengths = [len(result.text) for _, result in pairs if isinstance(result, TextResult)]
        if max(lengths) > 3:
            raise RuntimeError("too long")
        return [float(length) for length in lengths]


def test_a_reward_of_many_is_asked_once_and_one_by_one_where_it_fails():
    reward = Together()
    assert judged(reward, [answered(text) for text in ("a", "bc")]) == [1, 2]
    assert reward.calls == [2]
    found = judged(reward, [answered(text) for text in ("a", "long", "bc")])
    assert found[::2] == [1, 2] and "RuntimeError: too long" in why(found[1])
    assert reward.calls == [2, 3, 1, 1, 1]
    assert judged(reward, []) == [] and len(reward.calls) == 5


def test_what_is_no_number_among_many_costs_its_own_sample_alone():
    """Numbers that overflow and tensors of several numbers raise errors of other kinds."""

    class Odd:
        def __call__(self, prompt: Prompt, result: Result) -> float:
            return 1.0

        def many(self, pairs: Sequence[Pair]) -> list[Any]:
            return [1, 10**400, torch.ones(2)]

    found = judged(Odd(), [answered(text) for text in "abc"])
    assert found[0] == 1.0
    assert [why(each) for each in found[1:]] == [
        "it gave no number, but int",
        "it gave no number, but Tensor",
    ]


def constant(value: float) -> Any:
    return lambda prompt, result: value


def test_rewards_are_summed_up_by_weight_for_the_results_that_they_judge():
    rewards = Rewards(
        (
            ChosenReward("a", constant(1.0), 2.0),
            ChosenReward("b", constant(3.0), -1.0, frozenset(("image",))),
            ChosenReward("c", ExactAnswer(), 0.5, frozenset(("text",))),
        )
    )
    found = rewards([answered("x", "x"), drawn(), answered("x")])
    assert found[:2] == [2.5, -1.0]
    assert why(found[2]).startswith("reward c: ValueError: answer: there is no")


def test_a_prompt_is_solved_by_weights_that_sum_up_to_a_little_less_than_1():
    weights = (0.6, 0.3, 0.1)
    rewards = Rewards(tuple(ChosenReward(f"{w}", constant(1.0), w) for w in weights))
    asked, result = drawn()
    (total,) = rewards([(asked, result)])
    assert isinstance(total, float) and total < 1
    rollout: Any = None  # is not looked at
    assert RewardedGroup(asked, (Rewarded(rollout, total),) * 2).is_solved(1.0)
    assert not RewardedGroup(asked, (Rewarded(rollout, 0.999),) * 2).is_solved(1.0)


def test_every_prompt_needs_a_reward_that_judges_it():
    rewards = Rewards((ChosenReward("exact", ExactAnswer(), 1.0, frozenset(("text",))),))
    rewards.check([answered("a")[0]])
    with pytest.raises(ValueError, match="drawing of two cats: no reward judges drawings; those"):
        rewards.check([answered("a")[0], drawn()[0]])


# --- names ---------------------------------------------------------------------------------------


@pytest.fixture
def model(untrained_folder: Path):
    with rollout_model(opened(untrained_folder)) as made:
        yield made


def test_rewards_are_found_by_name(model):
    keys = [
        RewardKeys(name="exact"),
        RewardKeys(name="emoji", of="image", weight=2.0),
        RewardKeys(name="own-caption"),
        RewardKeys(name="emoji-own-caption"),
    ]
    found = find_rewards(keys, model, known_rewards()).chosen
    kinds = [{"text"}, {"image"}, {"image"}, {"image"}]
    assert [set(each.kinds) for each in found] == kinds
    assert [each.weight for each in found] == [1.0, 2.0, 1.0, 1.0]
    assert judged(found[3].reward, [drawn()]) == [0.0]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (RewardKeys(name="exac"), "there is no reward 'exac'; did you mean exact?"),
        (RewardKeys(name="os.system"), "there is no reward 'os.system'; there are exact, own-c"),
        (RewardKeys(name="exact", of="image"), "reward exact judges no results of the kind image"),
        (RewardKeys(name="clip"), "reward clip needs a model: give reward.scorer"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_one(keys: RewardKeys, told: str, model):
    with pytest.raises(ValueError, match="reward") as e:
        find_rewards([keys], model, known_rewards())
    assert told in str(e.value)


def longest(prompt: Prompt, result: Result) -> float:
    return float(len(result.text)) if isinstance(result, TextResult) else 0.0


NOTHING = 3


def test_an_installed_package_offers_rewards_as_entry_points(model, monkeypatch):
    here = "tests.training.test_rewards"
    values = {"long": f"{here}:longest", "gone": "no.such:thing", "three": f"{here}:NOTHING"}
    offered = [EntryPoint(name, value, reward_names.GROUP) for name, value in values.items()]

    def entry_points(group: str) -> list[EntryPoint]:
        assert group == "unitok.rewards"
        return offered

    monkeypatch.setattr(reward_names, "entry_points", entry_points)
    check_names(["long", "gone"])  # nothing is imported yet
    (found,) = find_rewards([RewardKeys(name="long")], model).chosen
    assert judged(found.reward, [answered("four")]) == [4.0]
    with pytest.raises(ValueError, match=r"reward gone: no\.such:thing cannot be imported"):
        find_rewards([RewardKeys(name="gone")], model)
    with pytest.raises(ValueError, match=r"reward three: .* is no function"):
        find_rewards([RewardKeys(name="three")], model)
    with pytest.raises(ValueError, match="did you mean long"):
        check_names(["lon"])
