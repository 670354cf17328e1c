"""Opens a folder on vLLM: its engine in processes of its own, and a `Model` over it."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from unitok.api import Model
from unitok.backends.vllm.checkpoint import check_servable
from unitok.backends.vllm.counting import Counting, logger_of
from unitok.backends.vllm.engine import VllmEngine, VllmSizes
from unitok.backends.vllm.layout import STREAMS, TokenLayout
from unitok.backends.vllm.loop import LoopThread
from unitok.backends.vllm.options import VllmOptions
from unitok.backends.vllm.request import Translator
from unitok.backends.vllm.starting import started
from unitok.checkpoints.folders import first_line
from unitok.checkpoints.weights import ImageTokenizerOnly
from unitok.families import Family, open_folder
from unitok.families.janus import Janus
from unitok.image_decoder import ImageDecoder
from unitok.precision import Choice, name_of

PATIENCE = 30.0  # seconds that vLLM's processes have to end
PLUGIN = "unitok"  # the name of our entry points in all of vLLM's groups


@dataclass(frozen=True)
class Opening:
    """What is to be opened on vLLM.

    Attributes:
        folder: The checkpoint's.
        dtype: Chooses the type that vLLM computes in and pictures are decoded in; on its device
            they are decoded. vLLM's own devices are those that its build has.
        memory: Bytes of the K/V pool; None leaves it to vLLM.
        strict: Whether unknown settings are refused.
        options: vLLM's own.
    """

    folder: Path
    dtype: Choice
    memory: int | None
    strict: bool
    options: VllmOptions

    def load(self) -> Model:
        """Start vLLM's processes, and open what stays in this one.

        Raises:
            ImportError: vLLM is not installed here, or does not know unitok.
            ValueError: vLLM cannot serve the folder, or not with these options.
            RuntimeError: Its processes did not start.
            KeyboardInterrupt: It was interrupted. The start is ended, and no process is left.
        """
        check_environment()
        check_servable(self.folder)
        kind = ImageTokenizerOnly(self.dtype)
        family = open_folder(self.folder, str(self.dtype.device), kind, self.strict)
        counting, thread = Counting(), LoopThread("unitok-vllm")
        start = partial(self._start, name_of(family.model.dtype), counting)
        try:
            client = started(thread, start, _shut_down)
        except ValueError as error:  # a setting, before a process began
            raise ValueError(f"{self.folder}: {reason_of(error)}") from None
        end = _Ending(client, thread)
        engine = make_engine(client, thread.loop, family, counting, end)
        return make_model(family, engine, self.dtype.device, str(self.dtype.made))

    async def _start(self, dtype: str, counting: Counting, stopped: threading.Event) -> Any:
        """A client of a new engine, which belongs to the running loop.

        Raises:
            RuntimeError: It was stopped before a process began.
        """
        from vllm import AsyncEngineArgs  # pyright: ignore
        from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore

        if stopped.is_set():  # while vLLM was imported
            raise RuntimeError("vLLM was not to start any more")
        own = {name: value for name, value in self.options.items() if name != "text_only"}
        args = AsyncEngineArgs(
            model=str(self.folder),
            dtype=dtype,
            kv_cache_memory_bytes=self.memory,
            # With raw ones, a drawing's rows would hold what guidance mixes.
            logprobs_mode="processed_logprobs",
            scheduling_policy="priority",
            generation_config="vllm",  # each request says all of its sampling
            hf_overrides={STREAMS: 1} if self.options.get("text_only") else {},
            disable_log_stats=True,
            **own,
        )
        return AsyncLLM.from_engine_args(args, stat_loggers=[logger_of(counting)])


class _Ending:
    """Ends vLLM's processes once: with the model, or with the interpreter."""

    def __init__(self, client: Any, thread: LoopThread) -> None:
        self._end = weakref.finalize(self, _end, client, thread)

    def __call__(self) -> None:
        self._end()


def _end(client: Any, thread: LoopThread) -> None:
    thread.end(_shut_down(client))


async def _shut_down(client: Any) -> None:
    """End the engine's processes, when nobody listens for their outputs any more."""
    if client.output_handler is not None:  # else it would report their end as a failure
        client.output_handler.cancel()
        await asyncio.sleep(0)
    client.shutdown(timeout=PATIENCE)


def make_engine(
    client: Any,
    loop: asyncio.AbstractEventLoop,
    family: Family,
    counting: Counting | None = None,
    end: Any = lambda: None,
) -> VllmEngine:
    """A client of vLLM's engine as one that a model can run on.

    Args:
        client: The client.
        loop: Where it runs.
        family: The model. Its context becomes no longer than vLLM's.
        counting: Counts vLLM's steps.
        end: Ends vLLM's processes.
    """
    config = client.vllm_config
    layout = TokenLayout.of_config(config.model_config.hf_config)
    family.max_context = min(family.max_context, config.model_config.max_model_len)
    priorities = config.scheduler_config.policy == "priority"
    template = cast(Janus, family).template  # vLLM serves no other family
    translator = Translator(layout, template, family.max_context, priorities)
    return VllmEngine(client, loop, translator, sizes_of(config, family), counting, end)


def sizes_of(config: Any, family: Family) -> VllmSizes:
    """The sizes that vLLM settled on.

    Args:
        config: A `VllmConfig` of an engine that runs.
        family: The model.
    """
    cache, copies = config.cache_config, config.parallel_config.data_parallel_size
    layout = TokenLayout.of_config(config.model_config.hf_config)
    token = layout.streams * family.model.kv_shape.bytes_per_token(family.model.dtype)
    blocks = cache.num_gpu_blocks or 0  # of all copies
    return VllmSizes(
        memory=blocks * cache.block_size * token,
        num_blocks=blocks,
        block_size=cache.block_size,
        max_running=2 * copies * config.scheduler_config.max_num_seqs,
    )


def make_model(
    family: Family, engine: VllmEngine, device: torch.device, precision: str | None = None
) -> Model:
    """A model that runs on vLLM and decodes its pictures here, while vLLM goes on.

    Args:
        family: The model, of which only the image tokenizer need be loaded.
        engine: Runs it.
        device: Where pictures are decoded.
        precision: What `info` says of the precision.
    """
    decoder = ImageDecoder(device, background=True)
    return Model(family, image_decoder=decoder, precision=precision, other=engine)


def reason_of(error: ValueError) -> str:
    """What vLLM's config refuses, in a line: pydantic's errors wrap what was raised."""
    if not (wrapped := getattr(error, "errors", None)):
        return first_line(error)
    return first_line(ValueError(wrapped()[0]["msg"].removeprefix("Value error, ")))


def check_environment() -> None:
    """Check that vLLM is here, and will find our plugin.

    Raises:
        ImportError: It is not, or will not; the message says what to do.
    """
    if find_spec("vllm") is None:
        raise ImportError(
            "backend='vllm' needs vLLM, which is not installed here: install unitok-engine into an "
            "environment that has vLLM (docs/guide/vllm.md)"
        )
    if PLUGIN not in _names(entry_points(group="vllm.general_plugins")):
        raise ImportError(
            "vLLM does not find unitok's plugin, as unitok-engine is not installed in this "
            "environment: pip install --no-deps unitok-engine (docs/guide/vllm.md)"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        raise ImportError(
            f"VLLM_PLUGINS is {allowed!r}, so vLLM does not load unitok's plugin: add {PLUGIN}"
        )


def _names(points: Sequence[Any] | Any) -> set[str]:
    return {point.name for point in points}
