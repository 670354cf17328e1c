"""The tensors of a checkpoint's files: safetensors or torch's own, single or in shards.

Nothing is read before it is needed, and files stay mapped, so that opening a checkpoint takes no
memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unitok.checkpoints.folders import first_line, read_json
from unitok.shown import shown


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

    def file_of(self, name: str) -> str:
        """The file that holds a tensor, for messages."""
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
            raise ValueError(f"{path} cannot be read: {first_line(error)}") from None
        self.names = frozenset(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The type of a tensor in safetensors' words, such as "BF16"."""
        return self._file.get_slice(name).get_dtype()

    def file_of(self, name: str) -> str:
        """The file itself."""
        return self.source

    def tensor(self, name: str) -> Tensor:
        """A tensor, mapped."""
        return self._file.get_tensor(name)


class TorchFile:
    """A file of `torch.save` (.bin, .pt, .pth, .ckpt); it may hold tensors alone.

    It is mapped. One of a torch before 1.6, such as the published InceptionV3 of FID, is no archive
    and is read at once.

    Args:
        path: The file.
        inside: Keys under which the tensors may lie, such as "state_dict". The first one that is
            found is taken, and no other inside it.

    Raises:
        ValueError: The file cannot be read, or holds something else than tensors.
    """

    def __init__(self, path: Path, inside: Sequence[str] = ()) -> None:
        self.source = str(path)
        try:
            mapped = is_archive(path)
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # a damaged file may raise almost any
            raise ValueError(
                f"{path} cannot be read as a file of weights: {first_line(error)}"
            ) from None
        for key in inside:
            if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
                data = data[key]
                break
        if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
            raise ValueError(f"{path} holds something else than tensors by name")
        if strange := [name for name, value in data.items() if not is_plain(value)]:
            raise ValueError(f"{path}: {strange[0]} has not all of its numbers in the file")
        self._tensors = dict(data)
        self.names = frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        """The type of a tensor in torch's words, such as "bfloat16"."""
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def file_of(self, name: str) -> str:
        """The file itself."""
        return self.source

    def tensor(self, name: str) -> Tensor:
        """A tensor, mapped."""
        return self._tensors[name]


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does, which torch saves since 1.6."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's numbers are all stored: it is not sparse, expanded, or of shape alone."""
    is_dense = tensor.layout is torch.strided and not tensor.is_nested
    on_cpu = tensor.device.type == "cpu"
    return is_dense and on_cpu and tensor.untyped_storage().nbytes() >= tensor.nbytes


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

    def file_of(self, name: str) -> str:
        """The file that holds a tensor."""
        return self._home[name].file_of(name)

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
    if strange := [name for name in names if name in ("", "..") or Path(name).name != name]:
        raise ValueError(f"{index} names a file outside its folder: {shown(strange[0])}")
    paths = [index.parent / name for name in names]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{missing[0]} is missing, one of {len(missing)} of {len(paths)} files of weights"
        )
    return paths
