"""`unitok baseline ...` from end to end, on tiny random checkpoints: what the adapters give."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner, Result

from tests.parity import tiny_pipelines
from tests.parity.tiny_captioners import llava_folder
from tests.parity.tiny_finders import save_grounding_dino, save_sam
from tests.parity.tiny_perception import SIDE, SIZES, random_pictures, save_model
from tests.parity.tiny_scorers import clip_folder
from tests.parity.tiny_sounds import save_musicgen, save_whisper
from unitok.baselines.opening import load
from unitok.baselines.protocols import Audio
from unitok.baselines.stable_diffusion import DiffusionEdit
from unitok.baselines.wav import read_wav, wav_bytes
from unitok.cli import app

hf: Any = import_module("transformers")


@pytest.fixture(autouse=True)
def in_a_folder_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, picture in zip(("a.png", "b.png"), random_pictures(2), strict=True):
        picture.save(name)


def run(command: str, folder: Path, *words: str) -> Result:
    every = ["baseline", command, *words, "--model", str(folder), "--device", "cpu"]
    result = CliRunner().invoke(app, every, prog_name="unitok")
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return result


def pixels(name: str) -> Any:
    return np.asarray(Image.open(name)).tolist()


def saved(make: Callable[[], Any], folder: Path) -> Path:
    made = make()
    made.save_pretrained(folder)
    return folder


# --- text ----------------------------------------------------------------------------------------


def test_caption(tmp_path: Path):
    folder = llava_folder(tmp_path / "llava")
    words = ["--question", "what is this", "--max-tokens", "5"]
    told = run("caption", folder, "a.png", "b.png", *words).stdout
    captioner = load(folder, "captioner", device="cpu")
    found = captioner.caption(["a.png", "b.png"], "what is this", max_tokens=5)
    assert told == "".join(
        f"{n}: {f.text}\n" for n, f in zip(("a.png", "b.png"), found, strict=True)
    )


def test_classify_and_search(tmp_path: Path):
    folder = clip_folder(tmp_path / "clip")
    told = json.loads(
        run("classify", folder, "a.png", "--label", "a cat", "--label", "dogs", "--json").stdout
    )
    scorer = load(folder, "scorer", device="cpu")
    wanted = scorer.classify(["a.png"], ["a cat", "dogs"])[0]
    assert [told["probabilities"][x] for x in ("a cat", "dogs")] == pytest.approx(wanted.tolist())
    lines = run(
        "search", folder, "a cat", "a.png", "b.png", "--store", "kept.st"
    ).stdout.splitlines()
    best = scorer.search("a cat", ["a.png", "b.png"])
    names = ("a.png", "b.png")
    assert lines == [f"{names[match.index]}: {match.score:.3f}" for match in best]
    assert Path("kept.st").is_file()


def test_transcribe(tmp_path: Path):
    folder = save_whisper(tmp_path / "whisper")
    noise = np.random.default_rng(0).normal(0, 0.3, (2, 44_100)).clip(-1, 1)
    Path("a.wav").write_bytes(wav_bytes(Audio(noise.astype(np.float32), 44_100)))
    told = run("transcribe", folder, "a.wav", "--language", "de").stdout
    recognizer = load(folder, "speech", device="cpu", language="de")
    assert told == " ".join(recognizer.transcribe(read_wav(Path("a.wav"))).split()) + "\n"
    assert len(told) > 5


# --- pictures and sounds -------------------------------------------------------------------------


def test_draw_and_edit(tmp_path: Path):
    folder = saved(tiny_pipelines.stable_diffusion, tmp_path / "sd")
    common = ["--steps", "2", "--seed", "3", "--guidance", "2"]
    told = run("draw", folder, "cat", "dog", "-o", "c.png", "--size", "32x32", *common).stdout
    assert told == "c-0.png: seed 3\nc-1.png: seed 3\n"
    generator = load(folder, "generator", device="cpu", steps=2)
    options = {"seed": 3, "guidance": 2.0}
    for i, wanted in enumerate(generator.draw(["cat", "dog"], width=32, height=32, **options)):
        assert pixels(f"c-{i}.png") == np.asarray(wanted.image).tolist()
    Image.new("L", (32, 32), 255).save("mask.png")
    words = ["--freedom", "0.5", "--mask", "mask.png", *common]
    run("edit", folder, "c-0.png", "dog", "-o", "e.png", *words)
    asked = DiffusionEdit("c-0.png", "dog", freedom=0.5, mask="mask.png", **options)
    (wanted,) = generator.run([asked])
    assert wanted.error is None and pixels("e.png") == np.asarray(wanted.image).tolist()


def test_film(tmp_path: Path):
    folder = saved(tiny_pipelines.wan, tmp_path / "wan")
    words = ["--frames", "5", "--seed", "4", "--steps", "2", "--size", "16x16", "-o", "f.png"]
    told = run("film", folder, "a cat", *words).stdout
    assert told == "f.png: seed 4, 5 frames at 16 a second\n"
    generator = load(folder, "generator", device="cpu", steps=2)
    clip = generator.film("a cat", 5, seed=4, width=16, height=16)
    assert [pixels(f"f-{i}.png") for i in range(5)] == [np.asarray(f).tolist() for f in clip.frames]


def test_compose(tmp_path: Path):
    folder = save_musicgen(tmp_path / "musicgen")
    words = ["-o", "a.wav", "--seconds", "0.4", "--seed", "3", "--guidance", "2"]
    assert run("compose", folder, "a drum", *words).stdout == "a.wav: seed 3, 0.4 seconds\n"
    sound = load(folder, "audio", device="cpu", guidance=2.0).generate("a drum", 0.4, seed=3)
    found = read_wav(Path("a.wav"))
    assert found.rate == sound.rate
    np.testing.assert_allclose(found.samples, sound.samples, atol=1e-4)


# --- places and features -------------------------------------------------------------------------


def test_detect(tmp_path: Path):
    folder = save_grounding_dino(tmp_path / "dino")
    words = ["--label", "cat", "--label", "red dog", "--threshold", "0.1", "--json"]
    told = json.loads(run("detect", folder, "a.png", *words).stdout)
    found = load(folder, "detector", device="cpu").detect("a.png", ["cat", "red dog"], 0.1)
    assert found and [d["label"] for d in told["detections"]] == [f.label for f in found]
    assert [d["box"] for d in told["detections"]] == [pytest.approx(f.box) for f in found]


def test_segment(tmp_path: Path):
    folder = save_sam(tmp_path / "sam")
    run("segment", folder, "a.png", "--point", "5,30", "--box", "3,4,20,35", "-o", "m.png")
    found = load(folder, "segmenter", device="cpu").segment("a.png", [(5, 30)], [(3, 4, 20, 35)])
    for i in range(2):
        assert pixels(f"m-{i}.png") == (found.masks[i].int() * 255).tolist()


def test_features(tmp_path: Path):
    config = hf.ViTConfig(**SIZES, image_size=SIDE, patch_size=8)
    processor = hf.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    folder = save_model(tmp_path / "vit", hf.ViTModel, config, processor)
    told = run("features", folder, "a.png", "b.png", "-o", "f.safetensors").stdout
    assert told == "f.safetensors: 2 x 16 features\n"
    with safe_open("f.safetensors", "pt") as file:
        found = file.get_tensor("features")
    wanted = load(folder, "encoder", device="cpu").features(["a.png", "b.png"])
    torch.testing.assert_close(found, wanted)


def test_lite0_needs_no_folder():
    run("features", Path("lite0"), "a.png", "-o", "f.safetensors")
    with safe_open("f.safetensors", "pt") as file:
        assert file.get_tensor("features").shape == (1, 1280)
