"""Folders of checkpoints: on this disk, or fetched from the Hugging Face hub; their JSON files."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from unitok.shown import shown
from unitok_tokenizers.bounded_files import read_object

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ("*.json", "*.yaml", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.ckpt")
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")  # the first kind that is there


@dataclass(frozen=True)
class HubOptions:
    """How a repository of the hub is asked for, as in transformers.

    Attributes:
        revision: A branch, a tag or a commit; None for the main branch.
        token: An access token; None for that of HF_TOKEN or of `hf auth login`, False for none.
        cache_dir: The folder of downloads; None for the hub library's own.

    Raises:
        TypeError: A value has another type.
        ValueError: A value is empty, or the token is none.
    """

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.revision, str | None):
            raise TypeError(f"revision must be text, not {type(self.revision).__name__}")
        if not isinstance(self.token, str | bool | None):
            raise TypeError(f"token must be text, True or False, not {type(self.token).__name__}")
        if not isinstance(self.cache_dir, str | os.PathLike | None):
            raise TypeError(f"cache_dir must be a path, not {type(self.cache_dir).__name__}")
        for name in ("revision", "cache_dir"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} is empty; leave it out")
        # A message of the HTTP client would show a token that is no header, so none gets there.
        if isinstance(self.token, str) and not re.fullmatch(r"[!-~]+", self.token):
            raise ValueError("token is empty or has characters that no token has, such as spaces")

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


ANY = HubOptions()


def find_folder(path: str | os.PathLike[str], hub: HubOptions = ANY, what: str = "a model") -> Path:
    """A folder of this disk, or the files of a hub repository, which are downloaded once.

    Args:
        path: The folder, or a name such as "deepseek-community/Janus-Pro-1B".
        hub: How the repository is asked for. Nothing may be asked for of a folder.
        what: What it is to hold, for messages.

    Raises:
        FileNotFoundError: There is no such folder, and no such repository can be had.
        ValueError: It is a file, or empty; or something is asked for of a folder.
        TypeError: It is no path.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(name, str):
        raise TypeError(f"{what} is a folder or a hub id, not {type(name).__name__}")
    if not name:
        known = f"the {what.split()[-1]}'s name"
        raise ValueError(f"{known} is empty; give a folder, such as '.', or a hub id")
    try:
        folder = Path(name).expanduser()
        found = folder.exists()
    # No path can be so long, or have such characters; or no user has the name after "~".
    except (OSError, ValueError, RuntimeError):
        raise FileNotFoundError(f"{shown(name)}: no such folder") from None
    if folder.is_dir():
        return check_local(folder, hub)
    if found:
        raise ValueError(f"{name} is a file; give the folder that holds it")
    if HUB_ID.fullmatch(name) is None:
        raise FileNotFoundError(f"{name}: no such folder")
    return download(name, hub)


def check_local(folder: Path, hub: HubOptions) -> Path:
    """The folder; ValueError if it is asked for as only a repository of the hub can be."""
    if hub.given:
        names = " and ".join(hub.given)
        raise ValueError(
            f"{folder} is a folder of this disk: {names} can be given for a hub id only"
        )
    return folder


def download(repository: str, hub: HubOptions = ANY) -> Path:
    """Fetch what a model needs of a hub repository; an earlier download serves when offline."""
    asked = {name: value for name, value in hub.given.items() if name != "cache_dir"}
    try:
        files = [s.rfilename for s in model_info(repository, timeout=10, **asked).siblings or ()]
    except Exception as error:  # each version of the library has another HTTP client's errors
        return earlier_download(repository, hub, error)
    kind = next((w for w in WEIGHTS if any(Path(f).match(w) for f in files)), WEIGHTS[0])
    patterns: dict[str, Any] = {"allow_patterns": [*PATTERNS, kind]}
    if doubles := superfluous(files):
        patterns["ignore_patterns"] = doubles
    logger.info("%s: fetching from the hub what is not here yet", repository)
    try:
        found = snapshot_download(repository, **patterns, **hub.given)
    except Exception as error:  # as above: the reason is told, whatever its class
        raise OSError(
            f"{repository}: the download broke off: {first_line(error)}; load it again to go on"
        ) from None
    logger.info("%s: lies in %s", repository, found)
    return Path(found)


def superfluous(files: Sequence[str]) -> list[str]:
    """Files of a repository with weights that it also has in another file.

    They are variants beside the plain weights, such as fp16, and a pipeline of diffusers in one
    file at the top, beside the folders of its parts.
    """
    paths = [Path(f) for f in files if Path(f).suffix in (".safetensors", ".ckpt")]
    plain = {path.parent for path in paths if path.suffix == ".safetensors" and not variant(path)}
    has_parts = "model_index.json" in files and any(path.parent != Path() for path in paths)
    return [
        str(path)
        for path in paths
        if (has_parts and path.parent == Path()) or (variant(path) and path.parent in plain)
    ]


def variant(weights: Path) -> str:
    """The variant of a file of weights, as diffusers and transformers name it; "" for the plain.

    It is fp16 for model.fp16.safetensors and model.fp16-00001-of-00002.safetensors.
    """
    known = re.fullmatch(r"[^.]+\.([A-Za-z]\w*)(-\d+-of-\d+)?", weights.stem)
    return known[1] if known else ""


def earlier_download(repository: str, hub: HubOptions, why: Exception) -> Path:
    """What is in the hub's cache, when the hub itself cannot be asked."""
    try:
        folder = Path(snapshot_download(repository, local_files_only=True, **hub.given))
    except Exception:  # there is none; why the hub could not be asked says more than that
        raise FileNotFoundError(
            f"{repository}: no such folder here, and the hub did not give it: {advice(why, hub)}"
        ) from None
    reason = first_line(why)
    logger.info("%s: %s lies here; the hub could not be asked: %s", repository, folder, reason)
    return folder


def advice(error: Exception, hub: HubOptions) -> str:
    """Why the hub did not give a repository, and what to do."""
    login = "log in with `hf auth login`, or set HF_TOKEN"
    match error:
        case GatedRepoError():
            return f"ask for access on its page there, then {login}"
        case RepositoryNotFoundError():
            return f"check the name; if the repository is private, {login}"
        case RevisionNotFoundError():
            return f"it has no revision {hub.revision!r}"
        case _:
            return (
                f"{first_line(error)}; load it once where the hub can be reached, or give a folder"
            )


LONGEST_REASON = 200
"""Characters of a library's own message, which may quote a file at length."""


def first_line(error: Exception) -> str:
    """The first line of a library's message, cut off where it is long; its class if it is empty.

    A line that ends with a colon only announces the next, which then follows it.
    """
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    rest = next((other.strip() for other in others if other.strip()), "")
    line = f"{first} {rest}".strip() if first.endswith(":") else first
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} ..."


def read_json(path: Path, optional: bool = False) -> Mapping[str, Any]:
    """A JSON object of a checkpoint folder.

    Args:
        path: The file.
        optional: Whether an empty object serves if there is no such file.

    Raises:
        FileNotFoundError: It is missing and not optional.
        ValueError: It cannot be parsed, is no object, or is beyond a limit of `bounded_files`.
    """
    if not path.is_file():
        if optional:
            return {}
        raise FileNotFoundError(f"{path} is missing; the folder is not complete")
    return read_object(path)
