"""Runs in one process: what they write, what they learn, what stops them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unitok
from tests.training.toy import toy_recipe, write_data
from unitok.training.parts import choose_parts
from unitok.training.plan import plan_of
from unitok.training.recipe import BatchKeys, CheckpointKeys, Recipe
from unitok.training.recipe_file import SHIPPED, read_recipe
from unitok.training.run import FineTuning
from unitok.training.trainer import NotFiniteError


@pytest.fixture
def make(untrained_folder: Path, toy_data: Path, tmp_path: Path) -> Any:
    """Makes recipes of toy runs."""

    def made(source: Path = toy_data, **sections: Any) -> Recipe:
        return toy_recipe(untrained_folder, source, tmp_path / "run", **sections)

    return made


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_its_records_and_a_model_that_opens(make: Any, toy_data: Path):
    recipe = make(
        held_out={"path": str(toy_data), "every": 3},
        samples={
            "every": 3,
            "prompts": ["two apples"],
            "pictures": [str(toy_data.parent / "red.png")],
        },
    )
    result = FineTuning(recipe).run(shown=False)
    folder = Path(recipe.out)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("checkpoints", "curves.png", "log.jsonl", "model", "recipe.toml", "samples"),
        "tensorboard",
    }
    learned = [record for record in records(folder) if "speed" in record]
    assert [record["step"] for record in learned] == [1, 2, 3, 4, 5, 6]
    assert learned[0].keys() >= {"text", "gradient_norm", "memory", "learning_rate"}
    held_out = [r["step"] for r in records(folder) if "held_out_text" in r and r["held_out_image"]]
    assert held_out == [3, 6]
    assert any((folder / "tensorboard").iterdir())
    assert Image.open(folder / "samples" / "step-000003.png").height > 64
    assert (folder / "samples" / "step-000006.txt").read_text().count("\t") == 1
    assert read_recipe(folder / "recipe.toml") == recipe
    with unitok.load(result) as model:
        assert model.draw("two apples", seed=1).image.size == (64, 64)


def test_both_losses_fall(make: Any):
    fast = {"learning_rate": 1e-2, "warmup": 2}
    run = FineTuning(make(steps=25, checkpoint={"every": 25}, optimiser=fast))
    run.run(shown=False)
    learned = records(run.folder)
    for name in ("text", "image"):
        values = [record[name] for record in learned if name in record]
        assert sum(values[-3:]) < 0.8 * sum(values[:3]), name


def test_a_kind_of_weight_0_is_measured_and_not_learned(make: Any, toy_data: Path):
    recipe = make(
        steps=2,
        loss={"image_weight": 0},
        batch={"conversations": 9, "max_tokens": 300},
        held_out={"path": str(toy_data)},
    )
    run = FineTuning(recipe)
    before = run.family.model.image_head.fc1.weight.detach().clone()  # type: ignore[union-attr]
    run.run(shown=False)
    assert torch.equal(run.family.model.image_head.fc1.weight, before)  # type: ignore[union-attr]
    assert all(record["image"] > 0 for record in records(run.folder) if "speed" in record)
    assert records(run.folder)[-1]["held_out_image"] > 0


def test_only_what_is_chosen_changes_and_is_saved(make: Any, untrained_folder: Path):
    run = FineTuning(make(train={"parts": ["image_head"], "freeze": []}))
    before = {name: weight.clone() for name, weight in run.family.model.named_parameters()}
    result = run.run(shown=False)
    moved = {n for n, w in run.family.model.named_parameters() if not torch.equal(w, before[n])}
    expected = {name for name in before if name.startswith("image_head.")}
    assert moved == expected
    stored = {name.split(".", 1)[1] for name in run.checkpoints.shapes(6) if name[:6] == "model."}
    assert stored == expected
    with unitok.load(result) as tuned, unitok.load(untrained_folder) as base:
        ours, theirs = tuned.family.model.state_dict(), base.family.model.state_dict()
        assert {n for n in ours if not torch.equal(ours[n], theirs[n])} == expected


def test_the_averages_are_what_is_saved(make: Any):
    run = FineTuning(make(optimiser={"learning_rate": 1e-2, "warmup": 1, "ema": 0.5}))
    start = {name: weight.detach().clone() for name, weight in run.trainer.trained_by_name.items()}
    expected, name = dict(start), "decoder.norm.weight"
    average = start[name].clone()
    step = run.trainer.step

    def watched() -> Any:
        losses = step()
        average.mul_(0.5).add_(0.5 * run.trainer.trained_by_name[name].detach())
        return losses

    run.trainer.step = watched
    result = run.run(shown=False)
    assert expected.keys() == run.trainer.trained_by_name.keys()
    with unitok.load(result) as tuned:
        saved = tuned.family.model.decoder.norm.weight
    torch.testing.assert_close(saved, average)
    assert (saved - run.family.model.decoder.norm.weight).abs().max() > 1e-4


def test_an_adapter_is_saved_and_opens_over_its_base(make: Any, untrained_folder: Path):
    run = FineTuning(make(lora={"rank": 2, "targets": ["decoder.blocks", "image_head"]}))
    result = run.run(shown=False)
    assert result.name == "adapter" and not (run.folder / "model").exists()
    stored = run.checkpoints.shapes(6)
    assert all("lora_" in name for name in stored if name.startswith("model."))
    with unitok.load(untrained_folder, adapter=result) as model:
        model.draw("two apples", seed=1)


def test_with_bf16_the_weights_beside_adapters_take_two_bytes(make: Any):
    """What is trained keeps four. The engine draws with such a mixture too."""
    recipe = make(
        steps=2,
        precision="bf16",
        lora={"rank": 2, "also_train": ["image_head"]},
        memory={"activation_checkpointing": "selective"},
        samples={"prompts": ["two apples"]},
    )
    run = FineTuning(recipe)
    kinds = {(p.requires_grad, p.dtype) for p in run.family.model.decoder.parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}
    run.run(shown=False)
    assert (run.folder / "samples" / "step-000002.png").is_file()


def test_a_finished_run_does_nothing_more(make: Any):
    recipe = make()
    FineTuning(recipe).run(shown=False)
    before = records(Path(recipe.out))
    again = FineTuning(recipe)
    assert again.resumed and again.trainer.step_count == 6
    again.run(shown=False)
    assert records(Path(recipe.out)) == before


def test_a_run_goes_on_only_with_the_same_recipe(make: Any):
    FineTuning(make(steps=2)).run(shown=False)
    with pytest.raises(
        ValueError, match=r"another recipe: steps: 2 and 3\. Go on with .*recipe\.toml"
    ):
        FineTuning(make(steps=3))
    other = replace(make(steps=2), checkpoint=CheckpointKeys(every=9), log_every=9)
    assert FineTuning(other).resumed, "what only shows the run may change"


def test_epochs_see_all_data_so_often(make: Any, toy_data: Path):
    recipe = replace(make(), steps=None, epochs=2, batch=BatchKeys(conversations=4, max_tokens=300))
    run = FineTuning(recipe)
    seen: list[str] = []
    take = run.updates.stream.next_update

    def watched(batch: int) -> Any:
        conversations = take(batch)
        seen.extend(conversation.name for conversation in conversations)
        return conversations

    run.updates.stream.next_update = watched
    run.run(shown=False)
    lines = toy_data.read_text().count("\n")
    assert run.steps == run.trainer.step_count == 5 and len(seen) == 2 * lines
    assert set(map(seen.count, seen)) == {2}


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(make: Any):
    run = FineTuning(make())
    step = run.trainer.step

    def poisoned() -> Any:
        if run.trainer.step_count == 4:
            with torch.no_grad():
                run.family.model.decoder.norm.weight[0] = torch.nan
        return step()

    run.trainer.step = poisoned
    weights = dict(run.trainer.trained_by_name)
    with pytest.raises(
        NotFiniteError, match=r"a loss .* in update 5; in the batch: .*train\.jsonl:\d"
    ):
        run.run(shown=False)
    assert run.checkpoints.steps() == [3]
    assert torch.isfinite(weights["image_head.fc1.weight"]).all()
    assert FineTuning(make()).trainer.step_count == 3


def test_a_gradient_that_is_not_finite_stops_too(make: Any):
    run = FineTuning(make())
    weight: Any = run.family.model.decoder.norm.weight
    weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NotFiniteError, match="a gradient is infinite or not a number in update 1"):
        run.run(shown=False)


def test_wrong_data_end_the_run_or_are_counted(make: Any, tmp_path: Path):
    data = write_data(tmp_path / "data")
    lines = data.read_text().splitlines()
    lines[4] = lines[4].replace("green.png", "gone.png")
    data.write_text("\n".join(lines) + "\n")
    batch = {"conversations": 9, "max_tokens": 300}
    with pytest.raises(ValueError, match=r"train\.jsonl:5: .*gone\.png"):
        FineTuning(make(data, batch=batch)).run(shown=False)
    skipping = make(data, batch={**batch, "on_error": "skip"}, steps=2)
    run = FineTuning(replace(skipping, out=str(tmp_path / "skipping")))
    run.run(shown=False)
    assert records(run.folder)[-1]["skipped"] == 2


def test_a_plan_says_what_a_run_would_do(make: Any):
    recipe = make(train={"parts": ["decoder", "image_head"], "freeze": []})
    plan = plan_of(FineTuning(recipe))
    assert plan["trained"].startswith("decoder ") and "image_head " in plan["trained"]
    assert plan["updates"] == "6 of 4 conversations, 0 made"
    assert not Path(recipe.out).exists()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_unitok_are_read(path: Path):
    recipe = read_recipe(path)
    assert recipe.out == f"runs/{path.stem}"
    from tests.unitok.tiny import tiny_model

    if recipe.lora is None:
        model = tiny_model()
        assert choose_parts(model, recipe.train.parts, recipe.train.freeze)
        assert not any(p.requires_grad for p in model.image_tokenizer.parameters())
