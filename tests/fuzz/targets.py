"""All targets, with the tiny model that they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

import unitok
from tests.fuzz.chat_lines import ChatLines
from tests.fuzz.checkpoints import Checkpoints
from tests.fuzz.flags import Flags
from tests.fuzz.forms import Forms
from tests.fuzz.lines import Lines
from tests.fuzz.options import Options
from tests.fuzz.pictures import Pictures
from tests.fuzz.target import Place, Target
from tests.unitok.tiny import save_tiny

KINDS = {
    "pictures": Pictures,
    "lines": Lines,
    "checkpoints": Checkpoints,
    "options": Options,
    "flags": Flags,
    "chat_lines": ChatLines,
    "forms": Forms,
}


def make_targets(folder: Path) -> Mapping[str, Target]:
    """The targets by name.

    Args:
        folder: An empty folder for their files.
    """
    torch.set_num_threads(1)
    model_folder = save_tiny(folder / "tiny")
    model = unitok.load(model_folder, device="cpu", memory="16MB")
    place = Place(folder, model_folder, model)
    return {name: kind(place) for name, kind in KINDS.items()}
