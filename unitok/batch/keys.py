"""The keys of results: digests of what decides a result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unitok.requests import AnyRequest


def digest(*parts: object) -> str:
    """The SHA-256 of values in canonical JSON, in hexadecimal."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def seeded(request: AnyRequest, key: str) -> AnyRequest:
    """A request with a seed: if it has none, one of its key, which is the same in every run."""
    return replace(request, seed=int(key[:8], 16)) if request.seed is None else request


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity_of(folders: Sequence[Path]) -> str:
    """A digest of a model's folder and, if there is one, of that of the adapter merged into it."""
    model, *adapters = map(model_identity, folders)
    return digest(model, *adapters) if adapters else model


def model_identity(folder: Path) -> str:
    """A digest of all files of a model's folder except hidden ones.

    Device and precision do not count, so a run that is resumed elsewhere keeps its results.
    """
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    seen = {p.as_posix(): f for p, f in files.items() if not any(x[0] == "." for x in p.parts)}
    return digest(*[(name, file_digest(seen[name])) for name in sorted(seen)])


def with_quantization(identity: str, quantization: str | None) -> str:
    """A model's identity, with how it was quantised: unlike a precision, that changes results."""
    return identity if quantization is None else digest(identity, quantization)


def with_backend(identity: str, backend: str | None) -> str:
    """A model's identity, with what runs it: a seed is another picture on another's engine."""
    return identity if backend in (None, "unitok") else digest(identity, backend)


def with_adapters(identity: str, folders: Mapping[str, Path]) -> str:
    """A model's identity, with those of the adapters beside its weights, by name."""
    return (
        digest(identity, {n: model_identity(f) for n, f in folders.items()})
        if folders
        else identity
    )
