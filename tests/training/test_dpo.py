"""Runs that learn from pairs of answers: what they compare, what they learn, how they go on."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import unitok
from tests.training.pairs import CODES, write_pairs
from tests.training.ranks import finish, start_ranks
from tests.training.toy import toy_recipe, write_data
from unitok.families import Family
from unitok.training.data.conversations import DataError
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.sources import open_source
from unitok.training.log_probabilities import log_probabilities
from unitok.training.plan import plan_of
from unitok.training.preferences.batches import PreferenceBatch
from unitok.training.preferences.loss import DpoLoss
from unitok.training.preferences.pairs import AnswerPair, make_pair
from unitok.training.preferences.reference import Reference
from unitok.training.recipe import DataKeys, Recipe
from unitok.training.recipe_file import SHIPPED, read_recipe, to_toml
from unitok.training.run import FineTuning
from unitok.training.targets import text_range_of

NOTHING = {"pairs": 0.0, "chosen": 0.0, "text": 0.0, "image": 0.0}
LORA = {"rank": 2, "targets": ["decoder.blocks", "image_head", "text_head"]}


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def make(untrained_folder: Path, pairs_file: Path, tmp_path: Path) -> Any:
    """Makes recipes of toy runs."""

    def made(source: Path = pairs_file, **sections: Any) -> Recipe:
        sections = {
            "dpo": {"beta": 0.5},
            "batch": {"conversations": 6, "max_tokens": 400},
        } | sections
        return toy_recipe(untrained_folder, source, tmp_path / "run", **sections)

    return made


@pytest.fixture
def family(untrained_folder: Path) -> Any:
    with unitok.load(untrained_folder, dtype="float32") as model:
        model.family.model.requires_grad_(True)
        yield model.family


def pairs_of(family: Family, path: Path) -> list[AnswerPair]:
    source, maker = open_source(path), SequenceMaker(family, dropout=0)
    conversations = [source.conversation(reference) for reference in source.references(None)]
    made = [make_pair(maker, c, 400) for c in conversations if c.rejected is not None]
    return [pair for pair in made if pair is not None]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# --- what is compared ----------------------------------------------------------------------------


def test_codes_of_a_record_are_learned_as_they_are(family: Family, pairs_file: Path):
    picture = next(pair for pair in pairs_of(family, pairs_file) if pair.chosen[0].painted)
    (chosen,), (rejected,) = picture.chosen, picture.rejected
    codes = chosen.painted[0].codes
    assert codes is not None and codes.tolist() == [i % 16 for i in range(CODES)]
    assert rejected.painted[0].codes is None
    assert sum(chosen.targets) == sum(rejected.targets) == 64


@torch.no_grad()
def test_the_loss_is_that_of_the_paper(family: Family, pairs_file: Path):
    pairs = pairs_of(family, pairs_file)
    text_range = text_range_of(family)
    references = tuple((-5.0 - i, -4.0 + 2 * i) for i in range(len(pairs)))
    batch = PreferenceBatch(tuple(pairs), references, (), NOTHING | {"pairs": 1.0, "chosen": 0.5})
    loss = DpoLoss(family.model, text_range, beta=0.3, label_smoothing=0.1)(batch, 0)
    expected, right, tokens = 0.0, 0, torch.zeros(())
    for pair, (start_chosen, start_rejected) in zip(pairs, references, strict=True):
        better = log_probabilities(family.model, pair.chosen, text_range)
        worse = log_probabilities(family.model, pair.rejected, text_range)
        gained = float(sum(b.sum() for b in better)) - start_chosen
        margin = 0.3 * (gained - float(sum(w.sum() for w in worse)) + start_rejected)
        sigmoid = 1 / (1 + math.exp(-margin))
        expected += -0.9 * math.log(sigmoid) - 0.1 * math.log(1 - sigmoid)
        right += margin > 0
        tokens = tokens - torch.cat(better).sum()
    assert float(loss.parts["dpo"]) == pytest.approx(expected / len(pairs), rel=1e-4)
    assert float(loss.parts["accuracy"]) == pytest.approx(right / len(pairs))
    assert float(loss.total) == pytest.approx(expected + 0.5 * float(tokens), rel=1e-4)
    assert loss.counts["dpo"] == len(pairs) and loss.counts["chosen"] > 64


def test_the_reference_stays_where_the_run_began(family: Family, pairs_file: Path):
    pairs, text_range = pairs_of(family, pairs_file), text_range_of(family)
    reference = Reference(family.model, text_range, torch.float32)
    before = [reference(pairs[:1])[0], *Reference(family.model, text_range, torch.float32)(pairs)]
    weight = family.model.decoder.norm.weight
    with torch.no_grad():
        weight.mul_(1.7)
        moved = weight.clone()
    assert reference(pairs) == before[1:], "it is neither the weights of now, nor the order's"
    assert before[0] == before[1]
    assert torch.equal(weight, moved), "the weights in training are put back"
    again = Reference(family.model, text_range, torch.float32)(pairs)
    assert all(abs(a[0] - b[0]) > 1e-3 for a, b in zip(again, before[1:], strict=True))


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_run_begins_at_its_reference(make: Any, lora: dict[str, Any] | None):
    run = FineTuning(make(**({"lora": lora} if lora else {}), loss={"prompt_dropout": 0.9}))
    (batch, *_) = next(run.updates)
    found = run.trainer.without_gradients(batch).parts
    assert found["dpo"] == pytest.approx(math.log(2), abs=1e-4)
    assert abs(found["margin"]) < 1e-4


# --- what is learned -----------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_texts_and_pictures_are_preferred_in_one_run(make: Any, lora: Any, pairs_file: Path):
    fast = {"learning_rate": 5e-3, "warmup": 1}
    held_out = {"path": str(pairs_file), "every": 12}
    recipe = make(steps=12, optimiser=fast, held_out=held_out, **({"lora": lora} if lora else {}))
    run = FineTuning(recipe)
    result = run.run(shown=False)
    learned = [r for r in records(run.folder) if "speed" in r]
    assert learned[0]["dpo"] == pytest.approx(math.log(2), abs=1e-3)
    assert learned[-1]["dpo"] < 0.35 and learned[-1]["accuracy"] == 1.0
    assert learned[-1].keys() >= {"margin", "chosen_reward", "text", "image", "chosen"}
    (measured,) = [r for r in records(run.folder) if "held_out_dpo" in r]
    assert measured["held_out_accuracy"] == 1.0 and measured["held_out_margin"] > 0
    assert (run.folder / "curves.png").is_file()
    base = run.recipe.model
    opened = unitok.load(base, adapter=result) if lora else unitok.load(result)
    with opened as model:
        assert preferred(model.family, pairs_file) > preferred_by(base, pairs_file)


def preferred(family: Family, path: Path) -> float:
    """By how many nats chosen answers are more likely than the others."""
    text_range, difference = text_range_of(family), 0.0
    for pair in pairs_of(family, path):
        with torch.no_grad():
            found = log_probabilities(family.model, pair.sequences, text_range)
        sums = [float(each.sum()) for each in found]
        difference += sums[0] - sums[1]
    return difference


def preferred_by(folder: str | None, path: Path) -> float:
    with unitok.load(folder) as model:
        return preferred(model.family, path)


def test_conversations_beside_the_pairs_are_learned_as_before(
    make: Any, pairs_file: Path, tmp_path: Path
):
    """Without a pair in an update, its loss is that of fine-tuning."""
    data = write_data(tmp_path / "data")
    batch = {"conversations": 9, "max_tokens": 400}
    recipe = make(data, batch=batch, loss={"prompt_dropout": 0.0})
    rare = DataKeys(path=str(pairs_file), weight=1e-6)  # none is in the first update
    recipe = replace(recipe, data=(*recipe.data, rare))
    ours = FineTuning(recipe)
    theirs = FineTuning(replace(recipe, dpo=None, out=str(tmp_path / "plain")))
    for run in (ours, theirs):
        run.trainer.step()
    weights = theirs.trainer.trained_by_name
    for name, weight in ours.trainer.trained_by_name.items():
        torch.testing.assert_close(weight, weights[name], msg=name)


def test_an_update_weighs_pairs_alike_however_they_are_packed(make: Any):
    gradients = []
    for most in (200, 2000):
        batch = {"conversations": 12, "max_tokens": most, "max_length": 150}
        run = FineTuning(make(batch=batch, dpo={"chosen_weight": 0.3}))
        batches = next(run.updates)
        assert (len(batches) > 1) == (most == 200)
        for each in batches:
            run.trainer.backward(each)
        grads = {n: p.grad for n, p in run.trainer.trained_by_name.items() if p.grad is not None}
        gradients.append(grads)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_two_ranks_learn_what_one_learns(make: Any, pairs_file: Path, tmp_path: Path):
    held_out = {"path": str(pairs_file), "every": 4}
    recipe = make(steps=4, dpo={"beta": 0.5, "chosen_weight": 0.2}, held_out=held_out)
    two = replace(recipe, out=str(tmp_path / "two"))
    file = tmp_path / "two.toml"
    file.write_text(to_toml(two))
    processes = start_ranks([file])
    FineTuning(recipe).run(shown=False)
    finish(processes)
    expected, found = (records(Path(each.out)) for each in (recipe, two))
    names = ("dpo", "accuracy", "margin", "chosen", "text", "gradient_norm", "held_out_margin")
    for theirs, ours in zip(expected, found, strict=True):
        kept = {name: theirs[name] for name in names if name in theirs}
        assert kept and kept == pytest.approx(
            {name: ours[name] for name in kept}, rel=1e-3, abs=1e-5
        )
    weights = load_file(Path(recipe.out) / "model" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "two" / "model" / "model.safetensors").items():
        assert (tensor - weights[name]).abs().max() < 1e-4, name


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, LORA | {"dropout": 0.2}], ids=["full", "lora"])
def test_a_run_goes_on_exactly(make: Any, lora: Any):
    recipe = make(steps=6, **({"lora": lora} if lora else {}))
    run = FineTuning(recipe)
    run.run(shown=False)
    whole = {name: p.detach().clone() for name, p in run.trainer.trained_by_name.items()}
    shutil.rmtree(run.checkpoints.path(6))
    again = FineTuning(recipe)
    assert again.trainer.step_count == 3
    again.run(shown=False)
    for name, weight in again.trainer.trained_by_name.items():
        assert torch.equal(weight, whole[name]), name


def test_a_run_does_not_go_on_with_another_beta(make: Any):
    FineTuning(make(steps=2)).run(shown=False)
    with pytest.raises(ValueError, match=r"another recipe: dpo\.beta: 0\.5 and 0\.2"):
        FineTuning(make(steps=2, dpo={"beta": 0.2}))


def test_a_run_does_not_go_on_with_other_pairs_left_out(make: Any):
    batch = {"conversations": 6, "max_tokens": 400, "max_length": 200}
    FineTuning(make(steps=2, batch=batch)).run(shown=False)
    with pytest.raises(ValueError, match=r"another recipe: batch\.max_tokens: 400 and 200"):
        FineTuning(make(steps=2, batch=batch | {"max_tokens": 200}))


# --- mistakes ------------------------------------------------------------------------------------


def test_pairs_need_the_section(make: Any):
    recipe = replace(make(batch={"conversations": 12, "max_tokens": 400}), dpo=None)
    with pytest.raises(DataError, match=r"pairs\.jsonl:\d+: it has chosen and rejected, .*\[dpo\]"):
        FineTuning(recipe).run(shown=False)


def test_data_without_a_pair_are_refused(make: Any, tmp_path: Path):
    plain, more = write_data(tmp_path / "plain"), write_data(tmp_path / "more")
    told = r'plain/train\.jsonl, .*more/train\.jsonl: \[dpo\] .*"rejected".* leave \[dpo\] out'
    with pytest.raises(ValueError, match=told):
        FineTuning(replace(make(), data=tuple(DataKeys(path=str(p)) for p in (plain, more))))


def test_a_pair_behind_a_wrong_line_is_found(make: Any, pairs_file: Path, tmp_path: Path):
    plain = write_data(tmp_path / "plain")
    pair = pairs_file.read_text().splitlines()[0]
    plain.write_text(f"{{}}\n{plain.read_text()}{pair}\n")
    batch = {"conversations": 6, "max_tokens": 400, "on_error": "skip"}
    assert FineTuning(make(plain, batch=batch)).trainer.step_count == 0


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"loss": {"z_loss": 0.1}}, r"loss\.z_loss must be 0 with \[dpo\]"),
        ({"memory": {"sharding": "fsdp"}}, r"memory\.sharding must be none with \[dpo\]"),
        (
            {
                "rollout": {"prompts": ["p.jsonl"]},
                "reward": [{"name": "exact"}],
                "grpo": {"supervised": 0.1},
            },
            r"give \[dpo\] or \[rollout\], not both",
        ),
        ({"dpo": {"beta": 0}}, r"dpo\.beta must be a number above 0, not 0"),
        ({"dpo": {"label_smoothing": 0.5}}, r"dpo\.label_smoothing must be a number at least 0"),
        ({"dpo": {"beat": 1}}, r"there is no key dpo\.beat; did you mean dpo\.beta\?"),
    ],
)
def test_a_wrong_recipe_is_refused(make: Any, sections: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        make(**sections)


def test_pairs_that_are_too_long_are_counted_and_left_out(make: Any):
    recipe = make(steps=1, batch={"conversations": 12, "max_tokens": 130})
    run = FineTuning(recipe)
    batches = next(run.updates)
    names = {name for batch in batches for pair in batch.pairs for name in [pair.chosen[0].painted]}
    assert names == {()}, "two pictures are too long together"
    assert run.updates.left_out()["dropped"] >= 3


def test_the_recipe_that_comes_with_unitok_makes_a_run(
    untrained_folder: Path, pairs_file: Path, tmp_path: Path
):
    words = [f"model={untrained_folder}", f"out={tmp_path / 'run'}", "steps=1", "device=cpu"]
    recipe = read_recipe(SHIPPED / "dpo.toml", [*words, f"data.0.path={pairs_file}"])
    assert FineTuning(recipe).run(shown=False) == tmp_path / "run" / "adapter"
    assert "dpo" in records(tmp_path / "run")[0]


def test_a_plan_tells_of_pairs(make: Any):
    plan = plan_of(FineTuning(make()))
    assert "dpo 0.693" in plan["first batch"] and "nats per token" not in plan["first batch"]
