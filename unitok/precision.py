"""Chooses the type that a model computes in: the one asked for, else what suits the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from unitok.shown import shown

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}


@dataclass(frozen=True)
class Precision:
    """A type, and the reason for it.

    Attributes:
        dtype: The type.
        why: The reason, in words that follow the type's name.
    """

    dtype: torch.dtype
    why: str

    def __str__(self) -> str:
        return f"{name_of(self.dtype)}, {self.why}"


def name_of(dtype: torch.dtype) -> str:
    """The name of a type, such as "float32"."""
    return str(dtype).removeprefix("torch.")


# --- what was asked for --------------------------------------------------------------------------


def parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The type that a caller names; None for "auto".

    Raises:
        ValueError: It is another name, or another of torch's types.
        TypeError: It is neither a name nor one of torch's types.
    """
    if dtype is None or (isinstance(dtype, str) and dtype == "auto"):
        return None
    named = DTYPES.get(SHORT.get(dtype, dtype)) if isinstance(dtype, str) else dtype
    if isinstance(named, torch.dtype) and named in DTYPES.values():
        return named
    kind = ValueError if isinstance(dtype, str | torch.dtype) else TypeError
    allowed = f"auto, {', '.join(DTYPES)} (or {', '.join(SHORT)})"
    raise kind(f"dtype must be one of {allowed}, not {shown(dtype)}")


def read_cpu_dtype(extra: Mapping[str, object], where: str = "unitok.json") -> torch.dtype | None:
    """The type for a CPU that unitok.json names; None if it names none.

    Args:
        extra: The content of unitok.json.
        where: The file's name in messages.

    Raises:
        ValueError: It names an unknown type.
    """
    name = extra.get("cpu_dtype")
    if name is None:
        return None
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(
            f"{where}: cpu_dtype must be one of {', '.join(DTYPES)}, not {shown(name)}"
        )
    return DTYPES[name]


# --- what suits ----------------------------------------------------------------------------------


@dataclass
class Choice:
    """Chooses a type when the type of the stored weights is known.

    Attributes:
        asked: The type that the caller asked for; None chooses.
        device: Where the model will compute.
        own: The type that the model names for a CPU.
        made: The choice; None before it is made.
    """

    asked: torch.dtype | None
    device: torch.device
    own: torch.dtype | None = None
    made: Precision | None = None

    def __call__(self, stored: torch.dtype) -> torch.dtype:
        """The type to compute in, for weights that are stored in a type."""
        kind, has_bf16 = self.device.type, computes_bf16(self.device)
        self.made = choose(kind, has_bf16, stored, self.own, self.asked)
        return self.made.dtype


def choose(
    device: str,
    has_bf16: bool,
    stored: torch.dtype,
    own: torch.dtype | None = None,
    asked: torch.dtype | None = None,
) -> Precision:
    """Choose the type that a model computes in.

    It is the one that was asked for; else, on a CPU, the model's own; else the one of the stored
    weights, if the device computes well in it; else float32.

    Args:
        device: "cpu", "cuda" or another kind.
        has_bf16: Whether the device computes well in bfloat16.
        stored: The type of the stored weights.
        own: The type that the model names for a CPU.
        asked: The type that the caller asked for.
    """
    if asked is not None:
        return Precision(asked, "as asked")
    if own is not None and device == "cpu":
        return Precision(own, "as the model's unitok.json asks for on a CPU")
    if reason := reason_against(stored, device, has_bf16):
        return Precision(torch.float32, reason)
    return Precision(stored, "as the checkpoint is stored")


def reason_against(stored: torch.dtype, device: str, has_bf16: bool) -> str | None:
    """Why float32 is better than the stored type, in words; None if it is not."""
    if stored is torch.float32 or (stored is torch.float16 and device == "cuda"):
        return None
    if stored is torch.bfloat16 and device in ("cpu", "cuda"):
        lack = {"cpu": "CPU has no AVX512-BF16 or AMX", "cuda": "GPU does not compute in bfloat16"}
        return None if has_bf16 else f"as this {lack[device]}"
    return f"as {name_of(stored)} on {device} is used only when asked for"


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16. Emulating them is slow."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_computes_bf16()


def cpu_computes_bf16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX; False where torch cannot tell."""
    if get_capabilities := getattr(torch.cpu, "get_capabilities", None):
        found = get_capabilities()
        return any(found.get(flag, False) for flag in ("avx512_bf16", "amx_bf16"))
    # Older versions of torch have a function for each.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
