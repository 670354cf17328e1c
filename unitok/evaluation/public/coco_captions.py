"""Captions of COCO (https://arxiv.org/abs/1504.00325): BLEU, ROUGE-L and CIDEr.

The data are captions_val2014.json, or another file with `images` and `annotations`; or
dataset_coco.json of Karpathy's split, of which the test pictures are taken.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.caption_metrics import Described, caption_scores, rouge_l
from unitok.evaluation.caption_words import caption_words
from unitok.evaluation.public.records import (
    Once,
    Record,
    digest,
    inside,
    list_of,
    need_pictures,
    number_of,
    read_document,
    text_of,
)
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, judgement
from unitok.extras import need
from unitok.requests import Caption
from unitok.results import Result, TextResult
from unitok.saving import write_whole

RESULTS = "captions_results.json"
SPLIT = "test"  # of Karpathy's
MAX_TOKENS = 64
FILE_NAME = "COCO_val2014_{:012d}.jpg"  # of a picture whose entry has no name
HOW = (
    "Words are split by the rules of the PTBTokenizer that the official evaluation uses, without "
    "its Java; BLEU, ROUGE-L and CIDEr-D agree with pycocoevalcap on the same words. CIDEr depends "
    "on the set: compare numbers of the same pictures only."
)


@dataclass(frozen=True)
class CocoPicture:
    """A picture and what people wrote about it."""

    number: int
    file: str
    captions: tuple[str, ...]


def read_pictures(path: Path) -> list[CocoPicture]:
    """The pictures of a file that have captions, in its order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another form, a picture is there twice, or none has a caption.
    """
    document = read_document(path)
    images = list_of(document, "images", str(path))
    found = (
        from_coco(document, images, path) if "annotations" in document else karpathy(images, path)
    )
    if not found:
        raise ValueError(f"{path} has no picture with captions")
    return found


def from_coco(document: Record, images: Sequence[Record], path: Path) -> list[CocoPicture]:
    """The pictures of a file with annotations."""
    once, captions = Once("image id"), dict[int, list[str]]()
    files: dict[int, str] = {}
    for i, image in enumerate(images):
        where = f"{path}, images[{i}]"
        number = number_of(image, "id", where)
        once.add(number, where)
        files[number] = file_of(image, number, where)
    for i, annotation in enumerate(list_of(document, "annotations", str(path))):
        where = f"{path}, annotations[{i}]"
        number = number_of(annotation, "image_id", where)
        if number not in files:
            raise ValueError(f"{where}: there is no image {number}")
        captions.setdefault(number, []).append(text_of(annotation, "caption", where))
    return [CocoPicture(n, files[n], tuple(captions[n])) for n in files if n in captions]


def file_of(image: Record, number: int, where: str) -> str:
    """The name of a picture's file."""
    if "file_name" not in image:
        return FILE_NAME.format(number)
    name = text_of(image, "file_name", where)
    inside(Path("images"), name, where)
    return name


def karpathy(images: Sequence[Record], path: Path) -> list[CocoPicture]:
    """The test pictures of dataset_coco.json."""
    once, found = Once("cocoid"), []
    for i, image in enumerate(images):
        where = f"{path}, images[{i}]"
        if text_of(image, "split", where) != SPLIT:
            continue
        number = number_of(image, "cocoid", where)
        once.add(number, where)
        name = f"{image.get('filepath') or '.'}/{text_of(image, 'filename', where)}"
        inside(Path("images"), name, where)
        sentences = list_of(image, "sentences", where)
        found.append(CocoPicture(number, name, tuple(text_of(s, "raw", where) for s in sentences)))
    return [picture for picture in found if picture.captions]


class CocoCaptionsSuite:
    """The suite of a file of COCO's captions."""

    name = "coco-captions"

    def __init__(self, options: SuiteOptions) -> None:
        assert options.data is not None
        need("sacrebleu", "eval")  # or it would be found missing only when all is captioned
        self.pictures = read_pictures(options.data)[: options.limit]
        self.images = options.images or options.data.parent
        self.files = [self.find(picture.file) for picture in self.pictures]
        need_pictures(self.files, "--images")
        self.settings: dict[str, Any] = {"data": digest([options.data]), "limit": options.limit}

    def find(self, file: str) -> Path:
        """A picture in the folder, or at its top if it lies in no folder there."""
        return (
            self.images / file if (self.images / file).is_file() else self.images / Path(file).name
        )

    def items(self) -> Sequence[Item]:
        """A caption of each picture."""
        return [
            Item(
                f"{picture.number:012d}",
                "captions",
                Caption(path, max_tokens=MAX_TOKENS),
                list(picture.captions),
            )
            for picture, path in zip(self.pictures, self.files, strict=True)
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Score a caption by ROUGE-L alone, as the other scores are of a whole set."""
        assert isinstance(result, TextResult)
        said = " ".join(result.text.split())
        return judgement(item, None, said, round(rouge_l(described(said, item.wanted)), 6))

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The scores of the set. A picture without a caption has an empty one."""
        scores = caption_scores([described("" if j.error else j.said, j.wanted) for j in judged])
        lost = sum(j.error is not None for j in judged)
        notes = [f"{lost} pictures got no caption, and count as empty ones."] if lost else []
        return Summary(scores, notes=[HOW, *notes])

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """Write the captions in the form that COCO's evaluation server and tools read."""
        lines = [{"image_id": int(j.key), "caption": "" if j.error else j.said} for j in judged]
        write_whole(json.dumps(lines, ensure_ascii=False).encode(), folder / RESULTS)


def described(said: str, references: Sequence[str]) -> Described:
    """A caption and its references as words."""
    return Described(caption_words(said), [caption_words(text) for text in references])
