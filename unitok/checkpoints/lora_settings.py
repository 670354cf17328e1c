"""adapter_config.json, as PEFT writes it: the rank and the scale of a low-rank adapter.

Of its settings, those that plain LoRA needs are read, and those of use in training alone are
ignored. All others ask for another kind of adapter if they are set, and are refused by name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import Settings, is_float, is_int
from unitok.shown import shown

T = TypeVar("T")

FILE = "adapter_config.json"
MAX_RANK = 2048
"""The highest rank of an adapter."""
MAX_PATTERNS = 10_000
"""The most entries of `rank_pattern` or `alpha_pattern`."""
MAX_PATTERN = 200
"""Characters of such an entry, which is a regular expression."""
MAX_REPEATS = 2
"""The most repetitions, and the most groups, of such an entry, so that none takes long to match."""

READ = frozenset("peft_type r lora_alpha use_rslora rank_pattern alpha_pattern bias".split())
# Which layers have an adapter is told by the tensors, and how it was trained does not matter.
IGNORED = frozenset(
    """auto_mapping base_model_name_or_path corda_config eva_config
    exclude_modules inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config
    lora_dropout lora_ga_config megatron_core modules_to_save peft_version qalora_group_size
    revision runtime_config target_modules task_type velora_config""".split()
)
# Starts of training that leave the base as it is. Others subtract from its weights first.
STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class LoraSettings:
    """What adapter_config.json says of ranks and scales.

    Attributes:
        rank: Of layers that no pattern names.
        alpha: Likewise; the scale is alpha / rank.
        rank_stabilised: Whether the scale is alpha / sqrt(rank) (https://arxiv.org/abs/2312.03732).
        ranks: Patterns of names of layers -> their rank.
        alphas: Patterns of names of layers -> their alpha.
        base: What the file says of the base, for messages; None if it says nothing.
    """

    rank: int
    alpha: float
    rank_stabilised: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    base: str | None = None

    def rank_of(self, layer: str) -> int:
        """The rank of a layer, by its name in the adapter's files."""
        return first_match(self.ranks, layer, self.rank)

    def scale_of(self, layer: str) -> float:
        """The scale of a layer, by its name in the adapter's files."""
        rank = self.rank_of(layer)
        divisor = math.sqrt(rank) if self.rank_stabilised else rank
        return first_match(self.alphas, layer, self.alpha) / divisor


def first_match(patterns: Mapping[str, T], layer: str, default: T) -> T:
    """The value of the first pattern that is a layer's name, or its end behind a dot."""
    for pattern, value in patterns.items():
        if matcher(pattern).match(layer):
            return value
    return default


@lru_cache(MAX_PATTERNS)  # more than `re` keeps: to compile one takes longer than to match
def matcher(pattern: str) -> re.Pattern[str]:
    """What matches a layer's name, or its end behind a dot."""
    return re.compile(rf"(.*\.)?({pattern})$")


def read_lora_settings(folder: Path) -> LoraSettings:
    """Read a folder's adapter_config.json.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It cannot be parsed, is of another kind of adapter than plain LoRA, or has a
            value of a wrong type or beyond a limit.
    """
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {FILE}; is it an adapter's folder?")
    data = read_json(path)
    check_kind(data, path)
    base = data.get("base_model_name_or_path")
    return LoraSettings(
        rank=check_rank(data.get("r", 8), f"{path}: r"),
        alpha=check_alpha(data.get("lora_alpha", 8), f"{path}: lora_alpha"),
        rank_stabilised=Settings(data, str(path)).bool_setting("use_rslora", False),
        ranks={k: check_rank(v, f"{path}: {k}") for k, v in patterns(data, "rank", path)},
        alphas={k: check_alpha(v, f"{path}: {k}") for k, v in patterns(data, "alpha", path)},
        base=base if isinstance(base, str) and base else None,
    )


def check_kind(data: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError for an adapter that is no plain LoRA, with the setting that says so."""
    if data.get("peft_type") != "LORA":
        kind = shown(data.get("peft_type"))
        raise ValueError(f"{path}: peft_type is {kind}; unitok reads adapters of the kind 'LORA'")
    if data.get("bias", "none") != "none":
        raise ValueError(
            f"{path}: bias = {shown(data['bias'])} is not supported; it must be 'none'"
        )
    if (start := data.get("init_lora_weights")) not in STARTS:
        raise ValueError(
            f"{path}: init_lora_weights = {shown(start)} changes the base; convert the adapter "
            "with PEFT's path_initial_model_for_weight_conversion"
        )
    for key, value in data.items():
        if value and key not in READ and key not in IGNORED:
            raise ValueError(
                f"{path}: {key} = {shown(value)} is not supported; unitok reads plain LoRA"
            )


def patterns(data: Mapping[str, Any], what: str, path: Path) -> list[tuple[str, Any]]:
    """The entries of a table of patterns, all of which are fit to be matched.

    Raises:
        ValueError: It is no object, has too many entries, or a pattern cannot be matched quickly.
    """
    table = data.get(f"{what}_pattern") or {}
    if not isinstance(table, Mapping):
        raise ValueError(f"{path}: {what}_pattern must be an object, not {shown(table)}")
    if len(table) > MAX_PATTERNS:
        raise ValueError(
            f"{path}: {what}_pattern has {len(table)} entries; the most is {MAX_PATTERNS}"
        )
    for pattern in table:
        check_pattern(pattern, path)
    return list(table.items())


def check_pattern(pattern: str, path: Path) -> None:
    """Raise ValueError for what is no regular expression, or one that may take long to match."""
    repeats, groups = len(re.findall(r"(?<!\\)[*+?{]", pattern)), pattern.count("(")
    strange = re.search(r"\)[*+?{]|\(\?|\\\d", pattern)
    if strange or max(repeats, groups) > MAX_REPEATS or len(pattern) > MAX_PATTERN:
        raise ValueError(
            f"{path}: the pattern {shown(pattern)} may take long to match; write names of layers, "
            f"with at most {MAX_REPEATS} repetitions and {MAX_REPEATS} groups that are not repeated"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: {shown(pattern)} is no regular expression: {error}") from None


def check_rank(rank: object, where: str) -> int:
    """The rank; ValueError if it is no whole number from 1 to `MAX_RANK`."""
    if not is_int(rank, 1) or rank > MAX_RANK:  # type: ignore[operator]
        raise ValueError(f"{where} must be a rank from 1 to {MAX_RANK}, not {shown(rank)}")
    return rank  # type: ignore[return-value]


def check_alpha(alpha: object, where: str) -> float:
    """The alpha; ValueError if it is no finite number."""
    if not is_float(alpha):
        raise ValueError(f"{where} must be a number, not {shown(alpha)}")
    return float(alpha)  # type: ignore[arg-type]
