"""What a training run is told: a recipe, read from a TOML file by `recipe_file.py`.

Every key is declared here once, with its help, its range and its default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from unitok.nn.activation_checkpointing import Mode
from unitok.requests import MAX_GUIDANCE

FAILURES = 0.2  # the share of samples that may have no reward, unless told otherwise


@dataclass(frozen=True)
class Key:
    """What a key of a recipe is for, and which numbers it may be.

    Attributes:
        help: For people, in a few words.
        low: The lowest number.
        above: Numbers must be greater than this one.
        high: The highest number.
        below: Numbers must be less than this one.
    """

    help: str
    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataKeys:
    """One source of conversations; a recipe may have several."""

    path: Annotated[str, Key("JSON lines, WebDataset tars, or a folder of a Hugging Face data set")]
    weight: Annotated[float, Key("how often it is chosen, beside the other sources", above=0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class HeldOutKeys:
    """Conversations whose loss is measured and that are not learned."""

    path: Annotated[str | None, Key("as in `[[data]]`; without it nothing is measured")] = None
    conversations: Annotated[int, Key("how many of them, from the first", low=1, high=100_000)] = 64
    every: Annotated[int, Key("updates between two measurements", low=1)] = 250


@dataclass(frozen=True, kw_only=True)
class BatchKeys:
    """How large an update is, and how large what is computed at once."""

    conversations: Annotated[
        int, Key("conversations of an update, of all ranks", low=1, high=100_000)
    ] = 32
    max_tokens: Annotated[int, Key("tokens that are computed at once on a rank", low=2)] = 4096
    max_length: Annotated[
        int | None,
        Key("tokens of a sequence; by default `max_tokens`, or the model's context", low=2),
    ] = None
    too_long: Annotated[
        Literal["drop", "cut"],
        Key("what is done with a longer sequence; pictures are always dropped, and all counted"),
    ] = "drop"
    on_error: Annotated[
        Literal["raise", "skip"],
        Key("whether a conversation that is wrong ends the run, or is left out and counted"),
    ] = "raise"


@dataclass(frozen=True, kw_only=True)
class LossKeys:
    """What is made small."""

    text_weight: Annotated[float, Key("of the mean loss of a text token", low=0)] = 1.0
    image_weight: Annotated[float, Key("of the mean loss of an image token", low=0)] = 1.0
    prompt_dropout: Annotated[
        float,
        Key("share of drawings learned without their prompt, for guidance", low=0, high=1),
    ] = 0.1
    z_loss: Annotated[float, Key("weight of the squared log of the softmax's sum", low=0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class DpoKeys:
    """Learning from pairs of answers (https://arxiv.org/abs/2305.18290): the lines of `[[data]]`
    that have `chosen` and `rejected`. Other lines are learned as without this section."""

    beta: Annotated[
        float, Key("how dear it is to move away from the model at the start", above=0)
    ] = 0.1
    label_smoothing: Annotated[
        float, Key("share of pairs taken to be the wrong way round", low=0, below=0.5)
    ] = 0.0
    chosen_weight: Annotated[
        float, Key("of the mean loss of a token of the chosen answers, beside that of pairs", low=0)
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimiserKeys:
    """How the weights follow the gradients."""

    name: Annotated[
        Literal["adamw", "muon"],
        Key("`muon` takes the decoder's and the vision encoder's matrices, AdamW the rest"),
    ] = "adamw"
    learning_rate: Annotated[float, Key("the highest one", above=0)] = 1e-4
    warmup: Annotated[int, Key("updates until it is reached", low=0)] = 20
    schedule: Annotated[
        Literal["cosine", "linear", "constant"], Key("how it falls until the last update")
    ] = "cosine"
    weight_decay: Annotated[float, Key("of matrices", low=0)] = 0.0
    clip: Annotated[float, Key("the largest norm of all gradients together", above=0)] = 1.0
    ema: Annotated[
        float | None,
        Key("decay of an average of the trained weights, which is what is saved", above=0, below=1),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainKeys:
    """Which parts of the model are trained."""

    parts: Annotated[
        tuple[str, ...], Key('parts by name, such as "decoder", or by pattern, such as "*_head"')
    ] = ("*",)
    freeze: Annotated[tuple[str, ...], Key("parts of these that stay as they are")] = (
        "image_tokenizer",
    )


@dataclass(frozen=True, kw_only=True)
class LoraKeys:
    """Low-rank adapters, https://arxiv.org/abs/2106.09685, in place of the model's own weights."""

    rank: Annotated[int, Key("of the adapters", low=1)] = 16
    alpha: Annotated[float, Key("what they add is scaled by alpha / rank", above=0)] = 32.0
    dropout: Annotated[float, Key("of their input", low=0, below=1)] = 0.0
    targets: Annotated[
        tuple[str, ...],
        Key('layers that get one: names of layers or parts, or patterns such as "*.attention.q"'),
    ] = ("decoder.blocks",)
    also_train: Annotated[
        tuple[str, ...], Key("parts that are trained in full beside them, and saved with them")
    ] = ()


@dataclass(frozen=True, kw_only=True)
class CheckpointKeys:
    """The files from which the run goes on."""

    every: Annotated[int, Key("updates between two of them", low=1)] = 250
    keep: Annotated[int, Key("how many are kept, the latest", low=1)] = 2


@dataclass(frozen=True, kw_only=True)
class SamplesKeys:
    """What the model draws and says on the way."""

    every: Annotated[int, Key("updates between two rounds", low=1)] = 250
    prompts: Annotated[tuple[str, ...], Key("what is drawn")] = ()
    pictures: Annotated[tuple[str, ...], Key("files of pictures that are captioned")] = ()
    question: Annotated[
        str | None, Key("what is asked of each; by default what the model is asked for a caption")
    ] = None


@dataclass(frozen=True, kw_only=True)
class MemoryKeys:
    """Less memory for more time."""

    activation_checkpointing: Annotated[
        Mode,
        Key(
            "what the layers compute a second time for the gradients: `selective`: all but matrix "
            "products and attention; `full`: everything, for the least memory"
        ),
    ] = "none"
    sharding: Annotated[
        Literal["none", "fsdp"],
        Key("`fsdp`: each of several ranks holds a part of the model (FSDP2)"),
    ] = "none"


@dataclass(frozen=True, kw_only=True)
class RolloutKeys:
    """Reinforcement learning: each step samples prompts, and learns from their rewards."""

    prompts: Annotated[tuple[str, ...], Key("files of JSON lines: what is to be drawn or answered")]
    groups: Annotated[int, Key("prompts of a step", low=1, high=100_000)] = 32
    samples: Annotated[int, Key("samples of each prompt", low=2, high=1000)] = 8
    temperature: Annotated[float, Key("of all samples", above=0)] = 1.0
    top_k: Annotated[int, Key("the k likeliest tokens are sampled; 0 for all", low=0)] = 0
    top_p: Annotated[
        float, Key("the likeliest tokens that make up this share are sampled", above=0, high=1)
    ] = 1.0
    guidance: Annotated[
        float | None,
        Key(
            "the guidance scale of drawings; by default the model's own",
            low=-MAX_GUIDANCE,
            high=MAX_GUIDANCE,
        ),
    ] = None
    max_tokens: Annotated[int, Key("the most tokens of an answer", low=1)] = 256
    drop_solved: Annotated[
        bool, Key("whether a prompt comes no more once all its samples have its highest reward")
    ] = True
    solved: Annotated[float, Key("the sum of rewards of samples that solve a prompt")] = 1.0
    memory: Annotated[
        int | None, Key("megabytes of keys and values; by default as for `unitok.load`", low=1)
    ] = None
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        Key("the type that samples are computed in; `auto`: as the run's"),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class RewardKeys:
    """A reward of samples; a recipe may have several, which are summed up."""

    name: Annotated[str, Key("one that comes with unitok, or of an installed package")]
    weight: Annotated[float, Key("what it is multiplied by")] = 1.0
    of: Annotated[Literal["all", "text", "image"], Key("which samples it is asked about")] = "all"
    scorer: Annotated[str | None, Key("a folder or hub id of the CLIP that `clip` needs")] = None


@dataclass(frozen=True, kw_only=True)
class GrpoKeys:
    """How samples are learned from: GRPO, https://arxiv.org/abs/2402.03300."""

    passes: Annotated[int, Key("how often a step learns its samples", low=1, high=100)] = 1
    minibatches: Annotated[int, Key("updates of each pass", low=1, high=1000)] = 1
    clip: Annotated[float, Key("how far ratios below 1 count", above=0, below=1)] = 0.2
    clip_high: Annotated[
        float | None, Key("how far ratios above 1 count; by default `clip`", above=0)
    ] = None
    kl: Annotated[float, Key("weight of the divergence from the first weights", low=0)] = 0.0
    advantage: Annotated[
        Literal["normalised", "centred"],
        Key("rewards less their mean in a group, divided by their deviation or not"),
    ] = "normalised"
    average: Annotated[
        Literal["sample", "token"], Key("what counts alike: each sample, or each token")
    ] = "sample"
    policy: Annotated[
        Literal["sampled", "conditional"],
        Key(
            "what is learned: what was sampled from, with guidance and filters, or the prompt's "
            "own branch"
        ),
    ] = "sampled"
    supervised: Annotated[
        float, Key("weight of the loss of fine-tuning beside, of `[[data]]`", low=0)
    ] = 0.0
    failures: Annotated[
        float, Key("the share of a step's samples that may fail", low=0, high=1)
    ] = FAILURES


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a run is told."""

    out: Annotated[str, Key("the folder for all that is written")]
    model: Annotated[str | None, Key("a folder or a hub id; by default the embedded model")] = None
    steps: Annotated[int | None, Key("updates of the run; give these or epochs", low=1)] = None
    epochs: Annotated[int | None, Key("how often all data are seen", low=1)] = None
    seed: Annotated[int, Key("of the order of the data, of dropout and of adapters", low=0)] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Key("where it computes; `auto`: a GPU if there is one")
    ] = "auto"
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        Key("the type it computes in; `auto`: bf16 on a GPU, fp32 on a CPU"),
    ] = "auto"
    save_as: Annotated[Literal["fp32", "bf16"], Key("the type of the weights of the result")] = (
        "fp32"
    )
    log_every: Annotated[int, Key("updates whose mean losses are one record of the log", low=1)] = 5
    codes: Annotated[
        str | None, Key("a folder where the codes of painted pictures are kept, for later runs")
    ] = None
    data: Annotated[tuple[DataKeys, ...], Key("what is learned")] = ()
    held_out: HeldOutKeys = field(default_factory=HeldOutKeys)
    batch: BatchKeys = field(default_factory=BatchKeys)
    loss: LossKeys = field(default_factory=LossKeys)
    dpo: DpoKeys | None = None
    optimiser: OptimiserKeys = field(default_factory=OptimiserKeys)
    train: TrainKeys = field(default_factory=TrainKeys)
    lora: LoraKeys | None = None
    rollout: RolloutKeys | None = None
    reward: tuple[RewardKeys, ...] = ()
    grpo: GrpoKeys = field(default_factory=GrpoKeys)
    checkpoint: CheckpointKeys = field(default_factory=CheckpointKeys)
    samples: SamplesKeys = field(default_factory=SamplesKeys)
    memory: MemoryKeys = field(default_factory=MemoryKeys)
