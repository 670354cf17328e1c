"""The recipe of the default model: text to image tokens and image to text, mixed in each update."""

import dataclasses
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import unitok
from unitok.emoji.evaluation import report
from unitok.emoji.export import save_folder
from unitok.emoji.image_tokenizer import load_tokenizer, random_backing
from unitok.emoji.rendering import STYLE, render
from unitok.emoji.sample import Sample
from unitok.emoji.samples import SampleMaker
from unitok.emoji.scenes import CANVAS, Scene
from unitok.families.janus import Template
from unitok.nn.config import DEFAULT, ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.pictures import digest
from unitok.training.initialisation import initialise
from unitok.training.loop import LoopOptions, TrainingLoop
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok.training.packing import PackedBatch, pack
from unitok.training.schedule import WarmupCosine
from unitok.training.trainer import Trainer
from unitok.training.unified_loss import UnifiedLoss
from unitok_engine import Embeddings
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.text import TextTokenizer

CONVERSATION_WEIGHT = 0.3  # of the losses of conversations, beside 1 of drawings and of readings
CONVERSATION_LENGTHS = (256, 256, 512, 512, 1024)  # ids; or all that there are for conversations


@dataclass(frozen=True)
class PretrainRun:
    """Options of one run. A step is one update over `accumulate` micro-batches of each kind.

    Attributes:
        steps: Updates of the run, which the learning rate follows.
        drawings: Drawings of a micro-batch.
        readings: Readings of a micro-batch.
        conversation_every: Micro-batches between two that also hold conversations.
        conversation_ids: Token ids of all conversations of one micro-batch.
        accumulate: Micro-batches of an update.
        lr: The highest learning rate.
        warmup: Updates until it is reached.
        weight_decay: Of all weights.
        text_weight: The weight of the mean loss of a text token, beside 1 of an image token.
        seed: Of the weights and of the data.
        device: Where the model is trained.
    """

    steps: int = 5500
    drawings: int = 28
    readings: int = 20
    conversation_every: int = 6
    conversation_ids: int = 2048
    accumulate: int = 1
    lr: float = 2.5e-3
    warmup: int = 100
    weight_decay: float = 0.02
    text_weight: float = 1.0
    seed: int = 0
    device: str = "cpu"


class EmojiUpdates:
    """Updates of the emoji world: drawings, readings and at times conversations.

    The three kinds are batches of their own, each with its weight. The state resumes exactly.
    """

    def __init__(self, model: UnifiedModel, template: Template, run: PretrainRun) -> None:
        """Start the streams.

        Args:
            model: What is trained; it encodes the pictures that are read.
            template: The conversation format.
            run: The options.
        """
        self.model, self.template, self.run = model, template, run
        self.maker = SampleMaker(template, run.seed)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.image_ids = (model.vocabulary.image_start,) * template.picture_length
        self.count = 0  # of micro-batches made

    def __next__(self) -> list[PackedBatch]:
        """The batches of the next update."""
        return [batch for _ in range(self.run.accumulate) for batch in self.micro_batch()]

    def micro_batch(self) -> list[PackedBatch]:
        """Drawings, readings, and in every few micro-batches conversations."""
        run, maker = self.run, self.maker
        batches = [
            self.batch([maker.drawing() for _ in range(run.drawings)]),
            self.batch([maker.reading() for _ in range(run.readings)]),
        ]
        if self.count % run.conversation_every == 0:
            length = maker.random.choice((*CONVERSATION_LENGTHS, run.conversation_ids))
            count = max(1, run.conversation_ids // length)
            conversations = [maker.conversation(length) for _ in range(count)]
            batches.append(self.batch(conversations, CONVERSATION_WEIGHT))
        self.count += 1
        return batches

    def batch(self, samples: list[Sample], weight: float = 1.0) -> PackedBatch:
        """Samples with their pictures rendered.

        Args:
            samples: What is learned.
            weight: Of the batch's mean losses in its micro-batch.
        """
        shown = self.input_pixels([scene for sample in samples for scene in sample.input_scenes])
        drawn = self.target_pixels([scene for sample in samples for scene in sample.target_scenes])
        read, painted = map(self.embeddings, shown), iter(drawn)
        sequences = [
            sample.sequence(
                islice(read, len(sample.input_pictures)),
                islice(painted, len(sample.target_pictures)),
                self.image_ids,
            )
            for sample in samples
        ]
        return self.weighted(pack(sequences, {}), weight / self.run.accumulate)

    def embeddings(self, pixels: Tensor) -> Embeddings:
        """A picture to read, [3, S, S] in [-1, 1], as the model's vision encoder will see it."""
        picture = self.template.picture(pixels, digest(pixels, "emoji"), self.model.encode_images)
        return next(part for part in picture.segments if isinstance(part, Embeddings))

    def weighted(self, batch: PackedBatch, weight: float) -> PackedBatch:
        """The batch with the weights that make its total one of mean losses."""
        means = {"image": weight, "text": weight * self.run.text_weight}
        counts = batch.counts(self.model.vocabulary)
        weights = {kind: mean / max(1, counts[kind]) for kind, mean in means.items()}
        return replace(batch, weights=weights)

    def target_pixels(self, scenes: list[Scene]) -> Tensor:
        """Pictures to draw, [D, 3, S, S] in [0, 1].

        White cards replace what lies behind the sprites: the image tokenizer has learned to ignore
        it, and so no image token is left to chance.
        """
        return render(scenes, self.run.device, style="square")

    def input_pixels(self, scenes: list[Scene]) -> Tensor:
        """Pictures to read, [R, 3, S, S] in [-1, 1].

        A quarter of them have random colours behind the sprites, so that objects are recognised on
        any background; all have a little noise.
        """
        if not scenes:
            return torch.empty(0, 3, CANVAS, CANVAS)
        device, count = self.run.device, len(scenes)
        pictures = render(scenes, device, style=STYLE)
        backing = random_backing(count, self.generator)
        disguised = render(scenes, device, backing=backing)
        choose = self._uniform(count) < 0.25
        pictures = torch.where(choose, disguised, pictures)
        noise = torch.randn(pictures.shape, generator=self.generator).to(device)
        return (pictures + noise * (0.04 * self._uniform(count))).clamp(0, 1) * 2 - 1

    def _uniform(self, count: int) -> Tensor:
        """One number in [0, 1) for each picture, [count, 1, 1, 1]."""
        return torch.rand(count, 1, 1, 1, generator=self.generator).to(self.run.device)

    def state_dict(self) -> dict[str, Any]:
        """Where all random streams stand."""
        return {
            "maker": self.maker.state_dict(),
            "generator": self.generator.get_state(),
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.maker.load_state_dict(state["maker"])
        self.generator.set_state(state["generator"].cpu())
        self.count = state["count"]


def make_trainer(
    config: ModelConfig, tokenizer: ImageTokenizer, template: Template, run: PretrainRun
) -> Trainer[PackedBatch]:
    """A trainer of a new model.

    Args:
        config: The model's sizes.
        tokenizer: A trained image tokenizer of the same sizes; the model keeps it as it is.
        template: The conversation format.
        run: The options.
    """
    torch.manual_seed(run.seed)
    model = UnifiedModel(config)
    initialise(model)
    model.image_tokenizer.load_state_dict(tokenizer.state_dict())
    model.to(run.device).image_tokenizer.requires_grad_(False).eval()
    matrices = matrices_in(model.decoder.blocks, model.vision.blocks)
    return Trainer(
        model,
        UnifiedLoss(model, model.vocabulary.text_range),
        MixedOptimiser(matrices, others(model, matrices), run.weight_decay),
        WarmupCosine(run.lr, run.warmup, run.steps),
        EmojiUpdates(model, template, run),
        settings={"run": dataclasses.asdict(run)},
    )


@dataclass(frozen=True)
class Inputs:
    """Trained tokenizers that the model is built on.

    Attributes:
        image_tokenizer: checkpoint.pt of a run that trained the image tokenizer.
        text_tokenizer: The folder or the file of the text tokenizer.
    """

    image_tokenizer: Path
    text_tokenizer: Path


def pretrain(run: PretrainRun, inputs: Inputs, options: LoopOptions, prompts: int) -> None:
    """Train the default model, or go on with it, and evaluate it at each checkpoint.

    Besides what the loop writes, the folder gets model/, which `unitok.load` opens, and
    held_out.png, a picture of drawings.

    Args:
        run: What is trained, and how.
        inputs: The tokenizers.
        options: The folder, and how often it is written to.
        prompts: Held-out prompts of each kind in an evaluation.

    Raises:
        FileNotFoundError: A tokenizer is missing.
        ValueError: A checkpoint is broken.
    """
    tokenizer, _ = load_tokenizer(inputs.image_tokenizer)
    config = dataclasses.replace(DEFAULT, image_tokenizer=tokenizer.config)
    template = Template(TextTokenizer.load(inputs.text_tokenizer), config.vision.patches)
    trainer = make_trainer(config, tokenizer, template, run)
    folder, model = options.folder, cast(UnifiedModel, trainer.model)

    def evaluate() -> dict[str, float]:
        """Save the model and score it by the very API that users call."""
        save_folder(model, template, inputs.text_tokenizer, folder / "model")
        result = report(unitok.load(folder / "model", device=run.device), prompts=prompts)
        result.grid.save(folder / "held_out.png")
        return result.scores

    TrainingLoop(trainer, options, evaluate).run()
