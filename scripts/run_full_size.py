"""Run a model of the full Janus-Pro-1B shape, with random weights, through the one engine.

    python scripts/run_full_size.py --out runs/full_size
    python scripts/run_full_size.py --out runs/full_size --ids 16

The first run writes OUT, a folder in transformers' Janus format (about 4 GB, bf16); later ones
reuse it. One caption and one guided drawing then share every step. Both stop after --ids tokens, so
a few minutes and 12 GB of memory suffice. Their text and their picture mean nothing.
"""

import argparse
import json
import platform
import shutil
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import unitok
from unitok.api import Model
from unitok.checkpoints.weights import parameters, write_tensors
from unitok.families import ImageOptions, janus
from unitok.loading import DEFAULT_FOLDER
from unitok.nn.config import JANUS_PRO_1B
from unitok.nn.model import UnifiedModel
from unitok.prompt import Message
from unitok_engine import (
    Branch,
    Engine,
    EngineConfig,
    FixedPlan,
    FreePlan,
    IdRange,
    Request,
    Sampling,
    StepRecord,
)
from unitok_tokenizers.text import TextTokenizer


class Watch:
    """An observer that records what each forward ran."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []

    def stepped(self, record: StepRecord, /) -> None:
        """Keep the record of a step."""
        self.steps.append(record)


def main() -> None:
    """Write the folder if need be, load it, and run two requests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--ids", type=int, default=8, help="tokens per request")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    if not (args.out / "model.safetensors").is_file():
        with Timed("written"):
            write_folder(args.out)
    print(f"model.safetensors: {(args.out / 'model.safetensors').stat().st_size / 1e9:.2f} GB")
    with Timed("loaded"):
        model = unitok.load(args.out, device="cpu", dtype="bfloat16")
    info = model.info()
    print(f"{info.parameters / 1e9:.2f} billion parameters, {info.dtype}, on {info.device}")
    print(f"K/V pool: {info.kv_memory / 2**20:.0f} MiB for {info.kv_tokens} tokens")
    run(model, args.ids)


class Timed:
    """Prints how long a block took."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *error: object) -> None:
        print(f"{self.what} in {time.monotonic() - self.start:.1f} s")


def write_folder(folder: Path) -> None:
    """Write random weights of Janus-Pro-1B's sizes, with the default model's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    placeholder = TextTokenizer.load(DEFAULT_FOLDER).id(janus.Template.placeholder)
    janus.save_config(JANUS_PRO_1B, folder, placeholder, torch.bfloat16)
    preprocessor = janus.Preprocessor(JANUS_PRO_1B.vision.image_size).to_json("transformers")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEFAULT_FOLDER / name, folder / name)
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = parameters(UnifiedModel(JANUS_PRO_1B))
    names = {janus.layout(key).name: value for key, value in shapes.items()}
    write_tensors({name: random_weight(name, like) for name, like in names.items()}, folder)


def random_weight(name: str, like: Tensor) -> Tensor:
    """A random tensor of a shape, or ones and zeros for a norm.

    It is bf16 from the start, because fp32 would need twice the memory.
    """
    if "norm" in name:
        return (torch.zeros if name.endswith("bias") else torch.ones)(like.shape).bfloat16()
    return torch.randn(like.shape, dtype=torch.bfloat16) * 0.02


def requests(model: Model, ids: int) -> tuple[Request, Request]:
    """A caption of a grey picture and a guided drawing, both of `ids` tokens."""
    family = model.family
    vocabulary = family.model.vocabulary
    picture = family.encode_image(Image.new("RGB", family.picture_size, "grey"))
    asked = family.chat_prompt([Message("user", family.defaults.question, (picture,))], None)
    text, image = vocabulary.text_range, vocabulary.image_range
    caption = Request(
        (Branch(asked.token_ids, embeddings=asked.embeddings),),
        FreePlan(IdRange(text.start, text.stop), frozenset(), ids),
        Sampling(temperature=0.0),
    )
    drawn = family.generation_spec(
        [Message("user", "two apples on a blue background")], ImageOptions(5.0)
    )
    drawing = Request(
        drawn.branches,
        FixedPlan(IdRange(image.start, image.stop), ids),
        Sampling(seed=0),
    )
    return caption, drawing


def run(model: Model, ids: int) -> None:
    """Run both requests in one engine, and print what each forward did."""
    watch = Watch()
    config = EngineConfig(max_context=model.info().context)
    engine = Engine(model.family.model, config, watch)
    for request, name in zip(requests(model, ids), ("caption", "drawing"), strict=True):
        lengths = [len(branch.token_ids) for branch in request.branches]
        print(f"request {engine.add(request)}: {name}, prompts of {lengths} tokens, {ids} to come")
    start = time.monotonic()
    while engine.has_work:
        began = time.monotonic()
        outputs = engine.step()
        new = {output.request_id: list(output.token_ids) for output in outputs}
        seconds = time.monotonic() - began
        rows = list(watch.steps[-1].query_lengths)
        print(f"forward {len(watch.steps)}: rows of {rows} tokens, new {new}, {seconds:.2f} s")
        for output in outputs:
            if output.finished:
                print(f"request {output.request_id} ended: {output.finish_reason}")
    print(f"{len(watch.steps)} forwards in {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
