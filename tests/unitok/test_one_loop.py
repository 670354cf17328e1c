"""One engine, one loop: captions and guided drawings share every forward of the real model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.unitok.tiny import PATCHES, same, tiny_model, tiny_template
from unitok import Caption, Draw
from unitok.api import Model
from unitok.families.common.family import Defaults
from unitok.families.janus import Janus, Preprocessor
from unitok_engine import EngineConfig, Output

CAPTIONS = DRAWINGS = 8
MAX_TOKENS = [3 + 4 * i for i in range(CAPTIONS)]  # 3 to 31 ids: shorter and longer than a drawing


@dataclass(frozen=True)
class Step:
    """What one call of the model's forward held: ids in each row, and how many image ids."""

    rows: tuple[int, ...]
    ids: int


class Witness:
    """Wraps a model's `embed` and `forward` and notes every call."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Step] = []
        self.has_text, self.has_image = [], []
        embed, forward, border = model.embed, model.forward, model.vocabulary.image_start

        embedded = []

        def noting_embed(ids):
            embedded.append((bool((ids < border).any()), bool((ids >= border).any())))
            return embed(ids)

        def noting_forward(hidden, positions, cache):
            has_text, has_image = embedded[-1]
            self.has_text.append(has_text)
            self.has_image.append(has_image)
            # A row's ids have positions that count up; rows of a step follow one another.
            starts = [
                0,
                *(i for i in range(1, len(positions)) if positions[i] != positions[i - 1] + 1),
            ]
            lengths = np.diff([*starts, len(positions)])
            self.steps.append(Step(tuple(lengths.tolist()), len(hidden)))
            return forward(hidden, positions, cache)

        monkeypatch.setattr(model, "embed", noting_embed)
        monkeypatch.setattr(model, "forward", noting_forward)


def tiny_api(max_batch_tokens: int) -> Model:
    template = tiny_template()
    defaults = Defaults(1.0, 0, 1.0, 3.0, "what is this?", "")
    config = EngineConfig(max_context=256, max_batch_tokens=max_batch_tokens)
    return Model(Janus("tiny", tiny_model(), template, Preprocessor(64), defaults), config)


def mixed_requests() -> list[Caption | Draw]:
    pictures = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    asked: list[Caption | Draw] = []
    for i in range(CAPTIONS):
        asked.append(Caption(pictures[i], max_tokens=MAX_TOKENS[i]))
        asked.append(Draw(f"{'dog ' * i}two apples", seed=i))
    return asked


@pytest.mark.parametrize("max_batch_tokens", [2048, 100])
def test_captions_and_guided_drawings_share_every_forward(
    max_batch_tokens: int, monkeypatch: pytest.MonkeyPatch
):
    model = tiny_api(max_batch_tokens)
    witness = Witness(model.family.model, monkeypatch)
    engine = model.driver.engine  # stepped by hand: there is no thread before the first job
    requests = [model.prepare.job(asked).request for asked in mixed_requests()]
    lines = {engine.add(request): len(request.branches) for request in requests}
    assert sum(lines.values()) == CAPTIONS + 2 * DRAWINGS

    started: set[int] = set()  # requests that decode: they have emitted and not finished
    finished: dict[int, Output] = {}
    decode_steps = prefill_steps = 0
    while engine.has_work:
        before = engine.stats.forwards
        decoding = set(started)
        outputs = {output.request_id: output for output in engine.step()}
        assert engine.stats.forwards == before + 1, "a step is one forward"
        step = witness.steps[-1]
        decode_rows = sum(lines[request_id] for request_id in decoding)
        assert decoding <= outputs.keys(), "every running request got its id"
        assert all(len(outputs[i].token_ids) == 1 or outputs[i].finished for i in decoding)
        if step.ids == decode_rows:
            decode_steps += 1
            unfinished = lines.keys() - finished.keys()
            assert decoding == unfinished, "a decode forward holds every running request"
        else:
            prefill_steps += 1
            assert step.ids - decode_rows <= max_batch_tokens
        for output in outputs.values():
            started.add(output.request_id)
            if output.finished:
                finished[output.request_id] = output
                started.discard(output.request_id)

    assert len(finished) == CAPTIONS + DRAWINGS
    assert {o.finish_reason for o in finished.values()} <= {"complete", "length", "stop"}
    longest = max(output.stop for output in finished.values())
    forwards = len(witness.steps)
    assert forwards == engine.stats.forwards == decode_steps + prefill_steps
    assert forwards <= longest + prefill_steps
    prompt_ids = sum(len(branch.token_ids) for r in requests for branch in r.branches)
    assert prefill_steps <= -(-prompt_ids // max_batch_tokens) + len(requests)
    if max_batch_tokens == 2048:
        assert prefill_steps == 1 and forwards == longest
    one_by_one = sum(output.stop for output in finished.values())
    assert one_by_one > 5 * forwards, "the sharing must matter"


def test_a_step_reads_no_more_pictures_than_its_budget_of_ids_holds(
    monkeypatch: pytest.MonkeyPatch,
):
    """So however many arrive, those that decode wait for a few."""
    model, calls = tiny_api(100), []
    assert isinstance(model.family, Janus)
    read = model.family.features

    def noting(pixels):
        calls.append(len(pixels))
        return read(pixels)

    monkeypatch.setattr(model.family, "features", noting)
    results = list(model.run(mixed_requests()))
    assert len(results) == CAPTIONS + DRAWINGS
    assert sum(calls) == CAPTIONS and max(calls) <= -(-100 // PATCHES)
    assert 1 < max(calls) < CAPTIONS


def test_text_and_picture_ids_stand_in_the_same_forward(monkeypatch: pytest.MonkeyPatch):
    model = tiny_api(2048)
    witness = Witness(model.family.model, monkeypatch)
    results = {r.index: r for r in model.run(mixed_requests())}
    assert len(results) == CAPTIONS + DRAWINGS
    assert model.stats().forwards == max(MAX_TOKENS) == len(witness.steps)
    both = [a and b for a, b in zip(witness.has_text, witness.has_image, strict=True)]
    assert both[1:PATCHES] == [True] * (PATCHES - 1), "until the drawings are done"
    # Every line of decode is a row of one id: captions that are left, and two lines per drawing.
    for number, step in enumerate(witness.steps[1:], start=1):
        captions_left = sum(tokens > number for tokens in MAX_TOKENS)
        drawing_lines = 2 * DRAWINGS if number < PATCHES else 0
        assert step.ids == captions_left + drawing_lines


def test_together_gives_what_each_gives_alone():
    crowd = {r.index: r for r in tiny_api(100).run(mixed_requests())}
    for index, asked in enumerate(mixed_requests()):
        [alone] = tiny_api(2048).run([asked])
        together = crowd[index]
        assert together.completion_tokens == alone.completion_tokens
        if isinstance(asked, Caption):
            assert together.text == alone.text  # type: ignore[union-attr]
        else:
            assert same(together.image, alone.image)  # type: ignore[union-attr]
