"""Sounds in .wav files: every width of PCM, and what is refused."""

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from unitok.baselines.protocols import Audio
from unitok.baselines.wav import read_wav, wav_bytes


def write(path: Path, data: bytes, width: int = 2, channels: int = 1, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def header(kind: int, bits: int, size: int, rate: int = 8000, channels: int = 1) -> bytes:
    """A file of any format that says that so many bytes of sound follow."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * block % 2**32, block, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(chunks) + size) + chunks


@pytest.mark.parametrize(
    ("width", "data", "wanted"),
    [
        (1, bytes([0, 64, 128, 255]), [-1, -0.5, 0, 127 / 128]),
        (2, struct.pack("<4h", -32768, -16384, 0, 32767), [-1, -0.5, 0, 32767 / 32768]),
        (
            3,
            b"\x00\x00\x80" + b"\x00\x00\xc0" + b"\x00\x00\x00" + b"\xff\xff\x7f",
            [-1, -0.5, 0, 1 - 2**-23],
        ),
        (4, struct.pack("<4i", -(2**31), -(2**30), 0, 2**31 - 1), [-1, -0.5, 0, 1]),
    ],
)
def test_samples_of_every_width_are_read(
    width: int, data: bytes, wanted: list[float], tmp_path: Path
):
    sound = read_wav(write(tmp_path / "a.wav", data, width))
    assert sound.rate == 8000 and sound.samples.dtype == np.float32
    assert sound.samples.tolist() == [wanted]


def test_channels_are_rows(tmp_path: Path):
    data = struct.pack("<6h", 1, -1, 2, -2, 3, -3)
    sound = read_wav(write(tmp_path / "a.wav", data, channels=2, rate=44100))
    assert (sound.samples * 32768).tolist() == [[1, 2, 3], [-1, -2, -3]] and sound.rate == 44100


def test_what_is_written_is_read_again(tmp_path: Path):
    samples = np.linspace(-1.2, 1.2, 50, dtype=np.float32).reshape(2, 25)
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(Audio(samples, 32000)))
    found = read_wav(path)
    assert found.rate == 32000
    np.testing.assert_allclose(found.samples, samples.clip(-1, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"ID3 and no wav at all", r"is no \.wav file of PCM: file does not start with RIFF id"),
        (b"RIFF", "is no .wav file of PCM: it is cut off; convert it: ffmpeg"),
        (header(3, 32, 8) + bytes(8), "is no .wav file of PCM: unknown format: 3"),
        (header(1, 16, 0), "has no sound in it"),
        (header(1, 16, 2**31) + bytes(6), "is longer than 3,600 seconds"),
        (header(1, 16, 20_000) + bytes(6), "is cut off: it has 6 of 20,000 bytes of sound"),
        (header(1, 64, 16) + bytes(16), "must have 1 to 4 bytes a sample, not 8"),
        (header(1, 16, 400, channels=200) + bytes(400), "must have 1 to 8 channels, not 200"),
        (header(1, 16, 4, rate=2**31) + bytes(4), "must have 1 to 768,000 samples in a second"),
    ],
)
def test_what_is_no_sound_is_named(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.wav {message}"):
        read_wav(path)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.wav: no such file"):
        read_wav(tmp_path / "none.wav")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_wav(tmp_path)
