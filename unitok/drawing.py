"""`unitok draw` and `unitok edit`: pictures are saved as soon as they are decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from unitok.flags import Common
from unitok.reporting import check, facts, in_order, print_json, stopped
from unitok.requests import Draw, Edit
from unitok.saving import make_folder, picture_format, save_whole
from unitok.screen import counted, show_pictures, watched
from unitok.shown import shown
from unitok.terminal import complain, uninterrupted

if TYPE_CHECKING:
    from PIL import Image

    from unitok.api import Model
    from unitok.baselines.protocols import Runner
    from unitok.results import DrawResult, Picture

MAX_SIDE_DIGITS = 9  # of a width or a height on the command line


@dataclass(frozen=True)
class Target:
    """Where pictures are saved, and how.

    Attributes:
        output: The file. If there are several, each gets a number before the suffix.
        scale: How many times as wide and as high they become.
        no_clobber: Whether it is an error that a file exists. Else it is replaced.
    """

    output: Path
    scale: int = 1
    no_clobber: bool = False


class Album:
    """Saves the pictures of several requests, and reports them.

    The files are numbered in the order of the requests, and within a request in that of its
    samples.

    Attributes:
        paths: The files of each request.
        done: How many pictures are saved.
    """

    def __init__(
        self,
        target: Target,
        asked: Sequence[Draw | Edit],
        given: Sequence[Mapping[str, object]],
        as_json: bool,
    ) -> None:
        """Check the names of the files. Nothing is saved yet.

        Args:
            target: Where pictures are saved.
            asked: The requests.
            given: What the JSON says of each request.
            as_json: Whether JSON is wanted.

        Raises:
            ValueError, OSError: The files cannot be written, or exist and must not.
        """
        paths = iter(numbered(target.output, sum(one.samples for one in asked)))
        self.paths = [list(islice(paths, one.samples)) for one in asked]
        self.done = 0
        self._target, self._given, self._as_json = target, given, as_json
        self._unreported: dict[Path, str] = {}  # saved pictures -> what is printed of them
        self._check_names()

    def save(self, index: int, sample: int, image: Image.Image) -> None:
        """Save a picture.

        Args:
            index: The number of its request.
            sample: Its number within the request.
            image: The picture, which knows its seed and sample.
        """
        path, info, scale = self.paths[index][sample], image.info, self._target.scale
        if scale > 1:
            image = cast("Picture", image).scaled(scale)
        with uninterrupted():
            save_whole(image, path, new=self._target.no_clobber)
            self.done += 1
            of_several = f", sample {info['sample']}" if len(self.paths[index]) > 1 else ""
            self._unreported[path] = f"seed {info['seed']}{of_several}"

    def report(self, result: DrawResult) -> bool:
        """Print the files of a request, or its error.

        Returns:
            Whether it has all its pictures.
        """
        paths = self.paths[result.index]
        if result.error is not None:
            complain(f"{paths[0]}: {result.error}")
        elif self._as_json:
            files = {"files": [str(path) for path in paths]}
            print_json({**self._given[result.index], **files, **facts(result)})
        else:
            self.report_saved(paths)
        return result.error is None

    def report_saved(self, paths: Sequence[Path]) -> None:
        """Print those files that are saved and have not been printed, unless JSON is wanted."""
        for path in paths:
            told = self._unreported.pop(path, None)
            if told is not None and not self._as_json:
                print(f"{path}: {told}", flush=True)

    @property
    def all_paths(self) -> list[Path]:
        """The files of all requests."""
        return [path for paths in self.paths for path in paths]

    def _check_names(self) -> None:
        check_picture_name(self._target.output)
        make_folder(self._target.output.parent)
        for path in self.all_paths if self._target.no_clobber else ():
            if os.path.lexists(path):
                raise FileExistsError(f"{path} exists; name another file, or drop --no-clobber")


def generate(
    common: Common,
    asked: Sequence[Draw | Edit],
    given: Sequence[Mapping[str, object]],
    target: Target,
    as_json: bool,
    load: Callable[[], AbstractContextManager[Runner]] | None = None,
) -> bool:
    """Generate pictures, save them, and print their files and seeds.

    Args:
        common: The options of every command.
        asked: The requests, which have the same options.
        given: What the JSON says of each request, beside its files and facts.
        target: Where the pictures are saved.
        as_json: Whether JSON is wanted.
        load: Opens a model of others; None for that of the options of every command.

    Returns:
        Whether all requests have all their pictures.

    Raises:
        ValueError, OSError: A file cannot be written, or an option is out of its range.
    """
    check(asked[0], as_json)
    asked = with_visible_previews(asked, common.bars)
    album = Album(target, asked, given, as_json)
    early: dict[int, DrawResult] = {}
    try:
        with load() if load else common.load() as model:
            run = drawn_one if load is None and len(asked) == 1 else drawn_together
            results = in_order(run(cast("Model", model), asked, album, common.bars), early)
            return all([album.report(result) for result in results])
    except KeyboardInterrupt:
        for index in sorted(early):
            album.report(early[index])
        total = len(album.all_paths)
        raise stopped(f"{album.done} of {total} pictures are saved" if album.done else "") from None
    finally:
        album.report_saved(album.all_paths)


def drawn_one(
    model: Model, asked: Sequence[Draw | Edit], album: Album, bars: bool
) -> Iterator[DrawResult]:
    """The result of one request, each of whose pictures is saved as soon as it is decoded."""
    from unitok.api import checked_event

    results: list[DrawResult] = []
    checked = map(checked_event, model.stream(asked[0]))
    with closing(watched(checked, asked[0].samples, bars)) as events:
        for event in events:
            if event.kind == "image" and event.image is not None:
                album.save(0, event.sample, event.image)
            if event.result is not None:
                results.append(cast("DrawResult", event.result))
    for result in results:
        if asked[0].preview:
            show_pictures(result.images)
        yield result


def drawn_together(
    model: Model, asked: Sequence[Draw | Edit], album: Album, bars: bool
) -> Iterator[DrawResult]:
    """The results of requests that share the engine's steps. Each is saved when it is complete."""
    with closing(counted(model.run(asked), len(asked), "drawing", bars)) as results:
        for result in cast("Iterator[DrawResult]", results):
            for sample, image in enumerate(result.images):
                album.save(result.index, sample, image)
            yield result


def with_visible_previews(asked: Sequence[Draw | Edit], visible: bool) -> Sequence[Draw | Edit]:
    """The requests, without previews if nobody could see them.

    Args:
        asked: The requests, which have the same options.
        visible: Whether stderr is a terminal on which progress is shown.

    Raises:
        ValueError: Previews are wanted of several requests.
    """
    if asked[0].preview and len(asked) > 1:
        raise ValueError(f"--preview shows the pictures of one prompt, not of {len(asked)}")
    if visible:
        return asked
    without = partial(replace, preview=False, preview_count=None, preview_budget=None)
    return list(map(without, asked))


def numbered(output: Path, n: int) -> list[Path]:
    """The files of n pictures, with a number before the suffix if there are several."""
    if n == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(n)]


def parse_size(size: str | None) -> tuple[int | None, int | None]:
    """Width and height of text such as 768x512; None twice for no text.

    Raises:
        ValueError: The text is no size.
    """
    if size is None:
        return None, None
    width, _, height = size.lower().partition("x")
    if not (is_side(width) and is_side(height)):
        raise ValueError(
            f"--size must be width x height in pixels, such as 768x512, not {shown(size)}"
        )
    return int(width), int(height)


def is_side(text: str) -> bool:
    """Whether a text is a number of pixels. Python reads no number of thousands of digits."""
    return text.isdecimal() and len(text) <= MAX_SIDE_DIGITS


def check_picture_name(path: Path) -> None:
    """Check that a file's name is one of a picture.

    Raises:
        ValueError: Its suffix names no picture format.
        IsADirectoryError: It is a folder.
    """
    if picture_format(path) is None:
        raise ValueError(f"{path}: name a picture, such as {path.stem or 'picture'}.png")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
