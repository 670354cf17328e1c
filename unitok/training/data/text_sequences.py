"""What the assistant says as sequences to learn: prompts, and the answers behind them.

The prompt of an answer is the one that the engine would get. Where it goes on from the answer
before it, id for id, both are learned in one sequence, so that what they share is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unitok.families import Family
from unitok.training.data.conversations import ConversationTurn
from unitok.training.sequences import TrainingSequence
from unitok_engine import Branch, Embeddings


@dataclass(frozen=True)
class Answer:
    """An answer of the assistant.

    Attributes:
        ids: What the model emits when it gives it, its end included.
        targets: Of each id, whether it is learned.
    """

    ids: tuple[int, ...]
    targets: tuple[bool, ...]


def answer_of(family: Family, turn: ConversationTurn) -> Answer:
    """The answer in a turn. A token that lies in two texts belongs to the second."""
    texts = [text for text, _ in turn.texts]
    ids = family.answer_ids("\n".join(texts))
    starts = [0]
    for i in range(1, len(texts)):
        starts.append(common_prefix(ids, family.answer_ids("\n".join(texts[:i]))))
    targets: list[bool] = []
    for (_, learned), stop in zip(turn.texts, [*starts[1:], len(ids)], strict=True):
        targets += [learned] * (stop - len(targets))
    return Answer(tuple(ids), tuple(targets))


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def with_answer(
    prompt: Branch, answer: Answer, before: TrainingSequence | None
) -> TrainingSequence:
    """A prompt and an answer, with the targets of the sequence that the prompt goes on from."""
    known = before.targets if before else ()
    left = len(prompt.token_ids) - len(known)
    targets = (*known, *[False] * left, *answer.targets)
    return TrainingSequence(replace(prompt, token_ids=(*prompt.token_ids, *answer.ids)), targets)


def goes_on(prompt: Branch, before: TrainingSequence) -> bool:
    """Whether a prompt begins with all of a sequence."""
    count, embeddings = len(before), before.branch.embeddings
    return (
        prompt.token_ids[:count] == before.branch.token_ids
        and prompt.first_position == before.branch.first_position
        and list(map(content, prompt.embeddings[: len(embeddings)]))
        == list(map(content, embeddings))
    )


def content(embeddings: Embeddings) -> tuple[int, int, str]:
    """What makes embeddings the same as others."""
    return embeddings.start, embeddings.length, embeddings.digest


def cut(sequence: TrainingSequence, length: int) -> TrainingSequence | None:
    """The beginning of a sequence up to the last target that fits; None if none does.

    Pictures stand between targets, so that none is cut in two.

    Args:
        sequence: Too long a sequence.
        length: The most ids.
    """
    kept = sequence.targets[:length]
    if True not in kept:
        return None
    stop = length - kept[::-1].index(True)
    branch = sequence.branch
    seen = tuple(e for e in branch.embeddings if e.stop <= stop)
    shorter = replace(branch, token_ids=branch.token_ids[:stop], embeddings=seen)
    return TrainingSequence(shorter, kept[:stop], name=sequence.name)
