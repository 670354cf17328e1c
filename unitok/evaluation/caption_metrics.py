"""BLEU, CIDEr and ROUGE-L of captions, as the evaluation of COCO captions computes them.

All take words, as `unitok.evaluation.caption_words` makes them. They agree with the package
pycocoevalcap on the same words. BLEU is by sacrebleu; the other two are short and stand here, as
that package carries 100 MB of Java.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unitok.extras import need

Words = Sequence[str]
Ngram = tuple[str, ...]

ORDER = 4  # n-grams of one to so many words
SIGMA = 6.0  # words: how fast CIDEr-D falls with a difference in length
BETA = 1.2  # how much more ROUGE-L weighs recall than precision


@dataclass(frozen=True)
class Described:
    """A picture's caption and what people wrote.

    Attributes:
        caption: The words of the caption.
        references: The words of each reference; at least one.
    """

    caption: Words
    references: Sequence[Words]


def caption_scores(captions: Sequence[Described]) -> dict[str, float]:
    """All scores of a set of captions: bleu_1 to bleu_4, rouge_l and cider.

    Raises:
        ValueError: There is no caption, or one has no reference.
        ImportError: sacrebleu is not installed.
    """
    if not captions:
        raise ValueError("there are no captions to score")
    if any(not described.references for described in captions):
        raise ValueError("a caption has no reference")
    names = [f"bleu_{n}" for n in range(1, ORDER + 1)]
    return {
        **dict(zip(names, bleu(captions), strict=True)),
        "rouge_l": mean([rouge_l(described) for described in captions]),
        "cider": mean(cider(captions)),
    }


def mean(scores: Sequence[float]) -> float:
    """The mean."""
    return sum(scores) / len(scores)


def bleu(captions: Sequence[Described]) -> list[float]:
    """BLEU-1 to BLEU-4 of a set of captions, each in [0, 1], without smoothing.

    https://aclanthology.org/P02-1040; the reference of the nearest length counts.
    """
    scorer = need("sacrebleu.metrics", "eval").BLEU(
        max_ngram_order=ORDER, tokenize="none", smooth_method="none", force=True
    )
    most = max(len(described.references) for described in captions)
    said = [" ".join(described.caption) for described in captions]
    streams = [[reference(described, i) for described in captions] for i in range(most)]
    found = scorer.corpus_score(said, streams)
    shares = [share / 100 for share in found.precisions]
    return [found.bp * geometric_mean(shares[:n]) for n in range(1, ORDER + 1)]


def reference(described: Described, i: int) -> str | None:
    """The i-th reference as text; None if there are fewer."""
    references = described.references
    return " ".join(references[i]) if i < len(references) else None


def geometric_mean(numbers: Sequence[float]) -> float:
    """The geometric mean; 0 if a number is."""
    return 0.0 if 0 in numbers else math.exp(sum(map(math.log, numbers)) / len(numbers))


# --- ROUGE-L -------------------------------------------------------------------------------------


def rouge_l(described: Described) -> float:
    """ROUGE-L of a caption, in [0, 1] (https://aclanthology.org/W04-1013).

    As COCO does it, the best precision and the best recall may be those of different references.
    """
    pairs = [(common_length(described.caption, r), r) for r in described.references]
    precision = max(common for common, _ in pairs) / max(1, len(described.caption))
    recall = max(common / max(1, len(r)) for common, r in pairs)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_length(one: Words, other: Words) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = row
        row = [0]
        for i, candidate in enumerate(other):
            row.append(before[i] + 1 if word == candidate else max(row[i], before[i + 1]))
    return row[-1]


# --- CIDEr-D -------------------------------------------------------------------------------------


def cider(captions: Sequence[Described]) -> list[float]:
    """CIDEr-D of each caption, from 0 to 10 (https://arxiv.org/abs/1411.5726).

    How rare an n-gram is is counted over the references of this very set. So numbers of different
    sets cannot be compared, and a set of one picture has 0.
    """
    counted = [[ngrams(reference) for reference in d.references] for d in captions]
    pictures = Counter[Ngram]()  # in the references of how many pictures an n-gram is
    for references in counted:
        pictures.update(set().union(*references))
    rarity = Rarity(pictures, len(captions))
    return [
        10
        * mean([similarity(rarity.vector(ngrams(d.caption)), rarity.vector(r)) for r in references])
        for d, references in zip(captions, counted, strict=True)
    ]


def ngrams(words: Words) -> Counter[Ngram]:
    """How often each n-gram is in words."""
    return Counter(
        tuple(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1)
    )


@dataclass(frozen=True)
class Vector:
    """A text as n-grams.

    Attributes:
        weights: Of the n-grams of each length, by their words.
        norms: The Euclidean norm of each.
        length: The number of its pairs of words, which stands for its length.
    """

    weights: tuple[dict[Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


@dataclass(frozen=True)
class Rarity:
    """How much n-grams weigh.

    Attributes:
        pictures: In the references of how many pictures each is.
        total: The number of pictures.
    """

    pictures: Counter[Ngram]
    total: int

    def vector(self, counts: Counter[Ngram]) -> Vector:
        """The TF-IDF weights of a text."""
        weights: tuple[dict[Ngram, float], ...] = tuple({} for _ in range(ORDER))
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * self.of(ngram)
        norms = tuple(math.sqrt(sum(w * w for w in part.values())) for part in weights)
        return Vector(weights, norms, sum(count for n, count in counts.items() if len(n) == 2))

    def of(self, ngram: Ngram) -> float:
        """The inverse document frequency; of an n-gram that no reference has, the highest."""
        return math.log(self.total) - math.log(max(1, self.pictures[ngram]))


def similarity(caption: Vector, reference: Vector) -> float:
    """The mean, over lengths of n-grams, of clipped cosines; less if the lengths differ."""
    penalty = math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))
    return penalty * mean([cosine(caption, reference, n) for n in range(ORDER)])


def cosine(caption: Vector, reference: Vector, n: int) -> float:
    """The cosine, where an n-gram counts at most as often as the reference has it."""
    theirs = reference.weights[n]
    found = [(w, theirs[ngram]) for ngram, w in caption.weights[n].items() if ngram in theirs]
    product = sum(min(mine, their) * their for mine, their in found)
    norm = caption.norms[n] * reference.norms[n]
    return product / norm if norm else 0.0
