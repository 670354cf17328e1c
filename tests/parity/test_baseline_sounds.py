"""Whisper and MusicGen give what transformers gives, which is called directly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from transformers import (
    MusicgenForConditionalGeneration,
    T5Tokenizer,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from tests.parity.tiny_sounds import FRAMES, PIECE, RATE, save_musicgen, save_whisper
from unitok.baselines.opening import load
from unitok.baselines.protocols import Audio, AudioGenerator, SpeechRecognizer
from unitok.baselines.sounds import mono_at

HEARS = 16_000  # samples in a second


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def musicgen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_musicgen(tmp_path_factory.mktemp("musicgen"))


def noise(seconds: float, rate: int = HEARS, channels: int = 1) -> Audio:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.3, (channels, int(seconds * rate))).astype(np.float32)
    return Audio(samples.clip(-1, 1), rate)


def heard_by_the_library(folder: Path, samples: np.ndarray, **options: Any) -> str:
    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    inputs = processor(
        samples, sampling_rate=HEARS, return_tensors="pt", return_attention_mask=True
    )
    ids = model.generate(**inputs, do_sample=False, **options)
    return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


def test_speech_is_written_down_as_the_library_does(whisper: Path):
    recognizer, sound = load(whisper, "speech", device="cpu"), noise(1.5)
    assert isinstance(recognizer, SpeechRecognizer)
    text = recognizer.transcribe(sound)
    assert len(text) > 5 and text == heard_by_the_library(whisper, sound.samples[0])
    assert recognizer.transcribe(sound) == text
    assert recognizer.transcribe(noise(0.5)) != text


def test_a_language_and_a_task_are_asked_for(whisper: Path):
    sound = noise(1.0)
    asked: dict[str, Any] = {"language": "de", "task": "translate"}
    text = load(whisper, "speech", device="cpu", **asked).transcribe(sound)
    assert text == heard_by_the_library(whisper, sound.samples[0], **asked)
    assert text != load(whisper, "speech", device="cpu").transcribe(sound)
    with pytest.raises(ValueError, match=r"language must be one of de, en for .*, not 'xx'"):
        load(whisper, "speech", device="cpu", language="xx")
    with pytest.raises(ValueError, match="task must be one of transcribe, translate for"):
        load(whisper, "speech", device="cpu", task="sing")


def test_a_model_of_english_alone_has_no_languages(tmp_path: Path):
    folder = save_whisper(tmp_path, multilingual=False)
    assert isinstance(load(folder, "speech", device="cpu").transcribe(noise(1.0)), str)
    with pytest.raises(ValueError, match="language must be left out for"):
        load(folder, "speech", device="cpu", language="de")


def test_a_sound_of_another_rate_and_of_two_channels_is_heard(whisper: Path):
    sound = noise(1.0, rate=44_100, channels=2)
    mono = resample_poly(sound.samples.mean(0), 160, 441).astype(np.float32)
    text = load(whisper, "speech", device="cpu").transcribe(sound)
    assert text == heard_by_the_library(whisper, mono) and text


def test_a_long_sound_is_heard_piece_by_piece(whisper: Path):
    recognizer, sound = load(whisper, "speech", device="cpu"), noise(2.5 * PIECE)
    processor = WhisperProcessor.from_pretrained(whisper)
    inputs = processor(
        sound.samples[0],
        sampling_rate=HEARS,
        return_tensors="pt",
        return_attention_mask=True,
        truncation=False,
        padding="longest",
    )
    assert inputs["input_features"].shape[-1] == 250 * PIECE, "in hundredths of a second"
    model = WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    ids = model.generate(**inputs, do_sample=False, return_timestamps=True)
    wanted = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert recognizer.transcribe(sound) == wanted
    first = Audio(sound.samples[:, : PIECE * HEARS], HEARS)
    assert len(wanted) > 0 and wanted != recognizer.transcribe(first)


def test_a_tone_keeps_its_pitch_when_it_is_resampled():
    for rate in (8_000, 22_050, 44_100, 48_000):
        tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
        found = mono_at(Audio(np.stack([tone, tone]), rate), HEARS)
        wanted = np.sin(2 * np.pi * 440 * np.arange(HEARS) / HEARS)
        assert found.shape == (HEARS,) and found.dtype == np.float32
        assert np.abs(found - wanted)[500:-500].max() < 0.01


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 16_001])
def test_a_sound_is_resampled_as_scipy_does(rate: int):
    sound = noise(0.3, rate)
    wanted = resample_poly(sound.samples[0], HEARS, rate)  # it shortens the ratio itself
    np.testing.assert_allclose(mono_at(sound, HEARS), wanted, atol=1e-5)


def test_a_sound_at_the_right_rate_is_taken_as_it_is():
    sound = noise(0.1)
    assert np.array_equal(mono_at(sound, HEARS), sound.samples[0])


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(100), 16_000, r"a sound is \[channels, samples\], and not empty, not \(100,\)"),
        (np.zeros((1, 0)), 16_000, "not empty"),
        (np.zeros((1, 9)), 0, "at least one sample in a second, not 0"),
        (np.full((1, 9), np.nan), 16_000, "values that are not numbers"),
    ],
)
def test_a_sound_that_is_none_is_refused(samples: np.ndarray, rate: int, message: str):
    with pytest.raises(ValueError, match=message):
        mono_at(Audio(samples, rate), HEARS)


@pytest.mark.parametrize("channels", [1, 2])
def test_music_is_what_the_library_makes(tmp_path: Path, channels: int):
    folder = save_musicgen(tmp_path, channels)
    generator = load(folder, "audio", device="cpu", guidance=2.0)
    assert isinstance(generator, AudioGenerator)
    before = torch.get_rng_state()
    sound = generator.generate("a loud drum", 0.4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert sound.samples.shape == (channels, int(0.4 * RATE)) and sound.rate == RATE
    assert sound.samples.dtype == np.float32 and np.abs(sound.samples).max() <= 1
    model = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    inputs = T5Tokenizer.from_pretrained(folder)(["a loud drum"], return_tensors="pt")
    torch.manual_seed(3)
    # Four codebooks, each of which begins a frame after the one before it.
    made = model.generate(
        **inputs, do_sample=True, guidance_scale=2.0, max_new_tokens=int(0.4 * FRAMES) + 3
    )
    np.testing.assert_allclose(sound.samples, made[0].clamp(-1, 1).numpy(), rtol=1e-5, atol=1e-6)
    assert np.ptp(sound.samples) > 1e-3


def test_a_seed_and_a_prompt_decide_about_music(musicgen: Path):
    generator = load(musicgen, "audio", device="cpu")
    first = generator.generate("drum", 0.2).samples
    assert np.array_equal(first, generator.generate("drum", 0.2, seed=0).samples)
    assert not np.array_equal(first, generator.generate("drum", 0.2, seed=1).samples)
    assert not np.array_equal(first, generator.generate("a very soft flute", 0.2).samples)
    assert generator.generate("drum", 0.123).samples.shape == (1, 98), "98.4 samples, of 13 frames"


def test_music_that_cannot_be_made_is_refused(musicgen: Path):
    generator = load(musicgen, "audio", device="cpu")
    with pytest.raises(ValueError, match="seconds must be above 0 and at most 30, not 31"):
        generator.generate("drum", 31)
    with pytest.raises(ValueError, match="seconds must be above 0"):
        generator.generate("drum", 0)
    with pytest.raises(ValueError, match="the prompt is empty"):
        generator.generate(" ", 1)
    with pytest.raises(ValueError, match="guidance must be at least 1"):
        load(musicgen, "audio", device="cpu", guidance=0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("processor_config.json", "it has no preprocessor_config.json or processor_config.json"),
        ("tokenizer.json", "it has no tokenizer.json"),
        ("model.safetensors", "no file named model.safetensors"),
    ],
)
def test_a_part_of_whisper_that_is_missing_is_named(tmp_path: Path, name: str, message: str):
    folder = save_whisper(tmp_path)
    (folder / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        load(folder, "speech", device="cpu")


def test_a_prompt_that_is_too_long_is_refused(tmp_path: Path):
    generator = load(save_musicgen(tmp_path), "audio", device="cpu")
    with pytest.raises(ValueError, match="tokens; T5 reads 512"):
        generator.generate("waltz " * 600, 0.1)
