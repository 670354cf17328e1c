"""GenEval's rules (https://arxiv.org/abs/2310.11513), on what any detector finds.

The official scorer takes Mask2Former for a detector, and OpenAI's CLIP ViT-L/14 for colours. Here
things are boxes without masks, so scores of other detectors are near to the official ones at best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unitok.baselines.protocols import Detection, Detector, ImageTextScorer
from unitok.evaluation.public.records import Record, list_of, number_of, text_of

COLOURS = "red orange yellow green blue purple pink brown black white".split()
TEMPLATES = (
    "a photo of a {colour} {thing}",
    "a photo of a {colour}-colored {thing}",
    "a photo of a {colour} object",
)
PLACES = ("left of", "right of", "above", "below")
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9  # of a detection's score
MOST = 16  # things of a kind
SLACK = 0.1  # of the sides, by which things must be apart to be beside one another
COUNTING = "counting"


@dataclass(frozen=True)
class Thing:
    """What a prompt asks for.

    Attributes:
        kind: Such as "dog".
        count: How many.
        colour: "" for any.
        place: Where it is to be, "" for anywhere.
        beside: Which of the things before it that place is seen from.
    """

    kind: str
    count: int
    colour: str = ""
    place: str = ""
    beside: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a drawing must hold.

    Attributes:
        tag: The task.
        include: What must be there.
        exclude: What there must be fewer of.
    """

    tag: str
    include: tuple[Thing, ...]
    exclude: tuple[Thing, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """All kinds of things, each once."""
        return list(dict.fromkeys(thing.kind for thing in (*self.include, *self.exclude)))


def parse_wanted(record: Record, where: str) -> Wanted:
    """What a line of evaluation_metadata.jsonl asks for.

    Raises:
        ValueError: It is of another form.
    """
    include = tuple(
        parse_thing(r, i, where) for i, r in enumerate(list_of(record, "include", where))
    )
    exclude = list_of(record, "exclude", where) if "exclude" in record else []
    if not include:
        raise ValueError(f"{where}: include is empty")
    return Wanted(
        text_of(record, "tag", where), include, tuple(parse_thing(r, 0, where) for r in exclude)
    )


def parse_thing(record: Record, number: int, where: str) -> Thing:
    """A thing that is asked for, the `number`-th."""
    kind, count = text_of(record, "class", where), number_of(record, "count", where, 1)
    colour = text_of(record, "color", where) if "color" in record else ""
    if colour and colour not in COLOURS:
        raise ValueError(f"{where}: color must be one of {', '.join(COLOURS)}, not {colour!r}")
    place, beside = (
        parse_place(record["position"], number, where) if "position" in record else ("", 0)
    )
    return Thing(kind, count, colour, place, beside)


def parse_place(value: Any, number: int, where: str) -> tuple[str, int]:
    """A place and the number of the thing that it is seen from."""
    if isinstance(value, list | tuple) and len(value) == 2:
        place, beside = value
        if place in PLACES and beside in range(number):
            return place, beside
    raise ValueError(f'{where}: position must be such as ["left of", 0], not {value!r}')


class GenevalJudge:
    """Applies the rules to drawings.

    Args:
        detector: Finds things.
        scorer: A CLIP, for colours.
    """

    def __init__(self, detector: Detector, scorer: ImageTextScorer) -> None:
        self.detector, self.scorer = detector, scorer
        self.note = (
            f"Judged by GenEval's rules on what {detector.name} finds, with colours by "
            f"{scorer.name}. Published scores are of Mask2Former and CLIP ViT-L/14, by the "
            "official scorer."
        )

    @staticmethod
    def open(detector: str | None, scorer: str | None) -> GenevalJudge | None:
        """The judge of two folders; None if none is named.

        Raises:
            ValueError: One of the two is lacking, or cannot be opened.
        """
        if detector is None and scorer is None:
            return None
        if detector is None or scorer is None:
            raise ValueError("give both --detector and --scorer, which tells colours, or neither")
        from unitok.baselines.opening import load

        return GenevalJudge(
            load(detector, "detector", silent=True), load(scorer, "scorer", silent=True)
        )

    def faults(self, image: Image.Image, wanted: Wanted) -> list[str]:
        """What is wrong with a drawing; nothing if it is right."""
        found = self.find(image, wanted)
        faults: list[str] = []
        groups: list[Sequence[Detection]] = []  # empty where something is wrong
        for thing in wanted.include:
            seen = found[thing.kind][: thing.count]
            wrong = self.fault(image, thing, seen, groups)
            faults += [wrong] if wrong else []
            groups.append(() if wrong else seen)
        for thing in wanted.exclude:
            if (count := len(found[thing.kind])) >= thing.count:
                faults.append(f"expected fewer {thing.kind} than {thing.count}, found {count}")
        return faults

    def find(self, image: Image.Image, wanted: Wanted) -> dict[str, list[Detection]]:
        """What is there of each kind, the surest first."""
        least = COUNTING_THRESHOLD if wanted.tag == COUNTING else THRESHOLD
        detections = self.detector.detect(image, wanted.kinds, least)
        surest = sorted(detections, key=lambda detection: -detection.score)
        return {kind: [d for d in surest if d.label == kind][:MOST] for kind in wanted.kinds}

    def fault(
        self,
        image: Image.Image,
        thing: Thing,
        seen: Sequence[Detection],
        groups: Sequence[Sequence[Detection]],
    ) -> str:
        """What is wrong with a thing; "" if nothing is."""
        if len(seen) < thing.count:
            return f"expected {thing.count} {thing.kind}, found {len(seen)}"
        if thing.colour:
            colours = [self.colour(image, detection) for detection in seen]
            if colours.count(thing.colour) < thing.count:
                return f"expected {thing.colour} {thing.kind}, found {', '.join(colours)}"
        if thing.place and not is_placed(seen, groups[thing.beside], thing.place):
            return f"expected {thing.kind} {thing.place} the other"
        return ""

    def colour(self, image: Image.Image, detection: Detection) -> str:
        """The likeliest colour of a thing, by the mean of its templates."""
        left, top, right, bottom = detection.box
        box = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        texts = [t.format(colour=c, thing=detection.label) for c in COLOURS for t in TEMPLATES]
        names = self.scorer.text_features(texts).reshape(len(COLOURS), len(TEMPLATES), -1).mean(1)
        names = names / names.norm(dim=1, keepdim=True)
        seen = self.scorer.image_features([image.crop(box)])
        return COLOURS[int((seen @ names.T).argmax())]


def is_placed(things: Sequence[Detection], others: Sequence[Detection], place: str) -> bool:
    """Whether all things are so placed beside all others, of which there is one at least."""
    return bool(others) and all(place in places(a.box, b.box) for a in things for b in others)


def places(box: tuple[float, ...], other: tuple[float, ...]) -> set[str]:
    """Where a box is, seen from another, if they are apart by more than a tenth of their sides."""
    dx, size_x = offset(box[0], box[2], other[0], other[2])
    dy, size_y = offset(box[1], box[3], other[1], other[3])
    far_x, far_y = beyond(dx, SLACK * size_x), beyond(dy, SLACK * size_y)
    length = math.hypot(dx, dy)
    if max(abs(far_x), abs(far_y)) < 1e-3:
        return set()
    names = (("left of", "right of", far_x / length), ("above", "below", far_y / length))
    return {low if share < 0 else high for low, high, share in names if abs(share) > 0.5}


def offset(low: float, high: float, other_low: float, other_high: float) -> tuple[float, float]:
    """How far centres lie apart along a side, and the sum of both sides."""
    apart = (low + high - other_low - other_high) / 2
    return apart, abs(high - low) + abs(other_high - other_low)


def beyond(distance: float, slack: float) -> float:
    """What is left of a distance, on either side, after some slack."""
    return math.copysign(max(abs(distance) - slack, 0), distance)
