"""Codes of pictures that are to be painted, computed once and kept in a folder.

A picture's file is named by a digest of its pixels, of the image tokenizer's weights and of their
precision. So a folder may serve several models and data sets, and nothing in it grows stale.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from unitok.saving import make_folder, write_whole

MAX_FILE = 2**20  # bytes of a file of codes; that of the largest picture has a quarter of it


class CodeCache:
    """Gives the codes of pictures, and keeps them in a folder. Several processes may share it.

    Attributes:
        hits: How many were found.
        misses: How many were computed.
    """

    def __init__(self, folder: Path, image_tokenizer: Any) -> None:
        """Keep what an image tokenizer computes.

        Args:
            folder: Where; it is made if it is missing.
            image_tokenizer: An `ImageCodec` that is a module, whose weights do not change any more.

        Raises:
            OSError: The folder cannot be written.
        """
        make_folder(folder)
        self.folder, self._image_tokenizer = folder, image_tokenizer
        self._identity = digest_of_weights(image_tokenizer)
        self.hits = self.misses = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        """The codes of a picture.

        Args:
            pixels: [3, H, W] in [0, 1].

        Returns:
            Codes [h, w] int64.

        Raises:
            OSError: The folder cannot be read or written.
            ValueError: A file of the folder is damaged.
        """
        path = self.path_of(pixels)
        if path.is_file():
            self.hits += 1
            return self._read(path)
        self.misses += 1
        codes = self._image_tokenizer.encode(pixels[None])[0].cpu()
        path.parent.mkdir(exist_ok=True)
        write_whole(save({"codes": codes.to(torch.int32)}), path)
        return codes

    def path_of(self, pixels: Tensor) -> Path:
        """The file of a picture's codes."""
        data = pixels.detach().cpu().float().contiguous().numpy().tobytes()
        shape = repr(tuple(pixels.shape)).encode()
        name = hashlib.sha256(self._identity.encode() + shape + data).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, path: Path) -> Tensor:
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"{path} is no file of codes; remove it")
        try:
            codes = load(path.read_bytes()).get("codes")
        except SafetensorError:
            codes = None
        size = self._image_tokenizer.codebook_size
        if codes is None or codes.dtype != torch.int32 or codes.ndim != 2:
            raise ValueError(f"{path} is damaged; remove it")
        if not codes.numel() or not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise ValueError(f"{path} has codes that the image tokenizer has not; remove it")
        return codes.long()


def digest_of_weights(module: nn.Module) -> str:
    """A digest of the names, types and values of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        values = tensor.detach().cpu().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
