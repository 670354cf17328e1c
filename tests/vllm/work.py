# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""The same requests for our engine and for vLLM, and the token ids that come of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from PIL import Image

from unitok import Caption, Draw, Reply
from unitok.api import Model
from unitok.backends.vllm.drawings import GUIDANCE, drawing_of
from unitok.backends.vllm.layout import TokenLayout
from unitok.backends.vllm.readings import reading_prompt
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.families.common.family import ImageOptions
from unitok.families.janus import Janus
from unitok.prompt import Message

SCALES = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, -1.0)
THINGS = ("apple", "cat", "book", "boat", "cake", "frog", "gift", "house")
COLOURS = ("pink", "blue", "green", "yellow")
QUESTIONS = (
    "what is this?",
    "describe the drawing",
    "what color is the background?",
    "how many cats are there?",
)
TEXT_TOKENS = 12
# Long enough that a block of K/V is full before the picture begins.
LONG = " and ".join(["a cat in front of a house"] * 5)
Ids = list[int]


@dataclass(frozen=True)
class Work:
    """Requests of all kinds.

    Attributes:
        drawings: With guidance scales of all kinds.
        captions: Each of another picture.
        texts: Answers without a picture.
    """

    drawings: tuple[Draw, ...]
    captions: tuple[Caption, ...]
    texts: tuple[Reply, ...]

    @property
    def asked(self) -> tuple[Draw | Caption | Reply, ...]:
        """All of them."""
        return (*self.drawings, *self.captions, *self.texts)

    def sampled(self) -> "Work":
        """The same, sampled, each with a seed of its own."""
        drawings = (
            replace(d, temperature=1.0, top_k=(0, 40)[i % 2], top_p=(1.0, 0.9)[i // 2 % 2], seed=i)
            for i, d in enumerate(self.drawings)
        )
        texts = (replace(t, temperature=0.9, seed=i) for i, t in enumerate(self.texts))
        return Work(tuple(drawings), self.captions, tuple(texts))


def work(drawings: int, captions: int, texts: int) -> Work:
    """So many greedy requests of each kind."""
    greedy: dict[str, Any] = {"temperature": 0.0, "logprobs": True}
    scenes = to_pictures(captions)
    return Work(
        tuple(
            Draw(drawn(i), guidance=SCALES[i % len(SCALES)], seed=0, **greedy)
            for i in range(drawings)
        ),
        tuple(
            Caption(scene, QUESTIONS[i % len(QUESTIONS)], max_tokens=TEXT_TOKENS, **greedy)
            for i, scene in enumerate(scenes)
        ),
        tuple(
            Reply([{"role": "user", "content": drawn(i)}], max_tokens=TEXT_TOKENS, **greedy)
            for i in range(texts)
        ),
    )


def drawn(i: int) -> str:
    """What the i-th drawing is of; every third is a long story."""
    count, thing = ("one", "two")[i // 32 % 2], THINGS[i % 8]
    words = f"{count} {thing} on a {COLOURS[i // 8 % 4]} background"
    return f"{words} and {LONG}" if i % 3 == 2 else words


def to_pictures(count: int) -> list[Image.Image]:
    """Pictures of the embedded model's world."""
    return (
        [to_pil(scene) for scene in render(SceneSampler(3, "heldout").batch(count))]
        if count
        else []
    )


def own_ids(model: Model, asked: Work) -> list[Ids]:
    """What our engine emits, in the order of `Work.asked`."""
    results = sorted(model.run(list(asked.asked)), key=lambda result: result.index)
    assert all(result.error is None for result in results), [r.error for r in results]
    return [ids_of(result.token_ids) for result in results]


def ids_of(token_ids: Any) -> Ids:
    """The ids of an answer, or of a drawing's one picture."""
    nested = bool(token_ids) and not isinstance(token_ids[0], int)
    return list(token_ids[0] if nested else token_ids)


def to_vllm(model: Model, layout: TokenLayout, asked: Work) -> tuple[list[Any], list[Any]]:
    """The same requests as prompts and sampling parameters of vLLM."""
    pairs = [
        *(drawing(model, layout, draw) for draw in asked.drawings),
        *(caption(model, each) for each in asked.captions),
        *(text(model, each) for each in asked.texts),
    ]
    return [prompt for prompt, _ in pairs], [parameters for _, parameters in pairs]


def drawing(model: Model, layout: TokenLayout, draw: Draw) -> tuple[Any, Any]:
    """A drawing for vLLM."""
    assert draw.guidance is not None
    spec = model.family.generation_spec([Message("user", draw.prompt)], ImageOptions(draw.guidance))
    made = drawing_of(spec, layout)
    extra = {"extra_args": {GUIDANCE: made.guidance}, "detokenize": False}
    return {"prompt_token_ids": made.token_ids}, parameters(draw, made.tokens, **extra)


def caption(model: Model, asked: Caption) -> tuple[Any, Any]:
    """A caption for vLLM."""
    image = cast(Image.Image, asked.image)
    shown = (model.family.encode_image(image),)
    branch = model.family.chat_prompt([Message("user", asked.question or "", shown)], None)
    ids = reading_prompt(branch.token_ids, cast(Janus, model.family).template)
    prompt = {"prompt_token_ids": ids, "multi_modal_data": {"image": [image]}}
    return prompt, parameters(asked, TEXT_TOKENS)


def text(model: Model, asked: Reply) -> tuple[Any, Any]:
    """An answer for vLLM."""
    message = cast(Any, asked.messages[0])
    branch = model.family.chat_prompt([Message("user", message["content"])], None)
    return {"prompt_token_ids": list(branch.token_ids)}, parameters(asked, TEXT_TOKENS)


def parameters(asked: Any, tokens: int, **others: Any) -> Any:
    """Sampling parameters that mean what a request of ours says."""
    from vllm import SamplingParams

    top_p = 1.0 if asked.top_p is None else asked.top_p
    return SamplingParams(
        temperature=asked.temperature,
        top_k=asked.top_k or 0,
        top_p=top_p,
        seed=asked.seed,
        max_tokens=tokens,
        **others,
    )


def vllm_ids(llm: Any, prompts: Sequence[Any], sampling: Sequence[Any]) -> list[Ids]:
    """What vLLM emits in one batch."""
    outputs = llm.generate(list(prompts), list(sampling), use_tqdm=False)
    return [emitted(output) for output in outputs]


def emitted(output: Any) -> Ids:
    """The ids of a request's first sample, without the end of the sentence, as ours are."""
    (first,) = output.outputs
    ids = list(first.token_ids)
    return ids[:-1] if first.finish_reason == "stop" else ids
