"""What tests of exact resumption share."""

import io
from collections.abc import Callable
from typing import Any

import torch

from unitok.training.trainer import Trainer


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as another process would read it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_resumes_exactly(
    make: Callable[[], Trainer[Any]], steps_before: int, steps_after: int
) -> None:
    """k steps, a file, m steps == k + m steps, to the last bit of losses and weights."""
    whole = make()
    losses = [whole.step() for _ in range(steps_before + steps_after)]
    first = make()
    for _ in range(steps_before):
        first.step()
    state = through_a_file(first.state_dict())
    del first
    torch.manual_seed(999)  # a new process has another random state
    second = make()
    second.load_state_dict(state)
    assert torch.equal(torch.get_rng_state(), state["torch"])
    resumed = [second.step() for _ in range(steps_after)]
    assert resumed == losses[steps_before:]
    assert second.step_count == whole.step_count
    expected = whole.model.state_dict()
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
