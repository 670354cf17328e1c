"""Tiny folders of random weights for golden requests, one for each family and format."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.unitok import test_emu3, tiny, tiny_chameleon
from unitok.families import open_folder


def save_janus_original(folder: Path) -> Path:
    """A Janus in DeepSeek's own format."""
    source = tiny.save_tiny(folder / "transformers")
    family = open_folder(source, "cpu", torch.float32)
    family.save(folder / "original", "original")
    return folder / "original"


def save_chameleon(folder: Path) -> Path:
    """A folder of transformers', with Meta's VQGAN beside it, so that it paints."""
    model = tiny_chameleon.tiny_model()
    tensors = tiny_chameleon.vqgan_tensors(model)
    tiny_chameleon.save_vqgan(tensors, folder / "tokenizer" / "vqgan.ckpt")
    return tiny_chameleon.save_tiny(folder, model)


def save_anole(folder: Path) -> Path:
    """A conversion that kept the VQGAN's decoder among its weights, with sampling of its own."""
    model = tiny_chameleon.tiny_model()
    tiny_chameleon.randomise(model, seed=2)
    tiny_chameleon.save_tiny(folder, model)
    whole = tiny_chameleon.vqgan_tensors(model).items()
    decoder = {f"model.vqmodel.{k}": v for k, v in whole if k.startswith("decoder.")}
    save_file(load_file(folder / "model.safetensors") | decoder, folder / "model.safetensors")
    sampling = {"temperature": 0.9, "top_k": 12, "guidance_scale": 2.0}
    tiny_chameleon.write(folder / "generation_config.json", sampling)
    return folder


def save_emu3(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return test_emu3.save_transformers(folder)


def save_emu3_original(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return test_emu3.save_original(folder)


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "janus": tiny.save_tiny,
    "janus-original": save_janus_original,
    "chameleon": save_chameleon,
    "chameleon-original": tiny_chameleon.save_tiny_meta,
    "anole": save_anole,
    "unitoken-base": lambda folder: tiny_chameleon.save_unitoken(folder, "Base"),
    "unitoken-anyres": lambda folder: tiny_chameleon.save_unitoken(folder, "AnyRes"),
    "emu3": save_emu3,
    "emu3-original": save_emu3_original,
}
