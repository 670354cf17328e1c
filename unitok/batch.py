"""`unitok batch`: JSON lines become results and pictures, each result exactly once.

A result is written to results.jsonl only after its pictures are saved, and it is on disk before
the next one is written. A killed run therefore leaves complete results. It may also leave a
half-written last line, which is dropped, and pictures without a line, which are written again under
the same names. The key of a result is made of the model, the line's content, the picture that it
names, and which of several equal lines it is. So lines may move, and other inputs may share the
folder.
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
except ImportError:  # not a Unix: nothing then keeps two runs from writing to one folder
    fcntl = None

JsonObject = dict[str, Any]

KINDS: dict[str, type[AnyRequest]] = {"caption": Caption, "draw": Draw, "edit": Edit}


@dataclass(frozen=True)
class Entry:
    """A line of the input.

    Attributes:
        line: Its number, from 1 on.
        key: The key of its result.
        asked: The JSON object.
        request: The request that the object means.
    """

    line: int
    key: str
    asked: JsonObject
    request: AnyRequest


@dataclass(frozen=True)
class Outcome:
    """What became of a line.

    Attributes:
        line: Its number, from 1 on.
        status: "new" for a new result, "kept" for one of an earlier run, "failed" for an error.
        error: What went wrong; None if nothing did.
    """

    line: int
    status: Literal["new", "kept", "failed"]
    error: str | None = None


def run_batch(model: Model, source: Path, folder: Path, identity: str) -> Iterator[Outcome]:
    """Run the requests of JSON lines, and write their results.

    Args:
        model: The model.
        source: The file of JSON lines.
        folder: Where results.jsonl and pictures/ are written.
        identity: Part of the keys, so that models have different results; see `model_identity`.

    Yields:
        An outcome per line, as soon as it is known.

    Raises:
        OSError: `source` cannot be read, or `folder` cannot be written.
        ValueError: Another run writes to `folder`, or its results.jsonl is damaged.
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
    """The requests that are still to be run.

    Args:
        source: The file of JSON lines.
        identity: The model's, part of the keys.
        journal: The results that are there.
        flying: Gets the entry of each request, by the request's index.
        settled: Gets the outcomes of all other lines.
    """
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
    """Write a result, unless it has an error. A later run tries a failed line again."""
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
    logprobs = {name: getattr(result, name) for name in ("logprobs", "branch_logprobs")}
    record |= {name: value for name, value in logprobs.items() if value is not None}
    journal.append(record | {"seconds": round(result.seconds, 3)})
    return Outcome(entry.line, "new")


# --- the input -----------------------------------------------------------------------------------


def read_entries(source: Path, identity: str) -> Iterator[Entry | Outcome]:
    """The entries of a file, with a failed outcome in place of each wrong line."""
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
            if request.seed is None:  # made of the key, so that another run gives the same
                request = replace(request, seed=int(key[:8], 16))
            yield Entry(number, key, asked, request)


def count_lines(source: Path) -> int:
    """The number of lines that are not blank."""
    with source.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


def parse_line(line: bytes) -> JsonObject:
    """The JSON object of a line.

    Raises:
        ValueError: The line is anything else.
    """
    try:
        asked = json.loads(line.decode("utf-8"), parse_constant=refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("not JSON: the line is not in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if not isinstance(asked, dict):
        raise ValueError(
            'a line must be an object such as {"caption": "cat.png"} or {"draw": "a cat"}'
        )
    return asked


def refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but JSON does not have.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"not JSON: {name} is not a number")


def to_request(asked: JsonObject, folder: Path) -> AnyRequest:
    """The request that a line means.

    Args:
        asked: The JSON object.
        folder: The folder that a picture's path is relative to.

    Raises:
        ValueError: A key is missing, unknown or of the wrong type. The message names it.
    """
    kinds = [kind for kind in KINDS if kind in asked]
    if len(kinds) != 1:
        raise ValueError(
            'a line has either "caption" or "edit", a picture\'s path, or "draw", a prompt'
        )
    kind = kinds[0]
    subject = asked[kind]
    if not isinstance(subject, str):
        raise ValueError(f'"{kind}" must be text, not {json.dumps(subject)}')
    if isinstance(asked.get("id", ""), dict | list):
        raise ValueError('"id" must be text or a number')
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
    """Check an option of a line.

    Args:
        kind: Of the request, such as "draw".
        name: The key.
        value: Its value. null leaves the option out.

    Raises:
        ValueError: The kind has no such option, or the value is of a wrong type or too large.
    """
    options = options_of(KINDS[kind])
    if name not in options:
        raise ValueError(f'unknown key "{name}"; {what_is_known(kind, name, options)}')
    spec = options[name]
    if value is not None and not spec.fits(value):
        raise ValueError(f'"{name}" must be {json_type(spec)}, not {json.dumps(value)}')
    high = spec.option.high
    if spec.kind == "whole number" and isinstance(value, int) and high is not None and value > high:
        raise ValueError(f'"{name}" must be at most {high:g}, not {value}')


def what_is_known(kind: str, name: str, options: Iterable[str]) -> str:
    """The known key that is nearest to an unknown one, else all known keys, in words."""
    known = ["id", *options]
    near = get_close_matches(name, known, n=1)
    return (
        f'did you mean "{near[0]}"?' if near else f'the keys beside "{kind}" are {", ".join(known)}'
    )


def json_type(spec: OptionSpec) -> str:
    """The JSON type of an option, in words."""
    return "true or false" if spec.kind == "flag" else spec.in_words


# --- keys ----------------------------------------------------------------------------------------


def digest(*parts: object) -> str:
    """The SHA-256 of values in canonical JSON, in hexadecimal.

    Raises:
        ValueError: A text is not Unicode.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_digest(request: AnyRequest) -> str | None:
    """The digest of a request's picture; None if there is no picture, or no such file."""
    path = request.image if isinstance(request, Caption | Edit) else None
    return file_digest(path) if isinstance(path, Path) and path.is_file() else None


def model_identity(folder: Path) -> str:
    """A digest of all files of a model's folder except hidden ones.

    Device and precision do not count, so a run that is resumed elsewhere keeps its results.
    """
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    seen = {p.as_posix(): f for p, f in files.items() if not any(x[0] == "." for x in p.parts)}
    return digest(*[(name, file_digest(seen[name])) for name in sorted(seen)])


# --- the output ----------------------------------------------------------------------------------


class Journal:
    """The results of a folder: results.jsonl and pictures/.

    Attributes:
        folder: The folder.
        done: The keys of all results.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder, lock it, and recover the results of earlier runs.

        Raises:
            OSError: The folder cannot be written.
            ValueError: Another run writes to it, or results.jsonl is damaged.
        """
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
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal and release its lock."""
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {self.folder}; wait until it ends"
            ) from None

    def _sweep(self) -> None:
        """Remove the pictures that a killed run left half-written. No other run holds the lock."""
        for unfinished in (self.folder / "pictures").glob(f"*{UNFINISHED}"):
            unfinished.unlink()

    def _recover(self) -> set[str]:
        """Read the keys of the results, and cut off a half-written last line."""
        done, complete = set(), 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(complete)
                break
            complete += len(line)
            try:
                done.add(json.loads(line)["key"])
            except (ValueError, TypeError, KeyError):
                raise ValueError(
                    f"{self._file.name}: line {number} is not a result; fix or remove it"
                ) from None
        return done

    def append(self, record: JsonObject) -> None:
        """Add a result. It is on disk when this returns."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._file.write(line.encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done.add(record["key"])

    def save_pictures(self, entry: Entry, images: tuple[Image.Image, ...]) -> list[str]:
        """Save a result's pictures, each completely or not at all.

        The names are made of the line's number and key, so nothing in a line can lead elsewhere.

        Returns:
            The paths, relative to the folder.
        """
        stem = f"pictures/{entry.line:06d}-{entry.key[:16]}"
        names = [
            f"{stem}-{i}.png" if len(images) > 1 else f"{stem}.png" for i in range(len(images))
        ]
        for name, image in zip(names, images, strict=True):
            save_whole(image, self.folder / name)
        return names
