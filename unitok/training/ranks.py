"""The processes of a run and their devices, which `accelerate` knows.

One process trains alone. Several, which torchrun starts, each compute a part of every update: with
DDP each holds the whole model, with FSDP2 (https://arxiv.org/abs/2304.11277) a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unitok.extras import need
from unitok.nn.layers import Block
from unitok.training.losses import Loss

Sharding = Literal["none", "fsdp"]


class Anchored(nn.Module):
    """A loss to which all trained weights belong, whatever the batch.

    A batch without pictures leaves the image head without a gradient. The ranks must agree on which
    gradients they exchange, so zero times each weight is added. The layers of the decoder take part
    in every loss and need no help.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        inside = {id(m) for block in loss.modules() if _is_layer(block) for m in block.modules()}
        # A tuple, so that they are not registered as modules a second time.
        self._outside = tuple(m for m in loss.modules() if id(m) not in inside)

    def forward(self, batch: Any, step: int) -> Loss:
        """The loss of a batch in an update, counted from 0."""
        loss: Loss = self.loss(batch, step)
        nothing = [weight.view(-1)[:1].float() * 0 for weight in self._weights()]
        return replace(loss, total=loss.total + torch.cat(nothing).sum()) if nothing else loss

    def _weights(self) -> list[Tensor]:
        """The trained weights outside of the layers; FSDP2 exchanges them at every forward."""
        found = (p for module in self._outside for p in module._parameters.values())
        return [p for p in found if p is not None and p.requires_grad]


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, Block)


class Ranks:
    """The processes that train together, seen from one of them.

    Attributes:
        index: The number of this process, from 0. Only 0 writes files and shows progress.
        count: How many processes there are.
        sharded: Whether each holds only a part of the model (FSDP2).
    """

    def __init__(self, accelerator: Any = None) -> None:
        """accelerator: accelerate's `Accelerator`; None for one process without that library."""
        self.accelerator = accelerator
        self.index: int = 0 if accelerator is None else accelerator.process_index
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.sharded: bool = accelerator is not None and accelerator.is_fsdp2

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.index == 0

    def prepare(self, loss: Any, optimiser: torch.optim.Optimizer) -> Any:
        """Make a loss ready to be computed by all ranks.

        Args:
            loss: A module that holds the model. One process alone takes any function too.
            optimiser: Its weights become those of the prepared model.

        Raises:
            TypeError: The loss is no module.
        """
        if self.accelerator is None:
            return loss
        if not isinstance(loss, nn.Module):
            raise TypeError("a loss that several processes compute must be a torch.nn.Module")
        anchored = Anchored(loss)
        if not self.sharded:  # else the optimiser, which accelerate would wrap, needs no change
            return self.accelerator.prepare(anchored)
        return self.accelerator.prepare(anchored, optimiser)[0]

    def without_exchange(self, prepared: Any) -> AbstractContextManager[Any]:
        """Keep the gradients of a batch to this process, since the next batch's come on top.

        FSDP2 exchanges them all the same: whole gradients would take the memory that it saves.
        """
        if self.count == 1 or self.sharded:
            return nullcontext()
        return self.accelerator.no_sync(prepared)

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every rank, as many on each, in order of the ranks."""
        if self.count == 1:
            return [list(values)]
        here = torch.tensor([list(values)], dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.gather(here).tolist()

    def gather_text(self, text: str) -> list[str]:
        """The text of every rank, in order of the ranks."""
        data = text.encode()
        longest = int(max(length for (length,) in self.gather([len(data)])))
        padded = self.gather([len(data), *data, *bytes(longest - len(data))])
        return [bytes(map(int, row[1 : 1 + int(row[0])])).decode() for row in padded]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """End what connects the ranks, when all is done."""
        if self.count > 1:
            self.accelerator.end_training()


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def connect(device: str | None, sharding: Sharding, precision: torch.dtype) -> Ranks:
    """Connect with the other processes of the run, if torchrun started several.

    Args:
        device: "cpu" or "cuda"; None for a GPU if there is one.
        sharding: "fsdp" for FSDP2, if there are several processes.
        precision: The type in which the loss is computed.

    Raises:
        ImportError: accelerate is not installed.
        ValueError: There is no such device.
    """
    accelerate = need("accelerate", "train")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if on_cpu and device not in (None, "cpu"):
        raise ValueError(f"there is no device {device!r} here")
    plugin = _sharding_plugin(precision) if sharding == "fsdp" and world_size() > 1 else None
    accelerator = accelerate.Accelerator(
        cpu=on_cpu,
        mixed_precision="no",  # the trainer's own autocast does it
        fsdp_plugin=plugin,
        kwargs_handlers=[accelerate.DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if plugin is not None and on_cpu:
        _shard_on_cpus(accelerator, plugin)
    return Ranks(accelerator)


def _sharding_plugin(precision: torch.dtype) -> Any:
    """FSDP2, a unit for each layer of the decoder and one for the rest."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(
        param_dtype=None if precision is torch.float32 else precision, reduce_dtype=torch.float32
    )
    return need("accelerate", "train").FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[Block.__name__],
        mixed_precision_policy=policy,
        cpu_ram_efficient_loading=False,  # every rank has loaded the model
        # It is small, is never trained here, and also computes codes outside of the loss.
        ignored_modules=r".*\bimage_tokenizer",
    )


def _shard_on_cpus(accelerator: Any, plugin: Any) -> None:
    """Let accelerate use FSDP2 on CPUs, for which its own settings have no word."""
    state = accelerator.state
    state.distributed_type = need("accelerate.utils", "train").DistributedType.FSDP
    state.fsdp_plugin = plugin
