"""Runs that train image tokenizers: new ones, LlamaGen's files, and the one inside a Janus."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import unitok
from tests.training.tiny_image_tokenizer import VQ16, tiny_pictures, tiny_tokenizer
from tests.unitok.resuming import assert_resumes_exactly
from tests.unitok.tiny import save_tiny
from tests.unitok.tiny_chameleon import save_tiny as save_tiny_chameleon
from unitok.emoji.rendering import to_pil
from unitok.training.image_tokenizer.bases import Base, open_base, save_file
from unitok.training.image_tokenizer.loss import PictureBatch
from unitok.training.image_tokenizer.options import (
    ImageTokenizerOptions,
    LossOptions,
    SizeOptions,
)
from unitok.training.image_tokenizer.run import clip_each, make_trainer, train_image_tokenizer
from unitok.training.trainer import Trainer
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.llamagen import load_llamagen, save_llamagen

PICTURES: list[Image.Image] = list(map(to_pil, tiny_pictures(4, 32)))
ALL_LOSSES = LossOptions(
    l1=0.2,
    perceptual="lite0",
    adversarial="hinge",
    adversarial_start=2,
    adaptive=True,
    revive_after=3,
    discriminator_channels=8,
    discriminator_layers=1,
)


def options(folder: Path, **changes: Any) -> ImageTokenizerOptions:
    given: dict[str, Any] = {
        "out": str(folder),
        "steps": 4,
        "batch": 2,
        "warmup": 1,
        "crop": 1.0,
        "learning_rate": 2e-3,
        "sizes": VQ16,
    }
    return ImageTokenizerOptions(**given | changes)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


# --- a run ---------------------------------------------------------------------------------------


def made_trainer() -> Trainer[PictureBatch]:
    told = options(Path("unused"), loss=ALL_LOSSES, ema=0.9, crop=0.6, flip=True, micro_batch=1)
    return make_trainer(told, Base(tiny_tokenizer(size=32), save_file), PICTURES)


@pytest.mark.parametrize("steps_before", [1, 3])
def test_training_resumes_exactly_before_and_after_the_discriminators_start(steps_before: int):
    assert_resumes_exactly(made_trainer, steps_before, 5 - steps_before)


def test_a_new_image_tokenizer_learns_and_comes_back_from_its_file(tmp_path: Path):
    told = options(tmp_path, steps=14, save_every=7, log_every=2, report_pictures=4)
    report = train_image_tokenizer(told, PICTURES)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["reconstruction"] for line in lines if "reconstruction" in line]
    assert losses[-1] < 0.7 * losses[0]
    scores = [line for line in lines if "psnr" in line]
    assert [line["step"] for line in scores] == [7, 14]
    assert report.psnr == pytest.approx(scores[-1]["psnr"], abs=0.1) and report.pictures == 4
    assert scores[-1]["psnr"] > scores[0]["psnr"]
    with Image.open(tmp_path / "reconstructions.png") as sheet:
        assert sheet.size == (4 * 32, 2 * 32)
    made = load_llamagen(tmp_path / "image_tokenizer.safetensors", image_size=32)
    assert made.config == VQ16.to_config()
    again = train_image_tokenizer(replace(told, report_pictures=2), PICTURES)
    assert again.pictures == 2, "the run is over, and its result is written once more"


def test_a_run_goes_on_where_it_was_and_refuses_other_options(tmp_path: Path):
    train_image_tokenizer(options(tmp_path, steps=1), PICTURES)
    with pytest.raises(ValueError, match=r"a run with batch = 2, not 3; give another folder"):
        train_image_tokenizer(options(tmp_path, batch=3), PICTURES)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1
    train_image_tokenizer(options(tmp_path, steps=2), iter(PICTURES))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_result_replaces_nothing_but_that_of_its_own_run(tmp_path: Path):
    base = train_and_find(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    before = base.read_bytes()
    with pytest.raises(FileExistsError, match="safetensors exists, and there is no checkpoint"):
        train_image_tokenizer(options(tmp_path, model=str(base), steps=1), PICTURES)
    assert base.read_bytes() == before


def train_and_find(folder: Path) -> Path:
    train_image_tokenizer(options(folder, steps=1), PICTURES)
    return folder / "image_tokenizer.safetensors"


def test_a_run_does_not_go_on_with_other_pictures(tmp_path: Path):
    train_image_tokenizer(options(tmp_path, steps=1), PICTURES)
    with pytest.raises(ValueError, match=r"have changed since .*: there were 4 .* are 3 pictures"):
        train_image_tokenizer(options(tmp_path, steps=2), PICTURES[:3])


def test_the_seed_decides_about_new_weights():
    first, same, other = (open_base(None, VQ16, seed).tokenizer for seed in (1, 1, 2))
    for name, weight in first.quant_conv.named_parameters():
        assert torch.equal(weight, same.quant_conv.get_parameter(name))
        assert not torch.equal(weight, other.quant_conv.get_parameter(name))


# --- files and folders ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vq16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as LlamaGen publishes them, of random weights."""
    torch.manual_seed(0)
    made = ImageTokenizer(VQ16.to_config())
    path = tmp_path_factory.mktemp("vq16") / "vq_ds16_c2i.safetensors"
    save_llamagen(made, path)
    torch.save({"model": load_file(path)}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def test_a_file_of_llamagens_gets_better_and_keeps_its_layout(vq16: Path, tmp_path: Path):
    before = digests(vq16.parent)
    told = options(tmp_path, model=str(vq16), steps=10, report_pictures=4)
    start = train_image_tokenizer(replace(told, steps=1, out=str(tmp_path / "start")), PICTURES)
    report = train_image_tokenizer(told, PICTURES)
    assert report.psnr > start.psnr + 1
    made = load_file(tmp_path / "image_tokenizer.safetensors")
    assert made.keys() == torch.load(vq16, weights_only=True)["model"].keys()
    assert digests(vq16.parent) == before, "what is trained further stays as it was"


def test_with_the_decoder_alone_every_picture_keeps_its_codes(vq16: Path, tmp_path: Path):
    told = options(tmp_path, model=str(vq16), parts=("decoder",), loss=ALL_LOSSES, steps=3)
    train_image_tokenizer(told, PICTURES)
    before = load_llamagen(vq16, image_size=32)
    after = load_llamagen(tmp_path / "image_tokenizer.safetensors", image_size=32)
    pictures = torch.cat([tiny_pictures(4, 32), torch.rand(8, 3, 32, 32)])
    codes = before.encode(pictures)
    assert torch.equal(after.encode(pictures), codes) and len(codes.unique()) > 3
    assert not torch.equal(after.decode(codes), before.decode(codes))
    assert {
        name.split(".")[0]
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    } == {"decoder", "post_quant_conv"}


def test_the_image_tokenizer_of_a_janus_is_tuned_in_its_folder(tmp_path: Path):
    base, out = save_tiny(tmp_path / "base"), tmp_path / "out"
    before, pictures = digests(base), list(map(to_pil, tiny_pictures(2, 48)))
    told = options(out, model=str(base), parts=("decoder",), steps=3)
    report = train_image_tokenizer(told, pictures)
    assert digests(base) == before
    old, new = load_file(base / "model.safetensors"), load_file(out / "model" / "model.safetensors")
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert old.keys() == new.keys() and changed
    assert all(n.startswith(("model.vqmodel.decoder.", "model.vqmodel.post_quant_conv."))
               for n in changed)  # fmt: skip
    with unitok.load(base) as plain, unitok.load(out / "model") as tuned:
        same = [m.draw("two apples", seed=1).image.tobytes() for m in (plain, tuned)]
        assert same[0] != same[1]
        codes = [m.family.model.image_tokenizer.encode(torch.rand(2, 3, 64, 64).fill_(0.3))
                 for m in (plain, tuned)]  # fmt: skip
        assert torch.equal(codes[0], codes[1])
    assert report.pictures == 2


def test_a_stored_type_stays_and_codes_stay_with_it(tmp_path: Path):
    """The embedded model is stored in 16 bits."""
    embedded = Path(unitok.__file__).parent / "assets" / "default"
    base = open_base(str(embedded), SizeOptions())
    assert base.tokenizer.quant_conv.weight.dtype == torch.float32
    nn.init.zeros_(base.tokenizer.decoder.get_parameter("conv_out.weight"))
    folder = base.save(base.tokenizer, tmp_path)
    old, new = load_file(embedded / "model.safetensors"), load_file(folder / "model.safetensors")
    assert {n: t.dtype for n, t in new.items()} == {n: t.dtype for n, t in old.items()}
    changed = [name for name in new if not torch.equal(new[name], old[name])]
    assert changed == ["model.vqmodel.decoder.conv_out.weight"]


def test_a_model_whose_image_tokenizer_cannot_be_written_is_refused(tmp_path: Path):
    folder = save_tiny_chameleon(tmp_path / "chameleon")
    with pytest.raises(ValueError, match=r"chameleon: only the image tokenizers of Janus"):
        open_base(str(folder), VQ16)
    with pytest.raises(FileNotFoundError, match=r"none\.pt is missing"):
        open_base(str(tmp_path / "none.pt"), VQ16)


def test_only_what_can_be_read_again_is_written(tmp_path: Path):
    patch = ImageTokenizer(AutoencoderConfig(image_size=16, encoder="patch", base_channels=32))
    with pytest.raises(ValueError, match=r"only VQ-16 and VQ-8 are written"):
        save_llamagen(patch, tmp_path / "patch.safetensors")
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        save_llamagen(patch, tmp_path / "patch.pt")
    assert not list(tmp_path.iterdir())


# --- options -------------------------------------------------------------------------------------


def test_each_network_is_clipped_by_itself_and_one_that_rests_has_no_gradient():
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    optimiser = torch.optim.AdamW([{"params": [weight]} for weight in weights])
    for weight, grad in zip(weights, ([3.0, 4.0], [0.3, 0.4], [0.0, 0.0]), strict=True):
        weight.grad = torch.tensor(grad)
    clip_each(optimiser, 1.0)
    torch.testing.assert_close(weights[0].grad, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([0.3, 0.4]))
    assert weights[2].grad is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ("encoder",)}, "parts must hold decoder"),
        (
            {"parts": ("decoder", "head")},
            "parts must be encoder or codebook or decoder, not 'head'",
        ),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"crop": 1.5}, "crop must be above 0 and at most 1"),
        ({"ema": 1.0}, "ema must be above 0 and below 1"),
        ({"learning_rate": 0.0}, "learning_rate and clip must be above 0"),
        ({"precision": "fp16"}, "precision must be fp32 or bf16"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        options(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mse": 0.0}, "loss.l1 and loss.mse are both 0"),
        ({"mse": -1.0}, "loss.mse must be at least 0"),
        ({"adversarial": "wgan"}, "loss.adversarial must be none or hinge or non-saturating"),
        ({"discriminator_norm": "layer"}, "loss.discriminator_norm must be batch or group"),
    ],
)
def test_wrong_options_of_the_loss_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        LossOptions(**changes)


def test_sizes_and_pictures_that_do_not_fit_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"sizes\.downsample must be 8 or 16, not 4"):
        SizeOptions(downsample=4).to_config()  # type: ignore[arg-type]
    told = options(tmp_path, loss=LossOptions(adversarial="hinge", discriminator_layers=4))
    with pytest.raises(ValueError, match="pictures of 32 pixels are too small for loss"):
        make_trainer(told, open_base(None, VQ16), PICTURES)
    with pytest.raises(ValueError, match="has no pictures"):
        train_image_tokenizer(options(tmp_path / "out", pictures=str(tmp_path)))
