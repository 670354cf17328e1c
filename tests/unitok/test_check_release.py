"""The check of released weights, rehearsed on a tiny random folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unitok
from scripts import check_release
from tests.unitok.tiny import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("janus") / "tiny")


@pytest.fixture
def model(folder: Path) -> unitok.Model:
    return unitok.load(folder, device="cpu")


def run(model: unitok.Model, picture: Image.Image | None = None) -> dict[str, Any]:
    family: Any = model.family
    return {c.name: c for c in check_release.checks(model, family, picture)}


def test_a_whole_folder_passes_and_says_what_was_not_run(
    model: unitok.Model, capsys: pytest.CaptureFixture
):
    assert check_release.report(model, None)
    out = capsys.readouterr().out
    assert "FAILED" not in out and "passed  tokens: " in out
    assert "first image tokens: not run: known for Janus-Pro-1B alone" in out
    assert "words on a picture: not run: give one by --picture" in out


def test_the_norms_of_the_codebook_are_told(model: unitok.Model):
    assert "not unit: transformers would encode" in run(model)["codebook rows"].found
    quantizer: Any = model.family.model.image_tokenizer.quantizer
    quantizer.codebook = torch.nn.functional.normalize(quantizer.codebook, dim=-1)
    assert run(model)["codebook rows"].found.endswith(": unit")


def test_a_picture_is_described_and_coded(model: unitok.Model):
    found = run(model, Image.new("RGB", (30, 20), "red"))
    assert "not compared, known for Janus-Pro-1B alone" in found["words on a picture"].found
    assert found["picture round trip"].found.endswith(" dB")


def test_published_ids_and_words_are_compared(model: unitok.Model, monkeypatch: pytest.MonkeyPatch):
    """As on CUDA with Janus-Pro-1B, but with what this model draws and says."""
    family: Any = model.family
    picture = Image.new("RGB", (30, 20), "red")
    codes = check_release.first_codes(model, family, check_release.PROMPT, 12)
    words = check_release.words_on(model, family, picture, 20)
    monkeypatch.setattr(check_release, "why_not", lambda _: None)
    for drawn, said, good in ((codes, words, True), ([*codes[:-1], 99], "other", False)):
        monkeypatch.setattr(check_release, "DRAWN", " ".join(map(str, drawn)))
        monkeypatch.setattr(check_release, "SAID", said.strip())
        found = run(model, picture)
        assert found["first image tokens"].passed is good
        assert found["words on a picture"].passed is good
        assert check_release.report(model, picture) is good


def test_a_tokenizer_that_puts_no_bos_fails(model: unitok.Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model.family.tokenizer, "encode", lambda *_, **__: [7, 8])
    assert run(model)["BOS"].passed is False


def test_a_folder_that_cannot_be_opened_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["check_release.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"check_release: .* has no config\.json"):
        check_release.main()
