"""Janus-4o-7B: Janus-Pro-7B in all but its weights, which were trained to change pictures too.

Paper: https://arxiv.org/abs/2506.18095. Guidance as in FreedomIntelligence/ShareGPT-4o-Image,
README.md. The files are those of Janus, so a folder's name or its unitok.json tells it apart.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.saving import write_json
from unitok.checkpoints.weights import Dtype
from unitok.families import janus
from unitok.families.common.editing import EditOptions
from unitok.families.common.family import GenerationSpec
from unitok.families.common.guidance import weighted
from unitok.families.janus import Janus
from unitok.families.janus4o.prompts import edit_prompt
from unitok.pictures import digest
from unitok.shown import shown
from unitok_engine import Branch

FREEDOM = 5.0  # cfg_weight2 there
NAMES = ("janus", "janus-4o")  # what unitok.json may call the family
OWN_FILE = "unitok.json"


class Janus4o(Janus):
    """A Janus that edits pictures as well; see `unitok.families.common.editing.Editor`."""

    def edit_spec(self, image: Image.Image, prompt: str, options: EditOptions) -> GenerationSpec:
        """A picture after a prompt that holds the one to change, as it is read and in VQ codes."""
        pixels = self.preprocess(image)
        read = self.template.picture(pixels, digest(pixels, self.name), self.features)
        ids = self.image_ids(pixels)
        pads = [self.tokenizer.id(self.template.pad)] * len(ids)
        full, part = (edit_prompt(self.template, read, details, prompt) for details in (ids, pads))
        return GenerationSpec(self._guided(full, part, options), self.plan, self.decode_images)

    def image_ids(self, pixels: Tensor) -> list[int]:
        """Normalised pixels [3, S, S] -> the image token ids of the picture, row by row."""
        mean, std = (
            torch.tensor(v)[:, None, None] for v in (self.preprocess.mean, self.preprocess.std)
        )
        codes = self.model.image_tokenizer.encode((pixels * std + mean)[None])
        return self.model.vocabulary.code_to_id(codes).flatten().tolist()

    def _guided(self, full: Branch, part: Branch, options: EditOptions) -> tuple[Branch, ...]:
        """The branches of an edit, those that count.

        With c = (full + freedom * part) / (1 + freedom), the logits are u + guidance * (c - u),
        where u is those of the unconditional prompt: pads for all but its ends.
        """
        freedom = FREEDOM if options.freedom is None else options.freedom
        share, scale = freedom / (1 + freedom), options.guidance
        pairs = (
            (full, scale * (1 - share)),
            (part, scale * share),
            (self.template.unconditional(full), 1 - scale),
        )
        return weighted(*(pair for pair in pairs if pair[1] != 0))

    def save(
        self, folder: Path, layout: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """As `Janus.save`; unitok.json says that it is a Janus-4o."""
        super().save(folder, layout, dtype)
        own = read_json(folder / OWN_FILE, optional=True)
        write_json(folder / OWN_FILE, {**own, "family": "janus-4o"})


def matches(config: Mapping[str, Any], names: frozenset[str], folder: Path) -> bool:
    """Whether a folder is of Janus, and of Janus-4o.

    Its unitok.json decides, by the key "family". Without it, the name does, of the folder or of the
    hub repository that it was fetched from.

    Raises:
        ValueError: The unitok.json of a Janus names no family of Janus.
    """
    if not janus.matches(config, names, folder):
        return False
    stated = read_json(folder / OWN_FILE, optional=True).get("family")
    if stated is None:
        return "janus-4o" in repository_name(folder.resolve()).lower()
    if stated not in NAMES:
        raise ValueError(
            f"{OWN_FILE}: family must be one of {', '.join(NAMES)}, not {shown(stated)}"
        )
    return stated == "janus-4o"


def repository_name(folder: Path) -> str:
    """The name of a folder; in the hub's cache, of the repository that a snapshot is of."""
    return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name


def load(folder: Path, device: str, dtype: Dtype, strict: bool = False) -> Janus4o:
    """Open a folder of Janus-4o, in either format of Janus; see `open_folder`.

    Pictures must be read in the size in which they are generated: both encoders see the same one.
    """
    plain = janus.load(folder, device, dtype, strict)
    side, own = plain.preprocess.image_size, plain.picture_size[0]
    if side != own:
        raise ValueError(f"{folder}: Janus-4o reads and generates one size, not {side} and {own}")
    return Janus4o(
        plain.name, plain.model, plain.template, plain.preprocess, plain.defaults, plain.source
    )
