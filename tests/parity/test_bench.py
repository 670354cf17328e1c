"""The benchmarks run, and their other sides do the same work as ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from benchmarks.comparisons import COMPARISONS, NEED_VLLM
from benchmarks.embedded import EmbeddedModel
from benchmarks.models import random_model
from benchmarks.peers.transformers_peer import JanusBatches, LlamaLoop
from benchmarks.peers.vllm_peer import VllmSteps, of_llama
from scripts.check_gpu import graphs_agree, quantized_draws
from unitok.nn.config import DecoderConfig
from unitok.quantization.weights import QUANTIZATIONS

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (*NEED_VLLM, "ray")  # which have installations of their own
TINY = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    max_positions=128,
)


@pytest.mark.parametrize("kv_heads", [1, 2])
@torch.inference_mode()
def test_the_loop_around_transformers_llama_computes_our_model(kv_heads: int):
    config = DecoderConfig(**{**vars(TINY), "kv_heads": kv_heads})
    model = random_model(config, 16, torch.float32)
    ids = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(0))
    loop = LlamaLoop(model)
    cache = DynamicCache(config=loop.llama.config)
    first = loop.hidden(ids[:, :5], cache)
    for i in (5, 6):
        last = loop.hidden(ids[:, i : i + 1], cache)
    whole = model(model.embed(ids), torch.arange(7).expand(3, 7))
    assert torch.allclose(first, whole[:, 4], atol=1e-5)
    assert torch.allclose(last, whole[:, 6], atol=1e-5)


@torch.inference_mode()
def test_both_sides_write_the_same_captions_and_as_many_picture_ids():
    ours = EmbeddedModel()
    peer = JanusBatches(ours)
    captions = ours.run(0, 3)
    reference = peer.captions(3).tolist()
    for output, row in zip(captions, reference, strict=True):
        assert row[: len(output.token_ids)] == list(output.token_ids)
    drawings = ours.run(2, 0)
    assert [len(output.token_ids) for output in drawings] == [peer.drawings(2).shape[1]] * 2


def test_a_vllm_that_does_not_start_says_why():
    with pytest.raises(RuntimeError, match="No module named 'vllm'"):
        VllmSteps(Path(sys.executable), of_llama(TINY), rows=2, context=8, steps=2, threads=1)


def run_script(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a script on one thread, where no GPU is to be seen."""
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    env = os.environ | own | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True
    )


@pytest.mark.timeout(330)
def test_the_rehearsal_writes_the_document_and_the_plot(tmp_path: Path):
    done = run_script(
        "scripts/bench.py", "--rehearse", "--skip", *LEFT_OUT, "--write", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmarks_throughput.png").read_bytes().startswith(b"\x89PNG")
    document = (tmp_path / "benchmarks.md").read_text()
    explained = re.findall(r"^- \*\*(\w+)\*\*: \w", document, re.MULTILINE)
    assert explained == [name for name in COMPARISONS if name not in LEFT_OUT]
    targets = re.findall(r"^\| .* \| [≥≤] [\d.]+ \| (?:yes|no) \|", document, re.MULTILINE)
    assert len(targets) == 50


def test_what_was_kept_is_not_run_again(tmp_path: Path):
    words = ("scripts/bench.py", "--rehearse", "--keep", str(tmp_path), "--only", "bookkeeping")
    first = run_script(*words)
    again = run_script(*words, "--write", str(tmp_path))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert f"bookkeeping, as {tmp_path / 'bookkeeping.json'} has it" in again.stdout
    rows = [line for line in first.stdout.splitlines() if line.startswith("| bookkeeping")]
    document = (tmp_path / "benchmarks.md").read_text().splitlines()
    assert rows and all(row in document for row in rows)
    real = run_script(*(word for word in words if word != "--rehearse"))
    assert real.returncode == 1
    assert "is of a rehearsal; keep this one's in another folder" in real.stderr
    (tmp_path / "bookkeeping.json").write_text("[{}]")
    damaged = run_script(*words)
    assert damaged.returncode == 1
    assert damaged.stderr.splitlines()[-1].endswith("is not what a comparison found; delete it")


def test_the_gpu_benchmark_can_be_rehearsed_without_a_gpu(tmp_path: Path):
    document = tmp_path / "gpu.md"
    options = ("--device", "cpu", "--rehearse", "--write", str(document))
    done = run_script("scripts/bench_gpu.py", *options)
    assert done.returncode == 0, done.stderr
    text = document.read_text()
    for part in ("1B, 1 at once", "7B, 2 at once", "attention of 1B", "VQ-16", "embedded model"):
        assert part in text


def test_checks_of_few_bits_and_of_wide_steps_can_be_rehearsed_without_a_gpu():
    assert all(quantized_draws("cpu", way) for way in QUANTIZATIONS)
    assert graphs_agree("cpu", drawings=2, width=4)


def test_without_a_gpu_the_scripts_for_it_say_how_to_rehearse():
    for script in ("bench_gpu", "check_gpu"):
        done = run_script(f"scripts/{script}.py")
        assert done.returncode == 1 and done.stderr.startswith(f"{script}: no GPU here")
        assert "Traceback" not in done.stderr
