"""Rewards by their names: those that come with unitok, and those of installed packages.

A package offers a reward as an entry point of the group "unitok.rewards": a function of a prompt
and its result. A recipe can name no others, so that no recipe runs code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import get_args

from unitok.api import Model
from unitok.baselines.protocols import ImageTextScorer
from unitok.shown import shown
from unitok.terminal import one_line
from unitok.training.recipe import RewardKeys
from unitok.training.reinforcement.exact_answer import ExactAnswer
from unitok.training.reinforcement.match_score import MatchScore
from unitok.training.reinforcement.own_caption import OwnCaption
from unitok.training.reinforcement.prompts import Kind
from unitok.training.reinforcement.rewards import ChosenReward, Reward, Rewards

GROUP = "unitok.rewards"
ALL: frozenset[Kind] = frozenset(get_args(Kind))


@dataclass(frozen=True)
class RewardSetting:
    """What a reward is made of.

    Attributes:
        model: The model that makes the rollouts, with its present weights.
        scorer: The folder or hub id of a CLIP, if the recipe names one.
    """

    model: Model
    scorer: str | None = None


@dataclass(frozen=True)
class RewardEntry:
    """A reward that can be named.

    Attributes:
        make: Makes it.
        kinds: Which results it judges.
    """

    make: Callable[[RewardSetting], Reward]
    kinds: frozenset[Kind] = ALL


def _match_score(setting: RewardSetting) -> Reward:
    from unitok.baselines.opening import load

    if setting.scorer is None:
        raise ValueError("reward clip needs a model: give reward.scorer, a folder or a hub id")
    scorer: ImageTextScorer = load(setting.scorer, "scorer", device=str(setting.model.device))
    return MatchScore(scorer)


BUILT_IN: Mapping[str, RewardEntry] = {
    "exact": RewardEntry(lambda setting: ExactAnswer(), frozenset(("text",))),
    "own-caption": RewardEntry(lambda setting: OwnCaption(setting.model), frozenset(("image",))),
    "clip": RewardEntry(_match_score, frozenset(("image",))),
}


def find_rewards(
    keys: Sequence[RewardKeys], model: Model, known: Mapping[str, RewardEntry] = BUILT_IN
) -> Rewards:
    """The rewards that a recipe names.

    Args:
        keys: The recipe's sections.
        model: Makes the rollouts.
        known: Those that come with unitok. They come before entry points of the same name.

    Raises:
        ValueError: There is no such reward, or it cannot be made.
        FileNotFoundError: A model that it needs does not exist.
    """
    return Rewards(tuple(_chosen(each, model, known) for each in keys))


def check_names(names: Iterable[str], known: Mapping[str, RewardEntry] = BUILT_IN) -> None:
    """Raise ValueError for a name that no reward has, with the nearest that one has."""
    for name in names:
        entry_of(name, known)


def entry_of(name: str, known: Mapping[str, RewardEntry]) -> RewardEntry:
    """The reward of a name.

    Raises:
        ValueError: There is none.
    """
    if name in known:
        return known[name]
    offered = {each.name: each for each in entry_points(group=GROUP)}
    if name in offered:
        return RewardEntry(lambda setting: loaded(offered[name]))
    names = [*known, *offered]
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise ValueError(f"there is no reward {shown(name)}; {hint}")


def loaded(entry: EntryPoint) -> Reward:
    """The function of an entry point.

    Raises:
        ValueError: It cannot be imported, or is no function.
    """
    try:
        found: Reward = entry.load()
    except Exception as error:  # of a package of others
        raise ValueError(
            f"reward {entry.name}: {entry.value} cannot be imported: {one_line(error)}"
        ) from error
    if not callable(found):
        raise ValueError(f"reward {entry.name}: {entry.value} is no function")
    return found


def _chosen(keys: RewardKeys, model: Model, known: Mapping[str, RewardEntry]) -> ChosenReward:
    entry = entry_of(keys.name, known)
    wanted = ALL if keys.of == "all" else frozenset[Kind]((keys.of,))
    if not (kinds := entry.kinds & wanted):
        raise ValueError(f"reward {keys.name} judges no results of the kind {keys.of}")
    reward = entry.make(RewardSetting(model, keys.scorer))
    return ChosenReward(keys.name, reward, keys.weight, kinds)
