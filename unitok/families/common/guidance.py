"""Classifier-free guidance as weighted branches (https://arxiv.org/abs/2207.12598)."""

from dataclasses import replace

from unitok_engine import Branch


def weighted(*pairs: tuple[Branch, float]) -> tuple[Branch, ...]:
    """Branches with their weights, which are to sum to one."""
    return tuple(replace(branch, weight=weight) for branch, weight in pairs)


def guided(prompt: Branch, against: Branch, scale: float) -> tuple[Branch, ...]:
    """A prompt, guided away from another one.

    Args:
        prompt: What is asked for.
        against: What to steer away from: the unconditional or the negative prompt.
        scale: The guidance scale; the mixed logits are scale * prompt + (1 - scale) * against. At
            scale 1 the other prompt counts nothing, and is left out.
    """
    if scale == 1.0:
        return (prompt,)
    return weighted((prompt, scale), (against, 1.0 - scale))
