"""Pictures to be painted as sequences to learn: a prompt, and what a plan lets the model emit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unitok.training.sequences import PaintedImage, TrainingSequence
from unitok_engine import Allow, Branch, Plan, Stop


@dataclass(frozen=True)
class Emission:
    """What a drawing emits.

    Attributes:
        ids: Its ids. In the place of each image id stands any one.
        targets: Of each id, whether it is sampled, and not forced.
    """

    ids: tuple[int, ...]
    targets: tuple[bool, ...]

    def places(self, start: int) -> tuple[int, ...]:
        """Where the image ids stand behind so many other ids."""
        return tuple(start + i for i, is_target in enumerate(self.targets) if is_target)


def emission_of(plan: Plan) -> Emission:
    """What a plan of a picture emits."""
    ids: list[int] = []
    targets: list[bool] = []
    while not isinstance(step := plan.next(ids), Stop):
        sampled = isinstance(step, Allow)
        ids.append(step.id_range.start if isinstance(step, Allow) else step.id)
        targets.append(sampled)
    return Emission(tuple(ids), tuple(targets))


def painted_sequence(prompt: Branch, emission: Emission, image: PaintedImage) -> TrainingSequence:
    """A prompt and the picture behind it, all of whose sampled ids are learned."""
    branch = replace(prompt, token_ids=(*prompt.token_ids, *emission.ids), weight=1.0)
    targets = (*[False] * len(prompt.token_ids), *emission.targets)
    return TrainingSequence(branch, targets, (image,))
