"""A seed gives the same ids alone and in a crowd, and other seeds give others."""

from dataclasses import replace
from typing import Any

import pytest

import unitok
from tests.vllm.engines import layout_of, serving
from tests.vllm.work import Work, to_vllm, vllm_ids, work
from unitok.loading import DEFAULT_FOLDER as FOLDER


@pytest.mark.timeout(300)
def test_each_seed_repeats_alone_and_in_a_crowd():
    model = unitok.load(FOLDER, device="cpu", dtype="float32")
    asked = work(12, 2, 4).sampled()
    with serving(FOLDER) as llm:
        prompts, sampling = to_vllm(model, layout_of(llm), asked)
        crowd = vllm_ids(llm, prompts, sampling)
        for i in (0, 1, 2, 3, 7, 14, 17):
            assert vllm_ids(llm, prompts[i : i + 1], sampling[i : i + 1]) == [crowd[i]]
        reseeded = [replaced(parameters, seed=99) for parameters in sampling]
        again = vllm_ids(llm, prompts, reseeded)
        # Strong guidance may leave one picture; captions are greedy.
        assert sum(a != b for a, b in zip(again[:12], crowd[:12], strict=True)) > 6
        assert again[12:14] == crowd[12:14]


@pytest.mark.timeout(300)
def test_several_samples_of_a_drawing_are_those_of_the_seeds_that_follow():
    model = unitok.load(FOLDER, device="cpu", dtype="float32")
    drawing = work(2, 0, 0).sampled().drawings[1]
    seeds = Work(tuple(replace(drawing, seed=seed) for seed in (5, 6, 7)), (), ())
    with serving(FOLDER) as llm:
        prompts, sampling = to_vllm(model, layout_of(llm), seeds)
        apart = vllm_ids(llm, prompts, sampling)
        (together,) = llm.generate(prompts[:1], replaced(sampling[0], n=3), use_tqdm=False)
        assert [list(o.token_ids) for o in together.outputs] == apart
        assert len(set(map(tuple, apart))) == 3


def replaced(parameters: Any, **changes: Any) -> Any:
    """A copy of sampling parameters with changes."""
    changed = parameters.clone()
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed
