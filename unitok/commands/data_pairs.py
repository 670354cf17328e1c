"""`unitok data pairs`: pairs of the model's own answers, ranked by a reward."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitok.commands.train import known_rewards
from unitok.extras import missing_is_wrong_use
from unitok.flags import Common, with_flags
from unitok.saving import make_folder, write_whole
from unitok.screen import counted
from unitok.terminal import complain, say, stopped_at_once

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.training.preferences.pair_journal import PairJournal
    from unitok.training.preferences.ranked import Ranked

MOST_FAILURES = 5  # reasons that are told
FAILED = 1  # the exit code: the command broke off


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
    failures: Annotated[
        float,
        typer.Option(min=0, max=1, help="Stop if a larger share of samples has no reward."),
    ] = 0.2,
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
    same pairs, and goes on if it was stopped: FILE.part has what there is.

    Example: unitok data pairs prompts.jsonl --reward own-caption --out pairs.jsonl
    """
    with stopped_at_once():
        from unitok.training.data.order import hashed
        from unitok.training.preferences.pair_journal import PairJournal
        from unitok.training.preferences.ranked import check_sizes, rank
        from unitok.training.recipe import RewardKeys
        from unitok.training.reinforcement.prompts import PromptStream, read_prompts
        from unitok.training.reinforcement.reward_names import check_names, find_rewards
        from unitok.training.reinforcement.rewards import RewardsFailedError
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
    make_folder(out.parent)
    made_by = (options, reward, scorer, seed, margin, common.model, common.adapter)
    identity = f"{PromptStream(asked, 0).identity} {hashed(*map(repr, made_by)):016x}"
    with (
        PairJournal(out.with_name(f"{out.name}.part"), identity) as journal,
        common.load() as model,
    ):
        left = asked[len(journal.entries) :]
        keys = [RewardKeys(name=name, scorer=scorer) for name in reward]
        check_sizes(asked, model.family.picture_size)
        with missing_is_wrong_use():
            rewards = find_rewards(keys, model, known)
        rewards.check(asked)
        ranked = rank(RolloutCollector(model, options), rewards, left, seed, margin, failures)
        try:
            with closing(counted(ranked, len(left), "prompts", common.bars)) as shown:
                keep(shown, journal, out, model)
        except RewardsFailedError as error:
            complain(f"{error}; {what_is_kept(journal)}")
            raise typer.Exit(FAILED) from None
        tell(journal, out)


def keep(ranked: Iterator[Ranked], journal: PairJournal, out: Path, model: Model) -> None:
    """Keep what became of each prompt, and write the pictures of pairs.

    Raises:
        OSError: A file cannot be written.
    """
    from unitok.training.preferences.pair_journal import PairEntry
    from unitok.training.preferences.pair_records import PairWriter

    family, made = model.family, sum(each.record is not None for each in journal.entries)
    writer = PairWriter(out, family.model.vocabulary, family.defaults.question, made)
    make_folder(writer.pictures)
    for each in ranked:
        record = None if each.pair is None else writer.record(each.pair)
        journal.append(PairEntry(record, each.rewards, each.failed))


def what_is_kept(journal: PairJournal) -> str:
    """From where a broken-off command goes on, in words."""
    if not journal.entries:
        return "nothing was kept"
    return f"{journal.path} has the prompts before, and the same command goes on from there"


def tell(journal: PairJournal, out: Path) -> None:
    """Write the pairs, remove the journal, and say how many there are.

    Raises:
        ValueError: There is none. The journal stays.
        OSError: The file cannot be written.
    """
    entries = journal.entries
    failures = Counter(why for each in entries for why in each.failed)
    for why, count in failures.most_common(MOST_FAILURES):
        say(f"warning: {count:,} samples have no reward: {why}")
    records = [each.record for each in entries if each.record is not None]
    if not records:
        raise ValueError(
            f"no pair: the samples of each of the {len(entries):,} prompts are all as good as each "
            f"other, or have no reward, as {journal.path} says; remove it, and give more samples, "
            "another temperature or other prompts"
        )
    lines = [json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records]
    write_whole(b"".join(lines), out)
    journal.remove()
    rewards = [reward for each in entries for reward in each.rewards]
    mean = sum(rewards) / len(rewards)
    print(f"{out}: {len(records):,} pairs of {len(entries):,} prompts, mean reward {mean:.3f}")
