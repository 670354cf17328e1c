"""The tensors of a checkpoint's files: safetensors or torch's own, single or in shards.

Nothing is read before it is needed, and files stay mapped, so that opening a checkpoint takes no
memory.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unitok.checkpoints.folders import read_json


class Tensors(Protocol):
    """Tensors by name, which are read one at a time.

    Attributes:
        source: The file or folder, for messages.
    """

    source: str

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""
        ...

    def dtype(self, name: str) -> str:
        """The type of a tensor, as the file calls it."""
        ...

    def tensor(self, name: str) -> Tensor:
        """A tensor, read or mapped."""
        ...


class SafetensorsFile:
    """A `.safetensors` file, mapped; see `Tensors`.

    Raises:
        ValueError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        self.names = frozenset(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The type of a tensor in safetensors' words, such as "BF16"."""
        return self._file.get_slice(name).get_dtype()

    def tensor(self, name: str) -> Tensor:
        """A tensor, mapped."""
        return self._file.get_tensor(name)


class TorchFile:
    """A file of `torch.save` (.bin, .pt, .pth, .ckpt), mapped; it may hold tensors alone.

    Args:
        path: The file.
        inside: Keys under which the tensors may lie, such as "state_dict". The first one that is
            found is taken.

    Raises:
        ValueError: The file cannot be read, or holds something else than tensors.
    """

    def __init__(self, path: Path, inside: Sequence[str] = ()) -> None:
        self.source = str(path)
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path} cannot be read as a file of weights: {reason}") from None
        for key in inside:
            if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
                data = data[key]
                break
        if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
            raise ValueError(f"{path} holds something else than tensors by name")
        self._tensors = dict(data)
        self.names = frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        """The type of a tensor in torch's words, such as "bfloat16"."""
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def tensor(self, name: str) -> Tensor:
        """A tensor, mapped."""
        return self._tensors[name]


class Shards:
    """Several files as one.

    Raises:
        ValueError: A name stands in two of the files.
    """

    def __init__(self, files: Sequence[Tensors], source: str) -> None:
        self.source = source
        self._home: dict[str, Tensors] = {}
        for file in files:
            if twice := self._home.keys() & file.names:
                raise ValueError(f"{source}: {sorted(twice)[0]} stands in two files")
            self._home |= dict.fromkeys(file.names, file)
        self.names = frozenset(self._home)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._home[name].shape(name)

    def dtype(self, name: str) -> str:
        """The type of a tensor, as its file calls it."""
        return self._home[name].dtype(name)

    def tensor(self, name: str) -> Tensor:
        """A tensor, from the file that holds it."""
        return self._home[name].tensor(name)


def open_tensors(folder: Path) -> Tensors:
    """Open the weights of a folder as Hugging Face stores them: safetensors or .bin files.

    Raises:
        FileNotFoundError: There are none, or a shard is missing.
        ValueError: A file cannot be read.
    """
    for name, kind in (("model.safetensors", SafetensorsFile), ("pytorch_model.bin", TorchFile)):
        index = folder / f"{name}.index.json"
        if index.is_file():
            return Shards([kind(path) for path in listed_shards(index)], str(folder))
        if (folder / name).is_file():
            return kind(folder / name)
    raise FileNotFoundError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def listed_shards(index: Path) -> list[Path]:
    """The files that an index of shards names, all of which are there.

    Raises:
        FileNotFoundError: One of them is missing.
        ValueError: The index names none, or one outside its folder.
    """
    weights = read_json(index).get("weight_map")
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(f"{index} has no weight_map")
    names = sorted({str(name) for name in weights.values()})
    if strange := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index} names a file outside its folder: {strange[0]}")
    paths = [index.parent / name for name in names]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{missing[0]} is missing, one of {len(missing)} of {len(paths)} files of weights"
        )
    return paths
