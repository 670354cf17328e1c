"""Requests of given lengths to a model without a tokenizer."""

import torch

from unitok.nn.model import UnifiedModel
from unitok_engine import Branch, FixedPlan, FreePlan, IdRange, Request, Sampling

GUIDANCE = 5.0


def id_range(model: UnifiedModel, image: bool) -> IdRange:
    """The ids of image tokens, or of text tokens."""
    chosen = model.vocabulary.image_range if image else model.vocabulary.text_range
    return IdRange(chosen.start, chosen.stop)


def guided(model: UnifiedModel, context: int, length: int, seed: int) -> Request:
    """A guided drawing of two branches, no two of which are alike.

    Args:
        model: Whose tokens to use.
        context: Tokens of each branch's prompt.
        length: Image tokens to come.
        seed: Of the prompts and of the sampling.
    """
    branches = tuple(
        Branch(prompt_ids(model, context, 2 * seed + i), weight)
        for i, weight in enumerate((GUIDANCE, 1 - GUIDANCE))
    )
    return Request(branches, FixedPlan(id_range(model, image=True), length), Sampling(seed=seed))


def text(model: UnifiedModel, context: int, length: int, seed: int) -> Request:
    """A prompt of `context` tokens, and exactly `length` tokens of greedy text to come."""
    plan = FreePlan(id_range(model, image=False), frozenset(), length)
    return Request((Branch(prompt_ids(model, context, seed)),), plan, Sampling(temperature=0))


def prompt_ids(model: UnifiedModel, length: int, seed: int) -> tuple[int, ...]:
    """Random text token ids."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, model.config.decoder.vocab_size, (length,), generator=generator)
    return tuple(ids.tolist())


def geometric_lengths(count: int, low: int = 8, high: int = 128, seed: int = 0) -> list[int]:
    """Output lengths from a geometric distribution, clamped: many short, few long."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    steps = (uniform.log() / torch.tensor(1 - 1 / 32, dtype=torch.float64).log()).ceil()
    return (low + steps).clamp(low, high).int().tolist()
