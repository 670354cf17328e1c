"""Trained baselines at toy size: they train, resume, are saved and opened; scores are just."""

import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from scripts import train_baseline
from tests.unitok.tiny import TINY
from unitok.baselines import opening
from unitok.baselines.pipelines import open_pipeline
from unitok.baselines.protocols import ImageGenerator, ImageTextScorer
from unitok.emoji import captions
from unitok.emoji.baselines import clip, diffusion, figures, lit, ours, recipes, scoring, table
from unitok.emoji.baselines.budget import Budget, TimedCosine
from unitok.emoji.baselines.clip import Clip, ClipRun, ClipSizes, word_tokenizer
from unitok.emoji.baselines.contrast import TowerScorer, contrastive_loss
from unitok.emoji.baselines.diffusion import DiffusionRun
from unitok.emoji.baselines.lit import Lit, LitRun, LitSizes
from unitok.emoji.baselines.pairs import PairUpdates, near_miss, truths
from unitok.emoji.baselines.recipes import Recipe
from unitok.emoji.baselines.reranking import Candidates, curve, draw_many
from unitok.emoji.baselines.run import BaselineRun, RunOptions
from unitok.emoji.baselines.scoring import Failure, Scored
from unitok.emoji.captions import caption, claim
from unitok.emoji.checker import find
from unitok.emoji.evaluation import EmojiSuite, emoji_scores, judge_all
from unitok.emoji.pretraining import PretrainRun
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler, make_scene
from unitok.emoji.scenes import KINDS, Item, Scene
from unitok.emoji.split import is_heldout
from unitok.emoji.sprites import SMALL
from unitok.evaluation.suite import SuiteOptions
from unitok.nn.config import DEFAULT, JanusConfig
from unitok.requests import Draw
from unitok.results import DrawResult, Result, failure

CLIP_SIZES = ClipSizes(32, 1, 32, 1, patch=16, projection=16, head=16)
DIFFUSION = DiffusionRun(batch=2, widths=(32, 32), head=16, warmup=2, text_layers=1)
# With the embedded model's image tokenizer, and room for the recipe's conversations.
LARGE_TINY: JanusConfig = replace(
    TINY,
    decoder=replace(TINY.decoder, max_positions=2048),
    vision=replace(TINY.vision, patch_size=8),
    image_tokenizer=DEFAULT.image_tokenizer,
)
NOTHING = Scored({"score": 0.5}, [])


def recipe(make: Any, save: Any = None) -> Recipe:
    return Recipe(make, save or (lambda trainer, folder: folder.mkdir()), lambda *_: NOTHING, "")


TOYS = {
    "clip": recipe(
        lambda seed, budget: clip.make_trainer(ClipRun(8, seed=seed, sizes=CLIP_SIZES), budget),
        clip.save,
    ),
    "lit": recipe(
        lambda seed, budget: lit.make_trainer(
            LitRun(4, seed=seed, sizes=LitSizes(64, 8, 8)), budget
        ),
        lit.save,
    ),
    "diffusion": recipe(
        lambda seed, budget: diffusion.make_trainer(replace(DIFFUSION, seed=seed), budget),
        diffusion.save,
    ),
    "ours": recipe(
        lambda seed, budget: ours.make_trainer(
            PretrainRun(drawings=2, readings=1, conversation_ids=64, warmup=2, seed=seed),
            budget,
            LARGE_TINY,
        ),
        ours.save,
    ),
}


def minute_clock() -> Any:
    """Each look at it is a minute later, so that each update takes one."""
    ticks = count()
    return lambda: 60.0 * next(ticks)


def started(kind: str, folder: Path, minutes: int, seed: int = 0, **options: Any) -> BaselineRun:
    asked = RunOptions(kind, minutes, seed)
    return BaselineRun(TOYS[kind], asked, folder, clock=minute_clock(), **options)


def weights(one: BaselineRun) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in one.trainer.trained_by_name.items()}


# --- budgets and runs ----------------------------------------------------------------------------


def test_a_budget_counts_only_what_is_done_inside():
    now = iter([10.0, 40.0, 100.0, 190.0])
    budget = Budget(2, lambda: next(now))
    for used in (0.5, 2.0):
        assert not budget.is_spent
        with budget.counting():
            pass
        assert budget.used == used
    assert budget.is_spent and budget.share == 1


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_budget_of_no_minutes_is_an_error(minutes: float):
    with pytest.raises(ValueError, match="more than 0 minutes"):
        Budget(minutes)


def test_the_learning_rate_follows_the_minutes_after_its_warm_up():
    budget = Budget(10)
    rate = TimedCosine(1.0, 4, budget, floor=0.1)
    assert [rate(0), rate(1), rate(3), rate(99)] == [0.25, 0.5, 1, 1]
    budget.used = 5
    assert rate(99) == pytest.approx(0.55)
    budget.used = 11
    assert rate(99) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", TOYS)
def test_a_run_that_was_killed_ends_as_one_that_was_not(kind: str, tmp_path: Path):
    whole = started(kind, tmp_path / "whole", 4)
    before = weights(whole)
    whole.train()
    after = weights(whole)
    assert all(torch.isfinite(w).all() for w in after.values())
    assert [name for name in after if torch.equal(before[name], after[name])] == []

    killed = started(kind, tmp_path / "killed", 4, save_minutes=2)
    for _ in range(3):  # the third is lost: the last checkpoint is of the second
        killed._update()
    torch.manual_seed(999)
    second = started(kind, tmp_path / "killed", 4)
    assert (second.trainer.step_count, second.budget.used) == (2, 2)
    second.train()
    assert (second.trainer.step_count, second.budget.used) == (4, 4)
    found = weights(second)
    assert found.keys() == after.keys()
    for name, weight in found.items():
        assert torch.equal(weight, after[name]), name


def test_a_run_writes_its_log_and_its_scores(tmp_path: Path):
    one = started("clip", tmp_path, 4, log_every=2)
    one.train()
    one.score(1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["minutes"]) for line in lines] == [(2, 2), (4, 4)]
    assert all(line["contrastive"] > 0 for line in lines)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["scores"] == {"score": 0.5}
    assert (record["kind"], record["updates"], record["minutes_used"]) == ("clip", 4, 4)
    assert record["parameters"] == sum(w.numel() for w in weights(one).values())


def test_minutes_are_counted_in_updates_by_the_pace(tmp_path: Path):
    options = RunOptions("clip", 1.5, 0, pace=2)
    for updates in (1, 3):  # the second goes on where the first stopped
        one = BaselineRun(TOYS["clip"], options, tmp_path, save_minutes=0.5)
        one._update() if updates == 1 else one.train()
        assert (one.trainer.step_count, one.budget.used) == (updates, updates / 2)
    with pytest.raises(ValueError, match=r"run\.json says pace 2, not 3"):
        BaselineRun(TOYS["clip"], replace(options, pace=3), tmp_path)


def test_the_pace_is_updates_in_a_minute():
    seconds = iter([100.0, 130.0])
    assert recipes.measure_pace(TOYS["clip"], 5, lambda: next(seconds)) == 10


def test_a_folder_belongs_to_one_run(tmp_path: Path):
    started("clip", tmp_path, 4)
    with pytest.raises(ValueError, match=r"run\.json says seed 0, not 1"):
        started("clip", tmp_path, 4, seed=1)


def test_no_file_of_a_run_is_a_pickle(tmp_path: Path):
    one = started("clip", tmp_path, 2)
    one.train()
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jsonl"}


def test_diffusion_learns_within_a_few_updates():
    trainer = diffusion.make_trainer(replace(DIFFUSION, batch=4, lr=8e-3), Budget(99))
    losses = [trainer.step().parts["picture"] for _ in range(8)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


# --- pairs ---------------------------------------------------------------------------------------


def test_a_near_miss_is_another_scene_of_the_training_split_that_looks_alike():
    rng, sampler = random.Random(0), SceneSampler(0, "train")
    changed = set[str]()
    for scene in sampler.batch(300):
        other = near_miss(scene, rng)
        assert not is_heldout(other)
        assert not captions.equivalent(caption(other), scene)
        here, there = claim(scene), claim(other)
        same = {
            "background": here.background == there.background,
            "names": here.objects and scene.counts.keys() == other.counts.keys(),
            "counts": sorted(scene.counts.values()) == sorted(other.counts.values()),
        }
        [*wrong] = [name for name, alike in same.items() if not alike]
        assert len(wrong) <= 1
        changed.update(wrong or ["relation"])
        render([other])
    assert changed == {"background", "names", "counts", "relation"}


def test_the_nearly_true_is_told_from_the_true():
    cat, dog = Item("cat", SMALL, 0, 0), Item("dog", SMALL, 0, 4)
    scenes = [
        Scene("two", "white", (cat, dog)),
        Scene("two", "blue", (cat, dog)),
        Scene("single", "white", (cat,)),
    ]
    texts = ["a cat and a dog", "a dog left of a cat", "a dog to the right of a cat", "draw a cat"]
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert truths(scenes, texts).tolist() == [list(map(bool, row)) for row in expected]
    for scene in scenes:
        true = truths([scene], [caption(other) for other in scenes])[0].tolist()
        assert true == [captions.equivalent(caption(other), scene) for other in scenes]


def test_a_batch_is_scenes_and_near_misses_with_texts_that_are_true_of_them():
    [batch] = next(PairUpdates(64, 0))
    assert batch.pixels.shape == (64, 3, 64, 64)
    assert batch.true.diagonal().all()
    assert batch.true.sum() < 64 * 4


def test_what_is_also_true_is_no_negative():
    logits = torch.tensor([[1.0, 9.0], [0.0, 2.0]])
    true = torch.tensor([[True, True], [False, True]])
    towards_text = (0 + torch.tensor([0.0, 2.0]).logsumexp(0) - 2) / 2
    towards_picture = (torch.tensor([1.0, 0.0]).logsumexp(0) - 1 + 0) / 2
    expected = (towards_text + towards_picture) / 2
    assert contrastive_loss(logits, true) == pytest.approx(expected.item())
    assert contrastive_loss(logits, torch.eye(2).bool()) > expected


# --- saved and opened ----------------------------------------------------------------------------

PICTURES = [to_pil(pixels) for pixels in render(SceneSampler(3, "heldout").batch(3))]
TEXTS = ["a cat", "three dogs on a blue background"]


def test_every_word_of_the_grammar_is_a_token_and_no_other_is():
    words, tokenizer = captions.vocabulary_words(), word_tokenizer()
    encoded = tokenizer.encode("Three DOGS, a zebra")
    assert encoded.tokens == ["[BOS]", "three", "dogs", "[UNK]", "a", "[UNK]", "[EOS]"]
    assert tokenizer.get_vocab_size() == len(words) + 4


def test_a_saved_clip_opens_in_transformers_and_is_the_same(tmp_path: Path):
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip import image_processing_pil_clip

    one = started("clip", tmp_path, 2)
    one.train()
    trained: Any = one.trainer.model
    folder = tmp_path / "model"
    opened, expected = opening.load(folder, "scorer", device="cpu"), TowerScorer("CLIP", trained)
    assert isinstance(opened, ImageTextScorer) and isinstance(expected, ImageTextScorer)
    images, texts = expected.image_features(PICTURES), expected.text_features(TEXTS)
    close: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(opened.image_features(PICTURES), images, **close)
    torch.testing.assert_close(opened.text_features(TEXTS), texts, **close)
    found = opened.score(PICTURES, TEXTS)
    torch.testing.assert_close(found, expected.score(PICTURES, TEXTS), atol=1e-3, rtol=1e-3)
    probabilities = expected.classify(PICTURES, TEXTS)
    torch.testing.assert_close(opened.classify(PICTURES, TEXTS), probabilities, **close)

    model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    processor = image_processing_pil_clip.CLIPImageProcessorPil.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=processor(PICTURES, return_tensors="pt")["pixel_values"],
        )
    torch.testing.assert_close(out.image_embeds, images, **close)
    torch.testing.assert_close(out.text_embeds, texts, **close)


def test_a_text_is_the_same_alone_and_beside_a_longer_one():
    torch.manual_seed(0)
    matcher = TowerScorer("CLIP", Clip.new(CLIP_SIZES).eval())
    alone, beside = matcher.text_features(TEXTS[:1]), matcher.text_features(TEXTS)[:1]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)


def test_saved_projections_open_over_their_frozen_towers(tmp_path: Path):
    one = started("lit", tmp_path, 2)
    one.train()
    trained: Any = one.trainer.model
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {
        "vision_projection",
        "text_projection",
        "logit_scale",
    }
    again = TowerScorer("LiT", Lit.open(tmp_path / "model"))
    expected = TowerScorer("LiT", trained)
    torch.testing.assert_close(
        again.image_features(PICTURES), expected.image_features(PICTURES), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(again.text_features(TEXTS), expected.text_features(TEXTS))


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> BaselineRun:
    """A diffusion model that was trained and saved."""
    one = started("diffusion", tmp_path_factory.mktemp("painter"), 1)
    one.train()
    return one


def test_a_saved_pipeline_draws_the_same_alone_and_in_a_batch(painter: BaselineRun):
    folder = painter.folder / "model"
    runner = opening.load(folder, "generator", device="cpu", steps=2, batch_size=3)
    assert type(runner._model).__name__ == "PixelPipeline"
    unet = runner._model.unet
    assert torch.equal(unet.conv_in.weight, weights(painter)["unet.conv_in.weight"])
    asked = [Draw(text, seed=seed) for text, seed in zip(TEXTS * 2, (1, 2, 3, 2), strict=True)]
    found = {result.index: _levels(result.image) for result in runner.run(asked)}
    assert [found[i].shape for i in range(4)] == [(64, 64, 3)] * 4
    assert (_levels(runner.draw(TEXTS[1], seed=2).image) - found[1]).abs().max() <= 1
    assert (found[3] - found[1]).abs().max() <= 1
    assert (found[2] - found[0]).abs().max() > 20
    runner.close()
    assert isinstance(runner, ImageGenerator)


def test_a_pipeline_draws_in_bfloat16_too(painter: BaselineRun):
    folder = painter.folder / "model"
    found = [
        opening.load(folder, "generator", device="cpu", steps=2, dtype=dtype)
        .draw("a cat", seed=1, guidance=1.5)
        .image
        for dtype in ("float32", "bfloat16")
    ]
    assert 0 < (_levels(found[0]) - _levels(found[1])).abs().float().mean() < 8


def _levels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).int()


def test_guidance_moves_away_from_what_no_prompt_says(painter: BaselineRun):
    pipeline: Any = open_pipeline(painter.folder / "model", torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def draw(scale: float, prompt: str = "a cat") -> Tensor:
        seed = torch.Generator().manual_seed(0)
        return pipeline(prompt, 1, scale, seed, output_type="pt").images

    plain, none = draw(1), draw(1, "")
    inside = ((draw(1.5) > 0.01) & (draw(1.5) < 0.99)) & (plain > 0.01) & (plain < 0.99)
    inside &= (none > 0.01) & (none < 0.99)
    expected = none + 1.5 * (plain - none)
    torch.testing.assert_close(draw(1.5)[inside], expected[inside], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="types are pil, pt"):
        pipeline("a cat", output_type="np")


# --- scores --------------------------------------------------------------------------------------


class Knowing:
    """Embeds pictures and captions by what they say: it matches perfectly, and never wrongly."""

    name = "knowing"

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def image_features(self, images: Sequence[Any]) -> Tensor:
        found = [find(image) for image in images]
        return self._embed([caption(Scene("found", f.background, f.items)) for f in found])

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self._embed(list(texts))

    def score(self, images: Sequence[Any], texts: Sequence[str]) -> Tensor:
        return self.image_features(images) @ self.text_features(texts).T

    def classify(self, images: Sequence[Any], labels: Sequence[str]) -> Tensor:
        return self.score(images, labels).softmax(-1)

    def _embed(self, texts: list[str]) -> Tensor:
        numbers = [self.numbers.setdefault(text, len(self.numbers)) for text in texts]
        return torch.nn.functional.one_hot(torch.tensor(numbers), 4096).float()


class Wrong(Knowing):
    """Thinks that what matches is what does not."""

    def score(self, images: Sequence[Any], texts: Sequence[str]) -> Tensor:
        return -super().score(images, texts)


def test_the_scores_of_matching_are_those_of_the_suite_and_name_what_was_wrong():
    knows = scoring.score_matching(Knowing(), 4)
    assert knows.scores["matching"] == 1 and knows.failures == []
    assert {f"matching_{kind}" for kind in KINDS} <= knows.scores.keys()
    wrong = scoring.score_matching(Wrong(), 4)
    assert wrong.scores["matching"] == 0 and len(wrong.failures) == 20
    assert {failure.kind for failure in wrong.failures} == set(KINDS)
    assert wrong.scores["seconds_alone"] >= 0 and wrong.scores["seconds_in_batch"] >= 0
    first = wrong.failures[0]
    assert first.found.startswith("chosen: ") and first.asked not in first.found
    assert first.image.size == (64, 64)


class Draws:
    """Draws with a function of prompts and seeds; the results come in reverse order."""

    name = "drawer"

    def __init__(self, draw: Callable[[str, Any], Image.Image]) -> None:
        self.draw = draw

    def run(self, requests: Iterable[Any]) -> Iterator[Result]:
        for index, asked in reversed([*enumerate(requests)]):
            images = (self.draw(asked.prompt, asked.seed),)
            yield DrawResult(asked.prompt, images, asked.seed, "complete", 0, 0, 0.0, asked, index)

    def close(self) -> None:
        """Nothing is held."""


def perfect(prompt: str, _: object = 0) -> Image.Image:
    """What is asked for."""
    return to_pil(render([scene_of(prompt)])[0])


def black(*_: object) -> Image.Image:
    """What is never asked for."""
    return Image.new("RGB", (64, 64))


def scene_of(prompt: str) -> Scene:
    said = captions.parse(prompt)
    assert said is not None
    (first, number), *rest = said.objects
    core: tuple[Any, ...] = ("count", first, number) if number > 1 else ("single", first)
    if rest:
        core = ("position", *(said.relation or (first, "left of", rest[0][0])))
    return replace(make_scene(random.Random(0), *core), background=said.background)


def test_a_perfect_drawer_has_all_points_and_another_none():
    scored = scoring.score_runner(Draws(perfect), 3)
    names = {name for name in scored.scores if name.startswith("draw_")}
    assert len(names) == 6 and all(scored.scores[name] == 1 for name in names)
    assert scored.failures == []
    wrong = scoring.score_runner(Draws(black), 3)
    assert wrong.scores["draw_mean"] == 0 and len(wrong.failures) == 15
    assert {failure.kind for failure in wrong.failures} == set(KINDS)


def test_scores_of_drawings_are_those_of_the_emoji_suite():
    half = Draws(lambda prompt, seed: perfect(prompt) if seed % 2 else black())
    suite = EmojiSuite(SuiteOptions(limit=2))
    drawings = [item for item in suite.items() if isinstance(item.request, Draw)]
    expected = emoji_scores([one.judgement for one in judge_all(half, suite, drawings)])
    found = scoring.score_runner(half, 2).scores
    assert expected.items() <= found.items()
    assert found.keys() - expected.keys() == {"seconds_alone", "seconds_in_batch"}


def test_failures_of_all_kinds_are_kept():
    picture = Image.new("RGB", (64, 64))
    many = [Failure(kind, str(i), "", picture) for kind in ("two", "count") for i in range(9)]
    kept = scoring.spread(many, 5)
    assert [(f.kind, f.asked) for f in kept] == [
        ("two", "0"),
        ("count", "0"),
        ("two", "1"),
        ("count", "1"),
        ("two", "2"),
    ]


def test_drawings_of_a_prompt_are_judged_and_matched_together():
    fourth = Draws(lambda prompt, seed: black() if seed % 4 else perfect(prompt))
    found = draw_many(fourth, Knowing(), 2, most=4)
    assert [one.kind for one in found] == [kind for kind in KINDS for _ in range(2)]
    assert all(one.right.tolist() == [True, False, False, False] for one in found)
    assert all(len(one.match) == 4 for one in found)


class Fails(Draws):
    """Fails at each request."""

    def run(self, requests: Iterable[Any]) -> Iterator[Result]:
        for index, asked in enumerate(requests):
            yield failure(asked, index, ValueError("no ink"))


def test_a_drawing_that_fails_ends_reranking():
    with pytest.raises(ValueError, match="was not drawn: no ink"):
        draw_many(Fails(black), Knowing(), 1, most=2)


def test_reranking_keeps_the_best_match():
    right = torch.tensor([False, True, False, False])
    match_right = Candidates("two", right, torch.tensor([0.1, 0.9, 0.3, 0.2]))
    match_wrong = Candidates("count", right, torch.tensor([0.9, 0.1, 0.3, 0.2]))
    found = curve([match_right, match_wrong], (1, 2, 4))
    assert found["all"] == {"1": 0.75, "2": 0.75, "4": 0.5}
    assert found["two"] == {"1": 0.75, "2": 0.5, "4": 0.0}
    assert found["count"] == {"1": 0.75, "2": 1.0, "4": 1.0}
    assert found["least"] == {"1": 0.75, "2": 0.5, "4": 0.0}
    with pytest.raises(ValueError, match="cannot be divided"):
        curve([match_right], (3,))


# --- table, plot, sheet --------------------------------------------------------------------------


def written(folder: Path, kind: str, seed: int, **scores: float) -> Path:
    """A run that has ended, with one failure."""
    folder = folder / f"{kind}-{seed}"
    folder.mkdir()
    failed = Failure("two", "a cat and a dog", "it shows 1 x cat", Image.new("RGB", (64, 64)))
    about = {"kind": kind, "seed": seed, "minutes": 15.0, "threads": 2, "updates": 1000 + seed}
    about |= {"parameters": 2_000_000, "given": "nothing"}
    scoring.write_scores(folder, Scored(dict(scores), [failed]), about)
    return folder


def test_the_table_has_means_and_ranges_of_seeds(tmp_path: Path):
    folders = [
        written(tmp_path, "ours", 0, draw_mean=0.5, seconds_alone=0.25),
        written(tmp_path, "ours", 1, draw_mean=0.6, seconds_alone=0.25),
        written(tmp_path, "clip", 0, matching=0.95),
    ]
    lines = table.results_table([table.read_run(folder) for folder in folders]).splitlines()
    assert lines == [
        "|  | CLIP | ours |",
        "| --- | --- | --- |",
        "| **drawings, mean** |  | 55.0% (50.0 - 60.0) |",
        "| **matching among 10 captions** | 95.0% |  |",
        "| milliseconds a picture, alone |  | 250.0 |",
        "| trained parameters, millions | 2.0 | 2.0 |",
        "| updates | 1,000 | 1,000 (1,000 - 1,001) |",
        "| core-minutes | 15 | 15 |",
        "| given | nothing | nothing |",
        "| seeds | 1 | 2 |",
    ]


def test_what_is_counted_is_told_in_whole_numbers(tmp_path: Path):
    runs = [
        table.read_run(written(tmp_path, "ours", seed, draw_mean=0.5, seconds_alone=0.25))
        for seed in range(2)
    ]
    few = [replace(r, record={**r.record, "updates": 631 + 8 * i}) for i, r in enumerate(runs)]
    lines = table.results_table(few).splitlines()
    assert "| updates | 635 (631 - 639) |" in lines
    assert "| updates | 631 |" in table.results_table(few[:1]).splitlines()
    assert "| milliseconds a picture, alone | 250.0 |" in lines


def test_runs_that_cannot_be_compared_are_an_error(tmp_path: Path):
    first = table.read_run(written(tmp_path, "clip", 0, matching=0.9))
    with pytest.raises(ValueError, match="two runs of clip have the same seed"):
        table.results_table([first, first])
    second = replace(first, record={**first.record, "seed": 1, "minutes": 5.0})
    with pytest.raises(ValueError, match=r"minutes are \['15.0', '5.0'\]: they must be equal"):
        table.results_table([first, second])
    with pytest.raises(FileNotFoundError, match=r"scores\.json is missing: has the run ended\?"):
        table.read_run(tmp_path)
    (tmp_path / "scores.json").write_text('{"kind": "clip"}')
    with pytest.raises(ValueError, match="has no failures, minutes, parameters, scores, seed"):
        table.read_run(tmp_path)


def test_the_page_gets_table_plot_and_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = [
        written(tmp_path, "ours", 0, draw_mean=0.5, draw_two=0.25, caption=0.5),
        written(tmp_path, "clip", 0, matching=0.95),
    ]
    errors = {name: {"1": 0.5, "2": 0.25} for name in ("all", "two", "least")}
    (tmp_path / "reranking.json").write_text(json.dumps({"errors": errors}))
    shutil.copy(Path(__file__).parents[2] / "docs" / "baselines.md", tmp_path)
    command = ["", "table", *map(str, folders), "--rerank", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "--write", str(tmp_path)])
    train_baseline.main()
    for drawn in ("save_plot", "save_failures"):  # which take long
        monkeypatch.setattr(figures, drawn, lambda *_: None)
    train_baseline.main()  # in place of the first
    page = (tmp_path / "baselines.md").read_text()
    assert page.count("| **drawings, mean** |") == 1
    assert "| two | 50.0% | 25.0% |" in page
    assert page.index(table.BEGIN) < page.index("baselines_failures.png") < page.index(table.END)
    for name in ("baselines.png", "baselines_failures.png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 200
    (tmp_path / "baselines.md").write_text("nothing")
    with pytest.raises(SystemExit, match=r"baselines\.md has no <!-- measured -->"):
        train_baseline.main()


def test_all_kinds_are_trained_scored_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = {
        kind: replace(one, make_trainer=TOYS[kind].make_trainer)
        for kind, one in recipes.RECIPES.items()
    }
    monkeypatch.setattr(train_baseline, "RECIPES", made)
    monkeypatch.setitem(diffusion.SAMPLING, "steps", 2)

    def command(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["train_baseline", *map(str, arguments)])
        train_baseline.main()

    few = ("--scenes", 1, "--threads", 1)
    folders = {kind: tmp_path / f"{kind}-0" for kind in made}
    for kind, folder in folders.items():
        command(kind, "--out", folder, "--minutes", 1e-6, *few)
    models = ("--clip", folders["clip"] / "model", "--model", folders["ours"] / "model")
    command("rerank", *models, "--out", tmp_path, "--drawings", 2, *few)
    before = {kind: table.read_run(folder).record for kind, folder in folders.items()}
    monkeypatch.setattr(train_baseline, "TIMED", 1)
    command("time", *folders.values(), "--threads", 2)
    for kind, folder in folders.items():
        after = table.read_run(folder).record
        assert (before[kind]["threads"], after["threads"]) == (1, 2)
        changed = {n for n in after["scores"] if after["scores"][n] != before[kind]["scores"][n]}
        assert (
            changed <= {"seconds_alone", "seconds_in_batch"}
            and after["scores"].keys() == before[kind]["scores"].keys()
        )
        assert after["failures"] == before[kind]["failures"]
    shutil.copy(Path(__file__).parents[2] / "docs" / "baselines.md", tmp_path)
    command("table", *folders.values(), "--rerank", tmp_path, "--write", tmp_path)

    scores = {kind: table.read_run(folder).record["scores"] for kind, folder in folders.items()}
    assert {"matching", "matching_two", "seconds_alone"} <= scores["clip"].keys()
    assert scores["clip"].keys() == scores["lit"].keys()
    assert {"draw_mean", "draw_two", "seconds_in_batch"} <= scores["diffusion"].keys()
    assert scores["ours"].keys() - scores["diffusion"].keys() >= {"caption", "question_mean"}
    page = (tmp_path / "baselines.md").read_text()
    assert "|  | CLIP | LiT | diffusion | ours |" in page
    assert "| updates | 1 | 1 | 1 | 1 |" in page
    assert "| all |" in page and "Not measured yet" not in page
    for name in ("baselines.png", "baselines_failures.png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 200


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["train_baseline", *arguments])
        with pytest.raises(SystemExit) as error:
            train_baseline.main()
        return str(error.value)

    assert "more than 0 minutes" in said("clip", "--out", str(tmp_path), "--minutes", "0")
    assert "--updates must be at least 1" in said("pace", "clip", "--updates", "0")
    assert "--threads must be at least 1" in said("clip", "--out", str(tmp_path), "--threads", "0")
    assert "scores.json is missing" in said("table", str(tmp_path))


def test_every_kind_has_a_title():
    assert recipes.RECIPES.keys() == table.TITLES.keys()
