"""Writing low-rank adapters as PEFT does, with the names of transformers' classes."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from unitok.checkpoints import lora_settings
from unitok.checkpoints.adapter import StateDictAdapter
from unitok.checkpoints.fingerprint import Fingerprint, write_base
from unitok.checkpoints.lora_files import FILE, PREFIX, A, B, Base
from unitok.checkpoints.saving import write_json
from unitok.nn.lora import LoraAdapter, LowRank


def write_adapter(
    adapter: LoraAdapter, folder: Path, base: Base, fingerprint: Fingerprint, dropout: float = 0.0
) -> None:
    """Write an adapter's folder, which PEFT opens over transformers' class of the family.

    Args:
        adapter: The adapter.
        folder: Where it is written; it is made if it does not exist.
        base: What it is for.
        fingerprint: Of the base's weights without the adapter.
        dropout: What it was trained with, for those who go on.

    Raises:
        ValueError: A layer is part of a fused one in that class.
    """
    names = base.weight_names[0]
    layers = {module_of(names, f"{name}.weight"): added for name, added in adapter.layers.items()}
    full = {names(name).name: names(name).store(value) for name, value in adapter.full.items()}
    modules = sorted({module_of(names, name) for name in adapter.full})
    tensors = {f"{PREFIX}{name}": value for name, value in full.items()}
    for name, added in layers.items():
        tensors |= {f"{PREFIX}{name}{A}": added.a, f"{PREFIX}{name}{B}": added.b}
    folder.mkdir(parents=True, exist_ok=True)
    write_file(tensors, folder / FILE)
    write_base(folder, base.name, fingerprint)
    write_json(folder / lora_settings.FILE, settings_to_json(layers, modules, dropout))


def write_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file of tensors; one that is there stays whole until the new one is."""
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        whole = Path(temporary, path.name)
        save_file(own, whole, {"format": "pt"})
        whole.replace(path)


def module_of(names: StateDictAdapter, key: str) -> str:
    """The module of transformers' class that holds a parameter of ours alone."""
    stored = names(key)
    if stored.parts > 1:
        raise ValueError(f"{key} is part of {stored.name}, so no adapter of it can be written")
    return stored.name.rpartition(".")[0]


def settings_to_json(
    layers: Mapping[str, LowRank], modules: Sequence[str], dropout: float
) -> dict[str, object]:
    """adapter_config.json.

    Args:
        layers: The names of layers in transformers' class -> what is added to them.
        modules: Those that were trained in full.
        dropout: What the adapter was trained with.
    """
    ranks = {name: len(added.a) for name, added in layers.items()}
    alphas = {name: added.scale * len(added.a) for name, added in layers.items()}
    rank, alpha = int(most_common(ranks.values())), most_common(alphas.values())
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "rank_pattern": {re.escape(name): r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(name): a for name, a in alphas.items() if a != alpha},
        "target_modules": sorted(layers),
        "modules_to_save": list(modules) or None,
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def most_common(values: Iterable[float]) -> float:
    """The most common of some values; 1 if there are none."""
    return next((value for value, _ in Counter(values).most_common(1)), 1)
