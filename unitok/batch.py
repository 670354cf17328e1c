"""`unitok batch`: JSON lines in, results and pictures out, each result exactly once.

A result's line goes to results.jsonl only after its pictures are in place, and is on disk before
the next one is written. A killed run therefore leaves finished results, perhaps a half-written last
line, which is dropped, and perhaps pictures without a line, which are written again under the same
names. A result is known by its key: the model, the line's content, the picture it reads, and which
of several such lines it is. So lines may move, and other inputs may share the folder.
"""

import codecs
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from unitok.api import Model
from unitok.requests import AnyRequest, Caption, Draw, Edit, OptionSpec, options_of
from unitok.results import DrawResult, TextResult
from unitok.saving import UNFINISHED, save_whole
from unitok.terminal import one_line

try:
    import fcntl
except ImportError:  # not a Unix: two runs into one folder are then not told apart
    fcntl = None

KINDS: dict[str, type[AnyRequest]] = {"caption": Caption, "draw": Draw, "edit": Edit}


@dataclass(frozen=True)
class Entry:
    """One line of the input: its number, its result's key, what it says, and what that asks for."""

    line: int
    key: str
    asked: dict[str, Any]
    request: AnyRequest


@dataclass(frozen=True)
class Outcome:
    """What became of a line: a new result, one kept from an earlier run, or an error."""

    line: int
    status: Literal["new", "kept", "failed"]
    error: str | None = None


def run_batch(model: Model, source: Path, folder: Path, identity: str) -> Iterator[Outcome]:
    """Work off the JSON lines of `source` into `folder`; an outcome per line, as they come.

    identity: tells the model's results from another's, see `model_identity`.

    Raises:
        OSError: `source` cannot be read, or `folder` not be written.
        ValueError: another run writes to `folder`, or its results.jsonl is damaged.
    """
    with Journal(folder) as journal:
        settled: deque[Outcome] = deque()
        flying: dict[int, Entry] = {}
        for result in model.run(open_requests(source, identity, journal, flying, settled)):
            settled.append(finish(flying.pop(result.index), result, journal))
            while settled:
                yield settled.popleft()
        yield from settled


def open_requests(
    source: Path,
    identity: str,
    journal: "Journal",
    flying: dict[int, Entry],
    settled: deque[Outcome],
) -> Iterator[AnyRequest]:
    """What is still to do, noted in `flying` by its index; all else is `settled` at once."""
    index = 0
    for entry in read_entries(source, identity):
        if isinstance(entry, Outcome):
            settled.append(entry)
        elif entry.key in journal.done:
            settled.append(Outcome(entry.line, "kept"))
        else:
            flying[index] = entry
            index += 1
            yield entry.request


def finish(entry: Entry, result: TextResult | DrawResult, journal: "Journal") -> Outcome:
    """Write a result down, unless it is an error: a later run tries that line again."""
    if result.error is not None:
        return Outcome(entry.line, "failed", result.error)
    record = {"line": entry.line, "key": entry.key, "request": entry.asked}
    if "id" in entry.asked:
        record["id"] = entry.asked["id"]
    if isinstance(result, DrawResult):
        record["pictures"] = journal.save_pictures(entry, result.images)
    else:
        record["text"] = result.text
    names = ("seed", "finish_reason", "prompt_tokens", "completion_tokens")
    record |= {name: getattr(result, name) for name in names}
    told = {name: getattr(result, name) for name in ("logprobs", "branch_logprobs")}
    record |= {name: value for name, value in told.items() if value is not None}
    journal.append(record | {"seconds": round(result.seconds, 3)})
    return Outcome(entry.line, "new")


# --- the input -----------------------------------------------------------------------------------


def read_entries(source: Path, identity: str) -> Iterator[Entry | Outcome]:
    """The entries of a file, and an outcome "failed" in the place of a line that is wrong."""
    seen: Counter[str] = Counter()
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8).strip()
            if not line:
                continue
            try:
                asked = parse_line(line)
                request = to_request(asked, source.parent)
                content = digest(identity, asked, picture_digest(request))
            except (ValueError, OSError) as error:
                yield Outcome(number, "failed", one_line(error))
                continue
            key = digest(content, seen[content])
            seen[content] += 1
            if request.seed is None:  # of the key, so that a rerun gives the same
                request = replace(request, seed=int(key[:8], 16))
            yield Entry(number, key, asked, request)


def count_lines(source: Path) -> int:
    """Lines that are not blank."""
    with source.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


def parse_line(line: bytes) -> dict[str, Any]:
    """A JSON object; ValueError for anything else."""
    try:
        asked = json.loads(line.decode("utf-8"), parse_constant=refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("not JSON: the line is not in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if not isinstance(asked, dict):
        raise ValueError('a line is an object such as {"caption": "cat.png"} or {"draw": "a cat"}')
    return asked


def refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is no number")


def to_request(asked: dict[str, Any], folder: Path) -> AnyRequest:
    """What a line asks for; a picture's path is relative to `folder`.

    Raises ValueError naming the key that is missing, unknown or of the wrong type.
    """
    kinds = [kind for kind in KINDS if kind in asked]
    if len(kinds) != 1:
        raise ValueError(
            'a line has either "caption" or "edit", a picture\'s path, or "draw", a prompt'
        )
    kind = kinds[0]
    subject = asked[kind]
    if not isinstance(subject, str):
        raise ValueError(f'"{kind}" is text, not {json.dumps(subject)}')
    if isinstance(asked.get("id", ""), dict | list):
        raise ValueError('"id" is text or a number')
    options = {name: value for name, value in asked.items() if name not in (kind, "id")}
    for name, value in options.items():
        check_option(kind, name, value)
    options = {name: value for name, value in options.items() if value is not None}
    for name, spec in options_of(KINDS[kind]).items():
        if spec.required and name not in options:
            raise ValueError(f'"{kind}" needs "{name}" too, which is {spec.in_words}')
    if kind == "draw":
        return Draw(subject, **options)
    return (Caption if kind == "caption" else Edit)(folder / subject, **options)


def check_option(kind: str, name: str, value: object) -> None:
    """Raise ValueError unless requests of this kind have the option and the value is of its type.

    null stands for leaving an option out.
    """
    options = options_of(KINDS[kind])
    if name not in options:
        raise ValueError(f'unknown key "{name}"; {what_is_known(kind, name, options)}')
    spec = options[name]
    if value is not None and not spec.fits(value):
        raise ValueError(f'"{name}" is {json_type(spec)}, not {json.dumps(value)}')
    high = spec.option.high
    if spec.kind == "whole number" and isinstance(value, int) and high is not None and value > high:
        raise ValueError(f'"{name}" is at most {high:g}, not {value}')


def what_is_known(kind: str, name: str, options: Iterable[str]) -> str:
    """The key that may have been meant; else all that go with a kind."""
    known = ["id", *options]
    near = get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f'with "{kind}" go {", ".join(known)}'


def json_type(spec: OptionSpec) -> str:
    """The type of an option, in words."""
    return "true or false" if spec.kind == "flag" else spec.in_words


# --- keys ----------------------------------------------------------------------------------------


def digest(*parts: object) -> str:
    """SHA-256 of values in canonical JSON. ValueError for text that is no Unicode."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_digest(request: AnyRequest) -> str | None:
    """Of the picture a request reads; None if it reads none, or the file is not there."""
    path = request.image if isinstance(request, Caption | Edit) else None
    return file_digest(path) if isinstance(path, Path) and path.is_file() else None


def model_identity(folder: Path) -> str:
    """Digest of all files of a model's folder, but for hidden ones.

    Device and precision do not count: a run that goes on elsewhere keeps its results.
    """
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    seen = {p.as_posix(): f for p, f in files.items() if not any(x[0] == "." for x in p.parts)}
    return digest(*[(name, file_digest(seen[name])) for name in sorted(seen)])


# --- the output ----------------------------------------------------------------------------------


class Journal:
    """A folder's results: results.jsonl and pictures/. `done` holds the keys of all results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        self._file = (folder / "results.jsonl").open("a+b")
        try:
            self._lock()
            self._sweep()
            self.done = self._recover()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run is writing to {self.folder}; wait for its end") from None

    def _sweep(self) -> None:
        """Remove what a killed run was writing; the lock says that no other run does."""
        for unfinished in (self.folder / "pictures").glob(f"*{UNFINISHED}"):
            unfinished.unlink()

    def _recover(self) -> set[str]:
        """Keys of the results that are there; a half-written last line is cut off."""
        done, whole = set(), 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                break
            whole += len(line)
            try:
                done.add(json.loads(line)["key"])
            except (ValueError, TypeError, KeyError):
                raise ValueError(
                    f"{self._file.name}: line {number} is no result; mend or remove it"
                ) from None
        return done

    def append(self, record: dict[str, Any]) -> None:
        """Add a result; it is on disk when this returns."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._file.write(line.encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done.add(record["key"])

    def save_pictures(self, entry: Entry, images: tuple[Image.Image, ...]) -> list[str]:
        """Save a result's pictures, each whole or not at all; their paths within the folder.

        Names come from line number and key alone, so nothing in a line can lead elsewhere.
        """
        stem = f"pictures/{entry.line:06d}-{entry.key[:16]}"
        names = [
            f"{stem}-{i}.png" if len(images) > 1 else f"{stem}.png" for i in range(len(images))
        ]
        for name, image in zip(names, images, strict=True):
            save_whole(image, self.folder / name)
        return names
