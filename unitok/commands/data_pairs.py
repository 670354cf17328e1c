"""`unitok data pairs`: pairs of the model's own answers, ranked by a reward."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitok.commands.train import known_rewards
from unitok.flags import Common, with_flags
from unitok.saving import make_folder, write_whole
from unitok.screen import counted
from unitok.terminal import say, stopped_at_once

if TYPE_CHECKING:
    from unitok.training.preferences.pair_records import PairWriter
    from unitok.training.preferences.ranked import Ranked


@with_flags()
def pairs(
    common: Common,
    prompts: Annotated[
        list[str],
        typer.Argument(
            show_default=False,
            help="JSON lines: what is to be drawn or answered, as in [rollout] of a recipe.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSON lines of pairs.")],
    reward: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A reward, as in [[reward]] of a recipe; all are added."),
    ],
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A folder or hub id of the CLIP that the reward clip needs.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option("-n", "--samples", min=2, max=1000, help="Samples of each prompt.")
    ] = 8,
    margin: Annotated[
        float, typer.Option(min=0, help="By how much the rewards of a pair must differ.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the samples.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample the k likeliest; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Sample this share.")] = 1.0,
    guidance: Annotated[
        float | None,
        typer.Option(help="The guidance scale of drawings.", show_default="the model's own"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 256,
) -> None:
    """Make pairs of the model's own answers: of n samples of a prompt, the best and the worst.

    A reward judges the samples. A prompt whose samples are all as good as each other gives no pair.
    Pictures are written beside FILE, and the record has the codes that the model sampled, so that
    it learns exactly these. A recipe with [dpo] learns from the file. The same command gives the
    same pairs.

    Example: unitok data pairs prompts.jsonl --reward own-caption --out pairs.jsonl
    """
    with stopped_at_once():
        from unitok.training.preferences.pair_records import PairWriter
        from unitok.training.preferences.ranked import rank
        from unitok.training.recipe import RewardKeys
        from unitok.training.reinforcement.prompts import read_prompts
        from unitok.training.reinforcement.reward_names import check_names, find_rewards
        from unitok.training.reinforcement.rollouts import RolloutCollector, RolloutOptions

    known = known_rewards()
    check_names(reward, known)
    asked = read_prompts(prompts)
    options = RolloutOptions(
        samples=samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        max_tokens=max_tokens,
    )
    with common.load() as model:
        keys = [RewardKeys(name=name, scorer=scorer) for name in reward]
        rewards = find_rewards(keys, model, known)
        rewards.check(asked)
        writer = PairWriter(out, model.family.model.vocabulary, model.family.defaults.question)
        make_folder(writer.pictures)
        ranked = rank(RolloutCollector(model, options), rewards, asked, seed, margin)
        with closing(counted(ranked, len(asked), "prompts", common.bars)) as shown:
            made = collect(shown, writer)
    tell(made, out)


@dataclass
class Made:
    """What came of the prompts.

    Attributes:
        lines: The records.
        prompts: How many prompts there were.
        rewarded: How many samples have a reward.
        total: The sum of their rewards.
        failures: Why samples have none, each with how many.
    """

    lines: list[bytes] = field(default_factory=list)
    prompts: int = 0
    rewarded: int = 0
    total: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)


def collect(ranked: Iterator[Ranked], writer: PairWriter) -> Made:
    """Take all pairs, and write their pictures.

    Raises:
        OSError: A picture cannot be written.
    """
    made = Made()
    for each in ranked:
        made.prompts += 1
        made.rewarded += len(each.rewards)
        made.total += sum(each.rewards)
        made.failures.update(each.failed)
        if each.pair is not None:
            record = writer.record(each.pair)
            made.lines.append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    return made


def tell(made: Made, out: Path) -> None:
    """Write the pairs, and say how many there are.

    Raises:
        ValueError: There is none.
        OSError: The file cannot be written.
    """
    for why, count in made.failures.most_common(5):
        say(f"warning: {count:,} samples have no reward: {why}")
    if not made.lines:
        raise ValueError(
            f"no pair: the samples of each of the {made.prompts:,} prompts are all as good as each "
            "other, or have no reward; give more samples, another temperature or other prompts"
        )
    write_whole(b"".join(made.lines), out)
    mean = made.total / max(1, made.rewarded)
    print(f"{out}: {len(made.lines):,} pairs of {made.prompts:,} prompts, mean reward {mean:.3f}")
