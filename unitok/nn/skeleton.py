"""Building modules whose weights come later."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def skeleton() -> Iterator[None]:
    """Build modules on the meta device, and initialise no weight there."""
    with torch.device("meta"), WithoutInitialisation():
        yield


class WithoutInitialisation(TorchFunctionMode):
    """Leaves out what `torch.nn.init` would do to a tensor on the meta device.

    There is nothing to be initialised, but torch imports its compiler to find that out, which takes
    longer than opening a small model.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, or give its tensor back as it is."""
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        initialises = getattr(func, "__module__", None) == "torch.nn.init"
        if initialises and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **kwargs)
