"""Sounds: of one channel, at the rate that a model takes."""

from math import gcd

import numpy as np

from unitok.baselines.extra import need
from unitok.baselines.protocols import Audio


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
    resample = need("scipy.signal").resample_poly
    return resample(mono, rate // common, audio.rate // common).astype(np.float32)
