"""Janus-4o-7B: Janus-Pro-7B in all but its weights, which were trained to change pictures too.

Paper: https://arxiv.org/abs/2506.18095. Guidance as in FreedomIntelligence/ShareGPT-4o-Image,
README.md. The files are those of Janus, so a folder's name or its unitok.json tells it apart.
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.weights import Dtype, write_json
from unitok.families import janus
from unitok.families.common.editing import EditOptions
from unitok.families.common.family import GenerationSpec
from unitok.families.common.guidance import weighted
from unitok.families.janus import Janus
from unitok.families.janus4o.prompts import edit_prompt
from unitok.pictures import digest
from unitok_engine import Branch, FixedPlan

FREEDOM = 5.0  # cfg_weight2 there
NAMES = ("janus", "janus-4o")  # what unitok.json may call the family
OWN_FILE = "unitok.json"


class Janus4o(Janus):
    """A Janus that edits pictures as well; see `unitok.families.common.editing.Editor`."""

    def edit_spec(self, image: Image.Image, prompt: str, options: EditOptions) -> GenerationSpec:
        pixels = self.preprocess(image)
        read = self.template.picture(pixels, digest(pixels, self.name), self.features)
        ids = self.image_ids(pixels)
        pads = [self.tokenizer.id(self.template.pad)] * len(ids)
        full, part = (edit_prompt(self.template, read, details, prompt) for details in (ids, pads))
        plan = FixedPlan(self.model.vocabulary.image_range, self.picture_tokens)
        branches = self._guided(full, part, options)
        return GenerationSpec(branches, plan, self.decode_images)

    def image_ids(self, pixels: Tensor) -> list[int]:
        """Pixels [3, S, S], normalised -> the image token ids of that picture, row by row."""
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


def is_janus_4o(folder: Path) -> bool:
    """Whether a folder of Janus is one of Janus-4o.

    Its unitok.json decides, by the key "family". Without it, the name does, of the folder or of the
    hub repository that it was fetched from.

    Raises:
        ValueError: unitok.json names no family of Janus.
    """
    stated = read_json(folder / OWN_FILE, optional=True).get("family")
    if stated is None:
        return "janus-4o" in repository_name(folder.resolve()).lower()
    if stated not in NAMES:
        raise ValueError(f"{OWN_FILE}: family must be one of {', '.join(NAMES)}, not {stated!r}")
    return stated == "janus-4o"


def repository_name(folder: Path) -> str:
    """The name of a folder; in the hub's cache, of the repository that a snapshot is of."""
    return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name


def load(folder: Path, device: str, dtype: Dtype) -> Janus4o:
    """Open a folder of Janus-4o, in either format of Janus.

    Raises:
        FileNotFoundError, ValueError: as `janus.load`; or pictures are read in another size than
            they are generated in, so that they cannot be encoded both ways.
    """
    plain = janus.load(folder, device, dtype)
    side, own = plain.preprocess.image_size, plain.picture_size[0]
    if side != own:
        raise ValueError(f"{folder}: Janus-4o reads and generates one size, not {side} and {own}")
    return Janus4o(
        plain.name, plain.model, plain.template, plain.preprocess, plain.defaults, plain.source
    )
