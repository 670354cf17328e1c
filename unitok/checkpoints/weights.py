"""Filling a model: tensors are checked against it, then streamed into place.

What need not be converted stays mapped to its file, so that a load takes no more memory than the
model itself.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from unitok.checkpoints.adapter import StateDictAdapter, Stored
from unitok.checkpoints.tensors import Tensors
from unitok.quantization.weights import Quantized

BIG = 2**30  # bytes of weights from which on loading is worth a progress bar
READERS = 4  # threads
AHEAD = 2 * READERS  # tensors that are read before their turn
# A tensor of as many numbers is not searched for NaN and infinity: reading all weights would make
# the load of a large model late, which maps them. Those of the image tokenizer are searched all the
# same: a NaN in them is a picture, not an error.
SEARCHED = 2**22
IMAGE_TOKENIZER = "image_tokenizer."  # how its parameters' names begin
CODEBOOK = f"{IMAGE_TOKENIZER}quantizer.codebook"

# In which type to load: this one, or what a function says of the one that is stored.
WholeDtype = torch.dtype | Callable[[torch.dtype], torch.dtype]


@dataclass(frozen=True)
class ImageTokenizerOnly:
    """A type of weights: the image tokenizer's are loaded, and the others are left out.

    It is for a process that prepares prompts and decodes pictures, while another one runs the
    decoder. The other weights are checked all the same, and stay without storage.

    Attributes:
        dtype: The type of the loaded weights, or what is to be made of the one that is stored.
    """

    dtype: WholeDtype


Dtype = WholeDtype | Quantized | ImageTokenizerOnly

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


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """All that a checkpoint stores; a quantizer's working state follows from its codebook."""
    derived = re.compile(r"(^|\.)quantizer\.vq\.")
    return {k: v for k, v in model.state_dict().items() if not derived.search(k)}


def fill(
    model: nn.Module,
    tensors: Tensors,
    adapter: StateDictAdapter,
    dtype: WholeDtype,
    device: str,
    dropped: Sequence[str] = (),
    exact: str | None = None,
    placed: Callable[[str], None] | None = None,
    only: str = "",
) -> torch.dtype:
    """Stream a checkpoint into a model that was built on the meta device, strictly.

    Args:
        model: To be filled.
        tensors: The checkpoint's.
        adapter: Says where each of the model's parameters is stored.
        dtype: The type of the filled weights.
        device: Where they are put.
        dropped: Regular expressions of whole names that the checkpoint may hold and we do not use.
        exact: How the names of our parameters begin that stay in float32 whatever `dtype` is.
        placed: Is told the name of each parameter that was just filled. It may exchange the module.
        only: How the names of our parameters begin that are filled; the others are only checked.

    Returns:
        The type of the filled weights.

    Raises:
        ValueError: Keys are missing or unknown, or shapes or types do not fit; a few are named. Or
            a tensor holds NaN or infinity; large ones are not searched for them, but those of the
            image tokenizer.
    """
    wanted = {key: (adapter(key), value) for key, value in parameters(model).items()}
    check_names({s.name for s, _ in wanted.values()}, tensors, dropped)
    check_shapes(wanted, tensors)
    check_types(wanted, tensors)
    target = dtype if isinstance(dtype, torch.dtype) else dtype(decoder_type(wanted, tensors))
    wanted = {key: value for key, value in wanted.items() if key.startswith(only)}

    def read(key: str) -> Tensor:
        stored = wanted[key][0]
        value = stored.take(tensors.tensor(stored.name))
        if value.numel() < SEARCHED or key.startswith(IMAGE_TOKENIZER):
            check_finite(value, stored.name, tensors)
        kind = torch.float32 if exact and key.startswith(exact) else target
        return value.to(device, kind if value.is_floating_point() else value.dtype)

    size = sum(value.numel() for _, value in wanted.values()) * target.itemsize
    console = Console(stderr=True)
    quiet = size < BIG or not console.is_terminal
    with ThreadPoolExecutor(READERS) as pool:  # to convert takes long; torch lets go of the lock
        steps = zip(wanted, read_ahead(pool, read, wanted), strict=True)
        title, count = "reading weights", len(wanted)
        for key, value in track(
            steps, title, count, console=console, transient=True, disable=quiet
        ):
            place(model, key, value)
            if placed is not None:
                placed(key)
    return target


def read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[str], Tensor], keys: Iterable[str]
) -> Iterator[Tensor]:
    """Read tensors in order, a few of them before their turn: all of them may be too many."""
    waiting: deque[Future[Tensor]] = deque()
    for key in keys:
        waiting.append(pool.submit(read, key))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def check_names(wanted: set[str], tensors: Tensors, dropped: Sequence[str]) -> None:
    """Raise ValueError for names that are missing, or that nobody wants or drops."""
    pattern = re.compile("|".join(f"(?:{d})" for d in dropped)) if dropped else None
    found = {n for n in tensors.names if n in wanted or not (pattern and pattern.fullmatch(n))}
    for what, keys in (("missing", wanted - found), ("unknown", found - wanted)):
        if keys:
            few = ", ".join(sorted(keys)[:3])
            raise ValueError(f"{tensors.source}: {len(keys)} {what} keys, such as {few}")


def check_shapes(wanted: Mapping[str, tuple[Stored, Tensor]], tensors: Tensors) -> None:
    """Raise ValueError for stored tensors that do not have their parameters' shapes."""
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


def check_types(wanted: Mapping[str, tuple[Stored, Tensor]], tensors: Tensors) -> None:
    """Raise ValueError for integers in place of floats, or floats in place of integers.

    Weights in integers or 8 bits are quantised: their scales lie elsewhere.
    """
    found = {s.name: (tensors.dtype(s.name), v.is_floating_point()) for s, v in wanted.values()}
    wrong = {name: kind for name, (kind, is_float) in found.items() if (kind in FLOATS) != is_float}
    if wrong:
        few = ", ".join(f"{name} ({kind})" for name, kind in list(wrong.items())[:3])
        raise ValueError(
            f"{tensors.source}: {len(wrong)} tensors of a wrong type, such as {few}; load an "
            "unquantised checkpoint instead"
        )


def check_finite(value: Tensor, name: str, tensors: Tensors) -> None:
    """Raise ValueError for a tensor with NaN or infinity among its numbers."""
    # A sum takes a twentieth of the time, and is finite only if all numbers are.
    if value.is_floating_point() and not value.sum().isfinite() and not value.isfinite().all():
        raise ValueError(
            f"{tensors.file_of(name)}: {name} holds NaN or infinity, so the file is damaged"
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
