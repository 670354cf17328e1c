"""All checks that need a GPU, in one command of under ten minutes; speed is bench_gpu.py's.

    pip install '.[cuda,train]'
    python scripts/check_gpu.py
    python scripts/check_gpu.py --train-minutes 5  # and go on with the default model

1. xformers' paged attention against torch's on the same K/V: decode and prefill, grouped heads.
2. The embedded model on CUDA in bfloat16 against float32 on the CPU: how many picture ids agree.
3. Decode steps replayed as CUDA graphs against launched ones: the same ids.
4. With --train-minutes, pretraining from runs/default (or anew), then a held-out evaluation.

Prints one line per check; the exit code is 1 if one failed. --device cpu rehearses it at toy size.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unitok
from unitok.driver import Driver
from unitok.emoji import captions
from unitok.evaluation import bench
from unitok.evaluation.emoji import draw_held_out, held_out_scenes, rate
from unitok_engine import Engine, EngineConfig, KVCache, KVShape
from unitok_engine.batch import Batch

ROOT = Path(__file__).parent.parent


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--train-minutes", type=float, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("check_gpu: no GPU here; --device cpu rehearses the checks")
    if args.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    passed = [
        attention_agrees(args.device, heads, kv_heads, queries)
        for heads, kv_heads in ((8, 8), (8, 2))
        for queries in (1, 4, 48)
    ]
    passed.append(ids_agree(args.device))
    passed += [graphs_agree(args.device, drawings) for drawings in (1, 3, 8)]
    if args.train_minutes:
        train(args)
    sys.exit(0 if all(passed) else 1)


def attention_agrees(device: str, heads: int, kv_heads: int, queries: int) -> bool:
    """The device's own backend against the gathering one: four lines, paged out of order."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    contexts, block, size = [70, 128, 300, 65], 64, 64
    generator = torch.Generator(device).manual_seed(0)
    tables = [[9, 2], [4, 7], [1, 8, 3, 6, 5], [0, 10]]
    batch = last_runs(tables, contexts, queries, block)
    rows = queries * len(tables)
    q = torch.randn(rows, heads, size, device=device, generator=generator).to(dtype)
    k, v = (
        torch.randn(rows, kv_heads, size, device=device, generator=generator).to(dtype)
        for _ in range(2)
    )
    history = torch.randn(2, 12 * block, kv_heads, size, device=device, generator=generator)
    outs = []
    for backend in (None, "torch-gather"):
        shape = KVShape(layers=1, kv_heads=kv_heads, head_dim=size)
        cache = KVCache(shape, 11, block, dtype, torch.device(device), backend=backend)
        places = cache.layout.places(torch.arange(11 * block, device=device))
        cache.layout.write(0, places, *history[:, : 11 * block].to(dtype))
        outs.append(cache.view(batch.to(torch.device(device))).attend(0, q, k, v).float())
    difference = float((outs[0] - outs[1]).abs().max())
    good = difference < 0.02
    print(f"attention {heads}/{kv_heads} heads, {queries} queries: max difference {difference:.4f}")
    return good


def last_runs(tables: list[list[int]], contexts: list[int], queries: int, block: int) -> Batch:
    """A batch of each line's last `queries` ids; only what attention looks at is real."""
    slots = [
        table[i // block] * block + i % block
        for table, length in zip(tables, contexts, strict=True)
        for i in range(length - queries, length)
    ]
    flat = torch.tensor(slots)
    count = len(tables)
    return Batch(flat, flat, flat, (queries,) * count, tuple(contexts), tuple(tables), (), ())


def ids_agree(device: str) -> bool:
    """Greedy drawings in bfloat16 on the device against float32 on the CPU."""
    one, other = unitok.load(device="cpu"), unitok.load(device=device, dtype="bfloat16")
    prompts = [captions.caption(scene) for scene in held_out_scenes(8)]
    drawn = [m.draw(prompts, temperature=0.0, seed=0) for m in (one, other)]
    tokenizer = one.family.model.image_tokenizer
    codes = [tokenizer.encode(torch.stack([pixels(r.image) for r in d])) for d in drawn]
    same = float((codes[0] == codes[1]).float().mean())
    right = rate([d.ok for d in draw_held_out(other, 8)])
    print(f"embedded model: {same:.3f} of greedy picture ids alike; {right:.2f} of drawings right")
    return right > 0.5


def pixels(image: Image.Image) -> torch.Tensor:
    """An RGB picture as [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def graphs_agree(device: str, drawings: int) -> bool:
    """The embedded decoder's ids with CUDA graphs and without them, drawings and texts together.

    Six rows are padded to eight, and another number of rows may change a product's last bit and so
    an id here and there; otherwise the kernels are the same, and so must the ids be.
    """
    dtype = "bfloat16" if device == "cuda" else "float32"
    model = unitok.load(device=device, dtype=dtype).family.model
    requests = [bench.guided(model, 20 + 9 * seed, 64, seed) for seed in range(drawings)]
    ids: list[list[int]] = []
    for cuda_graphs in (True, False):
        config = EngineConfig(max_context=1024, cuda_graphs=cuda_graphs)
        outputs = Driver(Engine(model, config)).complete(requests)
        ids.append([id for output in outputs for id in output.token_ids])
    same = sum(a == b for a, b in zip(*ids, strict=True)) / len(ids[0])
    padded = drawings == 3
    print(f"CUDA graphs, {2 * drawings} rows: {same:.3f} of ids as without")
    return same > 0.5 if padded else same == 1


def train(args: argparse.Namespace) -> None:
    command = [
        sys.executable,
        str(ROOT / "scripts/pretrain.py"),
        "--out=runs/default",
        "--image-tokenizer=runs/tokenizer/checkpoint.pt",
        f"--minutes={args.train_minutes}",
        f"--device={args.device}",
    ]
    subprocess.run(command, check=True)
    print("curves and held-out scores: runs/default")


if __name__ == "__main__":
    main()
