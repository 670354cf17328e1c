"""GenEval: do drawings hold what the prompt asks for? (https://arxiv.org/abs/2310.11513)

The data are evaluation_metadata.jsonl: a line for each prompt, with `tag`, `include`, `exclude` and
`prompt`. Four pictures are drawn of each. The official scores come of the official scorer, which
reads the folder that a run writes. With a detector and a CLIP of the user's own, the same rules
are applied here, and the scores have another name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.public.geneval_rules import GenevalJudge, Wanted, parse_wanted
from unitok.evaluation.public.records import (
    Once,
    Record,
    digest,
    first_of_each,
    read_records,
    text_of,
)
from unitok.evaluation.suite import (
    Item,
    Judgement,
    SuiteOptions,
    Summary,
    Table,
    judgement,
    picture_of,
)
from unitok.evaluation.tallies import by_group, mean
from unitok.requests import Draw
from unitok.results import Result
from unitok.saving import make_folder, write_whole

SAMPLES = 4  # pictures of a prompt
LAYOUT = "geneval"  # the folder for the official scorer
SEED = 42  # as in the official script


@dataclass(frozen=True)
class GenevalPrompt:
    """A line of the file.

    Attributes:
        number: Its place in the file, from 0 on.
        tag: The task, such as "counting".
        prompt: What is drawn.
        record: The whole line, which the scorer reads.
        wanted: What must be seen.
    """

    number: int
    tag: str
    prompt: str
    record: Record
    wanted: Wanted


def read_prompts(path: Path) -> list[GenevalPrompt]:
    """The prompts of a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is wrong, or there twice.
    """
    once, found = Once("line"), []
    for number, (where, record) in enumerate(read_records(path)):
        tag, prompt = text_of(record, "tag", where), text_of(record, "prompt", where)
        wanted = parse_wanted(record, where)
        once.add(json.dumps(record, sort_keys=True), where)
        found.append(GenevalPrompt(number, tag, prompt, record, wanted))
    return found


class GenevalSuite:
    """The suite of a file of GenEval."""

    name = "geneval"

    def __init__(self, options: SuiteOptions) -> None:
        assert options.data is not None
        prompts = read_prompts(options.data)
        limit = None if options.limit is None else -(-options.limit // SAMPLES)
        self.prompts = [prompts[i] for i in first_of_each((p.tag for p in prompts), limit)]
        self.seed = SEED if options.seed is None else options.seed
        self.rules = GenevalJudge.open(options.detector, options.scorer)
        self.settings: dict[str, Any] = {
            "data": digest([options.data]),
            "limit": options.limit,
            "seed": self.seed,
            "detector": options.detector,
            "scorer": options.scorer,
        }

    def items(self) -> Sequence[Item]:
        """Four drawings of each prompt, with seeds one after another."""
        return [
            Item(
                f"{prompt.number:05d}_{sample:04d}",
                prompt.tag,
                Draw(prompt.prompt, seed=self.seed + sample),
                dict(prompt.record),
            )
            for prompt in self.prompts
            for sample in range(SAMPLES)
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Apply the rules, if there is a detector."""
        if self.rules is None:
            return judgement(item, None, "")
        wrong = self.rules.faults(picture_of(result), parse_wanted(item.wanted, item.key))
        return judgement(item, not wrong, "; ".join(wrong) or "right")

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The share that is right of each task, and their mean, if there is a detector."""
        if self.rules is None:
            return Summary({}, notes=[f"Nothing is judged here: run GenEval's scorer on {LAYOUT}."])
        end = "_by_detector"
        shares = {
            tag: mean([float(bool(j.ok)) for j in members]) or 0.0
            for tag, members in by_group(judged).items()
        }
        scores = {"geneval" + end: mean(list(shares.values())) or 0.0}
        scores |= {f"{tag}{end}": share for tag, share in shares.items()}
        rows = tuple((tag, round(share, 4)) for tag, share in shares.items())
        return Summary(scores, [Table("Tasks", ("task", "right"), rows)], [self.rules.note])

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """Lay the pictures out for the official scorer: 00000/metadata.jsonl and 00000/samples."""
        for j in judged:
            if j.picture is None:
                continue
            prompt, sample = j.key.split("_")
            place = folder / LAYOUT / prompt
            make_folder(place / "samples")
            write_whole(metadata_line(j.wanted), place / "metadata.jsonl")
            shutil.copyfile(folder / j.picture, place / "samples" / f"{sample}.png")


def metadata_line(record: Mapping[str, Any]) -> bytes:
    """A line of evaluation_metadata.jsonl."""
    return f"{json.dumps(record)}\n".encode()
