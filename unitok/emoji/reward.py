"""Rewards of the emoji world: 1 for what is right, else 0, as its evaluation judges it."""

from __future__ import annotations

from unitok.emoji import captions
from unitok.emoji.evaluation import check_drawing
from unitok.requests import Caption, Draw, Reply
from unitok.results import DrawResult, Result
from unitok.training.reinforcement.exact_answer import ExactAnswer
from unitok.training.reinforcement.own_caption import OwnCaption
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.reward_names import RewardEntry, RewardSetting
from unitok.training.reinforcement.rewards import Reward


def emoji_reward(prompt: Prompt, result: Result) -> float:
    """1 for a drawing that shows what was asked for, a true and complete caption or a right answer.

    Raises:
        ValueError: The prompt is not of the emoji world's grammar, or its "answer" is missing.
    """
    if isinstance(result, DrawResult):
        assert isinstance(prompt.request, Draw)
        return float(check_drawing(prompt.request.prompt, result.image).ok)
    if asks_for_caption(prompt.request) and prompt.answers:
        return float(any(captions.says_the_same(result.text, each) for each in prompt.answers))
    return ExactAnswer()(prompt, result)


def asks_for_caption(request: Draw | Caption | Reply) -> bool:
    """Whether a caption is asked for, of which several may be right."""
    if isinstance(request, Caption):
        return request.question is None or request.question in captions.DESCRIBE_QUESTIONS
    if isinstance(request, Draw):
        return False
    content = request.messages[-1]["content"]
    parts = [content] if isinstance(content, str) else content
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    return any(text in captions.DESCRIBE_QUESTIONS for text in texts)


def says_what_is_drawn(caption: str, prompt: str) -> bool:
    """Whether a prompt is true of what a caption says; that may say more of places."""
    return captions.says_the_same(prompt, caption)


def _own_caption(setting: RewardSetting) -> Reward:
    return OwnCaption(setting.model, says_what_is_drawn)


EMOJI_REWARDS = {
    "emoji": RewardEntry(lambda setting: emoji_reward),
    "emoji-own-caption": RewardEntry(_own_caption, frozenset(("image",))),
}
"""What recipes can name."""
