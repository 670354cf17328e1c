"""Meta's own format of Chameleon: params.json and weights in one file, or in slices.

Source: https://github.com/facebookresearch/chameleon, chameleon/inference/{loader,transformer}.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import MAX_FIELDS, Settings
from unitok.checkpoints.tensors import Tensors, TorchFile
from unitok.nn.config import DecoderConfig

WEIGHT_FILES = re.compile(r"consolidated(\.\d\d)?\.pth")

# Our names -> Meta's names.
NAMES = (
    (r"^text_embedding\.", "tok_embeddings."),
    (r"^text_head\.", "output."),
    (r"^decoder\.norm\.", "norm."),
    (r"^decoder\.blocks\.", "layers."),
    (r"\.mlp_norm\.", ".ffn_norm."),
    (r"\.attention\.(\w)_norm\.", r".attention.\1_normalization."),
    (r"\.attention\.(\w)\.", r".attention.w\1."),
    (r"\.mlp\.gate\.", ".feed_forward.w1."),
    (r"\.mlp\.down\.", ".feed_forward.w2."),
    (r"\.mlp\.up\.", ".feed_forward.w3."),
)
DROPPED = (r"rope\.freqs",)

READ = """dim n_layers n_heads n_kv_heads vocab_size ffn_dim_multiplier multiple_of norm_eps
    rope_theta qk_normalization swin_norm model_parallel_size""".split()
# What other models of Meta's have in such files, and what Chameleon's code does always.
REQUIRED: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("attention_bias", "moe", "use_scaled_rope", "weight_tying"), (None, False)),
    **dict.fromkeys(("norm_affine", "pre_norm", "use_rope"), (None, True)),
    **dict.fromkeys(("lora_args", "moe_args", "quantization", "quantization_args"), (None,)),
    **dict.fromkeys(("rope_scaling", "sliding_window"), (None,)),
    "activation": (None, "swiglu", "silu"),
    "alpha_depth": (None, "disabled"),
    "attn_bias_type": (None, "causal"),
    "non_linearity": (None, "swiglu"),
    "norm_type": (None, "rmsnorm"),
    "output_size": (None, -1),
    "rope_scaling_factor": (None, 1.0),
}
IGNORED = """custom_bwd deterministic_attn efficient_attn init_device init_use_depth
    init_use_gaussian layer_ckpt loss_parallel max_batch_size max_length max_seq_len max_seqlen
    recompute_attn recompute_fc1_out recompute_fc3_out residual_dropout seed sequence_parallel
    vocab_parallel""".split()


def read_params(folder: Path, strict: bool = False) -> dict[str, Any]:
    """The settings of a model: those of params.json, and what merging its files changed.

    Raises:
        ValueError: A setting would change the maths; or one beside the sizes is unknown and
            loading is strict. Around them a file may tell of the training run what it will.
    """
    file = folder / "params.json"
    params = Settings(read_json(file), str(file), strict)
    merged = read_json(folder / "consolidate_params.json", optional=True)
    inner = params.section("model", params.where)
    model = inner if inner.data else params
    model.check([*READ, *IGNORED], REQUIRED)
    for around in (params, replace(params, data=merged)):
        around.check(around.data.keys() - REQUIRED.keys(), REQUIRED)
    return {**params.data, **model.data, **merged}


def config_from_params(
    params: Mapping[str, Any], where: str, absent: DecoderConfig
) -> DecoderConfig:
    """The settings of Meta's params.json and consolidate_params.json.

    Args:
        params: The settings.
        where: Their folder, for messages.
        absent: What holds of Meta's code and stands in no file: the context.

    Raises:
        ValueError: A setting is missing, or of the wrong type.
    """
    needed = ("dim", "n_layers", "n_heads", "vocab_size")
    if missing := [key for key in needed if key not in params]:
        raise ValueError(f"{where}: params.json has no {' and no '.join(missing)}")
    settings = Settings(params, f"{where}: params.json")
    stated = replace(settings, data={k: v for k, v in params.items() if v is not None})
    dim, heads = (settings.int_setting(key, 1) for key in ("dim", "n_heads"))
    width = stated.scaled_setting("ffn_dim_multiplier", 1, int(2 * 4 * dim / 3))
    multiple = settings.int_setting("multiple_of", 256)
    return replace(
        absent,
        vocab_size=settings.int_setting("vocab_size", 1),
        hidden_size=dim,
        intermediate_size=(width + multiple - 1) // multiple * multiple,
        layers=settings.int_setting("n_layers", 1, MAX_FIELDS["layers"]),
        heads=heads,
        kv_heads=stated.int_setting("n_kv_heads", heads),
        head_dim=dim // heads,
        rope_theta=float(settings.float_setting("rope_theta", 10000.0)),
        norm_eps=settings.float_setting("norm_eps", 1e-5),
        qk_norm=settings.bool_setting("qk_normalization", False),
        post_norm=settings.bool_setting("swin_norm", False),
    )


class ParallelFiles:
    """The files of Meta's model-parallel checkpoints, each a slice of every tensor, as one.

    Norms are whole in every file; they are averaged, as transformers' converter does.

    Raises:
        ValueError: A tensor is not in all of the files.
    """

    ROWS = re.compile(
        r"layers\.\d+\.(attention\.(w[qkv]|[qk]_normalization)|feed_forward\.w[13])\.\w+"
        r"|output\.weight"
    )
    COLUMNS = re.compile(
        r"layers\.\d+\.(attention\.wo|feed_forward\.w2)\.weight|tok_embeddings\.weight"
    )

    def __init__(self, files: Sequence[Tensors], source: str) -> None:
        self.source, self._files = source, files
        self.names = files[0].names
        for file in files:
            if differ := sorted(file.names ^ self.names):
                raise ValueError(f"{file.source}: {differ[0]} is not in all files of weights")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the joined tensor; ValueError if its slices do not fit together."""
        parts = [torch.empty(file.shape(name), device="meta") for file in self._files]
        try:
            return tuple(self._join(parts, name).shape)
        except RuntimeError:
            raise ValueError(f"{self.source}: the slices of {name} do not fit together") from None

    def dtype(self, name: str) -> str:
        """The type of a tensor; ValueError if its slices are of several."""
        kinds = {file.dtype(name) for file in self._files}
        if len(kinds) > 1:
            raise ValueError(f"{self.source}: the slices of {name} are of several types")
        return kinds.pop()

    def file_of(self, name: str) -> str:
        """The folder: a slice lies in each of its files."""
        return self.source

    def tensor(self, name: str) -> Tensor:
        """The joined tensor."""
        return self._join([file.tensor(name) for file in self._files], name)

    def _join(self, parts: list[Tensor], name: str) -> Tensor:
        if self.ROWS.fullmatch(name):
            return torch.cat(parts)
        if self.COLUMNS.fullmatch(name):
            return torch.cat(parts, dim=1)
        return torch.stack(parts).float().mean(0)


def open_original(folder: Path, parallel: int | None) -> Tensors:
    """The weights of Meta's format, of one file or of several.

    Args:
        folder: The model's own.
        parallel: How many files params.json says that there are, if it does.

    Raises:
        FileNotFoundError: There are none, or too few.
        ValueError: There are too many.
    """
    if (folder / "consolidated.pth").is_file():
        return TorchFile(folder / "consolidated.pth")
    files = sorted(p for p in folder.iterdir() if WEIGHT_FILES.fullmatch(p.name))
    count = parallel or max(len(files), 1)
    wanted = [folder / f"consolidated.{i:02}.pth" for i in range(count)]
    if missing := [path.name for path in wanted if path not in files]:
        raise FileNotFoundError(f"{folder}: {missing[0]} is missing, of {count} files of weights")
    if len(files) > count:
        raise ValueError(f"{folder}: {len(files)} files of weights, but params.json says {count}")
    opened = [TorchFile(path) for path in wanted]
    return opened[0] if count == 1 else ParallelFiles(opened, str(folder))


def find_model(folder: Path) -> Path:
    """The folder with params.json: this one, or the only model of Meta's whole download.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several.
    """
    if (folder / "params.json").is_file():
        return folder
    found = sorted(path.parent for path in (folder / "models").glob("*/params.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no params.json in it, nor in a folder of its models/")
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise ValueError(f"{folder} holds several models; give the folder of one: {names}")
    return found[0]
