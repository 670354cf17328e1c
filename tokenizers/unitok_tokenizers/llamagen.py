"""LlamaGen's image tokenizers, VQ-16 and VQ-8: their files read and written, and the names in them.

Paper: https://arxiv.org/abs/2406.06525. Source: https://github.com/FoundationVision/LlamaGen
(tokenizer/tokenizer_image/vq_model.py). The files are vq_ds16_c2i.pt, vq_ds16_t2i.pt and
vq_ds8_c2i.pt. Janus's checkpoints have the same names.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.taming import COMMON, rename

# Our names -> those of LlamaGen's files and, after `gen_vision_model.`, of Janus's. Patterns are
# applied in order.
RENAMES = [
    *COMMON,
    (r"\.levels\.(\d+)\.", r".conv_blocks.\1."),
    (r"\.blocks\.", ".res."),
    (r"\.attentions\.", ".attn."),
    (r"\.middle\.block1\.", ".mid.0."),
    (r"\.middle\.attention\.", ".mid.1."),
    (r"\.middle\.block2\.", ".mid.2."),
]
# Whole names, as patterns, that such a checkpoint may hold and no tokenizer needs: statistics of
# its training.
DROPPED = (r"quantize\.codebook_used",)
# Where a checkpoint may hold the weights: the average over the training steps comes before the last
# step.
INSIDE = ("ema", "model", "state_dict")
# The channel multipliers of VQ-16 and VQ-8 by their number of levels.
MULTIPLIERS = {5: (1, 1, 2, 2, 4), 4: (1, 2, 2, 4)}
# The prefix of the quantizer's working state, which follows from its codebook.
DERIVED = "quantizer.vq."


def original_name(key: str) -> str:
    """Translate a parameter's name into its name in LlamaGen's files.

    Args:
        key: A name in the state dict of an `ImageTokenizer`.
    """
    return rename(key, RENAMES)


def load_llamagen(
    path: str | Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    image_size: int = 256,
) -> ImageTokenizer:
    """Load VQ-16 or VQ-8 from a file of `torch.save` or of safetensors.

    Args:
        path: The file. The number of its levels tells which of the two it holds.
        device: Where the weights go, by its name in torch.
        dtype: The type of the weights.
        image_size: The side of the pictures in pixels. The network takes any multiple of 16
            (VQ-16) or 8 (VQ-8). LlamaGen uses 256, 384 and 512.

    Returns:
        The tokenizer in evaluation mode, without gradients.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, tensors are missing, unknown or misshapen or hold NaN,
            or the side does not fit.
    """
    path = Path(path)
    tensors = read_tensors(path)
    with torch.device("meta"):
        tokenizer = ImageTokenizer(find_config(tensors, image_size, path))
    ours = tokenizer.state_dict()
    derived = {key: value for key, value in ours.items() if key.startswith(DERIVED)}
    wanted = {original_name(key): key for key in ours.keys() - derived.keys()}
    check_tensors(tensors, {name: ours[key] for name, key in wanted.items()}, path)
    stored = {key: tensors[name].to(device, dtype) for name, key in wanted.items()}
    tokenizer.load_state_dict(stored | derived, assign=True)
    tokenizer.refresh()
    return tokenizer.requires_grad_(False).eval()


def save_llamagen(tokenizer: ImageTokenizer, path: str | Path) -> None:
    """Write VQ-16 or VQ-8 as safetensors, under the names of LlamaGen's files.

    A file that is there already stays whole until the new one is.

    Args:
        tokenizer: Its size of pictures is not written.
        path: The file, whose name ends with ".safetensors".

    Raises:
        ValueError: The name ends otherwise, or the tokenizer is of another kind, which
            `load_llamagen` would not open.
        OSError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must end with .safetensors")
    state = {k: v for k, v in tokenizer.state_dict().items() if not k.startswith(DERIVED)}
    tensors = {original_name(k): v.detach().cpu().contiguous() for k, v in state.items()}
    config = tokenizer.config
    known = config.encoder == "conv" and len(config.channel_multiplier) in MULTIPLIERS
    if not known or find_config(tensors, config.image_size, path) != config:
        raise ValueError(f"{path}: only VQ-16 and VQ-8 are written, not {config}")
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished, {"format": "pt"})
    unfinished.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without those that no tokenizer needs.

    Tensors of a file of `torch.save` are mapped into memory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        data = load_file(path) if path.suffix == ".safetensors" else read_torch(path)
    except Exception as error:  # a damaged file may raise almost any
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a file of weights: {reason}") from None
    if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"{path} holds something else than tensors by name")
    return {k: v for k, v in data.items() if not any(re.fullmatch(d, k) for d in DROPPED)}


def read_torch(path: Path) -> object:
    """Read a file of `torch.save`, without running code that it may hold.

    Returns:
        The dictionary of weights where the file has one, else all that it holds.
    """
    # LlamaGen's training script stores its command line, a Namespace, beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = (data[key] for key in INSIDE if isinstance(data, Mapping) and key in data)
    return next(found, data)


def find_config(tensors: Mapping[str, Tensor], image_size: int, path: Path) -> AutoencoderConfig:
    """Read the sizes of a tokenizer off the shapes of its tensors.

    Where a tensor is missing, the published size stands in, so that `check_tensors` can name it.

    Args:
        tensors: The tensors of a file by name.
        image_size: The side of the pictures in pixels.
        path: The file, for messages.

    Raises:
        ValueError: The number of levels is that of no published tokenizer, or the side does not
            fit.
    """

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


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Check that a file holds the tensors that a tokenizer needs, whole, and no others.

    Args:
        tensors: The tensors of the file by name.
        wanted: Tensors of the shapes that are needed, by their names in the file.
        path: The file, for messages.

    Raises:
        ValueError: Names or shapes differ, and the message gives up to three of them; or a tensor
            holds NaN or infinity.
    """
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
    for name in wanted:
        value = tensors[name]
        if not value.sum().isfinite() and not value.isfinite().all():
            raise ValueError(f"{path}: {name} holds NaN or infinity, so the file is damaged")
