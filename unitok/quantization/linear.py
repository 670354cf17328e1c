"""What linear layers of few bits share."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unitok.nn.linear import LinearReplacement, Linears, sample_of


class QuantizedLinear(LinearReplacement):
    """Frozen linear layers of one input, run as one, whose weights have few bits.

    The state dict has the weights as they are after quantisation, in the type of the layers.
    """

    def __init__(self, layers: Linears) -> None:
        """Take layers over. Their weights are not kept.

        Args:
            layers: The layers by name, all with a bias or all without.
        """
        super().__init__(layers)
        weights = [layer.weight.detach() for layer in layers.values()]
        self._dtype, self._device = weights[0].dtype, weights[0].device
        self._samples = list(map(sample_of, weights))
        biases = [layer.bias.detach() for layer in layers.values() if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., sum of out_features].

        Raises:
            RuntimeError: The input has another dtype than the layers, or wants gradients.
        """
        if x.dtype is not self._dtype:
            raise RuntimeError(f"the input's dtype is {x.dtype}, the layer's {self._dtype}")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("the weights have few bits and give no gradients")
        out = self.multiply(x.reshape(-1, x.shape[-1])).to(x.dtype)
        out = out if self._bias is None else out + self._bias
        return out.view(*x.shape[:-1], out.shape[1])

    # Hooks would cost microseconds dozens of times a step.
    __call__ = forward

    @abstractmethod
    def multiply(self, x: Tensor) -> Tensor:
        """Map rows [n, in_features] to [n, sum of out_features], in any type, without the bias."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Compute the weights [sum of out_features, in_features] in float32."""

    @abstractmethod
    def put_rows(self, rows: slice, weight: Tensor) -> None:
        """Quantise other weights [n, in_features] into the place of some outputs'."""

    def weights(self) -> Sequence[Tensor]:
        """Return each layer's weight [its out_features, in_features], dequantised."""
        return self.dense().to(self._dtype).split(self.out_features)

    def biases(self) -> Sequence[Tensor]:
        """Return each layer's bias [its out_features], or nothing if they have none."""
        return () if self._bias is None else self._bias.split(self.out_features)

    def samples(self) -> Sequence[Tensor]:
        """Return numbers of each layer's weight as they were before quantisation."""
        return self._samples

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type of the layers."""
        return torch.empty(0, dtype=self._dtype, device=self._device)

    def update(self, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor]) -> None:
        """Quantise other numbers into the place of some layers' weights, and copy biases."""
        for name, bias in zip(self.names, self.biases(), strict=False):
            if name in biases:
                bias.copy_(biases[name])
        start = 0
        for index, (name, size) in enumerate(zip(self.names, self.out_features, strict=True)):
            if name in weights:
                self.put_rows(slice(start, start + size), weights[name])
                self._samples[index] = sample_of(weights[name])
            start += size

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        like = self.like
        after = fn(like)
        if (after.dtype, after.device) != (like.dtype, like.device):
            raise RuntimeError("a model of few bits cannot be converted or moved: load it so")
        return self
