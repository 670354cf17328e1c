"""Drawings of any prompts: FID, KID and the Inception Score beside real pictures, and CLIPScore.

The data are prompts, one a line, as text or as JSON lines with the key `prompt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitok.evaluation.clip_score import clip_scores
from unitok.evaluation.distances import checked, compare, features_of, joined, too_few
from unitok.evaluation.extractors import open_extractor
from unitok.evaluation.kept_features import packed, unpacked
from unitok.evaluation.picture_folder import PictureFolder
from unitok.evaluation.public.records import Once, digest, read_lines, read_records, text_of
from unitok.evaluation.suite import (
    Item,
    Judgement,
    SuiteOptions,
    Summary,
    judgement,
)
from unitok.evaluation.tallies import mean
from unitok.requests import Draw
from unitok.results import DrawResult, Result

CLIP_NOTE = (
    "clip_score is 2.5 x the cosine of drawing and prompt, which begins with 'A photo depicts', "
    "as in https://arxiv.org/abs/2104.08718. It can be compared with scores of the same CLIP only."
)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, a line is wrong, or two are the same.
    """
    if path.suffix == ".jsonl":
        found = [(where, text_of(one, "prompt", where)) for where, one in read_records(path)]
    else:
        found = [(where, line.strip()) for where, line in read_lines(path)]
    once = Once("prompt")
    for where, prompt in found:
        once.add(prompt, where)
    return [prompt for _, prompt in found]


class DrawingsSuite:
    """The suite of a file of prompts.

    Raises:
        FileNotFoundError: A file or folder is not there.
        ValueError: Neither real pictures nor a CLIP are named, or something is wrong with them.
    """

    name = "drawings"

    def __init__(self, options: SuiteOptions) -> None:
        assert options.data is not None
        if options.real is None and options.scorer is None:
            raise ValueError(
                "give --real, a folder of real pictures, for FID; --scorer, a CLIP, for CLIPScore"
            )
        if options.real is None and options.extractor is not None:
            raise ValueError("--extractor needs --real, the pictures that drawings are compared to")
        self.prompts = read_prompts(options.data)[: options.limit]
        self.seed = options.seed or 0
        self.real = None if options.real is None else PictureFolder(options.real)
        self.extractor = None if self.real is None else open_extractor(options.extractor)
        if self.real and (wrong := too_few(len(self.real.files()), len(self.prompts))):
            raise ValueError(f"FID of {options.real} and {options.data}: {wrong}")
        self.scorer = None if options.scorer is None else open_scorer(options.scorer)
        self.settings: dict[str, Any] = {
            "data": digest([options.data]),
            "limit": options.limit,
            "seed": self.seed,
            "extractor": options.extractor,
            "scorer": options.scorer,
        }

    def items(self) -> Sequence[Item]:
        """A drawing of each prompt, each with a seed of its own."""
        return [
            Item(f"{i:06d}", "drawings", Draw(prompt, seed=self.seed + i))
            for i, prompt in enumerate(self.prompts)
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Keep the features of a drawing, and score it with its prompt."""
        assert isinstance(result, DrawResult)
        image, score, facts = result.image, None, {}
        if self.extractor is not None:
            facts = packed(checked(self.extractor, self.extractor([image])))
        if self.scorer is not None:
            score = float(clip_scores(self.scorer, [image], [result.prompt])[0])
        return judgement(item, None, "", score, facts)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """Compare all drawings with the real pictures, which are read here."""
        drawn = [j for j in judged if j.error is None]
        if not drawn:
            return Summary({}, notes=["There is no drawing."])
        scores, notes = self._distances(drawn)
        clip = mean([j.score for j in drawn if j.score is not None])
        if clip is not None:
            scores["clip_score"] = clip
            notes.append(CLIP_NOTE)
        if lost := len(judged) - len(drawn):
            notes.append(f"{lost} prompts without a drawing are left out.")
        return Summary(scores, notes=notes)

    def _distances(self, drawn: Sequence[Judgement]) -> tuple[dict[str, float], list[str]]:
        if self.extractor is None or self.real is None:
            return {}, []
        real = features_of(self.extractor, self.real.pictures())
        made = joined([unpacked(j.facts) for j in drawn])
        if wrong := too_few(len(real.values), len(made.values)):
            return {}, [f"There is no FID: {wrong}.", *self.real.notes()]
        scores, notes = compare(real, made, self.extractor, self.seed)
        counted = f"{len(drawn):,} drawings are compared with {self.real.read:,} real pictures."
        return scores, [counted, *self.real.notes(), *notes]

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """The drawings lie in the run's folder already."""


def open_scorer(folder: str) -> Any:
    """A CLIP of a folder."""
    from unitok.baselines.opening import load

    return load(folder, "scorer", silent=True)
