"""The InceptionV3 by which FID, KID and the Inception Score are defined, opened from a local file.

It is the network of https://arxiv.org/abs/1512.00567 as TensorFlow published it in 2015, with 1,008
classes. Its weights have the names that they have in the file that torch-fidelity and pytorch-fid
distribute, so that file fits as it is. torchvision's network of the same name does not: here,
average pools leave out the border, and the last block pools by the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.checkpoints.adapter import Stored
from unitok.checkpoints.tensors import SafetensorsFile, TorchFile
from unitok.checkpoints.weights import fill

SIDE = 299  # pixels
WIDTH = 2048
CLASSES = 1008
EPSILON = 1e-3

Size = int | tuple[int, int]
# A layer or a pool by name, or several layers whose channels are joined.
Step = str | tuple[str, ...]


class Norm(nn.Module):
    """Batch normalisation by stored statistics, of `width` channels."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]."""
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=EPSILON)


class Conv(nn.Module):
    """A convolution, normalised, without negative values. By default it keeps the size."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int = 1, pad: bool = True):
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        border = (height // 2, width // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, border, bias=False)
        self.bn = Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', W']."""
        return F.relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """The mean around each place, of what lies inside the picture."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    """The maximum around each place."""
    return F.max_pool2d(x, 3, 1, 1)


def halve(x: Tensor) -> Tensor:
    """The maximum around every second place."""
    return F.max_pool2d(x, 3, 2)


POOLS = {"average": average, "maximum": maximum, "halve": halve}


class Mixed(nn.Module):
    """Branches side by side, whose channels are joined.

    Args:
        layers: By their names in the file.
        branches: Each is steps, one after another.
    """

    def __init__(self, layers: Mapping[str, Conv], *branches: Sequence[Step]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        return torch.cat([self.run(branch, x) for branch in self.branches], 1)

    def run(self, branch: Sequence[Step], x: Tensor) -> Tensor:
        """What a branch makes of its input."""
        for step in branch:
            x = self.step(step, x)
        return x

    def step(self, step: Step, x: Tensor) -> Tensor:
        """What a step makes of its input."""
        if isinstance(step, tuple):
            return torch.cat([self.step(name, x) for name in step], 1)
        return POOLS[step](x) if step in POOLS else self.get_submodule(step)(x)


def chain(name: str, *widths: int, kernels: Sequence[Size], stride: int = 1) -> dict[str, Conv]:
    """Layers name_1, name_2 and so on, each on the one before; the last has the stride.

    Args:
        name: Of the branch.
        widths: Of the input, and of the output of each layer.
        kernels: Of each layer.
        stride: 2 halves the size, and leaves out the border.
    """
    layers = {}
    for i, kernel in enumerate(kernels, 1):
        halves = stride == 2 and i == len(kernels)
        layers[f"{name}_{i}"] = Conv(
            widths[i - 1], widths[i], kernel, stride if halves else 1, not halves
        )
    return layers


def steps(name: str, count: int) -> list[str]:
    """The names of the layers of a chain."""
    return [f"{name}_{i}" for i in range(1, count + 1)]


def block_35(width: int, pooled: int) -> Mixed:
    """A block on 35 x 35 places."""
    layers = {
        "branch1x1": Conv(width, 64, 1),
        **chain("branch5x5", width, 48, 64, kernels=(1, 5)),
        **chain("branch3x3dbl", width, 64, 96, 96, kernels=(1, 3, 3)),
        "branch_pool": Conv(width, pooled, 1),
    }
    five, three = steps("branch5x5", 2), steps("branch3x3dbl", 3)
    return Mixed(layers, ["branch1x1"], five, three, ["average", "branch_pool"])


def to_17(width: int) -> Mixed:
    """From 35 x 35 to 17 x 17 places."""
    layers = {
        "branch3x3": Conv(width, 384, 3, 2, False),
        **chain("branch3x3dbl", width, 64, 96, 96, kernels=(1, 3, 3), stride=2),
    }
    return Mixed(layers, ["branch3x3"], steps("branch3x3dbl", 3), ["halve"])


def block_17(width: int, inner: int) -> Mixed:
    """A block on 17 x 17 places; its convolutions of 7 x 7 are split into rows and columns."""
    row, column = (1, 7), (7, 1)
    doubled = (1, column, row, column, row)
    layers = {
        "branch1x1": Conv(width, 192, 1),
        **chain("branch7x7", width, inner, inner, 192, kernels=(1, row, column)),
        **chain("branch7x7dbl", width, inner, inner, inner, inner, 192, kernels=doubled),
        "branch_pool": Conv(width, 192, 1),
    }
    seven, double = steps("branch7x7", 3), steps("branch7x7dbl", 5)
    return Mixed(layers, ["branch1x1"], seven, double, ["average", "branch_pool"])


def to_8(width: int) -> Mixed:
    """From 17 x 17 to 8 x 8 places."""
    sevens = (1, (1, 7), (7, 1), 3)
    layers = {
        **chain("branch3x3", width, 192, 320, kernels=(1, 3), stride=2),
        **chain("branch7x7x3", width, 192, 192, 192, 192, kernels=sevens, stride=2),
    }
    return Mixed(layers, steps("branch3x3", 2), steps("branch7x7x3", 4), ["halve"])


def block_8(width: int, pool: str) -> Mixed:
    """A block on 8 x 8 places, of 2,048 channels."""
    row, column = (1, 3), (3, 1)
    layers = {
        "branch1x1": Conv(width, 320, 1),
        "branch3x3_1": Conv(width, 384, 1),
        "branch3x3_2a": Conv(384, 384, row),
        "branch3x3_2b": Conv(384, 384, column),
        **chain("branch3x3dbl", width, 448, 384, kernels=(1, 3)),
        "branch3x3dbl_3a": Conv(384, 384, row),
        "branch3x3dbl_3b": Conv(384, 384, column),
        "branch_pool": Conv(width, 192, 1),
    }
    three: list[Step] = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    double: list[Step] = [*steps("branch3x3dbl", 2), ("branch3x3dbl_3a", "branch3x3dbl_3b")]
    return Mixed(layers, ["branch1x1"], three, double, [pool, "branch_pool"])


class Inception(nn.Module):
    """The network, for inference alone."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, 1, False)
        self.Mixed_5b = block_35(192, 32)
        self.Mixed_5c = block_35(256, 64)
        self.Mixed_5d = block_35(288, 64)
        self.Mixed_6a = to_17(288)
        self.Mixed_6b = block_17(768, 128)
        self.Mixed_6c = block_17(768, 160)
        self.Mixed_6d = block_17(768, 160)
        self.Mixed_6e = block_17(768, 192)
        self.Mixed_7a = to_8(768)
        self.Mixed_7b = block_8(1280, "average")
        self.Mixed_7c = block_8(2048, "maximum")
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            pixels: [B, 3, 299, 299] in 0..255.

        Returns:
            Features [B, 2048], and logits [B, 1008] without their bias, from which the published
            Inception Score is computed.
        """
        x = (pixels - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # [B, 64, 147, 147]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x)))  # [B, 192, 71, 71]
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halve(x))))  # [B, 288, 35, 35]
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))  # [B, 768, 17, 17]
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # [B, 2048, 8, 8]
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def open_inception(path: Path, device: str = "cpu") -> Inception:
    """Open the network's weights: a safetensors file, or one of `torch.save`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or holds other weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    file = SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
    if "fc.weight" in file.names and file.shape("fc.weight") != (CLASSES, WIDTH):
        raise ValueError(
            f"{path}: fc.weight is {list(file.shape('fc.weight'))}, not [{CLASSES}, {WIDTH}], so "
            "it is another network than that of FID; torchvision's does not give FID either"
        )
    with torch.device("meta"):
        network = Inception()
    fill(network, file, Stored, torch.float32, device, (r".*\.num_batches_tracked",))
    return network.requires_grad_(False).eval()


def resized(pixels: Tensor) -> Tensor:
    """Pictures at 299 x 299, as TensorFlow 1 resizes: bilinear, not smoothed, corner to corner.

    Args:
        pixels: [B, 3, H, W].

    Returns:
        [B, 3, 299, 299] in float32.
    """
    return along(along(pixels.float(), 3), 2)


def along(x: Tensor, dim: int) -> Tensor:
    """Resize one dimension to 299."""
    size = x.shape[dim]
    places = torch.arange(SIDE, dtype=torch.float32, device=x.device) * (size / SIDE)
    low = places.floor().long()
    high = (low + 1).clamp_max(size - 1)
    share = (places - low).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    before, after = x.index_select(dim, low), x.index_select(dim, high)
    return before + (after - before) * share
