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

from unitok.checkpoint import Tensors, TorchFile
from unitok.config import DecoderConfig
from unitok.files import read_json

ORIGINAL_WEIGHTS = re.compile(r"consolidated(\.\d\d)?\.pth")

# Our names -> Meta's names.
ORIGINAL = (
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
ORIGINAL_DROPPED = (r"rope\.freqs",)


def read_params(folder: Path) -> dict[str, Any]:
    """The settings of a model: those of params.json, and what merging its files changed."""
    params = read_json(folder / "params.json")
    model = params.get("model", {})
    return {**params, **model, **read_json(folder / "consolidate_params.json", optional=True)}


def config_from_params(
    params: Mapping[str, Any], where: str, absent: DecoderConfig
) -> DecoderConfig:
    """The settings of Meta's params.json and consolidate_params.json.

    absent: what holds of Meta's code and stands in no file: the context.

    Raises:
        ValueError: one is missing.
    """
    needed = ("dim", "n_layers", "n_heads", "vocab_size")
    if missing := [key for key in needed if key not in params]:
        raise ValueError(f"{where}: params.json has no {' and no '.join(missing)}")
    dim, heads = params["dim"], params["n_heads"]
    width = int((params.get("ffn_dim_multiplier") or 1) * int(2 * 4 * dim / 3))
    multiple = params.get("multiple_of", 256)
    return replace(
        absent,
        vocab_size=params["vocab_size"],
        hidden_size=dim,
        intermediate_size=(width + multiple - 1) // multiple * multiple,
        layers=params["n_layers"],
        heads=heads,
        kv_heads=params.get("n_kv_heads") or heads,
        head_dim=dim // heads,
        rope_theta=float(params.get("rope_theta", 10000.0)),
        norm_eps=params.get("norm_eps", 1e-5),
        qk_norm=bool(params.get("qk_normalization")),
        post_norm=bool(params.get("swin_norm")),
    )


class ParallelFiles:
    """The files of Meta's model-parallel checkpoints, each a slice of every tensor, as one.

    Norms are whole in every file; they are averaged, as transformers' converter does.
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
        parts = [torch.empty(file.shape(name), device="meta") for file in self._files]
        try:
            return tuple(self._join(parts, name).shape)
        except RuntimeError:
            raise ValueError(f"{self.source}: the slices of {name} do not fit together") from None

    def tensor(self, name: str) -> Tensor:
        return self._join([file.tensor(name) for file in self._files], name)

    def _join(self, parts: list[Tensor], name: str) -> Tensor:
        if self.ROWS.fullmatch(name):
            return torch.cat(parts)
        if self.COLUMNS.fullmatch(name):
            return torch.cat(parts, dim=1)
        return torch.stack(parts).float().mean(0)


def open_original(folder: Path, parallel: int | None) -> Tensors:
    """The weights of Meta's format, of one file or of several.

    Raises:
        FileNotFoundError: there are none, or not as many as params.json says.
    """
    if (folder / "consolidated.pth").is_file():
        return TorchFile(folder / "consolidated.pth")
    files = sorted(p for p in folder.iterdir() if ORIGINAL_WEIGHTS.fullmatch(p.name))
    count = parallel or max(len(files), 1)
    wanted = [folder / f"consolidated.{i:02}.pth" for i in range(count)]
    if missing := [path.name for path in wanted if path not in files]:
        raise FileNotFoundError(f"{folder}: {missing[0]} is missing, of {count} files of weights")
    if len(files) > count:
        raise ValueError(f"{folder}: {len(files)} files of weights, but params.json says {count}")
    opened = [TorchFile(path) for path in wanted]
    return opened[0] if count == 1 else ParallelFiles(opened, str(folder))


def find_model(folder: Path) -> Path:
    """The folder with params.json: this one, or the only model of Meta's whole download."""
    if (folder / "params.json").is_file():
        return folder
    found = sorted(path.parent for path in (folder / "models").glob("*/params.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no params.json in it, nor in a folder of its models/")
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise ValueError(f"{folder} holds several models; give the folder of one: {names}")
    return found[0]
