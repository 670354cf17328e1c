"""Compare two recordings of golden requests: the same up to the rounding of fp32.

Ids are equal up to the first doubtful choice of a sample; what it emitted from there on is not
compared. Log-probabilities of the compared ids differ by at most `CLOSE`, or by `RELATIVE` of a
large one, as rounding grows with what is rounded; where scores were mixed or divided by a low
temperature, by the sample's `slack` times that. Where all ids were compared, texts are equal and
pixels differ by at most 1. Reasons to finish and the lengths of prompts are always equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.unitok.golden.recording import Pixels, Recorded, Recordings, Sample

CLOSE = 1e-4
RELATIVE = 1e-5


@dataclass
class Tally:
    """What was compared, and what differed.

    doubtful: choices that rounding might turn. cut: samples compared only up to such a choice.
    unheard: requests that were not compared, as an earlier turn of their conversation went another
    way or drew a picture whose last bits differ.
    """

    requests: int = 0
    samples: int = 0
    ids: int = 0
    doubtful: int = 0
    cut: int = 0
    unheard: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.samples} samples, {self.ids} ids compared; "
            f"{self.doubtful} doubtful choices, {self.cut} samples compared up to one; "
            f"{self.unheard} requests not compared; {len(self.differences)} differences"
        )


def compare(before: Recordings, after: Recordings) -> Tally:
    """Compare all cases of one recording with those of another."""
    tally = Tally()
    for name, was in before.items():
        if name not in after:
            tally.differences.append(f"{name}: there is no such case any more")
        else:
            compare_case(name, was, after[name], tally)
    return tally


def compare_case(
    name: str, before: Sequence[Recorded], after: Sequence[Recorded], tally: Tally
) -> None:
    """Compare turn by turn, as long as both recordings have the same history."""
    if len(before) != len(after):
        tally.differences.append(f"{name}: {len(after)} requests, not {len(before)}")
    same_history = True
    for turn, (was, now) in enumerate(zip(before, after, strict=False)):
        if not same_history:
            tally.unheard += 1
            continue
        found = differences(was, now)
        tally.differences += [f"{name}, request {turn}: {what}" for what in found]
        count(was, tally)
        same_history = leads_on_alike(was, now)


def count(was: Recorded, tally: Tally) -> None:
    tally.requests += 1
    for sample in was.samples:
        tally.samples += 1
        tally.ids += sample.certain
        tally.doubtful += len(sample.doubtful)
        tally.cut += sample.certain < len(sample.ids)


def leads_on_alike(was: Recorded, now: Recorded) -> bool:
    """Whether the next turn of a conversation reads the very same text and pixels."""

    def history(recorded: Recorded) -> tuple:
        pixels = [sample.pixels and sample.pixels.checksum for sample in recorded.samples]
        return recorded.text, pixels, [sample.ids for sample in recorded.samples]

    return history(was) == history(now)


def differences(was: Recorded, now: Recorded) -> list[str]:
    """What differs between two recordings of one request, in words."""
    if was.asked != now.asked:
        return [f"it asks {now.asked}, not {was.asked}: record it again"]
    found = unequal(was, now, "finish_reason", "prompt_tokens")
    if len(was.samples) != len(now.samples):
        return [*found, f"{len(now.samples)} samples, not {len(was.samples)}"]
    for i, (one, other) in enumerate(zip(was.samples, now.samples, strict=True)):
        found += [f"sample {i}: {what}" for what in sample_differences(one, other)]
    if all(sample.certain == len(sample.ids) for sample in was.samples):
        found += unequal(was, now, "completion_tokens", "text")
    return found


def unequal(was: object, now: object, *names: str) -> list[str]:
    pairs = ((name, getattr(was, name), getattr(now, name)) for name in names)
    return [f"{name} is {is_now!r}, not {was!r}" for name, was, is_now in pairs if was != is_now]


def sample_differences(was: Sample, now: Sample) -> list[str]:
    """The first id that differs, else the log-probabilities and pixels that do."""
    certain = was.certain
    for i, (old, new) in enumerate(zip(was.ids[:certain], now.ids[:certain], strict=False)):
        if old != new:
            return [f"id {i} is {new}, not {old}, which was ahead by {was.margins[i]}"]
    if len(now.ids) < certain:
        return [f"only {len(now.ids)} ids, not {certain} or more"]
    found = logprob_differences(was, now, "logprobs", was.slack)
    found += logprob_differences(was, now, "branch_logprobs")  # those are of logits as they are
    if certain == len(was.ids):
        found += pixel_differences(was.pixels, now.pixels)
    return found


def logprob_differences(was: Sample, now: Sample, name: str, slack: float = 1.0) -> list[str]:
    """The first log-probability that differs, of the ids that are compared."""
    old, new = getattr(was, name), getattr(now, name)
    if old is None or new is None:
        return [] if old is new else [f"{name} are {new}, not {old}"]
    if was.certain == len(was.ids) and len(old) != len(new):
        return [f"{len(new)} {name}, not {len(old)}"]
    old, new = old[: was.certain], new[: was.certain]
    if len(old) != len(new):
        return [f"only {len(new)} {name}, not {len(old)} or more"]
    for i, (one, other) in enumerate(zip(old, new, strict=True)):
        if not math.isclose(one, other, abs_tol=CLOSE * slack, rel_tol=RELATIVE * slack):
            return [f"{name}: that of id {i} is {other}, not {one}"]
    return []


def pixel_differences(was: Pixels | None, now: Pixels | None) -> list[str]:
    if was is None or now is None:
        return [] if was is now else ["a picture is there in one recording only"]
    if (was.width, was.height) != (now.width, now.height):
        return [f"a picture of {now.width} x {now.height}, not {was.width} x {was.height}"]
    if was.checksum == now.checksum:
        return []
    worst = np.abs(was.array().astype(int) - now.array()).max()
    return [f"pixels differ by {worst}"] if worst > 1 else []
