"""Training the default model: text -> picture ids and picture -> text, mixed in each update."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.emoji.scenes import STYLE, render
from unitok.families.janus import Template
from unitok.nn.config import ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.training.data import PackedLines, SampleMaker, pack
from unitok.training.image_tokenizer import random_backing
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok_tokenizers.image import ImageTokenizer


@dataclass(frozen=True)
class PretrainRun:
    """Options of one run. A step is one update over `accumulate` micro-batches of each kind."""

    steps: int = 5500
    drawings: int = 28  # lines per micro-batch
    readings: int = 20
    conversation_every: int = 6  # micro-batches between two that also hold conversations
    conversation_ids: int = 2048  # ids in all of one micro-batch's conversations
    accumulate: int = 1
    lr: float = 2.5e-3
    warmup: int = 100
    weight_decay: float = 0.02
    text_weight: float = 1.0  # of the mean loss per text id, beside 1 per picture id
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropy per target id, in nats; nan where a batch holds none."""

    image: float
    text: float
    ids: int  # ids the decoder saw


class Pretrainer:
    """Owns model, optimisers and data; `state_dict` resumes exactly."""

    def __init__(
        self, config: ModelConfig, tokenizer: ImageTokenizer, template: Template, run: PretrainRun
    ) -> None:
        torch.manual_seed(run.seed)
        self.config, self.run, self.template = config, run, template
        self.model = UnifiedModel(config)
        initialise(self.model)
        self.model.image_tokenizer.load_state_dict(tokenizer.state_dict())
        self.model.to(run.device).image_tokenizer.requires_grad_(False).eval()
        matrices = matrices_in(self.model.decoder.blocks, self.model.vision.blocks)
        rest = others(self.model, matrices)
        self.optimiser = MixedOptimiser(matrices, rest, run.weight_decay)
        self.maker = SampleMaker(template, run.seed)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.pad = template.tokenizer.id(template.pad)
        self.step_count = 0

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to a fiftieth."""
        run, step = self.run, self.step_count
        warm = min(1.0, (step + 1) / run.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / run.steps)))
        return run.lr * warm * (0.02 + 0.98 * cosine)

    def step(self) -> Losses:
        """One update."""
        parts = [self.micro_batch(i) for i in range(self.run.accumulate)]
        self.optimiser.step(self.learning_rate())
        self.step_count += 1
        return merge(parts)

    def micro_batch(self, index: int) -> Losses:
        """Forward and backward of one micro-batch: short lines, and sometimes conversations."""
        run, maker = self.run, self.maker
        # Packed apart, because readings are longer and every line is padded to the longest.
        parts = [
            self.learn(pack([maker.drawing() for _ in range(run.drawings)], self.pad), 1.0),
            self.learn(pack([maker.reading() for _ in range(run.readings)], self.pad), 1.0),
        ]
        if (self.step_count * run.accumulate + index) % run.conversation_every == 0:
            length = maker.random.choice((256, 256, 512, 512, 1024, run.conversation_ids))
            count = max(1, run.conversation_ids // length)
            long = [maker.conversation(length) for _ in range(count)]
            parts.append(self.learn(pack(long, self.pad), 0.3))
        return merge(parts)

    def learn(self, lines: PackedLines, weight: float) -> Losses:
        device = torch.device(self.run.device)
        with torch.autocast(device.type, torch.bfloat16):
            image, text = self.losses(lines)
        parts = [
            loss * w for loss, w in ((image, 1.0), (text, self.run.text_weight)) if loss is not None
        ]
        total = torch.stack(parts).sum()
        (total * weight / self.run.accumulate).backward()
        nan = float("nan")
        return Losses(
            nan if image is None else float(image.detach()),
            nan if text is None else float(text.detach()),
            lines.ids.numel(),
        )

    def losses(self, lines: PackedLines) -> tuple[Tensor | None, Tensor | None]:
        """Mean cross-entropy over picture ids and over text ids of the targets."""
        model, device = self.model, self.run.device
        ids, target = lines.ids.to(device), lines.target.to(device)
        if lines.draw_scenes:
            fill(ids, lines.draw_at.to(device), self.codes(lines))
        hidden = model.embed(ids)
        if lines.read_scenes:
            features = model.encode_images(self.views(lines))
            fill(hidden, lines.read_at.to(device), features)
        positions = torch.arange(ids.shape[1], device=device)
        hidden = model(hidden, positions)[:, :-1]
        wanted, aims = target[:, 1:], ids[:, 1:]
        is_image = aims >= model.vocabulary.image_start
        image = self.cross_entropy(hidden, aims, wanted & is_image, model.vocabulary.image_range)
        text = self.cross_entropy(hidden, aims, wanted & ~is_image, model.vocabulary.text_range)
        return image, text

    def cross_entropy(self, hidden: Tensor, aims: Tensor, mask: Tensor, id_range) -> Tensor | None:
        if not bool(mask.any()):
            return None
        logits = self.model.logits(hidden[mask], id_range).float()
        return F.cross_entropy(logits, aims[mask] - id_range.start)

    @torch.no_grad()
    def codes(self, lines: PackedLines) -> Tensor:
        """Picture ids [D, patches] of the scenes to draw.

        White cards replace what lies behind the sprites: the tokenizer learnt not to care, and so
        no id is left to chance.
        """
        pictures = render(lines.draw_scenes, self.run.device, style="square")
        codes = self.model.image_tokenizer.encode(pictures)
        return self.model.vocabulary.code_to_id(codes.flatten(1))

    def views(self, lines: PackedLines) -> Tensor:
        """Pictures to read, in [-1, 1]: true ones, and some with colours behind the sprites that
        say nothing, so that objects are known on any background; a little noise on all."""
        device, count = self.run.device, len(lines.read_scenes)
        pictures = render(lines.read_scenes, device, style=STYLE)
        backing = random_backing(count, self.generator)
        odd = render(lines.read_scenes, device, backing=backing)
        choose = torch.rand(count, 1, 1, 1, generator=self.generator).to(device) < 0.25
        pictures = torch.where(choose, odd, pictures)
        noise = torch.randn(pictures.shape, generator=self.generator).to(device)
        strength = 0.04 * torch.rand(count, 1, 1, 1, generator=self.generator).to(device)
        return (pictures + noise * strength).clamp(0, 1) * 2 - 1

    def state_dict(self) -> dict:
        return {
            "run": asdict(self.run),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "maker": self.maker.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "step": self.step_count,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.maker.load_state_dict(state["maker"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch"].cpu())
        self.step_count = state["step"]


def fill(rows: Tensor, at: Tensor, values: Tensor) -> None:
    """Write values [K, n, ...] into rows [B, L, ...] at (row, start) pairs [K, 2]."""
    columns = at[:, 1:] + torch.arange(values.shape[1], device=rows.device)
    rows[at[:, :1], columns] = values.to(rows.dtype)


def merge(parts: list[Losses]) -> Losses:
    """Mean of the losses that are there; ids add up."""

    def mean(values: list[float]) -> float:
        there = [v for v in values if not math.isnan(v)]
        return sum(there) / len(there) if there else float("nan")

    return Losses(
        mean([p.image for p in parts]), mean([p.text for p in parts]), sum(p.ids for p in parts)
    )


def initialise(model: UnifiedModel) -> None:
    """Normal weights of 0.02, output projections scaled down with depth (GPT-2), zero biases."""
    depth = len(model.decoder.blocks)
    for name, module in model.named_modules():
        if name.startswith("image_tokenizer"):
            continue
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
            last = name.endswith((".o", ".down"))
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if last else 0.02)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    # Codes have eight numbers only: they must start far enough apart to be told from each other.
    nn.init.normal_(model.image_embedding.weight, std=1.0)
    nn.init.normal_(model.image_aligner.fc1.weight, std=0.3)
