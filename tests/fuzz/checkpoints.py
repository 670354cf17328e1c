"""Fuzzes the loading of checkpoints: a folder of which one file is damaged."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from random import Random

import unitok
from tests.fuzz.mutations import mutated_bytes, mutated_json
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place
from tests.unitok.golden.folders import FOLDERS

LARGEST = 128  # side of a picture, in pixels, of a model that is tried
MISSING = b"(missing)"
EVIL_YAML = b"!!python/object/apply:os.system ['true']\n"


class Evil:
    """What runs a program when it is unpickled without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


class Checkpoints:
    """Tiny folders of every family and format.

    A case is the path of a file below the folder with all of them, a line end, and the content.
    """

    memory = 600 * 2**20
    permits: Collection[str] = ()

    def __init__(self, place: Place) -> None:
        """Save the folders."""
        self.base, self.copy = place.folder / "checkpoints", place.folder / "damaged"
        self.roots: dict[str, Path] = {}
        for name, save in FOLDERS.items():
            self.roots[name] = save(self.base / name)
        self.files = [path for path in sorted(self.base.rglob("*")) if path.is_file()]

    def make(self, random: Random) -> bytes:
        """A file that is damaged or missing."""
        name = random.choice(list(FOLDERS))
        path = random.choice([p for p in self.files if self._checkpoint(p) == name])
        content = MISSING if random.random() < 0.03 else mutated_file(random, path)
        return f"{path.relative_to(self.base).as_posix()}\n".encode() + content

    def run(self, case: bytes) -> None:
        """Load the folder with the damaged file. If that works, caption and draw."""
        place, _, content = case.partition(b"\n")
        damaged = self.base / place.decode()
        root = self._lay_out(damaged, content)
        hushed = warnings.catch_warnings(action="ignore")
        with hushed, unitok.load(root, device="cpu", memory="4MB") as model:
            use(model, root)

    def _lay_out(self, damaged: Path, content: bytes) -> Path:
        """A copy of the damaged file's checkpoint, and the folder in it that is loaded."""
        name = self._checkpoint(damaged)
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.base / name, self.copy, copy_function=os.link)
        path = self.copy / damaged.relative_to(self.base / name)
        path.unlink()
        if content != MISSING:
            path.write_bytes(content)
        return self.copy / self.roots[name].relative_to(self.base / name)

    def _checkpoint(self, path: Path) -> str:
        return path.relative_to(self.base).parts[0]

    def names(self, case: bytes) -> Sequence[str]:
        """The file, its folder, and the keys in it."""
        path = Path(case.partition(b"\n")[0].decode())
        return path.name, self.copy.name, *keys_of((self.base / path).read_bytes())


def use(model: unitok.Model, folder: Path) -> None:
    """Caption a picture, and draw one, if the model can, and its pictures are small.

    Raises:
        ValueError: It cannot, or what was damaged is seen only now.
    """
    if max(model.info().picture_size) > LARGEST:
        return
    try:
        model.caption(picture("RGB"), max_tokens=2)
        model.draw("a", seed=1)
    except (RuntimeError, ValueError) as error:  # as documented; a request knows no folder
        raise ValueError(f"{folder}: {error}") from None


def keys_of(data: bytes) -> Iterator[str]:
    """The keys of a JSON file, at any depth, as a message may name them."""
    try:
        yield from _keys(json.loads(data))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return


def _keys(value: object) -> Iterator[str]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield from (key for key in value if len(key) > 2)
    for part in inner:
        if isinstance(part, dict):
            yield from _keys(part)


def mutated_file(random: Random, path: Path) -> bytes:
    """The content of a file with damage that suits its kind."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return mutated_json(random, data)
    if path.suffix == ".safetensors" and random.random() < 0.7:
        return mutated_safetensors(random, data)
    if path.suffix in (".pth", ".ckpt", ".bin") and random.random() < 0.1:
        return pickle.dumps(Evil())
    if path.suffix in (".yaml", ".yml") and random.random() < 0.1:
        return data + b"evil: " + EVIL_YAML
    return mutated_bytes(random, data)


def mutated_safetensors(random: Random, data: bytes) -> bytes:
    """Weights whose header says something else: names, types, shapes, places."""
    length = struct.unpack("<Q", data[:8])[0]
    header = mutated_json(random, data[8 : 8 + length])
    told = len(header) if random.random() < 0.9 else random.choice((0, 1, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", told) + header + data[8 + length :]
