"""A run that trains an image tokenizer, from its options to what it writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from unitok.pictures import PictureLike
from unitok.training.checkpoints import load_checkpoint
from unitok.training.image_tokenizer.bases import Base, open_base, result_path
from unitok.training.image_tokenizer.discriminator import PatchDiscriminator, smallest_picture
from unitok.training.image_tokenizer.features import open_features
from unitok.training.image_tokenizer.loss import ImageTokenizerLoss, PictureBatch
from unitok.training.image_tokenizer.options import ImageTokenizerOptions, LossOptions
from unitok.training.image_tokenizer.perceptual import PerceptualLoss
from unitok.training.image_tokenizer.pictures import (
    Batching,
    Cropping,
    PictureUpdates,
    find_pictures,
)
from unitok.training.image_tokenizer.report import ReconstructionReport, reconstruction_report
from unitok.training.image_tokenizer.trained import TrainedTokenizer
from unitok.training.loop import LoopOptions, TrainingLoop
from unitok.training.ranks import Ranks, connect, world_size
from unitok.training.recipe_file import to_toml
from unitok.training.schedule import WarmupCosine
from unitok.training.trainer import Trainer

SHEET = "reconstructions.png"
RECIPE = "recipe.toml"
# Options that may be others when a run goes on.
MAY_CHANGE = {"out", "held_out", "report_pictures", "steps", "device", "save_every", "log_every"}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train_image_tokenizer(
    options: ImageTokenizerOptions, pictures: Iterable[PictureLike] | None = None
) -> ReconstructionReport:
    """Train an image tokenizer, or go on with it, and write it.

    The folder `options.out` gets checkpoint.pt, from which the same call goes on, log.jsonl,
    curves.png and reconstructions.png; at the end also the result: model/, which `unitok.load`
    opens, if a model's folder was trained further, else image_tokenizer.safetensors, which
    `load_llamagen` opens.

    Args:
        options: What is trained, and how.
        pictures: What is learned, instead of `options.pictures`: anything that `open_picture`
            reads. A sequence opens its items when they are asked for; another iterable is read
            once and kept in memory.

    Returns:
        What the result makes of the report's pictures.

    Raises:
        FileNotFoundError: A file or a folder is missing.
        ValueError: A file cannot be read, or options do not fit together.
        ImportError: A library that the options ask for is not installed.
    """
    learned = learned_pictures(options, pictures)
    held_out = learned if options.held_out is None else find_pictures(options.held_out)
    check_same_run(options)
    ranks = connect_ranks(options)
    base = open_base(options.model, options.sizes, options.seed)
    trainer = make_trainer(options, base, learned, ranks)
    model, out = trainer.model, Path(options.out)
    assert isinstance(model, TrainedTokenizer)

    def report() -> ReconstructionReport:
        shown = islice(iterate(held_out), options.report_pictures)
        made = reconstruction_report(model.best.eval(), shown)
        if ranks.is_first:
            made.sheet.save(out / SHEET)
        return made

    loop = LoopOptions(
        out, options.steps, save_every=options.save_every, log_every=options.log_every
    )
    TrainingLoop(trainer, loop, lambda: report().scores).run()
    if ranks.is_first:
        (out / RECIPE).write_text(to_toml(options), encoding="utf-8")
        base.save(model.best.cpu(), out)
    ranks.wait()
    made = report()
    ranks.close()
    return made


def learned_pictures(
    options: ImageTokenizerOptions, pictures: Iterable[PictureLike] | None
) -> Sequence[PictureLike]:
    """The pictures that a run learns.

    Raises:
        FileNotFoundError, ValueError: As `find_pictures`, or none are named.
    """
    if pictures is not None:
        return as_sequence(pictures)
    if not options.pictures:
        raise ValueError("pictures is missing: name a folder of pictures, or JSON lines")
    return find_pictures(options.pictures)


def connect_ranks(options: ImageTokenizerOptions) -> Ranks:
    """The processes that torchrun started; accelerate is needed for several alone.

    Raises:
        ImportError: accelerate is not installed.
        ValueError: There is no such device.
    """
    if world_size() == 1:
        return Ranks()
    device = None if options.device == "auto" else options.device
    return connect(device, "none", PRECISIONS[options.precision])


def device_of(options: ImageTokenizerOptions, ranks: Ranks) -> torch.device:
    """Where this process trains.

    Raises:
        ValueError: There is no such device.
    """
    if ranks.accelerator is not None:
        return ranks.accelerator.device
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    if options.device == "cuda" and not on_gpu:
        raise ValueError("there is no device 'cuda' here")
    return torch.device("cuda" if on_gpu else "cpu")


def check_same_run(options: ImageTokenizerOptions) -> None:
    """Check that a checkpoint in the folder is of a run with these options.

    Raises:
        ValueError: It is of another run, or broken.
        FileExistsError: There is none, and the result would replace what is none of its own.
    """
    path = Path(options.out) / "checkpoint.pt"
    if not path.is_file():
        if (target := result_path(options.model, path.parent)).exists():
            raise FileExistsError(
                f"{target} exists, and there is no checkpoint of a run that wrote it: move it "
                "away, or choose another folder as out"
            )
        return
    before = load_checkpoint(path)["settings"].get("options", {})
    for name, value in asdict(options).items():
        if name not in MAY_CHANGE and before.get(name) != value:
            raise ValueError(
                f"{path} is of a run with {name} = {before.get(name)!r}, not {value!r}; give "
                "another folder, or the same options"
            )


def make_trainer(
    options: ImageTokenizerOptions,
    base: Base,
    pictures: Sequence[PictureLike],
    ranks: Ranks | None = None,
) -> Trainer[PictureBatch]:
    """Put a run together.

    Args:
        options: What is trained, and how.
        base: What it starts from.
        pictures: What is learned.
        ranks: The processes that train together; None for this one alone.

    Raises:
        ValueError: The pictures are too small for the discriminator.
        ImportError, FileNotFoundError: As `open_features`.
    """
    torch.manual_seed(options.seed)
    ranks = ranks or Ranks()
    size = base.tokenizer.config.image_size
    discriminator = make_discriminator(options.loss, size)
    model = TrainedTokenizer(base.tokenizer, options.parts, discriminator, options.ema)
    loss = ImageTokenizerLoss(model, options.loss, make_perceptual(options.loss))
    loss.to(device_of(options, ranks))
    updates = PictureUpdates(
        pictures,
        Cropping(size, options.crop, options.flip),
        Batching(
            options.batch,
            options.micro_batch or options.batch,
            options.seed,
            ranks.index,
            ranks.count,
        ),
    )
    return Trainer(
        model,
        loss,
        make_optimiser(model, options),
        WarmupCosine(options.learning_rate, options.warmup, options.steps),
        updates,
        clip=float("inf"),  # each network is clipped by itself
        precision=PRECISIONS[options.precision],
        settings={"options": asdict(options)},
        ranks=ranks,
    )


def plan_of(options: ImageTokenizerOptions) -> dict[str, str]:
    """What a run would do, in words, once all is opened and the first update is made ready.

    Raises:
        FileNotFoundError, ValueError, ImportError: As `train_image_tokenizer`.
    """
    pictures = learned_pictures(options, None)
    base = open_base(options.model, options.sizes, options.seed)
    trainer = make_trainer(options, base, pictures)
    batches, config = next(trainer.updates), base.tokenizer.config
    count = sum(p.numel() for p in base.tokenizer.parameters() if p.requires_grad)
    return {
        "pictures": f"{len(pictures):,}, {sum(len(b.pixels) for b in batches)} in an update",
        "pixels": f"{config.image_size} x {config.image_size}",
        "codes": f"{config.grid} x {config.grid} of {config.codebook_size:,}",
        "trained": f"{', '.join(options.parts)}: {count:,} weights",
        "updates": f"{options.steps:,}",
        "result": str(result_path(options.model, Path(options.out))),
    }


def make_discriminator(options: LossOptions, size: int) -> PatchDiscriminator | None:
    """The discriminator that the options ask for, for pictures of a size.

    Raises:
        ValueError: The pictures are too small.
    """
    if options.adversarial == "none":
        return None
    if size < smallest_picture(options.discriminator_layers):
        raise ValueError(
            f"pictures of {size} pixels are too small for loss.discriminator_layers = "
            f"{options.discriminator_layers}"
        )
    return PatchDiscriminator(
        options.discriminator_channels, options.discriminator_layers, options.discriminator_norm
    )


def make_perceptual(options: LossOptions) -> PerceptualLoss | None:
    """The perceptual loss that the options ask for."""
    if options.perceptual is None:
        return None
    return PerceptualLoss(open_features(options.perceptual))


def make_optimiser(model: TrainedTokenizer, options: ImageTokenizerOptions) -> torch.optim.AdamW:
    """AdamW as LlamaGen sets it, over both networks, each clipped by itself.

    After each step it moves the average of the weights.
    """
    groups = [{"params": group} for group in model.groups()]
    made = torch.optim.AdamW(groups, options.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    made.register_step_pre_hook(lambda optimiser, *_: clip_each(optimiser, options.clip))
    made.register_step_post_hook(lambda *_: model.update_average())
    return made


def clip_each(optimiser: torch.optim.Optimizer, clip: float) -> None:
    """Clip the gradients of each group by their own norm.

    Gradients of a discriminator that is not at work yet are zero on several ranks and None on one;
    None for both, so that its averages start when it does.
    """
    for group in optimiser.param_groups:
        if float(nn.utils.clip_grad_norm_(group["params"], clip)) == 0:
            for weight in group["params"]:
                weight.grad = None


def as_sequence(pictures: Iterable[PictureLike]) -> Sequence[PictureLike]:
    """The pictures as a sequence; what has a length and items counts as one."""
    if hasattr(pictures, "__len__") and hasattr(pictures, "__getitem__"):
        return pictures  # pyright: ignore[reportReturnType]
    return tuple(pictures)


def iterate(pictures: Sequence[PictureLike]) -> Iterator[PictureLike]:
    """The items of a sequence, which may offer no more than a length and items."""
    return (pictures[i] for i in range(len(pictures)))
