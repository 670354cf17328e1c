"""A base's fingerprint: what an adapter's folder says of the model that it was made for.

It holds sizes and some of the weights themselves, not a hash of them: a base may be loaded in
another type than the one in which its adapter was trained, and is the same model for all that.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.saving import write_json
from unitok.checkpoints.settings import is_float
from unitok.nn.linear import linear_sample, sample_of
from unitok.nn.model import UnifiedModel
from unitok.shown import shown

FILE = "unitok_base.json"
SHARE, LEAST = 2**-7, 1e-6  # what rounding to bfloat16 or float16 may change a number by


@dataclass(frozen=True)
class Fingerprint:
    """What tells a base from others.

    Attributes:
        sizes: The settings of its decoder.
        weights: The names of some tensors -> numbers from all over them.
    """

    sizes: Mapping[str, Any]
    weights: Mapping[str, Sequence[float]]

    def difference(self, other: "Fingerprint") -> str | None:
        """What differs in another base, in words; None if it is the same."""
        for key, size in self.sizes.items():
            if key in other.sizes and other.sizes[key] != size:
                return f"its {key} is {shown(other.sizes[key])}, not {shown(size)}"
        for name, numbers in self.weights.items():
            if not alike(numbers, other.weights.get(name, ())):
                return f"its weights differ, such as those of {name}"
        return None


def alike(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether numbers are the same but for rounding."""
    pairs = list(zip(left, right, strict=False))
    same = all(abs(a - b) <= LEAST + SHARE * max(abs(a), abs(b)) for a, b in pairs)
    return len(left) == len(right) and same


def fingerprint_of(model: UnifiedModel) -> Fingerprint:
    """The fingerprint of a model without an adapter, which may be prepared for inference."""
    last = model.config.decoder.layers - 1
    blocks = [f"decoder.blocks.{i}" for i in sorted({0, last // 2, last})]
    layers = [f"{block}.{part}" for block in blocks for part in ("attention.q", "mlp.down")]
    samples = {name: linear_sample(model, name) for name in layers}
    samples["text_embedding"] = sample_of(model.text_embedding.weight)
    numbers = {name: in_six_digits(sample) for name, sample in samples.items()}
    return Fingerprint(dataclasses.asdict(model.config.decoder), numbers)


def in_six_digits(sample: Tensor) -> list[float]:
    """The numbers of a sample, rounded."""
    return [float(f"{number:.6g}") for number in sample.tolist()]


def write_base(folder: Path, name: str, fingerprint: Fingerprint) -> None:
    """Say in an adapter's folder for which base it was made."""
    write_json(folder / FILE, {"name": name, **dataclasses.asdict(fingerprint)})


def check_base(folder: Path, name: str, model: UnifiedModel) -> None:
    """Check that an adapter was made for a base, if its folder says for which.

    Args:
        folder: The adapter's.
        name: The base's.
        model: The base.

    Raises:
        ValueError: It was made for another, or the file that says so cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return
    data = read_json(path)
    stated = parse(data, path)
    if difference := stated.difference(fingerprint_of(model)):
        raise ValueError(
            f"{folder} is an adapter of another base: it was made for {shown(data.get('name'))}, "
            f"and this is {shown(name)}: {difference}"
        )


def parse(data: Mapping[str, Any], path: Path) -> Fingerprint:
    """The fingerprint that a file holds; ValueError if it holds none."""
    sizes, weights = data.get("sizes"), data.get("weights")
    if not isinstance(sizes, Mapping) or not isinstance(weights, Mapping):
        raise ValueError(
            f"{path} must hold the sizes and weights of a base; delete it to go without"
        )
    for name, numbers in weights.items():
        if not isinstance(numbers, list) or not all(map(is_float, numbers)):
            raise ValueError(f"{path}: the weights of {shown(name)} must be a list of numbers")
    return Fingerprint(sizes, weights)
