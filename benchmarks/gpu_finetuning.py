"""LoRA tuning of both halves at Janus-Pro's shapes on a GPU: tokens per second, and memory."""

from collections.abc import Iterator

import torch

from benchmarks.device import DeviceBench
from benchmarks.finetuning import Conversation, OurTuning, conversations, peak_memory
from benchmarks.gpu_shapes import DECODERS
from benchmarks.report import Result
from unitok.nn.model import UnifiedModel

TALKS, PICTURES = 24, 12  # conversations of an update, and drawings


def finetuning(here: DeviceBench) -> Iterator[Result]:
    """Each shape; one that fails leaves the others."""
    for name in DECODERS:
        yield from here.attempt(f"finetuning of {name}", tuned(here, name))


@torch.inference_mode(False)
@torch.enable_grad()
def tuned(here: DeviceBench, name: str) -> Iterator[Result]:
    """An update of adapters by conversations of text and by drawings together."""
    if here.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    model = here.model(DECODERS[name])
    talk = conversations(2 if here.rehearse else TALKS, model.config.decoder.vocab_size)
    talk += drawings(here, model, 1 if here.rehearse else PICTURES)
    ours = OurTuning(model, talk)
    seconds = here.median({"update": ours.update}, 2 if here.rehearse else 5)["update"]
    memory = torch.cuda.max_memory_allocated() / 1e9 if here.is_cuda else peak_memory()
    tokens = sum(len(each.ids) for each in talk)
    yield Result(
        f"{name}: LoRA tuning, text and drawings", tokens / seconds, "tokens/s", detail=
        f"{tokens} tokens an update, {seconds:.2f} s, {memory:.1f} GB, activation checkpointing",
    )  # fmt: skip


def drawings(here: DeviceBench, model: UnifiedModel, count: int) -> list[Conversation]:
    """Prompts, each with the image tokens of a drawing."""
    generator = torch.Generator().manual_seed(1)
    words, images = model.vocabulary.text_size, model.vocabulary.image_range
    sizes = here.sizes
    made: list[Conversation] = []
    for _ in range(count):
        prompt = torch.randint(words, (sizes.prompt,), generator=generator)
        ids = torch.randint(images.start, images.stop, (sizes.tokens,), generator=generator)
        made.append(Conversation((*prompt.tolist(), *ids.tolist()), sizes.prompt))
    return made
