"""Gumbel noise that is a hash of its place: (seed, sample, index of the generated token, token id).

So it depends on nothing else in the batch, and has the same bits on every device.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from unitok_engine.ids import IdRange
from unitok_engine.transfer import send

# SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195)
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK_64 = 2**64 - 1

_FEW = 4096  # ids of a range
_AHEAD = 16

Place = tuple[int, int, int]  # seed, sample, index of the generated token


def noise_at(places: Sequence[Place], id_range: IdRange, device: torch.device) -> Tensor:
    """Gumbel noise [s, size] fp32, a row for each place."""
    if len(places) == 1 and device.type == "cpu" and id_range.size <= _FEW:
        seed, sample, index = places[0]
        block, row = divmod(index, _AHEAD)
        return _noise_ahead(int(seed), sample, block, id_range)[row][None]
    keys = [noise_key(*place) for place in places]
    return gumbel(send(torch.tensor(keys), device), id_range)


@lru_cache(maxsize=64)
def _noise_ahead(seed: int, sample: int, block: int, id_range: IdRange) -> Tensor:
    """[_AHEAD, size], of one sequence's next tokens: few numbers cost a CPU as much as many."""
    indices = range(block * _AHEAD, (block + 1) * _AHEAD)
    return gumbel(torch.tensor([noise_key(seed, sample, i) for i in indices]), id_range)


def noise_key(seed: int, sample: int, index: int) -> int:
    """A signed 64-bit key of one row's noise."""
    return _signed(_absorb(_sample_key(int(seed), sample), index))


def gumbel(keys: Tensor, id_range: IdRange) -> Tensor:
    """Gumbel noise [s, size] fp32 from keys [s] int64, one hash per (key, id)."""
    uniform = hashed_uniform(keys, id_range)
    return uniform.log_().neg_().log_().neg_()


def hashed_uniform(keys: Tensor, id_range: IdRange) -> Tensor:
    """Uniform noise [s, size] fp32 in (0, 1) from keys [s] int64, the same bits on every device."""
    x = keys[:, None] + _steps(id_range, keys.device)
    x = x.bitwise_xor_(_shift(x, 30)).mul_(_signed(_MIX_1))
    x = x.bitwise_xor_(_shift(x, 27)).mul_(_signed(_MIX_2))
    # SplitMix64's last step changes none of the 23 bits that are kept.
    # 23 bits and a half are exact in fp32, so neither 0 nor 1 is ever reached.
    return _shift(x, 41).float().add_(0.5).mul_(2.0**-23)


@lru_cache(maxsize=16)
def _steps(id_range: IdRange, device: torch.device) -> Tensor:
    """[size] int64, what each id adds to a key."""
    return torch.arange(id_range.start, id_range.stop, device=device) * _signed(_GOLDEN)


@lru_cache(maxsize=4096)
def _sample_key(seed: int, sample: int) -> int:
    return _absorb(_absorb(0, seed), sample)


def _absorb(key: int, word: int) -> int:
    return _mix((key + _GOLDEN + (word & _MASK_64)) & _MASK_64)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK_64
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK_64
    return x ^ (x >> 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift right: torch's own copies the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
