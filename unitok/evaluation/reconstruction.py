"""What the image tokenizer keeps of pictures: they go through it and back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.api import Model
from unitok.baselines.adapter import batches
from unitok.evaluation.distances import checked, compare, joined, too_few
from unitok.evaluation.extractors import Extractor, open_extractor
from unitok.evaluation.kept_features import packed, unpacked
from unitok.evaluation.similarity import ssim
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, judgement
from unitok.evaluation.tallies import mean
from unitok.picture_names import PICTURE_SUFFIXES
from unitok.pictures import PictureLike, open_picture
from unitok.requests import Edit
from unitok.results import DrawResult, Result, failure
from unitok_tokenizers.losses import psnr

BATCH = 16  # pictures at once
PROMPT = "reconstruct"
Named = tuple[str, PictureLike]


class Reconstructor:
    """Takes the picture of an `Edit` through a model's image tokenizer and back.

    It is a `Runner`. The first picture of a result is what came back, and the second is what went
    in: cropped and scaled as the model sees a picture that it is to draw.

    Attributes:
        name: The model's.
    """

    def __init__(self, model: Model) -> None:
        """Keep the model.

        Raises:
            ValueError: It has no decoder, so that nothing comes back.
        """
        if not model.family.model.image_tokenizer.can_decode:
            raise ValueError(f"{model.name} has no image decoder, so it reconstructs nothing")
        self._model, self.name = model, model.name

    def run(self, requests: Iterable[Edit]) -> Iterator[Result]:
        """The results of pictures, a batch at a time. One that cannot be opened has an error."""
        for batch in batches(enumerate(requests), BATCH):
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[tuple[int, Edit]]) -> Iterator[Result]:
        start, opened = time.perf_counter(), []
        for index, asked in batch:
            try:
                pixels = self._model.family.picture_pixels(open_picture(asked.image))
                opened.append((index, asked, pixels))
            except (ValueError, OSError, TypeError) as error:
                yield failure(asked, index, error)
        if opened:
            before = torch.stack([pixels for _, _, pixels in opened])
            after = self._again(before)
            for (index, asked, old), new in zip(opened, after, strict=True):
                yield reconstructed(asked, index, old, new, time.perf_counter() - start)

    @torch.inference_mode()
    def _again(self, pixels: Tensor) -> Tensor:
        tokenizer = self._model.family.model.image_tokenizer
        return tokenizer.decode(tokenizer.encode(pixels)).float().cpu()

    def close(self) -> None:
        """Close the model."""
        self._model.close()


def reconstructed(
    asked: Edit, index: int, before: Tensor, after: Tensor, seconds: float
) -> DrawResult:
    """The result of a picture [3, H, W] in [0, 1] before and after."""
    images = (to_image(after), to_image(before))
    return DrawResult(PROMPT, images, 0, "complete", 0, 0, seconds, asked, index)


def to_image(pixels: Tensor) -> Image.Image:
    """An RGB picture of pixels [3, H, W] in [0, 1]."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """Pixels [1, 3, H, W] in [0, 1] of an RGB picture."""
    array = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None]


class ReconstructionSuite:
    """PSNR, SSIM and rFID of pictures. It is a `Suite`, for a `Reconstructor`."""

    def __init__(
        self,
        pictures: Sequence[Named],
        settings: dict[str, Any],
        name: str = "reconstruction",
        extractor: str | None = None,
    ) -> None:
        """Keep the pictures.

        Args:
            pictures: Names and pictures.
            settings: What decides which these are.
            name: What the suite is called.
            extractor: Whose features rFID compares, as `open_extractor`; None for no rFID.
        """
        self.pictures, self.name = pictures, name
        self.settings = settings | {"extractor": extractor}
        self.extractor: Extractor | None = open_extractor(extractor) if extractor else None

    def items(self) -> list[Item]:
        """An item for each picture."""
        return [
            Item(f"picture-{i:07}", "pictures", Edit(picture, PROMPT), name)
            for i, (name, picture) in enumerate(self.pictures)
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Compare what came back with what went in."""
        assert isinstance(result, DrawResult)
        after, before = map(to_pixels, result.images)
        decibels, alike = float(psnr(after, before)), float(ssim(after, before))
        said = f"{decibels:.2f} dB, SSIM {alike:.4f}"
        facts: dict[str, Any] = {"psnr": round(decibels, 6), "ssim": round(alike, 6)}
        if self.extractor is not None:
            for when, image in zip(("after", "before"), result.images, strict=True):
                facts[when] = packed(checked(self.extractor, self.extractor([image])))
        return judgement(item, None, said, facts["psnr"], facts)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The means over the pictures that could be opened, and rFID if there is an extractor."""
        found = [judgement.facts for judgement in judged if judgement.facts]
        scores = {name: mean([facts[name] for facts in found]) for name in ("psnr", "ssim")}
        left_out = len(judged) - len(found)
        notes = [HOW_JUDGED] + ([f"{left_out} pictures could not be opened."] if left_out else [])
        means = {k: round(v, 4) for k, v in scores.items() if v is not None}
        distance, more = self._distance(found)
        return Summary(means | distance, notes=notes + more)

    def _distance(self, found: Sequence[dict[str, Any]]) -> tuple[dict[str, float], list[str]]:
        """The FID of what came back beside what went in, and how it is to be read."""
        if self.extractor is None or not found:
            return {}, []
        if wrong := too_few(len(found), len(found)):
            return {}, [f"There is no rFID: {wrong}."]
        before, after = (joined([unpacked(f[when]) for f in found]) for when in ("before", "after"))
        scores, notes = compare(before, after, self.extractor)
        fid = f"fid{self.extractor.suffix}"
        return {f"r{fid}": round(scores[fid], 4)}, notes

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """There is no format of others for it."""


HOW_JUDGED = (
    "Each picture is cropped and scaled to the size of a drawing, becomes image tokens, and is "
    "decoded again. PSNR, in dB, and SSIM (Gaussian window of 11 pixels, colours apart) are means "
    "over pictures of 8 bits."
)


def folder_suite(options: SuiteOptions) -> ReconstructionSuite:
    """The suite of a folder's pictures.

    Raises:
        NotADirectoryError: The data are no folder.
        ValueError: There is no picture.
    """
    assert options.data is not None  # the command line sees to it
    folder = options.data
    names = find_pictures(folder)[: options.limit]
    settings = {"limit": options.limit, "the digest of the pictures": digest_of(folder, names)}
    pictures = [(name, folder / name) for name in names]
    return ReconstructionSuite(pictures, settings, extractor=options.extractor)


def find_pictures(folder: Path) -> list[str]:
    """The names of the pictures in a folder and below it, in order.

    Raises:
        NotADirectoryError: It is no folder.
        ValueError: There is no picture.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    names = (p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file())
    found = [name for name in names if Path(name).suffix[1:].lower() in PICTURE_SUFFIXES]
    if not found:
        raise ValueError(f"{folder} has no pictures")
    for name in found:
        if name != utf8(name):
            raise ValueError(f"{utf8(name)}: JSON holds UTF-8 alone; give the file another name")
    return found


def utf8(name: str) -> str:
    """The name of a file, in which bytes that are no UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def digest_of(folder: Path, names: Sequence[str]) -> str:
    """A digest of the names and sizes of files, which tells whether a folder was changed."""
    sizes = "".join(f"{name}\0{(folder / name).stat().st_size}\0" for name in names)
    return hashlib.sha256(sizes.encode()).hexdigest()
