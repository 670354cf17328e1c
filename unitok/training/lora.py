"""LoRA (https://arxiv.org/abs/2106.09685) in training: peft's layers inside a model.

`add_lora` puts them into a model in place of linear layers, and `save_adapter` writes what they
learned as an adapter that unitok and PEFT open (`unitok.checkpoints.lora_files`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.checkpoints.fingerprint import Fingerprint, fingerprint_of
from unitok.checkpoints.lora_files import Base
from unitok.checkpoints.lora_saving import write_adapter
from unitok.checkpoints.lora_settings import MAX_RANK
from unitok.checkpoints.settings import is_float, is_int
from unitok.nn.linear import LinearReplacement
from unitok.nn.lora import LoraAdapter, LowRank
from unitok.nn.model import UnifiedModel
from unitok.shown import shown

NAME = "default"  # of the one adapter, in peft's layers
APART = "image_tokenizer."  # is trained in a way of its own


@dataclass(frozen=True)
class LoraOptions:
    """What is trained, and how large the adapter is.

    Attributes:
        rank: Of all layers.
        alpha: The products are scaled by alpha / rank.
        dropout: The share of a layer's inputs that its product does not see in training.
        targets: The linear layers that get low-rank products: names or globs of layers, or of parts
            with all their layers, such as "image_head" or "*.attention.q". By default all seven
            projections of every block of the decoder.
        also_train: Parts or parameters that are trained in full beside them, likewise; they are
            saved with the adapter.

    Raises:
        ValueError: A value is out of its range.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = ("decoder.blocks",)
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not is_int(self.rank, 1) or self.rank > MAX_RANK:
            raise ValueError(f"rank must be from 1 to {MAX_RANK}, not {shown(self.rank)}")
        if not is_float(self.alpha) or self.alpha <= 0:
            raise ValueError(f"alpha must be a number above 0, not {shown(self.alpha)}")
        if not is_float(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, not {shown(self.dropout)}")
        for key in ("targets", "also_train"):
            names = getattr(self, key)
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{key} must be a list of names, not {shown(names)}")
        if not self.targets:
            raise ValueError("targets must name at least one layer")


@dataclass(frozen=True)
class LoraTraining:
    """What a model keeps of its adapter in training.

    Attributes:
        options: How it was made.
        base: The fingerprint of the model before.
    """

    options: LoraOptions
    base: Fingerprint


def add_lora(model: UnifiedModel, options: LoraOptions) -> None:
    """Put low-rank products beside linear layers of a model, and freeze everything else.

    The products are zero at first. Their weights are float32, also where the model's are fewer
    bits. They begin with numbers of torch's generator.

    Args:
        model: The model, which is changed in place.
        options: What is trained.

    Raises:
        ValueError: A name matches nothing, or a layer is to be trained both ways; the model has
            such layers already, or is prepared for inference.
        ImportError: peft is not installed.
    """
    peft = import_peft()
    check_fresh(model)
    layers = matching("targets", options.targets, target_names(model))
    full = matching("also_train", options.also_train, parameter_names(model))
    check_apart(model, layers, full)
    training = LoraTraining(options, fingerprint_of(model))
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(layers),
    )
    config._register_custom_module({nn.Linear: fused_layer(peft)})
    model.requires_grad_(False)
    peft.inject_adapter_in_model(config, model, NAME)
    named = dict(model.named_parameters())
    for parameter in named.values():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    for name in full:
        named[name].requires_grad_(True)
    model.lora = training


def import_peft() -> ModuleType:
    """The library peft; ImportError that says how to install it if it is not there."""
    try:
        import peft
    except ImportError:
        raise ImportError("LoRA needs peft: pip install 'unitok-engine[train]'") from None
    return peft


@cache
def fused_layer(peft: ModuleType) -> type:
    """peft's LoRA layer in fewer passes over its output, which is large beside the products.

    The product is scaled while it is narrow and added by the multiplication itself, and what goes
    in is not widened where autocast would narrow it again.
    """

    class FusedLora(peft.tuners.lora.Linear):  # type: ignore[misc, name-defined]
        def forward(self, x: Tensor) -> Tensor:
            a, b = self.lora_A[NAME].weight, self.lora_B[NAME].weight
            is_wider = x.dtype is not a.dtype and not torch.is_autocast_enabled(x.device.type)
            if is_wider or self.disable_adapters or self.merged:
                return super().forward(x)
            out = self.base_layer(x)
            narrow = F.linear(self.lora_dropout[NAME](x), a) * self.scaling[NAME]
            flat = torch.addmm(out.flatten(0, -2), narrow.flatten(0, -2), b.T)
            return flat.view(out.shape)

    return FusedLora


def check_fresh(model: UnifiedModel) -> None:
    """Raise ValueError for a model that has LoRA layers, or whose layers were replaced."""
    if model.lora is not None:
        raise ValueError("the model has LoRA layers already: load it again to begin anew")
    if model.quantization is not None:
        raise ValueError(
            f"a model of {model.quantization} weights cannot be trained: open its folder without "
            "quantize"
        )
    if any(isinstance(module, LinearReplacement) for module in model.modules()):
        raise ValueError("the model is prepared for inference: open its folder again to train it")


def target_names(model: nn.Module) -> list[str]:
    """The linear layers that can have low-rank products.

    A head that is shared by text ids and image ids cannot: it is used by rows.
    """
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not name.startswith(APART)
    ]


def parameter_names(model: nn.Module) -> list[str]:
    """The parameters that can be trained in full."""
    return [name for name, _ in model.named_parameters() if not name.startswith(APART)]


def matching(option: str, patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that a pattern matches, or a pattern of a part that they are in.

    Args:
        option: What the patterns are, for the message.
        patterns: Names or globs.
        names: In order.

    Raises:
        ValueError: A pattern matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not matched:
            raise ValueError(
                f"{option}: {shown(pattern)} matches nothing; the nearest is "
                f"{nearest(pattern, names)}"
            )
        found |= matched
    return [name for name in names if name in found]


def nearest(pattern: str, names: Collection[str]) -> str:
    """The name, or the part that names are in, that is the most like a pattern."""
    parts = (name.split(".") for name in names)
    known = sorted({".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)})
    return get_close_matches(pattern[:200], known, n=1, cutoff=0.0)[0]


def check_apart(model: nn.Module, layers: Sequence[str], full: Sequence[str]) -> None:
    """Raise ValueError for a layer that has a product and is to be trained in full too."""
    trained = {id(model.get_parameter(name)) for name in full}
    for layer in layers:
        for leaf, parameter in model.get_submodule(layer).named_parameters():
            if id(parameter) in trained:
                raise ValueError(
                    f"{layer} is among the targets, and also_train trains its {leaf} in full: take "
                    "it out of one of them"
                )


# --- what was learned ----------------------------------------------------------------------------


def adapter_of(
    model: UnifiedModel, name: str = "adapter", state: Mapping[str, Tensor] | None = None
) -> LoraAdapter:
    """The adapter that a model in training has learned so far.

    Args:
        model: The model.
        name: What the adapter is called.
        state: The model's whole state dict, if its own parameters are sharded, or if others are
            wanted, such as averages.

    Raises:
        ValueError: The model has no LoRA layers.
    """
    need_training(model)
    state = model.state_dict() if state is None else state
    layers = {name: _layer(name, module, state) for name, module in _lora_layers(model)}
    return LoraAdapter.of(name, layers, {name: _copy(state[name]) for name in full_names(model)})


def need_training(model: UnifiedModel) -> LoraTraining:
    """What `add_lora` left in a model; ValueError if it was not called."""
    if model.lora is None:
        raise ValueError("the model has no LoRA layers: call add_lora first")
    return model.lora


def _lora_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]


def _layer(name: str, module: nn.Module, state: Mapping[str, Tensor]) -> LowRank:
    a, b = (_copy(state[f"{name}.{part}.{NAME}.weight"]) for part in ("lora_A", "lora_B"))
    return LowRank(a, b, module.scaling[NAME])  # type: ignore[index]


def full_names(model: nn.Module) -> list[str]:
    """The parameters of all modules of which some are trained in full.

    PEFT takes all parameters of a module or none.
    """
    return [
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if ".lora_" not in name
        for leaf in module._parameters
        if any(p is not None and p.requires_grad for p in module._parameters.values())
        and module._parameters[leaf] is not None
    ]


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def save_adapter(family: Base, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapter that a family's model has learned; see `write_adapter`.

    Args:
        family: Whose model has LoRA layers.
        folder: Where it is written; it is made if it does not exist.
        state: As in `adapter_of`.

    Raises:
        ValueError: The model has no LoRA layers.
    """
    training = need_training(family.model)
    adapter = adapter_of(family.model, state=state)
    write_adapter(adapter, folder, family, training.base, training.options.dropout)
