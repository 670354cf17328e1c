"""A linear probe: how well a linear classifier tells classes apart by an encoder's features.

It is logistic regression as in https://arxiv.org/abs/2103.00020, section 3.2: the features are
standardised, the weights are decayed (L2), and the strength of the decay is the one that does best
on a part of the training set. All is deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from unitok.baselines.adapter import batches
from unitok.baselines.protocols import ImageEncoder
from unitok.pictures import PictureLike

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths of the decay that are tried: the factor of half the squared weights, a picture."""

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
STEPS = 200  # of L-BFGS, at most
STEP = 256  # pictures between two steps of the progress bar


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures and what each shows.

    Attributes:
        images: The pictures.
        labels: The class of each.
    """

    images: Sequence[PictureLike]
    labels: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"there are {len(self.images)} pictures and {len(self.labels)} labels")
        if not len(self.images):
            raise ValueError("there are no pictures")

    @classmethod
    def read(cls, folder: Path) -> LabelledPictures:
        """The pictures of a folder with a sub-folder for each class, whose name is the label.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It has no sub-folder, or one has no picture.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        found: list[tuple[Path, str]] = []
        for place in sorted(p for p in folder.iterdir() if p.is_dir()):
            files = sorted(f for f in place.iterdir() if f.suffix.lower() in ENDINGS)
            if not files:
                raise ValueError(f"{place} has no picture")
            found += [(file, place.name) for file in files]
        if not found:
            raise ValueError(f"{folder} has no sub-folder; it takes one for each class")
        return cls([file for file, _ in found], [label for _, label in found])


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features.

    Attributes:
        classes: Their names, in the order of the columns.
        weight: [width, classes], in float64.
        bias: [classes], in float64.
        decay: The strength of the decay that it was fitted with.
    """

    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    decay: float

    def predict(self, features: Tensor) -> list[str]:
        """The likeliest class of each vector of features [n, width]."""
        best = (features.double() @ self.weight + self.bias).argmax(1)
        return [self.classes[int(i)] for i in best]


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe found.

    Attributes:
        accuracy: The share of the held-out pictures whose class it tells.
        chance: The share that the commonest class of the training set would get.
        predicted: The class that it tells of each held-out picture.
        probe: The classifier.
    """

    accuracy: float
    chance: float
    predicted: tuple[str, ...]
    probe: LinearProbe


def linear_probe(
    encoder: ImageEncoder,
    train: LabelledPictures,
    test: LabelledPictures,
    *,
    decays: Sequence[float] = DECAYS,
    seed: int = 0,
    progress: bool = False,
) -> ProbeResult:
    """Fit a classifier to the features of pictures, and judge it by others.

    Args:
        encoder: What makes the features.
        train: Pictures to fit it to.
        test: Pictures that were held out.
        decays: Strengths of the decay that are tried.
        seed: Of the part of `train` that decides about the decay.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: `train` has one class alone, or `test` has one that `train` has not.
    """
    check_classes(train.labels, test.labels)
    features = features_of(encoder, train.images, progress, "training pictures")
    probe = fit(features, train.labels, decays, seed)
    held_out = features_of(encoder, test.images, progress, "held-out pictures")
    predicted = probe.predict(held_out)
    counts = {label: list(train.labels).count(label) for label in probe.classes}
    commonest = max(probe.classes, key=lambda label: counts[label])
    return ProbeResult(
        share(predicted, test.labels),
        share([commonest] * len(test.labels), test.labels),
        tuple(predicted),
        probe,
    )


def check_classes(train: Sequence[str], test: Sequence[str]) -> None:
    """Check labels; ValueError if there is one class alone, or a class that is never learned."""
    known = set(train)
    if len(known) < 2:
        raise ValueError(f"the training set has the class {min(known)} alone; it takes two")
    if unknown := set(test) - known:
        raise ValueError(f"the training set has no picture of {', '.join(sorted(unknown))}")


def features_of(
    encoder: ImageEncoder, images: Sequence[PictureLike], progress: bool, what: str
) -> Tensor:
    """Features [n, width] of pictures, with a progress bar if it is wanted."""
    steps = track(list(batches(images, STEP)), what, disable=not progress, transient=True)
    return torch.cat([encoder.features(step) for step in steps])


def fit(
    features: Tensor, labels: Sequence[str], decays: Sequence[float] = DECAYS, seed: int = 0
) -> LinearProbe:
    """Fit a classifier; a fifth of the pictures decides about the decay, and then all are used.

    Args:
        features: [n, width].
        labels: The class of each.
        decays: Strengths of the decay that are tried.
        seed: Of the choice of that fifth.
    """
    classes = tuple(sorted(set(labels)))
    targets = torch.tensor([classes.index(label) for label in labels])
    mean, std = features.double().mean(0), features.double().std(0, correction=0)
    scale = torch.where(std > 0, 1 / std, torch.zeros_like(std))  # what never changes tells nothing
    inputs = (features.double() - mean) * scale
    decay = best_decay(inputs, targets, decays, seed) if len(decays) > 1 else decays[0]
    weight, bias = regress(inputs, targets, len(classes), decay)
    weight = scale[:, None] * weight
    return LinearProbe(classes, weight, bias - mean @ weight, decay)


def best_decay(inputs: Tensor, targets: Tensor, decays: Sequence[float], seed: int) -> float:
    """The decay that gives the highest accuracy on a fifth of the pictures.

    Of equally good ones, the strongest is taken, and so it is if no class has two pictures.

    Args:
        inputs: Standardised features [n, width].
        targets: The class of each, as a number.
        decays: Those that are tried.
        seed: Of the choice of the fifth.
    """
    held = held_out(targets, seed)
    if not held.any():
        return max(decays)
    count = int(targets.max()) + 1

    def accuracy(decay: float) -> float:
        weight, bias = regress(inputs[~held], targets[~held], count, decay)
        right = (inputs[held] @ weight + bias).argmax(1) == targets[held]
        return float(right.double().mean())

    return max(sorted(decays, reverse=True), key=accuracy)


def held_out(targets: Tensor, seed: int) -> Tensor:
    """Which pictures are held out [n]: a fifth of each class, at least one if it has two."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(targets), dtype=torch.bool)
    for members in members_of(targets):
        count = max(len(members) // 5, len(members) > 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held


def members_of(targets: Tensor) -> Iterator[Tensor]:
    """The places of each class."""
    for target in targets.unique().tolist():
        yield (targets == target).nonzero().flatten()


def regress(inputs: Tensor, targets: Tensor, classes: int, decay: float) -> tuple[Tensor, Tensor]:
    """Logistic regression by L-BFGS.

    Args:
        inputs: [n, width], in float64.
        targets: The class of each, as a number.
        classes: How many there are.
        decay: The factor of half the squared weights; the bias is not decayed.

    Returns:
        The weight [width, classes] and the bias [classes].
    """
    weight = torch.zeros(inputs.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=STEPS,
        tolerance_grad=1e-7,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(inputs @ weight + bias, targets)
        value = value + decay / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]  # a tensor is a float to it
    return weight.detach(), bias.detach()


def share(found: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of equal labels."""
    return sum(f == w for f, w in zip(found, wanted, strict=True)) / len(wanted)
