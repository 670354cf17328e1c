"""FID, KID and the Inception Score of features, by torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unitok.baselines.adapter import batches
from unitok.evaluation.extractors import Extractor, Features
from unitok.extras import need
from unitok.pictures import PictureLike

BATCH = 16  # pictures
SUBSETS, SUBSET = 100, 1000  # of KID, as published: how many, and the most pictures of each
SPLITS = 10  # of the Inception Score, as published
LEAST = 2  # pictures of each side; one has no covariance


def features_of(extractor: Extractor, images: Iterable[PictureLike]) -> Features:
    """The features of pictures, batch by batch.

    Raises:
        ValueError: There are no pictures, one cannot be read, or the extractor gives features of
            another width than it says.
    """
    return joined([checked(extractor, extractor(batch)) for batch in batches(images, BATCH)])


def checked(extractor: Extractor, features: Features) -> Features:
    """Features of the width that the extractor says.

    Raises:
        ValueError: They are of another, or not finite.
    """
    shape = tuple(features.values.shape)
    if len(shape) != 2 or shape[1] != extractor.width:
        raise ValueError(
            f"the extractor says that it gives {extractor.width} features of a picture, and gives "
            f"{list(shape)[1:]}"
        )
    if not features.values.isfinite().all():
        raise ValueError("the extractor gives features that are not finite")
    return features


def joined(parts: Sequence[Features]) -> Features:
    """Features of several batches.

    Raises:
        ValueError: There are none.
    """
    if not parts:
        raise ValueError("there are no pictures")
    logits = [part.logits for part in parts if part.logits is not None]
    values = torch.cat([part.values for part in parts])
    return Features(values, torch.cat(logits) if len(logits) == len(parts) else None)


def compare(
    real: Features, made: Features, extractor: Extractor, seed: int = 0
) -> tuple[dict[str, float], list[str]]:
    """All scores that an extractor gives, by name, and notes on how to read them.

    Args:
        real: Of the pictures that are to be matched.
        made: Of the pictures that are judged.
        extractor: What the features are of.
        seed: Chooses the subsets of KID and the splits of the Inception Score.

    Raises:
        ValueError: There are too few pictures, or features of different widths.
        ImportError: torchmetrics is not installed.
    """
    end = extractor.suffix
    notes = [extractor.note, *few(len(real.values), len(made.values), extractor.width)]
    scores = {f"fid{end}": fid(real.values, made.values)}
    names = (f"kid{end}", f"kid{end}_std")
    scores |= zip(names, kid(real.values, made.values, seed), strict=True)
    if made.logits is not None:
        names = (f"inception_score{end}", f"inception_score{end}_std")
        scores |= zip(names, inception_score(made.logits, seed), strict=True)
        if len(made.logits) < 2 * SPLITS:
            notes.append(
                f"The Inception Score of {len(made.logits):,} pictures says nothing, as it is a "
                f"mean over {SPLITS} parts of them: take {2 * SPLITS} at least, better thousands."
            )
    return scores, notes


def few(real: int, made: int, width: int) -> list[str]:
    """A note if there are too few pictures for a width."""
    if min(real, made) > width:
        return []
    return [
        f"FID is biased: {real:,} and {made:,} pictures are too few for {width:,} features. Take "
        f"more than {width:,}, or read KID, and compare numbers of equally many pictures only."
    ]


def fid(real: Tensor, made: Tensor) -> float:
    """The Fréchet distance of features [n, width] (https://arxiv.org/abs/1706.08500).

    Raises:
        ValueError: There are too few pictures, or features of different widths.
    """
    check(real, made)
    metric = need("torchmetrics.image.fid", "eval").FrechetInceptionDistance(given(real))
    metric.set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    return float(metric.compute())


def kid(real: Tensor, made: Tensor, seed: int = 0) -> tuple[float, float]:
    """The kernel distance of features [n, width] (https://arxiv.org/abs/1801.01401).

    Returns:
        The mean over 100 random subsets, and its standard deviation.

    Raises:
        ValueError: There are too few pictures, or features of different widths.
    """
    check(real, made)
    size = min(SUBSET, len(real), len(made))
    with chance(seed):
        metric = need("torchmetrics.image.kid", "eval").KernelInceptionDistance(
            given(real), subsets=SUBSETS, subset_size=size
        )
        metric.update(real.double(), real=True)
        metric.update(made.double(), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def inception_score(logits: Tensor, seed: int = 0) -> tuple[float, float]:
    """The Inception Score of logits [n, classes] (https://arxiv.org/abs/1606.03498).

    Returns:
        The mean over ten random splits, and its standard deviation; it is 0 for a single split.

    Raises:
        ValueError: There are no pictures.
    """
    if not len(logits):
        raise ValueError("there are no pictures")
    with chance(seed):
        metric = need("torchmetrics.image.inception", "eval").InceptionScore(
            given(logits), splits=SPLITS
        )
        metric.update(logits.double())
        mean, deviation = metric.compute()
    return float(mean), float(deviation) if len(logits) > 1 else 0.0


def check(real: Tensor, made: Tensor) -> None:
    """Check that two sets can be compared.

    Raises:
        ValueError: One has too few pictures, or their features differ in width.
    """
    if real.shape[1] != made.shape[1]:
        raise ValueError(
            f"the real pictures have {real.shape[1]:,} features, the made ones {made.shape[1]:,}: "
            "they are of different extractors"
        )
    if wrong := too_few(len(real), len(made)):
        raise ValueError(wrong)


def too_few(real: int, made: int) -> str:
    """What is wrong if there are too few pictures to compare; "" if there are enough."""
    if min(real, made) >= LEAST:
        return ""
    return f"there are {real} real and {made} made pictures; each side needs {LEAST}"


def given(features: Tensor) -> Any:
    """What stands in for an extractor where features are at hand already."""
    network = nn.Identity()
    network.num_features = features.shape[1]  # type: ignore[assignment]
    return network


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Torch's chance is that of a seed, and torchmetrics does not say how much memory it takes."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        yield
