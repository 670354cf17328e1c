"""What the engine says of the tokens it samples is what training says of the same tokens."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict

import unitok
from tests.training.learned import FAMILIES, continued, janus, text_range, trainable
from tests.unitok.tiny import ASSETS, save_tiny
from tests.unitok.tiny_chameleon import noise
from unitok.driver import Driver
from unitok.families import Family, ImageOptions, open_folder
from unitok.prompt import Message
from unitok.training.log_probabilities import guided_log_probabilities, log_probabilities
from unitok.training.lora import LoraOptions, adapter_of, add_lora
from unitok.training.sequences import TrainingSequence
from unitok_engine import Allow, Branch, Engine, EngineConfig, Output, Plan, Request, Sampling, Stop


def embedded(folder: Path) -> Family:
    return open_folder(ASSETS, "cpu", torch.float32)


def requests(family: Family) -> list[Request]:
    """An answer, one about a picture, a guided drawing, and one without guidance."""
    asked = Message("user", "describe the picture")
    shown = Message("user", family.defaults.question, (family.encode_image(noise(64, 64)),))
    answers = [((family.chat_prompt([m], None),), family.text_plan(12)) for m in (asked, shown)]
    size = (24, 16) if family.model.image_head is None else family.picture_size
    drawings = [
        family.generation_spec([Message("user", "a red cat")], ImageOptions(guidance, size=size))
        for guidance in (3.0, 1.0)
    ]
    found: list[tuple[tuple[Branch, ...], Plan]] = [*answers]
    found += [(spec.branches, spec.plan) for spec in drawings]
    return [
        Request(branches, plan, Sampling(seed=5), logprobs=True, branch_logprobs=True)
        for branches, plan in found
    ]


def learned(request: Request, output: Output) -> list[TrainingSequence]:
    """The branches of a request with what it emitted; what was sampled are the targets."""
    emitted = output.token_ids
    steps = [request.plan.next(emitted[:i]) for i in range(len(emitted))]
    assert not any(isinstance(step, Stop) for step in steps)
    sampled = [isinstance(step, Allow) for step in steps]
    return [continued(branch, emitted, sampled) for branch in request.branches]


def of_sampled(sequence: TrainingSequence, logprobs: Sequence[float] | None) -> torch.Tensor:
    """The engine's log-probabilities without those of forced tokens, which are 0."""
    assert logprobs is not None
    flags = sequence.targets[len(sequence) - len(logprobs) :]
    assert all(p == 0 for p, flag in zip(logprobs, flags, strict=True) if not flag)
    return torch.tensor([p for p, flag in zip(logprobs, flags, strict=True) if flag])


@pytest.mark.parametrize("make", [janus, embedded, FAMILIES["emu3"]])
def test_the_engine_and_the_training_agree(make, tmp_path: Path):
    family = make(tmp_path)
    asked = requests(family)
    config = EngineConfig(num_blocks=80, block_size=8, max_context=512)
    outputs = Driver(Engine(family.model, config)).complete(asked)
    answers = [learned(*pair) for pair in zip(asked, outputs, strict=True)]
    firsts = [branches[0] for branches in answers]
    alone = log_probabilities(family.model, firsts, text_range(family))
    guided = guided_log_probabilities(family.model, answers, text_range(family))
    for i, (first, output) in enumerate(zip(firsts, outputs, strict=True)):
        expected = of_sampled(first, output.branch_logprobs)
        torch.testing.assert_close(alone[i], expected, atol=1e-4, rtol=0)
        expected = of_sampled(first, output.logprobs)
        torch.testing.assert_close(guided[i], expected, atol=1e-4, rtol=0)
    assert all(len(one) > 1 for one in alone[1:])
    assert [len(branches) for branches in answers] == [1, 1, 2, 1]
    assert (alone[2] - guided[2]).abs().max() > 0.01, "guidance tells them apart"


def test_they_agree_with_an_adapter_beside_the_weights_and_after_updates_in_place(tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    learner = open_folder(folder, "cpu", torch.float32)
    add_lora(learner.model, LoraOptions(rank=2, alpha=2))
    names = [name for name in learner.model.state_dict() if name.startswith("decoder.blocks")]
    with unitok.load(folder, device="cpu", dtype="float32", memory="8MB") as model:
        learn(learner, seed=1)
        model.load_adapter("learned", adapter_of(learner.model))
        check_agreement(model, learner, "learned", version=0)
        learn(learner, seed=2)
        model.update_adapter("learned", get_peft_model_state_dict(learner.model))
        check_agreement(model, learner, "learned", version=1)
        learn(learner, seed=3)
        weights = {n: w for n, w in learner.model.state_dict().items() if "lora_" not in n}
        base = {n.replace(".base_layer.", "."): 1.2 * weights[n] for n in names if n in weights}
        with torch.no_grad():
            for weight in (weights[name] for name in names if name in weights):
                weight.mul_(1.2)
        model.update_weights(base)
        model.update_adapter("learned", get_peft_model_state_dict(learner.model))
        check_agreement(model, learner, "learned", version=3)


def learn(family: Family, seed: int) -> None:
    """Give what is trained other numbers."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in family.model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)


def check_agreement(model: unitok.Model, learner: Family, adapter: str, version: int) -> None:
    asked = [replace(request, adapter=adapter) for request in requests(model.family)]
    outputs = model.driver.complete(asked)
    assert {output.weight_version for output in outputs} == {version}
    answers = [learned(*pair) for pair in zip(requests(learner), outputs, strict=True)]
    with torch.no_grad():
        alone = log_probabilities(learner.model, [a[0] for a in answers], text_range(learner))
        guided = guided_log_probabilities(learner.model, answers, text_range(learner))
    for i, output in enumerate(outputs):
        for found, expected in ((alone, output.branch_logprobs), (guided, output.logprobs)):
            expected = of_sampled(answers[i][0], expected)
            torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=0)


def test_gradients_flow_through_both(tmp_path: Path):
    family = trainable(janus())
    [*_, drawing, _] = requests(family)
    ids = [640 + i for i in range(16)]
    branches = [continued(branch, ids) for branch in drawing.branches]
    for found in (
        log_probabilities(family.model, branches, text_range(family))[1],
        guided_log_probabilities(family.model, [branches], text_range(family))[0],
    ):
        family.model.zero_grad()
        found.sum().backward()
        gradient = family.model.get_parameter("decoder.blocks.0.attention.q.weight").grad
        assert gradient is not None and gradient.abs().max() > 0


def test_the_order_and_the_company_of_sequences_change_nothing():
    """Requests of unequal weights and kinds in one call, and one without a target."""
    family = janus()
    spec = family.generation_spec([Message("user", "a cat")], ImageOptions(2.0))
    drawing = [continued(branch, [640, 650, 660]) for branch in spec.branches]
    stronger = [
        replace(s, branch=replace(s.branch, weight=weight))
        for s, weight in zip(drawing, (5.0, -4.0), strict=True)
    ]
    text = [continued(family.chat_prompt([Message("user", "hello")], None), [9, 10])]
    nothing = [TrainingSequence(Branch((1, 2, 3)), (False,) * 3)]
    both = [continued(Branch((1, 9)), [11, 641, 12])]  # text and image tokens in one sequence
    asked = [drawing, text, stronger, nothing, both, drawing]
    together = guided_log_probabilities(family.model, asked, text_range(family))
    assert [len(one) for one in together] == [3, 2, 3, 0, 3, 3]
    for one, request in zip(together, asked, strict=True):
        [alone] = guided_log_probabilities(family.model, [request], text_range(family))
        torch.testing.assert_close(one, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[2], atol=1e-3)


def test_branches_of_other_targets_are_refused():
    family = janus()
    good = [continued(Branch((1, 2)), [9, 10], name="good")]
    bad = [continued(Branch((1,)), [9, 10], name="bad"), continued(Branch((2, 3)), [9, 11])]
    with pytest.raises(ValueError, match="bad: the branches of a request differ"):
        guided_log_probabilities(family.model, [good, bad], text_range(family))
