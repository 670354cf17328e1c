"""Compare unitok with transformers at the full size of Janus-Pro-1B, in fp32, on random weights.

    python scripts/compare_full_size.py --out runs/full_size
    python scripts/compare_full_size.py --out runs/full_size --text-ids 16 --picture-ids 576

The first run writes OUT, random bf16 weights in transformers' Janus format (about 4 GB); see
run_full_size.py. One library after the other loads it in fp32, so 12 GB of memory suffice; with one
thread it takes three minutes, and ten with whole pictures.

Compared are the features of a picture, the logits behind it, the greedy answer to a question about
it, the greedy ids of two drawings at guidance 5, whose prompts differ in length, and the pixels of
a whole grid of codes. Both scale up the random embeddings first, or an id would hardly change what
follows it.

Prints a line per check; the exit code is 1 if one failed.
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
from unitok_engine import FixedPlan, FreePlan, IdRange, Request, Sampling

PROMPTS = ("two apples on a blue background", "a cat")
GREEDY = Sampling(temperature=0)
LOUDER = 50.0, 1000.0  # factors of the embeddings of text and of picture ids
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Asked:
    """What both libraries are given, as ids and pixels."""

    pixels: Tensor  # [1, 3, 384, 384]
    question: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    codes: Tensor  # [1, 576]


@dataclass(frozen=True)
class Got:
    """What one of them made of it."""

    features: Tensor  # [1, 576, d]
    answer: list[int]
    logits: Tensor  # [ids, vocabulary], of each id of the answer
    drawn: list[list[int]]
    painted: Tensor  # [1, 3, 384, 384]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--text-ids", type=int, default=16, help="of the answer")
    parser.add_argument("--picture-ids", type=int, default=32, help="of each drawing, up to 576")
    args = parser.parse_args()
    if not (args.out / "config.json").is_file():
        write_folder(args.out)
    asked, ours = ask_unitok(args.out, args.text_ids, args.picture_ids)
    gc.collect()
    theirs = ask_transformers(args.out, asked, args.text_ids, args.picture_ids)
    sys.exit(0 if report(ours, theirs) else 1)


def timed(what: str, run: Callable[[], Answer]) -> Answer:
    start = time.monotonic()
    answer = run()
    print(f"  {what}: {time.monotonic() - start:.1f} s", flush=True)
    return answer


def make_louder(*embeddings: torch.nn.Embedding) -> None:
    for embedding, factor in zip(embeddings, LOUDER, strict=True):
        embedding.weight.mul_(factor)


# --- unitok --------------------------------------------------------------------------------------


@torch.inference_mode()
def ask_unitok(folder: Path, text_ids: int, picture_ids: int) -> tuple[Asked, Got]:
    print("unitok", flush=True)
    model: Any = timed("load", lambda: unitok.load(folder, device="cpu", dtype="float32"))
    family, net = model.family, model.family.model
    make_louder(net.text_embedding, net.image_embedding)
    noise = np.random.default_rng(0).integers(0, 256, (300, 450, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    question = [Message("user", "how many apples?", (family.encode_image(image),))]
    line = family.chat_prompt(question, None)
    drawings = [
        family.generation_spec([Message("user", prompt)], ImageOptions(5.0)) for prompt in PROMPTS
    ]
    codes = torch.arange(0, 576 * 28, 28)[None]
    prompts = tuple(drawing.branches[0].token_ids for drawing in drawings)
    asked = Asked(family.preprocess(image)[None], line.token_ids, prompts, codes)
    features = timed("features", lambda: net.encode_images(asked.pixels))
    text, painted = net.vocabulary.text_range, net.vocabulary.image_range
    answer = timed(
        "answer",
        lambda: emitted(
            model,
            Request(
                (line,),
                FreePlan(IdRange(text.start, text.stop), frozenset(), text_ids),
                GREEDY,
            ),
        ),
    )[0]
    logits = timed("logits", lambda: forced_logits(net, line, features, answer))
    plan = FixedPlan(IdRange(painted.start, painted.stop), picture_ids)
    requests = [Request(d.branches, plan, GREEDY) for d in drawings]
    drawn = timed("drawings", lambda: emitted(model, *requests))
    drawn = [[id - painted.start for id in ids] for ids in drawn]
    pixels = timed("pixels", lambda: net.image_tokenizer.decode_raw(codes))
    return asked, Got(features, answer, logits, drawn, pixels)


def emitted(model: unitok.Model, *requests: Request) -> list[list[int]]:
    """The ids of requests that share the engine's steps."""
    return [list(output.ids) for output in model.driver.complete(requests)]


def forced_logits(net: Any, line: Any, features: Tensor, answer: list[int]) -> Tensor:
    """What the model thought of each id of its answer: one forward, without the engine."""
    ids = torch.tensor([*line.ids, *answer[:-1]])
    hidden = net.embed(ids)
    feature = line.features[0]
    hidden[feature.start : feature.start + feature.length] = features[0]
    hidden = net(hidden, torch.arange(len(ids)))
    return net.logits(hidden[-len(answer) :], net.vocabulary.text_range)


# --- transformers --------------------------------------------------------------------------------


@torch.inference_mode()
def ask_transformers(folder: Path, asked: Asked, text_ids: int, picture_ids: int) -> Got:
    from transformers import JanusForConditionalGeneration

    print("transformers", flush=True)
    model: Any = timed(
        "load",
        lambda: JanusForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(),
    )
    make_louder(model.get_input_embeddings(), model.model.generation_embeddings)
    features = timed(
        "features",
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
    return Got(features, answer, torch.cat(said.logits), drawn.tolist(), pixels)


def generation(asked: Asked, dict_out: bool = True, **settings: Any) -> Any:
    """Greedy; no id ends the answer. The default model's words have pad 0; BOS and begin-of-image
    are a drawing prompt's ends."""
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


def left_padded(lines: tuple[tuple[int, ...], ...], pad: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, lines))
    rows = [[pad] * (longest - len(line)) + list(line) for line in lines]
    mask = [[0] * (longest - len(line)) + [1] * len(line) for line in lines]
    return torch.tensor(rows), torch.tensor(mask)


# --- both ----------------------------------------------------------------------------------------


def report(ours: Got, theirs: Got) -> bool:
    """Print what differs; whether all is within its bar."""
    good = [
        close("features", ours.features, theirs.features, 1e-4),
        close("text logits", ours.logits, theirs.logits, 1e-4),
        same("answer", [ours.answer], [theirs.answer]),
        same("drawings", ours.drawn, theirs.drawn),
        close("pixels", ours.painted, theirs.painted, 1e-5),
    ]
    return all(good)


def close(name: str, ours: Tensor, theirs: Tensor, bar: float) -> bool:
    difference = float((ours - theirs).abs().max())
    spread = float(theirs.std())
    print(f"{name}: max difference {difference:.2g} (bar {bar:g}), standard deviation {spread:.2g}")
    return difference <= bar


def same(name: str, ours: list[list[int]], theirs: list[list[int]]) -> bool:
    count = sum(map(len, theirs))
    equal = sum(
        a == b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)
    )
    kinds = len({id for ids in theirs for id in ids})
    print(f"{name}: {equal} of {count} ids alike, {kinds} distinct ones among them")
    return ours == theirs


if __name__ == "__main__":
    main()
