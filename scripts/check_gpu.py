"""All checks that need a GPU, in one command of under ten minutes; speed is bench_gpu.py's.

    pip install --editable '.[cuda,train]'
    python scripts/check_gpu.py
    python scripts/check_gpu.py --train-minutes 5  # and go on with the default model

1. xformers' paged attention against torch's on the same K/V: decode and prefill, grouped heads.
2. The embedded model on CUDA in bfloat16 against float32 on the CPU: how many image tokens agree.
3. The embedded model on CUDA in int8 and in int4: how many of its drawings are right.
4. Decode steps replayed as CUDA graphs against launched ones: the same tokens, also with drafts.
5. A batch of packed sequences learned on CUDA and on the CPU: loss and gradients.
6. Weights updated in place, with recorded graphs: the tokens of a model loaded with them.
7. With --train-minutes, pretraining from runs/default (or anew), then a held-out evaluation.

It prints which attention backend is picked and why, then one line per check. A check that fails
leaves the others to run; the exit code is then 1.
--device cpu rehearses it at toy size.
"""

import argparse
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unitok
from benchmarks.attention import BLOCK, PagedAttention
from benchmarks.cache import own_cache
from benchmarks.engines import FixedWidth
from benchmarks.requests import guided
from unitok.driver import Driver
from unitok.emoji import captions
from unitok.emoji.evaluation import EmojiSuite, judge_all
from unitok.emoji.held_out import held_out_scenes
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import SuiteOptions
from unitok.families import open_folder
from unitok.loading import DEFAULT_FOLDER
from unitok.nn.compiled import why_not_compiled
from unitok.quantization.weights import QUANTIZATIONS, Quantization
from unitok.training.packing import pack
from unitok.training.sequences import TrainingSequence
from unitok.training.unified_loss import UnifiedLoss
from unitok_engine import Branch, Engine, EngineConfig, KVShape, Output
from unitok_engine.attention.backends import pick_backend

ROOT = Path(__file__).parent.parent
TABLES = ((9, 2), (4, 7), (1, 8, 3, 6, 5), (0, 10))  # blocks of four sequences, out of order
CONTEXTS = (70, 128, 300, 65)
HEAD_SIZE = 64

Check = Callable[[], bool]


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--train-minutes", type=float, default=0)
    return parser.parse_args()


def main() -> None:
    """Run all checks."""
    args = parse()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("check_gpu: no GPU here; --device cpu rehearses the checks")
    if args.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        print(f"attention: {picked_attention()}")
    with own_cache():
        passed = [attempt(check) for check in checks(args)]
    sys.exit(0 if all(passed) else 1)


def checks(args: argparse.Namespace) -> Iterator[Check]:
    """All checks, in order."""
    for heads, kv_heads in ((8, 8), (8, 2)):
        for queries in (1, 4, 48):
            yield partial(attention_agrees, args.device, heads, kv_heads, queries)
    yield partial(tokens_agree, args.device)
    for way in QUANTIZATIONS:
        yield partial(quantized_draws, args.device, way)
    for drawings in (1, 3, 8):
        yield partial(graphs_agree, args.device, drawings)
    for drawings in (1, 8):
        yield partial(graphs_agree, args.device, drawings, width=4)
    yield partial(compiled_agrees, args.device)
    yield partial(training_agrees, args.device)
    yield partial(update_agrees, args.device)
    if args.train_minutes:
        yield partial(train, args.device, args.train_minutes)


def picked_attention() -> str:
    """The backend for bfloat16 on CUDA, and why it is not xformers."""
    where = (KVShape(1, 8, HEAD_SIZE), BLOCK, torch.bfloat16, torch.device("cuda"))
    try:
        return pick_backend(*where, "xformers")
    except ValueError as error:
        return f"{pick_backend(*where)}, as {error}"


def attempt(check: Check) -> bool:
    """Whether a check passes; one that raises an error has failed."""
    try:
        return check()
    except Exception as error:  # one check that fails must not cost the others
        traceback.print_exc()
        print(f"a check failed ({type(error).__name__}: {error}); going on", flush=True)
        return False


def attention_agrees(device: str, heads: int, kv_heads: int, queries: int) -> bool:
    """Compare the device's own attention backend with the one that gathers K/V."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, HEAD_SIZE, device=device, generator=generator).to(dtype)

    rows = queries * len(TABLES)
    q, k, v = random(rows, heads), random(rows, kv_heads), random(rows, kv_heads)
    shape, where = KVShape(1, kv_heads, HEAD_SIZE), torch.device(device)
    caches = [
        PagedAttention(shape, TABLES, CONTEXTS, queries, dtype, where, backend)
        for backend in (None, "torch-gather")
    ]
    history = random(2, caches[0].blocks * BLOCK, kv_heads)
    outs = []
    for cache in caches:
        cache.fill(0, *history)
        outs.append(cache.attend(0, q, k, v).float())
    difference = float((outs[0] - outs[1]).abs().max())
    print(f"attention {heads}/{kv_heads} heads, {queries} queries: max difference {difference:.4f}")
    return difference < 0.02


def tokens_agree(device: str) -> bool:
    """Compare greedy drawings in bfloat16 on the device with float32 on the CPU."""
    one, other = unitok.load(device="cpu"), unitok.load(device=device, dtype="bfloat16")
    prompts = [captions.caption(scene) for scene in held_out_scenes(8)]
    drawn = [m.draw(prompts, temperature=0.0, seed=0) for m in (one, other)]
    tokenizer = one.family.model.image_tokenizer
    codes = [tokenizer.encode(torch.stack([pixels(r.image) for r in d])) for d in drawn]
    same = float((codes[0] == codes[1]).float().mean())
    right = right_drawings(other)
    print(f"embedded model: {same:.3f} of greedy image tokens alike; {right:.2f} of drawings right")
    return right > 0.5


def quantized_draws(device: str, way: Quantization) -> bool:
    """Whether the embedded model still draws what is asked with weights of few bits."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    with unitok.load(device=device, dtype=dtype, quantize=way) as model:
        right = right_drawings(model)
    print(f"embedded model in {way}: {right:.2f} of drawings right")
    return right > 0.5


def right_drawings(model: unitok.Model) -> float:
    """The share of held-out drawings that are right."""
    suite = EmojiSuite(SuiteOptions(limit=8))
    items = [item for item in suite.items() if isinstance(item.request, unitok.Draw)]
    return rate([bool(one.judgement.ok) for one in judge_all(model, suite, items)])


def pixels(image: Image.Image) -> torch.Tensor:
    """An RGB picture as [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def graphs_agree(device: str, drawings: int, width: int = 1) -> bool:
    """Compare the embedded decoder's tokens with CUDA graphs and without them.

    Six rows are padded to eight, and another number of rows may change a product's last bit and so
    a token here and there; otherwise the kernels are the same, and so must the tokens be. With
    drafts, drawings end at different steps, and the last ones are narrower: these are padded, too.

    Args:
        device: Where they are drawn.
        drawings: How many at once.
        width: How many tokens of a row a step runs; all but the first are guesses.
    """
    dtype = "bfloat16" if device == "cuda" else "float32"
    model = unitok.load(device=device, dtype=dtype).family.model
    requests = [guided(model, 20 + 9 * seed, 64, seed) for seed in range(drawings)]
    ids: list[list[int]] = []
    for cuda_graphs in (True, False):
        config = EngineConfig(max_context=1024, cuda_graphs=cuda_graphs)
        drafter = FixedWidth(width) if width > 1 else None
        outputs = Driver(Engine(model, config, drafter=drafter)).complete(requests)
        ids.append([id for output in outputs for id in output.token_ids])
    same = sum(a == b for a, b in zip(*ids, strict=True)) / len(ids[0])
    padded = drawings == 3 or width > 1
    shape = f"{2 * drawings} rows" if width == 1 else f"{2 * drawings} rows of {width} tokens"
    print(f"CUDA graphs, {shape}: {same:.3f} of tokens as without")
    return same > 0.5 if padded else same == 1


def compiled_agrees(device: str) -> bool:
    """Compare what compiled steps say of the embedded model's tokens with what plain ones say.

    Joined kernels round otherwise. With prompts of random tokens, as here, many tokens are about as
    likely, so in two bytes another one is soon sampled, and all behind it differ. Up to there, the
    log-probabilities of the tokens must be alike.
    """
    if (missing := why_not_compiled(torch.device(device))) is not None:
        print(f"compiled steps: not run, {missing}")
        return True
    dtype = "bfloat16" if device == "cuda" else "float32"
    outputs: list[list[Output]] = []
    for compile in (True, False):
        model = unitok.load(device=device, dtype=dtype, compile=compile).family.model
        requests = [
            replace(guided(model, 20 + 9 * seed, 64, seed), branch_logprobs=True)
            for seed in range(4)
        ]
        outputs.append(Driver(Engine(model, EngineConfig(max_context=1024))).complete(requests))
    gaps: list[float] = []
    for one, other in zip(*outputs, strict=True):
        pairs = zip(one.token_ids, other.token_ids, strict=True)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        told = zip(one.branch_logprobs or (), other.branch_logprobs or (), strict=True)
        gaps += [abs(a - b) for a, b in islice(told, alike)]
    gap = sum(gaps) / max(len(gaps), 1)
    print(
        f"compiled steps: {len(gaps)} of 256 tokens until the first other one of each drawing, "
        f"whose log-probabilities differ by {gap:.4f} in the mean"
    )
    return len(gaps) >= 4 and gap < 0.1


def training_agrees(device: str) -> bool:
    """Compare the loss of packed sequences and its gradients on the device with the CPU's.

    The second time with bfloat16 under autocast, as runs on a GPU train.
    """
    losses: list[float] = []
    norms: list[float] = []
    for where, mixed in (("cpu", False), (device, False), (device, True)):
        model = open_folder(DEFAULT_FOLDER, where, torch.float32).model
        model.requires_grad_(True).image_tokenizer.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        sequences = [
            TrainingSequence(
                Branch(tuple(torch.randint(600, (length,), generator=generator).tolist())),
                (False, *[True] * (length - 1)),
            )
            for length in (90, 33, 7)
        ]
        batch = pack(sequences, {"text": 1 / 127, "image": 1.0})
        with torch.autocast(where, torch.bfloat16, enabled=mixed):
            loss = UnifiedLoss(model, model.vocabulary.text_range)(batch, 0)
        loss.total.backward()
        gradients = [p.grad.float().norm().cpu() for p in model.parameters() if p.grad is not None]
        losses.append(float(loss.total.detach()))
        norms.append(float(torch.stack(gradients).norm()))
    shown = ", ".join(f"{a:.5f} ({b:.4f})" for a, b in zip(losses, norms, strict=True))
    print(f"loss (norm of gradients) on the CPU, on {device}, in bfloat16: {shown}")
    close = [
        abs(b / a - 1) < limit
        for values in (losses, norms)
        for a, b, limit in ((values[0], values[1], 0.01), (values[0], values[2], 0.1))
    ]
    return all(close)


def update_agrees(device: str) -> bool:
    """Compare tokens after an update in place with those of a model that is loaded so."""
    name = "decoder.norm.weight"
    family = open_folder(DEFAULT_FOLDER, device, torch.float32)
    weight = family.model.get_parameter(name)
    changed = weight.detach().clone() * 1.1
    prompts = [captions.caption(scene) for scene in held_out_scenes(2)]
    drawn: list[list[torch.Tensor]] = []
    with unitok.load(device=device, dtype="float32") as model:
        before = model.draw(prompts, seed=0)
        model.update_weights({name: changed})
        drawn.append([pixels(result.image) for result in model.draw(prompts, seed=0)])
    weight.copy_(changed)
    with unitok.Model(family) as model:
        drawn.append([pixels(result.image) for result in model.draw(prompts, seed=0)])
    same = [bool(torch.equal(a, b)) for a, b in zip(*drawn, strict=True)]
    moved = any(not torch.equal(pixels(a.image), b) for a, b in zip(before, drawn[0], strict=True))
    print(f"weights updated in place: {sum(same)} of {len(same)} drawings as of a new model")
    return all(same) and moved


def train(device: str, minutes: float) -> bool:
    """Go on with the default model for so long; whether the run ended well."""
    command = [
        sys.executable,
        str(ROOT / "scripts/pretrain.py"),
        "--out=runs/default",
        "--image-tokenizer=runs/tokenizer/checkpoint.pt",
        f"--minutes={minutes}",
        f"--device={device}",
    ]
    ended_well = subprocess.run(command).returncode == 0
    if ended_well:
        print("curves and held-out scores: runs/default")
    return ended_well


if __name__ == "__main__":
    main()
