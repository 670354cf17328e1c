"""vLLM in the middle of decoding, one step for each line on standard input.

    .venv-vllm/bin/python benchmarks/peers/vllm_child.py FOLDER ROWS CONTEXT STEPS [PAINT]

This file runs in an environment of its own and imports nothing of ours. FOLDER holds config.json,
of a Llama or, with PAINT, of a Janus that our plugin serves; the weights are random. PAINT is the
id with which a drawing's prompt ends. When ROWS sequences of CONTEXT tokens each decode, vLLM's
version is printed, and then "done" after each of up to STEPS steps. What vLLM itself prints goes to
standard error.
"""

# pyright: reportMissingImports=false

import os
import random
import sys
from typing import Any

BLOCK = 128  # tokens of a K/V block: vLLM's own choice on a CPU


def main() -> None:
    """Start vLLM, then run one step for each line on standard input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from vllm import __version__

    folder, *numbers = sys.argv[1:]
    engine = prepare(folder, *map(int, numbers))
    print(__version__, file=answers)
    for _ in sys.stdin:
        engine.step()
        print("done", file=answers)


def prepare(folder: str, rows: int, context: int, steps: int, paint: int | None = None):
    """An engine in which every sequence decodes."""
    from transformers import AutoConfig
    from vllm import LLM, SamplingParams

    config: Any = AutoConfig.from_pretrained(folder).get_text_config()
    width = config.num_key_value_heads * config.head_dim * (1 if paint is None else 2)
    token_bytes = 2 * 2 * config.num_hidden_layers * width  # K and V, in bf16
    blocks = rows * -(-(context + steps + 16) // BLOCK) + 2
    llm = LLM(
        model=folder,
        load_format="dummy",
        skip_tokenizer_init=paint is None,
        dtype="bfloat16",
        max_model_len=context + steps + 16,
        max_num_seqs=rows,
        max_num_batched_tokens=2048,
        kv_cache_memory_bytes=blocks * BLOCK * token_bytes,
        enable_prefix_caching=False,
        enforce_eager=True,  # compiled, a step takes as long, and a start a minute more
    )
    sampling = SamplingParams(
        temperature=0, max_tokens=steps + 8, ignore_eos=True, detokenize=False
    )
    chance = random.Random(0)
    for row in range(rows):
        ids = [chance.randrange(8, config.vocab_size) for _ in range(context)]
        if paint is not None:
            ids[-1] = paint
        llm.llm_engine.add_request(str(row), {"prompt_token_ids": ids}, sampling)
    fill(llm.llm_engine, rows)
    return llm.llm_engine


def fill(engine, rows: int) -> None:
    """Admit the prompts without computing them, and set all K/V to a constant.

    It costs the same to read as any other, and our side does the same.
    """
    import torch

    runner = engine.model_executor.driver_worker.worker.model_runner
    width, dtype = runner.inputs_embeds_size, torch.bfloat16
    # Ones, so that the last number, our mode of a drawing, is one.
    runner.model.forward = lambda positions, **_: torch.ones(len(positions), width, dtype=dtype)
    begun: set[str] = set()
    while len(begun) < rows:
        begun.update(output.request_id for output in engine.step())
    del runner.model.forward
    for tensor in runner.kv_caches:
        tensor.fill_(0.01)


if __name__ == "__main__":
    main()
