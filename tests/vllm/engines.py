# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""vLLM engines of toy size, one after another in one process."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.vllm.work import Ids, Work, to_vllm, vllm_ids
from unitok.api import Model
from unitok.backends.vllm.layout import TokenLayout

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 128,
    "max_num_batched_tokens": 1024,
    "block_size": 32,  # tokens: the smallest on a CPU
    "enable_prefix_caching": False,
    "disable_log_stats": False,
}


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Any]:
    """An engine for a folder."""
    llm = start(folder, options)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        clean()


def start(folder: Path, options: dict[str, Any]) -> Any:
    """An engine; if it cannot be made, its parts are gone before another one is."""
    from vllm import LLM

    try:
        return LLM(str(folder), **{**OPTIONS, **options})
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        clean()
        raise


def clean() -> None:
    """Let go of what vLLM keeps in a process."""
    from vllm.distributed import cleanup_dist_env_and_memory

    gc.collect()
    cleanup_dist_env_and_memory()


def ids_of(llm: Any, model: Model, asked: Work) -> list[Ids]:
    """The ids of an engine for our requests, in one batch."""
    return vllm_ids(llm, *to_vllm(model, layout_of(llm), asked))


def layout_of(llm: Any) -> TokenLayout:
    """The ids of the model that an engine serves."""
    return TokenLayout.of_config(llm.llm_engine.model_config.hf_config)


def counted(llm: Any, name: str) -> int:
    """One of vLLM's counters, such as "num_preemptions"."""
    return sum(m.value for m in llm.get_metrics() if m.name == f"vllm:{name}")
