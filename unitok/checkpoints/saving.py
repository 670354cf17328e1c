"""Writing a model's tensors and JSON files into a folder."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn

from unitok.checkpoints.adapter import StateDictAdapter
from unitok.checkpoints.weights import parameters
from unitok.quantization.linear import QuantizedLinear

SMALL_FILES = (".json", ".jinja", ".model", ".txt")
SHARD = "5GB"  # the size of a file of weights, as transformers splits them


def stored_tensors(
    model: nn.Module, adapter: StateDictAdapter, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The model's tensors under a checkpoint's names and shapes, on the CPU.

    Raises:
        ValueError: The model has LoRA layers, which no checkpoint of a whole model holds; or layers
            of few bits, whose weights are not those of the checkpoint any more.
    """
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("a quantised model cannot be saved: load it without quantize to save it")
    ours = parameters(model)
    if any(".lora_A." in key for key in ours):
        raise ValueError("the model has LoRA layers: save the adapter, and merge it into the base")
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for key, value in ours.items():
        stored = adapter(key)
        value = value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype)
        parts.setdefault(stored.name, []).append((stored.part, stored.store(value)))
    return {name: join_parts(pieces) for name, pieces in parts.items()}


def join_parts(pieces: list[tuple[int, Tensor]]) -> Tensor:
    """Numbered parts of a fused tensor, joined along the first dimension."""
    tensors = [tensor for _, tensor in sorted(pieces, key=lambda piece: piece[0])]
    return (torch.cat(tensors) if len(tensors) > 1 else tensors[0]).contiguous()


def write_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write `model.safetensors`, or shards of it and their index, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: unshared(tensor) for name, tensor in tensors.items()}
    # A model that was loaded from this folder may still map its files: replace, never write into.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        save_torch_state_dict(tensors, temporary, max_shard_size=SHARD, metadata={"format": "pt"})
        for old in folder.glob("model*.safetensors*"):
            old.unlink()
        for path in sorted(Path(temporary).iterdir()):
            path.replace(folder / path.name)


def copy_files(source: Path, folder: Path) -> None:
    """Copy the small files of a checkpoint's folder, such as settings and tokenizers."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        is_small = path.suffix in SMALL_FILES and not path.name.endswith(".index.json")
        if path.is_file() and is_small:
            shutil.copyfile(path, folder / path.name)


def unshared(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own, as the writer wants: fused parts share theirs."""
    shares = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone() if shares else tensor


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
