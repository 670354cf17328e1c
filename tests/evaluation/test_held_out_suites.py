"""What holds for every suite of held-out scenes: the same is asked in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitok.emoji.evaluation import EmojiSuite
from unitok.emoji.held_out import PROMPTS, SEED, HeldOutSuite, held_out_scenes
from unitok.emoji.inpainting import EmojiInpaintingSuite
from unitok.emoji.matching import EmojiMatchingSuite
from unitok.emoji.presence import EmojiPresenceSuite
from unitok.evaluation.matching import Match
from unitok.evaluation.suite import Item, SuiteOptions, asked_of

SMALL = SuiteOptions(limit=3)
# The items of each suite for each scene of each of the five kinds, or, of questions, four kinds.
ITEMS = {
    EmojiSuite: 5 + 5 + 4,
    EmojiPresenceSuite: 5 * 4,
    EmojiInpaintingSuite: 5,
    EmojiMatchingSuite: 5,
}
SUITES = pytest.mark.parametrize("kind", ITEMS, ids=lambda kind: kind.name)


def asked(item: Item) -> tuple[object, ...]:
    texts = item.request.texts if isinstance(item.request, Match) else ()
    return item.key, item.group, asked_of(item), item.wanted, texts


@SUITES
def test_the_same_is_asked_in_every_run_and_each_item_has_a_key_of_its_own(kind):
    one, other = kind(SMALL).items(), kind(SMALL).items()
    assert [asked(item) for item in one] == [asked(item) for item in other]
    assert len({item.key for item in one}) == len(one) == 3 * ITEMS[kind]


@SUITES
def test_another_seed_asks_of_other_scenes(kind):
    changed = kind(SuiteOptions(limit=3, seed=1))
    assert [asked(i)[2:] for i in changed.items()] != [asked(i)[2:] for i in kind(SMALL).items()]
    assert changed.settings == {"limit": 3, "seed": 1}


@SUITES
def test_what_decides_the_items_is_in_the_settings(kind, tmp_path: Path):
    assert kind(SMALL).settings == {"limit": 3, "seed": 20_000}
    assert kind(SuiteOptions()).settings == {"limit": PROMPTS, "seed": SEED}
    assert kind(SMALL).scenes == held_out_scenes(3)
    assert issubclass(kind, HeldOutSuite)
    kind(SMALL).export([], tmp_path)
    assert list(tmp_path.iterdir()) == []
