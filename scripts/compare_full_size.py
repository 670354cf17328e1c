"""Compare unitok with transformers at the full size of Janus-Pro-1B, in fp32, on random weights.

    python scripts/compare_full_size.py --out runs/full_size
    python scripts/compare_full_size.py --out runs/full_size --text-ids 16 --picture-ids 576

The first run writes OUT, random bf16 weights in transformers' Janus format (about 4 GB); see
run_full_size.py. One library after the other loads it in fp32, so 12 GB of memory suffice; with one
thread it takes three minutes, and ten with whole pictures.

It compares the embeddings of a picture, the logits after it, the greedy answer to a question about
it, the greedy image tokens of two drawings at guidance 5, whose prompts differ in length, and the
pixels of a whole grid of codes. Both libraries scale up the random embeddings first; else a token
would hardly change what follows it.

It prints a line per check; the exit code is 1 if one failed.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import unitok
from scripts.run_full_size import write_folder
from unitok.families import ImageOptions
from unitok.prompt import Message
from unitok_engine import Branch, FixedPlan, FreePlan, IdRange, Request, Sampling

PROMPTS = ("two apples on a blue background", "a cat")
GREEDY = Sampling(temperature=0)
SCALES = 50.0, 1000.0  # of the embeddings of text and of image tokens
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Inputs:
    """What both libraries are given.

    Attributes:
        pixels: A picture to read, [1, 3, 384, 384].
        question: Token ids of a question about it.
        prompts: Token ids of the drawings' prompts.
        codes: A grid of codes to decode, [1, 576].
    """

    pixels: Tensor
    question: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    codes: Tensor


@dataclass(frozen=True)
class Outputs:
    """What one library makes of the inputs.

    Attributes:
        embeddings: Of the picture, [1, 576, d].
        answer: Token ids of the greedy answer.
        logits: Of each token of the answer, [n, vocabulary].
        drawn: Codes of each drawing.
        decoded: The pixels of the grid, [1, 3, 384, 384].
    """

    embeddings: Tensor
    answer: list[int]
    logits: Tensor
    drawn: list[list[int]]
    decoded: Tensor


def main() -> None:
    """Ask both libraries, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--text-ids", type=int, default=16, help="tokens of the answer")
    parser.add_argument(
        "--picture-ids", type=int, default=32, help="image tokens of each drawing, up to 576"
    )
    args = parser.parse_args()
    if not (args.out / "config.json").is_file():
        write_folder(args.out)
    asked, ours = ask_unitok(args.out, args.text_ids, args.picture_ids)
    gc.collect()
    reference = ask_transformers(args.out, asked, args.text_ids, args.picture_ids)
    sys.exit(0 if report(ours, reference) else 1)


def timed(what: str, run: Callable[[], Answer]) -> Answer:
    """Call a function, and print how long it took."""
    start = time.monotonic()
    answer = run()
    print(f"  {what}: {time.monotonic() - start:.1f} s", flush=True)
    return answer


def scale_up(*embeddings: torch.nn.Embedding) -> None:
    """Scale the random embeddings of text and of image tokens."""
    for embedding, factor in zip(embeddings, SCALES, strict=True):
        embedding.weight.mul_(factor)


# --- unitok --------------------------------------------------------------------------------------


@torch.inference_mode()
def ask_unitok(folder: Path, text_ids: int, picture_ids: int) -> tuple[Inputs, Outputs]:
    """The inputs, and what unitok makes of them."""
    print("unitok", flush=True)
    model: Any = timed("load", lambda: unitok.load(folder, device="cpu", dtype="float32"))
    family, net = model.family, model.family.model
    scale_up(net.text_embedding, net.image_embedding)
    noise = np.random.default_rng(0).integers(0, 256, (300, 450, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    question = [Message("user", "how many apples?", (family.encode_image(image),))]
    line = family.chat_prompt(question, None)
    drawings = [
        family.generation_spec([Message("user", prompt)], ImageOptions(5.0)) for prompt in PROMPTS
    ]
    codes = torch.arange(0, 576 * 28, 28)[None]
    prompts = tuple(drawing.branches[0].token_ids for drawing in drawings)
    asked = Inputs(family.preprocess(image)[None], line.token_ids, prompts, codes)
    features = timed("embeddings", lambda: net.encode_images(asked.pixels))
    text, image = net.vocabulary.text_range, net.vocabulary.image_range
    answer = timed(
        "answer",
        lambda: emitted(
            model,
            Request(
                (Branch(line.token_ids, 1.0, line.embeddings),),
                FreePlan(IdRange(text.start, text.stop), frozenset(), text_ids),
                GREEDY,
            ),
        ),
    )[0]
    logits = timed("logits", lambda: forced_logits(net, line, features, answer))
    plan = FixedPlan(IdRange(image.start, image.stop), picture_ids)
    requests = [Request(d.branches, plan, GREEDY) for d in drawings]
    drawn = timed("drawings", lambda: emitted(model, *requests))
    drawn = [[id - image.start for id in ids] for ids in drawn]
    pixels = timed("pixels", lambda: net.image_tokenizer.decode_raw(codes))
    return asked, Outputs(features, answer, logits, drawn, pixels)


def emitted(model: unitok.Model, *requests: Request) -> list[list[int]]:
    """The token ids that requests give when they share the engine's steps."""
    return [list(output.token_ids) for output in model.driver.complete(requests)]


def forced_logits(net: Any, line: Any, features: Tensor, answer: list[int]) -> Tensor:
    """The logits of each token of an answer, by one forward without the engine."""
    ids = torch.tensor([*line.token_ids, *answer[:-1]])
    hidden = net.embed(ids)
    feature = line.embeddings[0]
    hidden[feature.start : feature.start + feature.length] = features[0]
    hidden = net(hidden, torch.arange(len(ids)))
    return net.logits(hidden[-len(answer) :], net.vocabulary.text_range)


# --- transformers --------------------------------------------------------------------------------


@torch.inference_mode()
def ask_transformers(folder: Path, asked: Inputs, text_ids: int, picture_ids: int) -> Outputs:
    """What transformers makes of the same inputs."""
    from transformers import JanusForConditionalGeneration

    print("transformers", flush=True)
    model: Any = timed(
        "load",
        lambda: JanusForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(),
    )
    scale_up(model.get_input_embeddings(), model.model.generation_embeddings)
    features = timed(
        "embeddings",
        lambda: model.model.get_image_features(asked.pixels, return_dict=True).pooler_output,
    )
    ids = torch.tensor([asked.question])
    said = timed(
        "answer and logits",
        lambda: model.generate(
            input_ids=ids,
            pixel_values=asked.pixels,
            attention_mask=torch.ones_like(ids),
            generation_config=generation(asked, max_new_tokens=text_ids, output_logits=True),
        ),
    )
    model.model.vision_model.config.num_image_tokens = picture_ids  # else always 576
    rows, mask = left_padded(asked.prompts, pad=generation(asked).pad_token_id)
    drawn = timed(
        "drawings",
        lambda: model.generate(
            input_ids=rows,
            attention_mask=mask,
            generation_mode="image",
            generation_config=generation(asked, guidance_scale=5, dict_out=False),
        ),
    )
    pixels = timed("pixels", lambda: model.decode_image_tokens(asked.codes)).permute(0, 3, 1, 2)
    answer = said.sequences[0, ids.shape[1] :].tolist()
    return Outputs(features, answer, torch.cat(said.logits), drawn.tolist(), pixels)


def generation(asked: Inputs, dict_out: bool = True, **settings: Any) -> Any:
    """Settings of greedy generation in which no token ends the answer.

    The pad is token 0 of the default model's tokenizer. BOS and begin-of-image are the ends of a
    drawing's prompt.
    """
    from transformers import GenerationConfig

    config: Any = GenerationConfig(
        do_sample=False,
        bos_token_id=asked.prompts[0][0],
        pad_token_id=0,
        return_dict_in_generate=dict_out,
        **settings,
    )
    config.generation_kwargs = {"boi_token_id": asked.prompts[0][-1]}
    return config


def left_padded(prompts: tuple[tuple[int, ...], ...], pad: int) -> tuple[Tensor, Tensor]:
    """Prompts as rows of one length, and a mask of what is no pad, [B, L] both."""
    longest = max(map(len, prompts))
    rows = [[pad] * (longest - len(ids)) + list(ids) for ids in prompts]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(rows), torch.tensor(mask)


# --- both ----------------------------------------------------------------------------------------


def report(ours: Outputs, reference: Outputs) -> bool:
    """Print what differs, and return whether everything is within its tolerance."""
    good = [
        close("embeddings", ours.embeddings, reference.embeddings, 1e-4),
        close("text logits", ours.logits, reference.logits, 1e-4),
        same("answer", [ours.answer], [reference.answer]),
        same("drawings", ours.drawn, reference.drawn),
        close("pixels", ours.decoded, reference.decoded, 1e-5),
    ]
    return all(good)


def close(name: str, ours: Tensor, reference: Tensor, tolerance: float) -> bool:
    """Print the largest difference, and return whether it is within the tolerance."""
    difference = float((ours - reference).abs().max())
    spread = float(reference.std())
    print(
        f"{name}: max difference {difference:.2g} (tolerance {tolerance:g}), "
        f"standard deviation {spread:.2g}"
    )
    return difference <= tolerance


def same(name: str, ours: list[list[int]], reference: list[list[int]]) -> bool:
    """Print how many tokens are alike, and return whether all are."""
    count = sum(map(len, reference))
    equal = sum(
        a == b for x, y in zip(ours, reference, strict=True) for a, b in zip(x, y, strict=True)
    )
    kinds = len({id for ids in reference for id in ids})
    print(f"{name}: {equal} of {count} tokens alike, {kinds} distinct ones among them")
    return ours == reference


if __name__ == "__main__":
    main()
