"""Tuning the embedded model: its data, the rewards of its answers, and the scores of two models."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import unitok
from scripts import reinforce_embedded
from unitok.batch.identity import identity_of_load
from unitok.emoji import captions
from unitok.emoji.checker import find
from unitok.emoji.reward import EMOJI_REWARDS, asks_for_caption, emoji_reward
from unitok.emoji.scenes import Scene
from unitok.emoji.split import is_heldout
from unitok.emoji.tuning_data import TuningSizes, write_tuning_data
from unitok.emoji.tuning_scores import (
    LAYOUT_BAR,
    RESAMPLES,
    Score,
    bootstrap_interval,
    changes,
    everything,
    paired,
    read_scores,
    score_model,
    table_of,
)
from unitok.requests import Caption, Draw, Reply
from unitok.results import TextResult
from unitok.training.data.conversations import Conversation
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.sources import open_source
from unitok.training.recipe_file import read_recipe
from unitok.training.reinforcement.prompts import Prompt, prompts_in
from unitok.training.reinforcement.reward_names import check_names

SIZES = TuningSizes(draw=40, ask=60, paint=12, read=16, places=8, held_out=4)
FILES = ("draw", "ask", "paint", "read", "places", "held_out")
IDENTITY = identity_of_load(None, {})
RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "embedded").glob("*.toml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tuning")
    write_tuning_data(made, SIZES, seed=1)
    return made


def conversations(path: Path) -> list[Conversation]:
    source = open_source(path)
    return [source.conversation(reference) for reference in source.references(None)]


# --- data ----------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_data(folder: Path, tmp_path: Path):
    write_tuning_data(tmp_path / "again", SIZES, seed=1)
    write_tuning_data(tmp_path / "other", SIZES, seed=2)
    for name in FILES:
        text = (folder / f"{name}.jsonl").read_text()
        assert text == (tmp_path / "again" / f"{name}.jsonl").read_text()
        assert text != (tmp_path / "other" / f"{name}.jsonl").read_text()


def test_prompts_are_of_the_grammar_and_show_nothing_held_out(folder: Path):
    drawn = [prompt.request for prompt in prompts_in(folder / "draw.jsonl")]
    claims = [captions.parse(asked.prompt) for asked in drawn if isinstance(asked, Draw)]
    assert len(claims) == SIZES.draw and all(claims)
    assert len({asked.prompt for asked in drawn if isinstance(asked, Draw)}) == len(drawn)
    for path in (folder / "pictures" / "ask").iterdir():
        with Image.open(path) as image:
            scene = find(image)
        assert not is_heldout(Scene("found", scene.background, scene.items)), path


def test_questions_stand_before_and_behind_their_pictures(folder: Path):
    asked = list(prompts_in(folder / "ask.jsonl"))
    contents = [p.request.messages[0]["content"] for p in asked if isinstance(p.request, Reply)]
    firsts = [content[0]["type"] for content in contents]
    assert len(firsts) == SIZES.ask and min(map(firsts.count, ("image", "text"))) > SIZES.ask // 4
    texts = [part["text"] for content in contents for part in content if "text" in part]
    places = sum(
        text.startswith(("where is", "what is ")) and text != "what is this?" for text in texts
    )
    assert places > SIZES.ask // 5, "places are asked for most often"
    assert all(prompt.answers for prompt in asked)


def test_conversations_are_learned_in_both_orders(folder: Path):
    read = conversations(folder / "read.jsonl")
    first_is_text = [isinstance(talk.turns[0].parts[0], str) for talk in read]
    assert 0 < sum(first_is_text) < len(read) == SIZES.read
    assert all(len(talk.turns) == 12 for talk in read)
    with unitok.load() as model:
        maker = SequenceMaker(model.family, dropout=0)
        made = {
            name: [maker(talk) for talk in conversations(folder / f"{name}.jsonl")]
            for name in ("read", "paint")
        }
    assert all(
        len(sequences) == 1 and sum(sequences[0].targets) >= 12 for sequences in made["read"]
    )
    assert all(sequences[0].painted for sequences in made["paint"])
    assert (
        sum(len(conversations(folder / f"{n}.jsonl")) for n in ("held_out",)) == 2 * SIZES.held_out
    )


def test_each_of_two_things_is_asked_for_alone(folder: Path):
    opposite = {"left of": "right of", "above": "below"}
    opposite |= {there: here for here, there in opposite.items()}
    talks = conversations(folder / "places.jsonl")
    assert len(talks) == 2 * SIZES.places and all(len(talk.turns) == 2 for talk in talks)
    texts = [[p for t in talk.turns for p in t.parts if isinstance(p, str)] for talk in talks]
    for (question, answer), (other_question, other_answer) in zip(
        texts[::2], texts[1::2], strict=True
    ):
        word, _, other = answer.partition(" the ")
        other_word, _, one = other_answer.partition(" the ")
        assert (question, other_question) == (f"where is the {one}?", f"where is the {other}?")
        assert opposite[word] == other_word and one != other


def test_rewards_take_any_true_caption_and_one_true_answer(folder: Path):
    def said(text: str) -> TextResult:
        return TextResult(text, 0, "stop", 1, 1, 0.0)

    def asked(question: str, answer: str) -> Prompt:
        parts = [{"type": "text", "text": question}, {"type": "image", "image": "a.png"}]
        return Prompt("here:1", Reply([{"role": "user", "content": parts}]), (answer,))

    caption = asked("what do you see?", "a cat left of a house")
    assert emoji_reward(caption, said("a house right of a cat")) == 1
    assert emoji_reward(caption, said("a house left of a cat")) == 0
    place = asked("what is left of the house?", "a cat")
    assert emoji_reward(place, said("a cat")) == 1 and emoji_reward(place, said("one cat")) == 0
    assert not asks_for_caption(Draw("a cat")) and asks_for_caption(Caption("a.png"))


# --- recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_read_and_name_what_is_written(path: Path):
    recipe = read_recipe(path)
    check_names([reward.name for reward in recipe.reward], EMOJI_REWARDS)
    named = [data.path for data in recipe.data]
    named += recipe.rollout.prompts if recipe.rollout else []
    written = {f"runs/embedded/{name}.jsonl" for name in (*FILES, "pairs")}
    written |= {f"runs/embedded/second/{name}.jsonl" for name in FILES}
    assert named and set(named) <= written
    made = {f"runs/embedded/{other.stem}/model" for other in RECIPES}
    made |= {"runs/embedded/blend", "runs/embedded/rewarded"}
    assert recipe.model is None or recipe.model in made
    assert recipe.out == f"runs/embedded/{path.stem}"


# --- scores --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "before.jsonl"
    with unitok.load() as model:
        for _ in score_model(model, path, IDENTITY, prompts=1, seeds=(3,)):
            pass
    return path


def test_every_question_is_asked_in_both_orders(scored: Path):
    scores = read_scores(scored)
    groups = [score.group for score in scores]
    usual = sorted(g for g in groups if g.startswith(("caption_", "question_")))
    usual = [g for g in usual if not g.startswith("question_first_")]
    first = sorted(
        g.removeprefix("question_first_") for g in groups if g.startswith("question_first_")
    )
    assert usual == first and len(first) == 5 + 4
    assert sum(g.startswith("draw_") for g in groups) == 5 and groups.count("layouts") == 5
    assert all(1 <= s.value <= 8 if s.group == "layouts" else s.value in (0, 1) for s in scores)


def test_scoring_goes_on_where_it_was_stopped(scored: Path, tmp_path: Path):
    lines = scored.read_text().splitlines(keepends=True)
    path = tmp_path / "again.jsonl"
    path.write_text("".join(lines[:-2]) + lines[-2][:20])
    with unitok.load() as model:
        new = list(score_model(model, path, IDENTITY, prompts=1, seeds=(3,)))
    assert len(new) == 2
    assert {s.key: s.value for s in read_scores(path)} == {
        s.key: s.value for s in read_scores(scored)
    }


@pytest.mark.parametrize(
    ("is_old", "identity", "prompts"),
    [(False, "another", 1), (False, IDENTITY, 2), (True, IDENTITY, 1)],
)
def test_scores_of_something_else_are_not_added_to(
    scored: Path, tmp_path: Path, is_old: bool, identity: str, prompts: int
):
    """An old file does not say what its scores are of; it can be compared all the same."""
    path = tmp_path / "scores.jsonl"
    first, *lines = scored.read_text().splitlines(keepends=True)
    assert IDENTITY in first
    path.write_text("".join([*([] if is_old else [first]), *lines[:3], lines[3][:20]]))
    before, model = path.read_bytes(), None
    with pytest.raises(ValueError, match=r"scores\.jsonl does not say that it is of this model"):
        next(score_model(cast(Any, model), path, "another", prompts=1, seeds=(3,)))
    assert path.read_bytes() == before
    assert read_scores(path) == read_scores(scored)[:3]


def test_a_first_line_that_was_cut_off_is_written_anew(tmp_path: Path):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"mod')
    with unitok.load() as model:
        scores = list(score_model(model, path, IDENTITY, prompts=0, seeds=(3,)))
    assert scores == read_scores(path) == [] and IDENTITY in path.read_text()


@pytest.mark.parametrize("data", [b"no line break", b"first\nlast", b"{}\nlast"])
def test_a_file_of_something_else_gets_no_scores(tmp_path: Path, data: bytes):
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    model: Any = None  # is not asked
    with pytest.raises(ValueError, match=r"notes\.txt(:1)? is no "):
        next(score_model(model, path, IDENTITY, prompts=1, seeds=(3,)))
    assert path.read_bytes() == data


def some(group: str, values: Sequence[float]) -> list[Score]:
    return [Score(f"{group}-{i}", group, value) for i, value in enumerate(values)]


def test_changes_are_paired_and_told_with_their_bars():
    before = some("draw_count", [0, 1] * 50) + some("question_place", [1] * 90 + [0] * 10)
    before += some("caption_two", [1.0] * 20) + some("layouts", [5.0] * 20)
    before += some("question_first_caption_two", [0.0] * 20)
    after = some("draw_count", [1.0] * 100) + some("question_place", [1] * 80 + [0] * 20)
    after += some("caption_two", [1.0] * 20) + some("layouts", [4.0] * 20)
    after += some("question_first_caption_two", [1.0] * 20)
    found = {change.name: change for change in changes(before, after[::-1])}
    drawings = found["drawings"]
    assert (drawings.before, drawings.after, drawings.count) == (0.5, 1.0, 100) and drawings.ok
    assert 0.3 < drawings.low < 0.5 < drawings.high < 0.7
    assert found["captions"].count == 20, "questions that come first are apart"
    assert (found["question_first"].before, found["question_first"].after) == (0, 1)
    assert not found["question_place"].ok and found["question_place"].high < 0
    assert found["layouts"].least == pytest.approx(LAYOUT_BAR * 5) and not found["layouts"].ok
    told = table_of(list(found.values()))
    assert "| drawings | 100 | 50.0 | 100.0 | " in told and "| 88.0 missed |" in told
    with pytest.raises(ValueError, match="not of the same requests"):
        paired(before, after[1:])
    with pytest.raises(ValueError, match="no scores of captions: score has not come to its end"):
        changes(before[:100], after[:100])


def test_the_interval_is_that_of_the_bootstrap():
    """Against the normal interval, which a mean of so many has too."""
    differences = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], 600, p=[0.1, 0.6, 0.3])
    low, high = bootstrap_interval(differences, 0)
    half = 1.96 * differences.std() / 600**0.5
    assert low == pytest.approx(differences.mean() - half, abs=0.006)
    assert high == pytest.approx(differences.mean() + half, abs=0.006)
    assert (low, high) == bootstrap_interval(differences, 0) and RESAMPLES >= 10_000


def test_the_script_writes_scores_and_compares(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["reinforce_embedded.py", *words])
        reinforce_embedded.main()

    sizes = [w for name in FILES for w in (f"--{name.replace('_', '-')}", "2")]
    run("data", "--out", str(tmp_path / "data"), *sizes)
    assert len((tmp_path / "data" / "ask.jsonl").read_text().splitlines()) == 2
    copy = tmp_path / "scores.jsonl"
    copy.write_text(scored.read_text())
    run("score", "--prompts", "1", "--seeds", "3", "--out", str(copy))
    assert copy.read_text() == scored.read_text(), "all was asked already"
    perfect = tmp_path / "perfect.jsonl"
    perfect.write_text(
        "".join(
            json.dumps(vars(s) | ({} if s.group == "layouts" else {"value": 1.0})) + "\n"
            for s in read_scores(scored)
        )
    )
    run("compare", str(scored), str(perfect))
    assert "| drawings | 5 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"reinforce_embedded: .*gone\.jsonl"):
        run("compare", "gone.jsonl", str(perfect))


def test_what_is_asked_has_names_of_its_own():
    keys = [asked.key for asked in everything(2, (3, 4))]
    assert len(set(keys)) == len(keys)
