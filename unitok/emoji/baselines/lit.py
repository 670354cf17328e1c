"""Locked towers (LiT, https://arxiv.org/abs/2111.07991): only projections are trained.

Pictures are seen by EfficientNet-Lite0, which learned photos, and texts are read by MiniLM. Both
stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.emoji.baselines.budget import Budget, TimedCosine
from unitok.emoji.baselines.contrast import FIRST_SCALE, ContrastiveLoss
from unitok.emoji.baselines.minilm import MiniLm
from unitok.emoji.baselines.pairs import PairBatch, PairUpdates
from unitok.training.image_tokenizer.features import Lite0Features
from unitok.training.optimisers import make_adamw
from unitok.training.trainer import Trainer

MAPS = slice(3, 5)  # of the five feature maps, the two with the lowest resolution
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class LitSizes:
    """Sizes of the projections.

    Attributes:
        side: Pixels of a side to which pictures are enlarged for the frozen network.
        hidden: Numbers inside a projection.
        projection: Numbers of an embedding.
    """

    side: int = 128
    hidden: int = 512
    projection: int = 128


@dataclass(frozen=True)
class LitRun:
    """Options of one run.

    Attributes:
        batch: Pictures of an update.
        lr: The highest learning rate.
        warmup: Updates until it is reached.
        weight_decay: Of matrices.
        seed: Of the weights and of the data.
        sizes: Of the projections.
    """

    batch: int = 256
    lr: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.02
    seed: int = 0
    sizes: LitSizes = LitSizes()


class Lit(nn.Module):
    """Two frozen towers and their trained projections."""

    def __init__(self, sizes: LitSizes) -> None:
        """Open the towers, and draw the projections' weights.

        Raises:
            ImportError: A package of a tower is not installed.
        """
        super().__init__()
        self.sizes, self.text = sizes, MiniLm()
        self.vision = Lite0Features().eval().requires_grad_(False)
        seen = self.see(torch.zeros(1, 3, sizes.side, sizes.side)).shape[1]
        self.vision_projection = projection(seen, sizes)
        self.text_projection = projection(self.text.width, sizes)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    @classmethod
    def open(cls, folder: Path) -> Lit:
        """One that was saved."""
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        lit = cls(LitSizes(**config["sizes"]))
        lit.load_state_dict({**lit.state_dict(), **load_file(folder / WEIGHTS)})
        return lit.eval()

    def save(self, folder: Path) -> None:
        """Write what is trained; the towers are those of their packages."""
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}
        save_file(trained, folder / WEIGHTS)
        text = json.dumps({"model_type": "lit", "sizes": asdict(self.sizes)}, indent=2) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Tensor:
        """What the frozen network sees in pictures in [0, 1], with its places: [B, features]."""
        side = self.sizes.side
        large = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        maps: Sequence[Tensor] = self.vision(large * 2 - 1)[MAPS]
        return torch.cat([features.flatten(1) for features in maps], 1).float()

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, d] of pictures [B, 3, 64, 64] in [0, 1]."""
        return self.vision_projection(self.see(pixels))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, d] of texts."""
        return self.text_projection(self.text.means(texts))


def projection(width: int, sizes: LitSizes) -> nn.Sequential:
    """From what a frozen tower gives to an embedding."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, sizes.hidden),
        nn.GELU(),
        nn.Linear(sizes.hidden, sizes.projection),
    )


def make_trainer(run: LitRun, budget: Budget) -> Trainer[PairBatch]:
    """A trainer of new projections."""
    torch.manual_seed(run.seed)
    lit = Lit(run.sizes)
    return Trainer(
        lit,
        ContrastiveLoss(lit),
        make_adamw(lit, run.weight_decay),
        TimedCosine(run.lr, run.warmup, budget),
        PairUpdates(run.batch, run.seed),
    )


def save(trainer: Trainer[Any], folder: Path) -> None:
    """Write the projections that a trainer has trained."""
    lit = trainer.model
    if not isinstance(lit, Lit):
        raise TypeError("this trainer trains no locked towers")
    lit.save(folder)
