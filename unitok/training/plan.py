"""What a run would do, for people, without an update."""

from __future__ import annotations

from collections import Counter

from unitok.training.losses import Losses
from unitok.training.run import FineTuning


def plan_of(run: FineTuning) -> dict[str, str]:
    """What is trained, on what, and what the first update holds. It takes the first update's data.

    Raises:
        DataError: A conversation is wrong, and the recipe does not skip such.
        ValueError: The first update has nothing to learn.
    """
    batches = next(run.updates, None)
    if batches is None:
        raise ValueError("there is nothing to learn in these data")
    loss = run.trainer.without_gradients(batches[0])
    tokens = [len(batch) for batch in batches]
    sequences = sum(len(batch.lengths) for batch in batches)
    left_out = ", ".join(f"{n} {what}" for what, n in run.updates.left_out().items() if n)
    recipe = run.recipe
    return {
        "model": run.family.name,
        "trained": ", ".join(trained_parts(run)),
        "device": f"{run.ranks.count} x {run.trainer.device}, {run.trainer.precision}",
        "updates": f"{run.steps:,} of {recipe.batch.conversations} conversations, "
        f"{run.trainer.step_count:,} made",
        "first update": f"{sequences} sequences of {sum(tokens):,} tokens in {len(tokens)} batches",
        "left out": left_out or "nothing",
        "first batch": losses_in_words(loss),
        "writes": str(run.folder),
    }


def trained_parts(run: FineTuning) -> list[str]:
    """The trained parts of the model with the number of their weights."""
    sizes: Counter[str] = Counter()
    for name, weight in run.trainer.trained_by_name.items():
        sizes[name.partition(".")[0]] += weight.numel()
    total = sum(weight.numel() for weight in run.family.model.parameters())
    parts = [f"{name} {size:,}" for name, size in sizes.items()]
    return [*parts, f"of {total:,} weights"]


def losses_in_words(losses: Losses) -> str:
    """The losses of a batch, as a line for people."""
    parts = [f"{name} {value:.3f}" for name, value in losses.parts.items()]
    return ", ".join(parts) + ("" if "dpo" in losses.parts else " (nats per token)")
