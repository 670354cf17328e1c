"""Sounds in .wav files of PCM, read and written by the standard library."""

import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from unitok.baselines.protocols import Audio
from unitok.picture_sources import read_path

MAX_SECONDS = 3600
MAX_CHANNELS = 8
MAX_RATE = 768_000
MAX_WIDTH = 4  # bytes a sample
CONVERT = "convert it: ffmpeg -i FILE -c:a pcm_s16le speech.wav"


def read_wav(path: Path) -> Audio:
    """The sound of a file, which may be a pipe.

    Args:
        path: A .wav file of PCM with 8, 16, 24 or 32 bits a sample.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is of another format, is empty or cut off, or is beyond a limit.
    """
    content = read_path(path, "sound")
    content.seek(0)
    try:
        with wave.open(content) as sound:
            header = sound.getparams()
            check_header(path, header)
            data = sound.readframes(header.nframes)
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError is of a damaged chunk
        reason = str(error) or "it is cut off"
        raise ValueError(f"{path} is no .wav file of PCM: {reason}; {CONVERT}") from None
    wanted = header.nframes * header.nchannels * header.sampwidth
    if len(data) < wanted:
        raise ValueError(f"{path} is cut off: it has {len(data):,} of {wanted:,} bytes of sound")
    samples = samples_of(data, header.sampwidth).reshape(-1, header.nchannels)
    return Audio(samples.T, header.framerate)


def check_header(path: Path, header: Any) -> None:
    """Check what a file says of its sound; ValueError if it is empty or beyond a limit."""
    for what, value, most in (
        ("channels", header.nchannels, MAX_CHANNELS),
        ("samples in a second", header.framerate, MAX_RATE),
        ("bytes a sample", header.sampwidth, MAX_WIDTH),
    ):
        if not 1 <= value <= most:
            raise ValueError(f"{path} must have 1 to {most:,} {what}, not {value:,}")
    if not header.nframes:
        raise ValueError(f"{path} has no sound in it")
    if header.nframes > MAX_SECONDS * header.framerate:
        raise ValueError(f"{path} is longer than {MAX_SECONDS:,} seconds; cut it into parts")


def samples_of(data: bytes, width: int) -> np.ndarray:
    """Samples [n] in [-1, 1) of PCM with so many bytes a sample."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)
    whole = np.zeros((len(raw), 4), np.uint8)
    whole[:, 4 - width :] = raw  # in the highest bytes of 32 bits, so the sign is in its place
    if width == 1:
        whole[:, 3] ^= 0x80  # 8 bits have no sign: 128 is silence
    return (whole.view("<i4")[:, 0] / np.float64(2**31)).astype(np.float32)


def wav_bytes(audio: Audio) -> bytes:
    """A .wav file of 16 bits a sample."""
    whole = (np.clip(audio.samples, -1, 1) * 32767).round().astype("<i2")
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(len(whole))
        sound.setsampwidth(2)
        sound.setframerate(audio.rate)
        sound.writeframes(whole.T.tobytes())
    return file.getvalue()
