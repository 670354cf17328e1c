"""What a run needs to go on from a checkpoint: as tensors by name, and as plain values."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from unitok.training.optimisers import MixedOptimiser
from unitok.training.run_checkpoints import RunCheckpoints
from unitok.training.trainer import Trainer


def save_run(checkpoints: RunCheckpoints, trainer: Trainer[Any], values: Mapping[str, Any]) -> None:
    """Write a checkpoint: what is trained, optimiser, averages, randomness and data position.

    Weights that are not trained are the base model's and are not written.

    Raises:
        OSError: The disk is full, or cannot be written.
    """
    tensors = {
        **weights_of(trainer),
        **_optimiser_tensors(trainer),
        **_random_states(trainer.ranks.index),
    }
    plain = {"step": trainer.step_count, "updates": trainer.updates.state_dict(), **values}
    checkpoints.save(trainer.step_count, tensors, plain)


def load_run(checkpoints: RunCheckpoints, step: int, trainer: Trainer[Any]) -> None:
    """Go on from a checkpoint. A rank that it knows nothing of keeps its own random state.

    Raises:
        ValueError: The checkpoint is broken, or of another model.
    """
    shapes = checkpoints.shapes(step)
    _make_room(trainer, shapes)
    random = {name: state for name, state in _random_states(trainer.ranks.index).items()}
    random = {name: state for name, state in random.items() if name in shapes}
    checkpoints.load(step, {**weights_of(trainer), **_optimiser_tensors(trainer), **random})
    _set_random_states(random)
    values = checkpoints.values(step)
    trainer.updates.load_state_dict(values["updates"])
    trainer.step_count = values["step"]


def weights_of(trainer: Trainer[Any]) -> dict[str, Tensor]:
    """The trained weights as "model.NAME" and their averages as "ema.NAME"."""
    weights = {f"model.{name}": p.detach() for name, p in trainer.trained_by_name.items()}
    averages = trainer.ema.averages if trainer.ema is not None else {}
    return weights | {f"ema.{name}": average for name, average in averages.items()}


def _optimiser_tensors(trainer: Trainer[Any]) -> dict[str, Tensor]:
    """The state of the optimiser as "optimiser.NAME.KEY"."""
    return {
        f"optimiser.{name}.{key}": value
        for name, _, state in _states(trainer)
        for key, value in state.items()
    }


def _states(trainer: Trainer[Any]) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
    """The name of each trained weight, the tensor that is optimised for it, and its state."""
    optimiser, names = trainer.optimiser, {id(p): n for n, p in trainer.trained_by_name.items()}
    if not isinstance(optimiser, MixedOptimiser):
        for weight in trainer.trained:
            yield names[id(weight)], weight, optimiser.state[weight]
        return
    for weight, flat in zip(optimiser.matrices, optimiser.flat, strict=True):
        yield names[id(weight)], flat, optimiser.muon.state[flat]
    for weight in optimiser.rest:
        yield names[id(weight)], weight, optimiser.adamw.state[weight]


def _make_room(trainer: Trainer[Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give the optimiser tensors to read its state into: like the weight, or single numbers."""
    for name, optimised, state in _states(trainer):
        prefix = f"optimiser.{name}."
        for stored in (key for key in shapes if key.startswith(prefix)):
            key = stored.removeprefix(prefix)
            if "." in key:  # the state of another weight, whose name begins alike
                continue
            # Like AdamW's own count of steps, single numbers lie on the CPU.
            state[key] = torch.zeros_like(optimised) if shapes[stored] else torch.zeros(())


def _random_states(rank: int) -> dict[str, Tensor]:
    """The state of torch's random numbers on this rank, for each kind of device."""
    states = {f"random.cpu.{rank}": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[f"random.cuda.{rank}"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    for name, state in states.items():
        (torch.cuda.set_rng_state if ".cuda." in name else torch.set_rng_state)(state)
