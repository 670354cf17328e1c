"""Families that edit pictures by instructions: what they offer, and what others say of it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from unitok.families.common.family import Family, GenerationSpec


@dataclass(frozen=True)
class EditOptions:
    """What a caller may ask of an edit, beside its words.

    Attributes:
        guidance: The guidance scale.
        freedom: How little the details of the picture bind, from 0 on; None follows the family.
    """

    guidance: float
    freedom: float | None = None


@runtime_checkable
class Editor(Protocol):
    """What a family has beside `Family` if it edits pictures by instructions."""

    def edit_spec(self, image: Image.Image, prompt: str, options: EditOptions) -> GenerationSpec:
        """What it takes to change an RGB picture as a prompt says.

        Raises:
            ValueError: this checkpoint cannot do it.
        """
        ...


def need_editor(family: Family) -> Editor:
    """The family, if it edits pictures by instructions.

    Raises:
        ValueError: it does not.
    """
    if isinstance(family, Editor):
        return family
    raise ValueError(
        f"{family.name} cannot edit pictures by an instruction, as Janus-4o can: give a mask, a "
        "box, a margin or a strength to paint a part anew"
    )
