# pyright: reportMissingImports=false
"""Fills vLLM's model from either format of a Janus, by our own tables of names.

vLLM reads the files. A tensor has the name that the folder gives it; the family's adapter says
which of our parameters it holds, and `vllm_name` where vLLM keeps that one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from unitok.checkpoints.adapter import Stored, renaming
from unitok.checkpoints.weights import parameters
from unitok.families.common.llama import llama_names
from unitok.families.common.loading import HEAD
from unitok.families.janus import JanusFolder
from unitok.nn.model import UnifiedModel

DECODER, TEXT_HEAD = "language_model", "text_head"
EMBEDDING = f"{DECODER}.embed_tokens.weight"
# vLLM joins these of a layer into one.
FUSED: Mapping[str, tuple[str, str | int]] = {
    ".q_proj.": (".qkv_proj.", "q"),
    ".k_proj.": (".qkv_proj.", "k"),
    ".v_proj.": (".qkv_proj.", "v"),
    ".gate_proj.": (".gate_up_proj.", 0),
    ".up_proj.": (".gate_up_proj.", 1),
}
vllm_names = renaming(llama_names(DECODER, TEXT_HEAD))


@dataclass(frozen=True)
class Place:
    """A parameter of ours, in the folder and in vLLM's model.

    Attributes:
        stored: Where the folder keeps it.
        shape: Its shape.
        name: What vLLM calls the parameter that holds it.
        shard: Which of several that vLLM joined it is; None if it stands alone.
    """

    stored: Stored
    shape: torch.Size
    name: str
    shard: str | int | None

    def put(self, parameter: Tensor, tensor: Tensor) -> None:
        """Fill vLLM's parameter, or this rank's share of it, from the folder's tensor."""
        loader = getattr(parameter, "weight_loader", default_weight_loader)
        loader(parameter, self.stored.take(tensor), *([] if self.shard is None else [self.shard]))

    def fits(self, tensor: Tensor) -> bool:
        """Whether the folder's tensor has the right shape."""
        shape = torch.empty(tensor.shape, device="meta")
        try:
            return self.stored.take(shape).shape == self.shape
        except (RuntimeError, IndexError):
            return False


def places_of(folder: JanusFolder) -> dict[str, list[Place]]:
    """The places of all parameters by the names of the folder's tensors."""
    with torch.device("meta"):
        model = UnifiedModel(folder.sizes)
    places: dict[str, list[Place]] = {}
    for key, value in parameters(model).items():
        stored = folder.format.adapter(key)
        places.setdefault(stored.name, []).append(Place(stored, value.shape, *vllm_name(key)))
    return places


def vllm_name(key: str) -> tuple[str, str | int | None]:
    """What vLLM calls the parameter that holds one of ours, and which of several joined it is."""
    name = vllm_names(key).name
    for part, (fused, shard) in FUSED.items():
        if name.startswith(DECODER) and part in name:
            return name.replace(part, fused), shard
    return name, None


def fill(model: nn.Module, folder: JanusFolder, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
    """Fill a model, strictly. Parts that it lacks, such as the image tokenizer, are passed over.

    Args:
        model: vLLM's.
        folder: What is being loaded.
        weights: The folder's tensors by their names there.

    Returns:
        The names of vLLM's parameters, which are all filled.

    Raises:
        ValueError: A tensor is missing, unknown or misshapen.
    """
    places, filled = places_of(folder), dict(model.named_parameters())
    dropped, seen = re.compile("|".join(folder.format.dropped) or "$^"), set[str]()
    for name, tensor in weights:
        if name not in places and not dropped.fullmatch(name):
            raise ValueError(f"{folder.folder}: unknown tensor {name}")
        seen.add(name)
        for place in places.get(name, ()):
            if not place.fits(tensor):
                told = f"{list(tensor.shape)}, not {list(place.shape)}"
                raise ValueError(f"{folder.folder}: {name} is of a wrong shape: {told}")
            if place.name in filled:
                place.put(filled[place.name], tensor)
    check_complete(folder, places.keys() - seen, filled)
    return set(filled)


def check_complete(folder: JanusFolder, missing: set[str], filled: Mapping[str, Tensor]) -> None:
    """Fill an absent head from the embedding it is tied to; ValueError if more is missing."""
    head = folder.format.adapter(HEAD).name
    if folder.tied and head in missing:
        filled[f"{TEXT_HEAD}.weight"].data.copy_(filled[EMBEDDING].data)
        missing = missing - {head}
    if missing:
        few = ", ".join(sorted(missing)[:3])
        raise ValueError(f"{folder.folder}: {len(missing)} missing tensors, such as {few}")
