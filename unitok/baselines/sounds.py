"""Sounds: of one channel, at the rate that a model takes."""

from math import gcd

import numpy as np

from unitok.baselines.protocols import Audio

ZEROS = 10  # of the sinc on each side of its middle
BETA = 5.0  # of the Kaiser window
BLOCK = 2**16  # samples that are made at a time


def mono_at(audio: Audio, rate: int) -> np.ndarray:
    """Samples [n] of a sound at a rate: the mean of its channels, resampled if need be.

    Args:
        audio: The sound.
        rate: Samples in a second.

    Raises:
        ValueError: The sound is empty, has no rate, or has values that are no numbers.
    """
    samples = np.asarray(audio.samples, dtype=np.float32)
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"a sound is [channels, samples], and not empty, not {samples.shape}")
    if audio.rate < 1:
        raise ValueError(f"a sound has at least one sample in a second, not {audio.rate}")
    if not np.isfinite(samples).all():
        raise ValueError("a sound has values that are not numbers")
    mono, common = samples.mean(0), gcd(audio.rate, rate)
    if audio.rate == rate:
        return mono
    return resampled(mono, rate // common, audio.rate // common)


def resampled(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    """Samples at up / down times their rate, filtered by a windowed sinc.

    It is the filter of `scipy.signal.resample_poly`. Sample m of the result lies at m * down / up
    of the given ones, and the filter has other values there for each m % up.

    Args:
        samples: [n].
        up: The factor of the rate.
        down: Its divisor, which has no factor in common with `up`.

    Returns:
        [ceil(n * up / down)], float32.
    """
    weights = phases(up, down)
    taps = weights.shape[1]
    padded = np.pad(samples, taps)
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    made = np.empty(-(-len(samples) * up // down), np.float32)
    for start in range(0, len(made), BLOCK):
        place = np.arange(start, min(start + BLOCK, len(made))) * down
        first = place // up + taps // 2 + 1  # of the window whose middle is there
        made[start : start + BLOCK] = np.einsum("nt,nt->n", windows[first], weights[place % up])
    return made


def phases(up: int, down: int) -> np.ndarray:
    """The filter [up, taps] at each distance, in parts of a sample, from the middle tap."""
    most = max(up, down)
    reach = ZEROS * most / up  # samples to each side
    half = int(reach) + 1
    distance = np.arange(up)[:, None] / up - np.arange(-half, half + 1)[None]
    share = distance / reach
    window = np.i0(BETA * np.sqrt(np.clip(1 - share**2, 0, None))) * (np.abs(share) <= 1)
    filtered = np.sinc(distance * up / most) * window
    return (filtered * up / filtered.sum()).astype(np.float32)
