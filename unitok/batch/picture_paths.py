"""The pictures that a line names: files, which are checked, or data URIs."""

import errno
import re
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from unitok.messages import parse_messages
from unitok.requests import AnyRequest, Caption, Edit, Reply
from unitok.strict_json import shown_json

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_DATA = re.compile(r"data:", re.IGNORECASE)


def picture_in(folder: Path, name: str) -> Path | str:
    """The picture that a line names.

    Args:
        folder: What a path is relative to.
        name: A path, or a data URI, which is given back as it is.

    Raises:
        ValueError: It is a URL.
    """
    if _DATA.match(name):
        return name
    refuse_url(name)
    return folder / name


def picture_files(request: AnyRequest) -> list[Path]:
    """The files that a request reads, each of which is there.

    Only regular files are taken: a pipe can be read only once, so its content would not be part of
    the key, and it may be the very one that the lines come from.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else than a regular file, or a URL.
    """
    if isinstance(request, Reply):
        pictures = parse_messages(request.messages, request.folder).pictures
        sources = [picture.source for picture in pictures]
    else:
        sources = [request.image] if isinstance(request, Caption | Edit) else []
        sources += [request.mask] if isinstance(request, Edit) and request.mask is not None else []
    for source in sources:
        if isinstance(source, str) and not _DATA.match(source):
            refuse_url(source)
            raise ValueError(
                f"{shown_json(source)} looks like a URL; if it is a path, begin it with ./"
            )
    files = [source for source in sources if isinstance(source, Path)]
    for file in files:
        check_file(file)
    return files


def refuse_url(name: str) -> None:
    """Refuse the address of a picture on the web.

    Raises:
        ValueError: It is one.
    """
    if _URL.match(name):
        raise ValueError(f"{shown_json(name)} is a URL; download the picture, and give its file")


def check_file(path: Path) -> None:
    """Check that a path is that of a regular file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be reached.
        ValueError: It is something else, or no path.
    """
    name = str(path)
    if "\0" in name:
        raise ValueError(f"{shown_json(name)} has a null character, which no path has")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{name}: no such file") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"{shown_json(name)} is too long for a path") from None
        raise
    if S_ISDIR(mode):
        raise ValueError(f"{name} is a folder; give the file of a picture")
    if not S_ISREG(mode):
        raise ValueError(f"{name} is a stream or a device; give the file of a picture")
