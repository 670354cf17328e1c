"""LlamaGen's image tokenizers, VQ-16 and VQ-8, from their own files; their names, Janus's too.

Paper: https://arxiv.org/abs/2406.06525; https://github.com/FoundationVision/LlamaGen
(tokenizer/tokenizer_image/vq_model.py). The files are vq_ds16_c2i.pt, vq_ds16_t2i.pt and
vq_ds8_c2i.pt.
"""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.taming import COMMON, rename

# Our names -> the original's, in LlamaGen's files and, after `gen_vision_model.`, in Janus's.
RENAMES = [
    *COMMON,
    (r"\.levels\.(\d+)\.", r".conv_blocks.\1."),
    (r"\.blocks\.", ".res."),
    (r"\.attentions\.", ".attn."),
    (r"\.middle\.block1\.", ".mid.0."),
    (r"\.middle\.attention\.", ".mid.1."),
    (r"\.middle\.block2\.", ".mid.2."),
]
# Whole names that such a checkpoint may hold and no tokenizer needs: statistics of its training.
DROPPED = (r"quantize\.codebook_used",)
# Where a checkpoint may hold the weights, the average over training before its last step.
INSIDE = ("ema", "model", "state_dict")
MULTIPLIERS = {5: (1, 1, 2, 2, 4), 4: (1, 2, 2, 4)}  # VQ-16 and VQ-8, by their levels
DERIVED = "quantizer.vq."  # the quantizer's working state, which follows from its codebook


def original_name(key: str) -> str:
    """A parameter's name in an `ImageTokenizer` -> its name in LlamaGen's files."""
    return rename(key, RENAMES)


def load_llamagen(
    path: str | Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    image_size: int = 256,
) -> ImageTokenizer:
    """Open VQ-16 or VQ-8, a file of `torch.save` or safetensors; which of both, its levels say.

    image_size: side of the pictures in pixels. The net takes any; LlamaGen uses 256, 384 and 512.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read; missing, unknown or misshapen keys; a side that does not fit.
    """
    path = Path(path)
    tensors = read_tensors(path)
    with torch.device("meta"):
        tokenizer = ImageTokenizer(find_config(tensors, image_size, path))
    ours = tokenizer.state_dict()
    derived = {key: value for key, value in ours.items() if key.startswith(DERIVED)}
    wanted = {original_name(key): key for key in ours.keys() - derived.keys()}
    check(tensors, {name: ours[key] for name, key in wanted.items()}, path)
    stored = {key: tensors[name].to(device, dtype) for name, key in wanted.items()}
    tokenizer.load_state_dict(stored | derived, assign=True)
    tokenizer.refresh()
    return tokenizer.requires_grad_(False).eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, mapped, without those that are not needed."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        data = load_file(path) if path.suffix == ".safetensors" else read_torch(path)
    except (SafetensorError, RuntimeError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a file of weights: {reason}") from None
    if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"{path} holds something else than tensors by name")
    return {k: v for k, v in data.items() if not any(re.fullmatch(d, k) for d in DROPPED)}


def read_torch(path: Path) -> object:
    """What `torch.save` wrote; tensors and plain values alone, of the weights' own dictionary."""
    # LlamaGen's training script stores its command line, a Namespace, beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = (data[key] for key in INSIDE if isinstance(data, Mapping) and key in data)
    return next(found, data)


def find_config(tensors: Mapping[str, Tensor], image_size: int, path: Path) -> AutoencoderConfig:
    """The sizes, read off the tensors; where one is missing the published size, as `check` says."""

    def rows(name: str, published: int) -> int:
        return next(iter(tensors[name].shape), published) if name in tensors else published

    levels = {m[1] for m in (re.match(r"encoder\.conv_blocks\.(\d+)\.", k) for k in tensors) if m}
    if len(levels) not in MULTIPLIERS:
        raise ValueError(
            f"{path} has {len(levels)} levels (encoder.conv_blocks); VQ-16 has 5 and VQ-8 has 4"
        )
    return AutoencoderConfig(
        image_size=image_size,
        codebook_size=rows("quantize.embedding.weight", 16384),
        code_dim=rows("quant_conv.weight", 8),
        latent_channels=rows("encoder.conv_out.weight", 256),
        base_channels=rows("encoder.conv_in.weight", 128),
        channel_multiplier=MULTIPLIERS[len(levels)],
    )


def check(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError, naming a few, unless names and shapes are the same."""
    missing, unknown = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    misshapen = {
        f"{name} (it is {list(tensors[name].shape)}, not {list(wanted[name].shape)})"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    }
    for what, names in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen)):
        if names:
            few = ", ".join(sorted(names)[:3])
            raise ValueError(f"{path}: {len(names)} {what} tensors, such as {few}")
