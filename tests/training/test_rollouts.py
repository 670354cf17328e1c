"""What the engine says of its rollouts is what training says of them, also after updates."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.training.learned import FAMILIES
from tests.training.rollouts import mixed_prompts, opened, rollout_model
from tests.unitok.tiny import save_tiny
from unitok import image_decoder
from unitok.families import Family
from unitok.requests import Draw
from unitok.results import DrawResult, TextResult
from unitok.training.lora import LoraOptions, add_lora
from unitok.training.parts import choose_parts
from unitok.training.reinforcement import rollout_model as rollout_models
from unitok.training.reinforcement.policy import Policy, RolloutLearner
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.rollout_model import follow, open_rollout_model
from unitok.training.reinforcement.rollouts import (
    Rollout,
    RolloutCollector,
    RolloutGroup,
    RolloutOptions,
)

CLOSE = 1e-4
OPTIONS = RolloutOptions(samples=2, guidance=2.0, max_tokens=5)
HOW = {
    "guided": OPTIONS,
    "filtered": replace(OPTIONS, temperature=0.7, top_k=6, top_p=0.8),
    "unguided": replace(OPTIONS, guidance=1.0, temperature=1.3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def all_of(groups: Sequence[RolloutGroup]) -> list[Rollout]:
    assert [group.failed for group in groups] == [()] * len(groups)
    return [rollout for group in groups for rollout in group.rollouts]


def check_agreement(learner: Family, rollouts: Sequence[Rollout]) -> None:
    for policy in get_args(Policy):
        learn = RolloutLearner(learner, policy)
        learned = [learn(rollout) for rollout in rollouts]
        found = learn.log_probabilities(learned)
        for one, rollout, logprobs in zip(learned, rollouts, found, strict=True):
            assert len(logprobs) == rollout.sampled == one.targets > 0
            torch.testing.assert_close(logprobs, one.logprobs, atol=CLOSE, rtol=0)


def change(family: Family, seed: int) -> None:
    """Give what is trained other numbers."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in family.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("how", HOW)
def test_log_probabilities_of_rollouts_are_those_of_training(folder: Path, how: str):
    with rollout_model(opened(folder)) as model:
        rollouts = all_of(RolloutCollector(model, HOW[how])(mixed_prompts()))
    assert [rollout.prompt.kind for rollout in rollouts] == ["image"] * 2 + ["text"] * 4
    check_agreement(opened(folder), rollouts)
    apart = [abs(a - b) for r in rollouts[:2] for a, b in zip(r.logprobs, r.branch_logprobs)]  # noqa: B905
    assert max(apart) > 0.01, "the two policies differ"


@pytest.mark.parametrize("kind", ["chameleon", "emu3"])
def test_they_are_so_in_families_with_masks_and_forced_tokens(kind: str, tmp_path: Path):
    """Chameleon masks ids of text, and Emu3 forces the ends of rows."""
    family = FAMILIES[kind](tmp_path)
    prompts = mixed_prompts()
    if kind == "emu3":
        prompts[0] = Prompt("p:1", Draw("two cats", width=24, height=16))
    learner = FAMILIES[kind](tmp_path / "again")
    with rollout_model(family) as model:
        options = replace(HOW["filtered"], samples=1)
        rollouts = all_of(RolloutCollector(model, options)(prompts))
    assert (kind == "emu3") == (False in rollouts[0].targets)
    check_agreement(learner, rollouts)


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
def test_they_stay_so_after_updates_in_place(folder: Path, adapters: bool):
    learner = opened(folder)
    if adapters:
        add_lora(learner.model, LoraOptions(rank=2, alpha=4, also_train=("image_head",)))
    else:
        choose_parts(learner.model, ("*",), ("image_tokenizer",))
    with rollout_model(opened(folder)) as model:
        collect = RolloutCollector(model, HOW["filtered"])
        first = all_of(collect(mixed_prompts()))
        for version in (1, 2):
            change(learner, version)
            follow(model, learner, version)
            rollouts = all_of(collect(mixed_prompts()))
            assert {rollout.weight_version for rollout in rollouts} == {version}
            with torch.no_grad():
                check_agreement(learner, rollouts)
            assert [r.token_ids for r in rollouts] != [r.token_ids for r in first]
        follow(model, learner, 2)  # the weights that it has
        assert model.weight_version == 2


def test_the_end_of_an_answer_is_sampled_and_learned_too(folder: Path):
    family = opened(folder)
    stops = family.text_plan(9).stop_ids
    prompt = mixed_prompts()[2]
    with rollout_model(family) as model:
        options = RolloutOptions(samples=40, max_tokens=9, temperature=3.0)
        rollouts = all_of(RolloutCollector(model, options)([prompt]))
    ended = [r for r in rollouts if r.result.finish_reason == "stop"]
    cut = [r for r in rollouts if r.result.finish_reason == "length"]
    assert len(ended) + len(cut) == 40 and cut and ended
    assert all(len(r.token_ids) == 9 and not stops & {*r.token_ids} for r in cut)
    for rollout in ended:
        assert isinstance(rollout.result, TextResult)
        assert rollout.token_ids[-1] in stops and rollout.logprobs[-1] < 0
        assert rollout.result.token_ids == rollout.token_ids[:-1]


def test_samples_differ_and_each_is_what_its_request_gives_alone(folder: Path):
    with rollout_model(opened(folder)) as model:
        collect = RolloutCollector(model, HOW["filtered"])
        groups = collect(mixed_prompts(), seed=4)
        alone = [collect([prompt], seed=4)[0] for prompt in reversed(mixed_prompts())][::-1]
        for group, other in zip(groups, alone, strict=True):
            for one, same in zip(group.rollouts, other.rollouts, strict=True):
                assert one.token_ids == same.token_ids and one.name == same.name
        others = collect(mixed_prompts(), seed=5)
        assert all_of(others)[0].token_ids != all_of(groups)[0].token_ids
        for rollout in all_of(groups):
            if isinstance(rollout.request, Draw):
                again = model.draw(rollout.request.prompt, **how_of(rollout.request))
                assert again.token_ids == (rollout.token_ids,)
                assert isinstance(rollout.result, DrawResult)
                assert again.image.tobytes() == rollout.result.image.tobytes()
    drawings = [r.token_ids for r in groups[0].rollouts]
    assert len(set(drawings)) == len(drawings) == 2


@pytest.mark.parametrize("thread", [False, True], ids=["between steps", "in a thread"])
def test_drawings_that_end_together_are_decoded_together_unless_time_decides_which(
    folder: Path, thread: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rollout_models, "has_idle_core", lambda: thread)
    monkeypatch.setattr(image_decoder, "has_idle_core", lambda: thread)
    prompts = [Prompt(f"p:{i}", Draw(text)) for i, text in enumerate(("two cats", "a dog"))]
    with open_rollout_model(str(folder), torch.device("cpu"), torch.float32, 8) as model:
        tokenizer, calls = model.family.model.image_tokenizer, []
        decode = tokenizer.decode
        monkeypatch.setattr(
            tokenizer, "decode", lambda codes: (calls.append(len(codes)), decode(codes))[1]
        )
        rollouts = all_of(RolloutCollector(model, replace(OPTIONS, samples=6))(prompts))
        # The first of each prompt is a step ahead of the others, which share what it computes.
        assert calls == ([1] * 12 if thread else [2, 8, 2])
        for rollout in rollouts:
            assert isinstance(rollout.result, DrawResult)
            ids = torch.tensor([rollout.token_ids])
            codes = model.family.model.vocabulary.id_to_code(ids)
            levels = decode(codes)[0].permute(1, 2, 0).numpy() * 255
            found = np.asarray(rollout.result.image, dtype=np.float32)
            assert (found < levels + 0.01).all() and (found + 1 > levels - 0.01).all()


def test_samples_do_not_depend_on_the_folder_of_the_prompts(folder: Path):
    here, there = (Prompt(f"{place}/p.jsonl:1", Draw("two cats")) for place in ("here", "/there"))
    other = Prompt("here/p.jsonl:2", Draw("two cats"))
    with rollout_model(opened(folder)) as model:
        groups = RolloutCollector(model, OPTIONS)([here, there, other])
    first, second, third = ([r.token_ids for r in group.rollouts] for group in groups)
    assert first == second != third


def how_of(asked: Draw) -> dict[str, Any]:
    names = ("seed", "guidance", "temperature", "top_k", "top_p", "logprobs")
    return {name: getattr(asked, name) for name in names}


def test_a_prompt_that_cannot_be_run_fails_alone(folder: Path):
    prompts = [Prompt("long", Draw("a cat and " * 300)), mixed_prompts()[0]]
    with rollout_model(opened(folder)) as model:
        long, short = RolloutCollector(model, OPTIONS)(prompts)
    assert len(long.failed) == 2 and not long.rollouts and "tokens" in long.failed[0]
    assert len(short.rollouts) == 2 and not short.failed


def test_gradients_flow_through_filters_and_a_target_that_they_leave_out_is_kept(folder: Path):
    learner = opened(folder)
    choose_parts(learner.model, ("*",), ("image_tokenizer",))
    with rollout_model(opened(folder)) as model:
        rollouts = all_of(RolloutCollector(model, HOW["filtered"])(mixed_prompts()))
    change(learner, 9)
    learn = RolloutLearner(learner, "sampled")
    found = torch.cat(learn.log_probabilities([learn(rollout) for rollout in rollouts]))
    assert found.isfinite().all(), "some are outside of the filters by now"
    found.sum().backward()
    gradient = learner.model.get_parameter("decoder.blocks.0.attention.q.weight").grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0
