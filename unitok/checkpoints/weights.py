"""Tensors of a checkpoint: found, checked against a model, streamed into place, written back.

A family says by a `Layout` where each parameter of ours lies in its files. Nothing is read before
it is needed, and what need not be converted stays mapped to its file, so that a load takes no more
memory than the model itself.
"""

import json
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import save_torch_state_dict
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unitok.checkpoints.folders import read_json
from unitok.nn.model import UnifiedModel

BIG = 2**30  # bytes of weights from which on loading is worth a progress bar
READERS = 4  # threads
SHARD = "5GB"  # of what is written, as transformers splits it

# In which type to load: this one, or what a function says of the one that is stored.
Dtype = torch.dtype | Callable[[torch.dtype], torch.dtype]


class Tensors(Protocol):
    """Tensors by name, read one at a time."""

    source: str  # for messages

    @property
    def names(self) -> frozenset[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str:
        """As the file calls it."""
        ...

    def tensor(self, name: str) -> Tensor: ...


# --- files ---------------------------------------------------------------------------------------


class SafetensorsFile:
    """A `.safetensors` file, mapped."""

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        self.names = frozenset(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        return self._file.get_slice(name).get_dtype()

    def tensor(self, name: str) -> Tensor:
        return self._file.get_tensor(name)


class TorchFile:
    """A file of `torch.save` (.bin, .pt, .pth, .ckpt), mapped; it may hold tensors alone.

    inside: the keys under which the tensors may lie, such as "state_dict"; the first one found is
    taken.
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
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


class Shards:
    """Several files as one; no name may stand in two of them."""

    def __init__(self, files: Sequence[Tensors], source: str) -> None:
        self.source = source
        self._home: dict[str, Tensors] = {}
        for file in files:
            if twice := self._home.keys() & file.names:
                raise ValueError(f"{source}: {sorted(twice)[0]} stands in two files")
            self._home |= dict.fromkeys(file.names, file)
        self.names = frozenset(self._home)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._home[name].shape(name)

    def dtype(self, name: str) -> str:
        return self._home[name].dtype(name)

    def tensor(self, name: str) -> Tensor:
        return self._home[name].tensor(name)


def open_tensors(folder: Path) -> Tensors:
    """The weights of a folder in Hugging Face's habits: safetensors or .bin, sharded or single.

    Raises:
        FileNotFoundError: there are none, or a shard is missing.
        ValueError: a file that cannot be read.
    """
    for name, kind in (("model.safetensors", SafetensorsFile), ("pytorch_model.bin", TorchFile)):
        index = folder / f"{name}.index.json"
        if index.is_file():
            return Shards([kind(path) for path in listed_shards(index)], str(folder))
        if (folder / name).is_file():
            return kind(folder / name)
    raise FileNotFoundError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def listed_shards(index: Path) -> list[Path]:
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


# --- layouts -------------------------------------------------------------------------------------


def same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Stored:
    """Where a parameter of ours lies: a name, one of `parts` equal parts along dim 0 of what the
    name holds (fused q, k, v), and what turns that part into ours and back."""

    name: str
    part: int = 0
    parts: int = 1
    load: Callable[[Tensor], Tensor] = same
    store: Callable[[Tensor], Tensor] = same

    def take(self, whole: Tensor) -> Tensor:
        """What the name holds -> our parameter."""
        return self.load(whole.tensor_split(self.parts)[self.part] if self.parts > 1 else whole)


Layout = Callable[[str], Stored]  # from our parameter's name


def renaming(renames: Iterable[tuple[str, str]]) -> Layout:
    """A layout that only has other names: regular expressions, all applied, in order."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in renames]

    def stored(key: str) -> Stored:
        for pattern, replacement in compiled:
            key = pattern.sub(replacement, key)
        return Stored(key)

    return stored


# --- reading -------------------------------------------------------------------------------------


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """All that a checkpoint stores; a quantizer's working state follows from its codebook."""
    derived = re.compile(r"(^|\.)quantizer\.vq\.")
    return {k: v for k, v in model.state_dict().items() if not derived.search(k)}


def fill(
    model: nn.Module,
    tensors: Tensors,
    layout: Layout,
    dtype: Dtype,
    device: str,
    dropped: Sequence[str] = (),
    exact: str | None = None,
) -> None:
    """Stream a checkpoint into a model that was built under the meta device, strictly.

    dropped: regular expressions of whole names that the checkpoint may hold and we do not use.
    exact: beginning of the names of ours that are kept in float32 whatever `dtype` is.

    Raises:
        ValueError: missing or unknown keys, or shapes or types that do not fit; a few are named.
    """
    wanted = {key: (layout(key), value) for key, value in parameters(model).items()}
    check_names({s.name for s, _ in wanted.values()}, tensors, dropped)
    check_shapes(wanted, tensors)
    check_types(wanted, tensors)
    target = dtype if isinstance(dtype, torch.dtype) else dtype(decoder_type(wanted, tensors))

    def read(key: str) -> Tensor:
        stored = wanted[key][0]
        value = stored.take(tensors.tensor(stored.name))
        kind = torch.float32 if exact and key.startswith(exact) else target
        return value.to(device, kind if value.is_floating_point() else value.dtype)

    size = sum(value.numel() for _, value in wanted.values()) * target.itemsize
    console = Console(stderr=True)
    quiet = size < BIG or not console.is_terminal
    with ThreadPoolExecutor(READERS) as pool:  # to convert takes long; torch lets go of the lock
        values = pool.map(read, wanted)
        steps = zip(wanted, values, strict=True)
        title, count = "reading weights", len(wanted)
        for key, value in track(
            steps, title, count, console=console, transient=True, disable=quiet
        ):
            place(model, key, value)


def ready(model: UnifiedModel, device: str) -> UnifiedModel:
    """A filled model, with all that follows from its weights, on its device."""
    model.image_tokenizer.refresh()
    return model.to(device).eval()


def check_names(wanted: set[str], tensors: Tensors, dropped: Sequence[str]) -> None:
    pattern = re.compile("|".join(f"(?:{d})" for d in dropped)) if dropped else None
    found = {n for n in tensors.names if n in wanted or not (pattern and pattern.fullmatch(n))}
    for what, keys in (("missing", wanted - found), ("unknown", found - wanted)):
        if keys:
            few = ", ".join(sorted(keys)[:3])
            raise ValueError(f"{tensors.source}: {len(keys)} {what} keys, such as {few}")


def check_shapes(wanted: Mapping[str, tuple[Stored, Tensor]], tensors: Tensors) -> None:
    wrong = {}
    for stored, value in wanted.values():
        shape = tensors.shape(stored.name)
        try:
            fits = stored.take(torch.empty(shape, device="meta")).shape == value.shape
        except (RuntimeError, IndexError):
            fits = False
        if not fits:
            parts = f"{stored.parts} x " if stored.parts > 1 else ""
            wrong[stored.name] = f"{list(shape)}, not {parts}{list(value.shape)}"
    if wrong:
        few = "; ".join(f"{name} is {shapes}" for name, shapes in list(wrong.items())[:3])
        raise ValueError(f"{tensors.source}: {len(wrong)} tensors of a wrong shape: {few}")


# Types whose values are the weights themselves, as safetensors and torch call them.
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def check_types(wanted: Mapping[str, tuple[Stored, Tensor]], tensors: Tensors) -> None:
    """Raise ValueError for weights in integers or 8 bits, whose scales lie elsewhere, and for
    integers in floats."""
    found = {s.name: (tensors.dtype(s.name), v.is_floating_point()) for s, v in wanted.values()}
    wrong = {name: kind for name, (kind, is_float) in found.items() if (kind in FLOATS) != is_float}
    if wrong:
        few = ", ".join(f"{name} ({kind})" for name, kind in list(wrong.items())[:3])
        raise ValueError(
            f"{tensors.source}: {len(wrong)} tensors of a wrong type, such as {few}; load an "
            "unquantised checkpoint instead"
        )


def decoder_type(wanted: Mapping[str, tuple[Stored, Tensor]], tensors: Tensors) -> torch.dtype:
    """The type in which most of the decoder's numbers are stored; its weights are not read."""
    sizes: Counter[str] = Counter()
    for key, (stored, value) in wanted.items():
        if key.startswith("decoder."):
            sizes[tensors.dtype(stored.name)] += value.numel()
    return FLOATS[sizes.most_common(1)[0][0]]


def place(model: nn.Module, key: str, value: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer."""
    owner_name, _, leaf = key.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


# --- writing -------------------------------------------------------------------------------------


def stored_tensors(model: nn.Module, layout: Layout, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's tensors under a checkpoint's names and shapes, on the CPU."""
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for key, value in parameters(model).items():
        stored = layout(key)
        value = value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype)
        parts.setdefault(stored.name, []).append((stored.part, stored.store(value)))
    return {name: join_parts(pieces) for name, pieces in parts.items()}


def join_parts(pieces: list[tuple[int, Tensor]]) -> Tensor:
    tensors = [tensor for _, tensor in sorted(pieces, key=lambda piece: piece[0])]
    return (torch.cat(tensors) if len(tensors) > 1 else tensors[0]).contiguous()


def write_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write `model.safetensors`, or shards of it and their index, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: alone(tensor) for name, tensor in tensors.items()}
    # A model that was loaded from this folder may still map its files: replace, never write into.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        save_torch_state_dict(tensors, temporary, max_shard_size=SHARD, metadata={"format": "pt"})
        for old in folder.glob("model*.safetensors*"):
            old.unlink()
        for path in sorted(Path(temporary).iterdir()):
            path.replace(folder / path.name)


def alone(tensor: Tensor) -> Tensor:
    """A tensor with a storage of its own, as the writer wants: parts of fused ones share theirs."""
    shares = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone() if shares else tensor


def write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
