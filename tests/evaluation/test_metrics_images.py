"""FID, KID, Inception Score, PSNR and SSIM against numpy, scipy, scikit-image and recorded numbers
of torch-fidelity, on made features and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from unitok.evaluation.distances import compare, features_of, fid, inception_score, kid
from unitok.evaluation.extractors import Features, InceptionExtractor, open_extractor
from unitok.evaluation.inception import Inception, open_inception, resized
from unitok.evaluation.pair_metrics import pair_scores
from unitok.evaluation.picture_folder import PictureFolder, pairs


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def made() -> tuple[Tensor, Tensor]:
    """Features of two sets whose means and covariances differ."""
    mix = noise(12, 12, seed=2)
    return noise(80, 12, seed=0), noise(60, 12, seed=1) @ mix * 0.4 + 0.3


def test_fid_is_what_the_formula_gives_by_scipy(made: tuple[Tensor, Tensor]):
    real, drawn = (x.double().numpy() for x in made)
    one, other = np.cov(real.T), np.cov(drawn.T)
    root = np.real(sqrtm(one @ other))
    shift = real.mean(0) - drawn.mean(0)
    expected = shift @ shift + np.trace(one + other - 2 * root)
    assert fid(*made) == pytest.approx(expected, abs=1e-4)
    assert fid(made[0], made[0]) == pytest.approx(0, abs=1e-4)


def test_kid_of_whole_sets_is_what_the_formula_gives(made: tuple[Tensor, Tensor]):
    real, drawn = (x.double().numpy()[:60] for x in made)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = 60
    within = sum(
        (k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(real, real), kernel(drawn, drawn))
    )
    expected = within - 2 * kernel(real, drawn).mean()
    mean, deviation = kid(made[0][:60], made[1])
    assert mean == pytest.approx(expected, abs=1e-4)
    assert deviation == pytest.approx(0, abs=1e-6)
    assert kid(*made, seed=1) == kid(*made, seed=1) != kid(*made, seed=2)


def test_inception_score_is_what_the_formula_gives():
    logits = noise(60, 5, seed=0).double() * 2
    torch.manual_seed(7)
    order = torch.randperm(60)  # the ten splits of seed 7 are of six pictures each
    p = logits[order].softmax(1).numpy().reshape(10, 6, 5)
    divergence = (p * (np.log(p) - np.log(p.mean(1, keepdims=True)))).sum(2).mean(1)
    each = np.exp(divergence)
    expected = (each.mean(), each.std(ddof=1))
    assert inception_score(logits, seed=7) == pytest.approx(expected, abs=1e-4)
    assert inception_score(logits, seed=8) != inception_score(logits, seed=7)
    assert inception_score(logits[:1]) == pytest.approx((1, 0))


class MeanColour:
    """An extractor of three features, and of three classes."""

    suffix, width, note = "_colour", 3, "of colours"

    def __call__(self, images: Sequence[Any]) -> Features:
        values = torch.stack([torch.tensor(np.array(i).mean((0, 1))) for i in images])
        return Features(values, values)


def coloured(n: int, seed: int) -> list[Image.Image]:
    pixels = (noise(n, 4, 5, 3, seed=seed) * 20 + 128).clamp(0, 255).byte().numpy()
    return [Image.fromarray(p) for p in pixels]


def test_scores_are_named_by_their_extractor_and_few_pictures_are_said():
    extractor = MeanColour()
    real, drawn = (features_of(extractor, coloured(20, seed)) for seed in (0, 1))
    scores, notes = compare(real, drawn, extractor)
    assert set(scores) == {
        "fid_colour",
        "kid_colour",
        "kid_colour_std",
        "inception_score_colour",
        "inception_score_colour_std",
    }
    assert notes == ["of colours"]
    part = Features(drawn.values[:19], drawn.values[:19])
    notes = compare(real, part, extractor)[1]
    assert "The Inception Score of 19 pictures says nothing" in notes[-1]
    few = Features(real.values[:3])
    scores, notes = compare(few, few, extractor)
    assert set(scores) == {"fid_colour", "kid_colour", "kid_colour_std"}
    assert "3 and 3 pictures are too few for 3 features" in notes[1]


def test_wrong_widths_and_too_few_pictures_are_errors():
    extractor = MeanColour()
    extractor.width = 4  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"says that it gives 4 features .* gives \[3\]"):
        features_of(extractor, coloured(2, 0))
    with pytest.raises(ValueError, match="there are no pictures"):
        features_of(extractor, [])
    with pytest.raises(ValueError, match="2,048 features, the made ones 1,280"):
        fid(torch.zeros(5, 2048), torch.zeros(5, 1280))
    with pytest.raises(ValueError, match="1 real and 5 made"):
        kid(torch.zeros(1, 4), torch.zeros(5, 4))


def test_without_an_extractor_the_error_says_what_to_name(tmp_path: Path):
    with pytest.raises(ValueError, match=r"need an extractor.*lite0"):
        open_extractor(None)
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_extractor(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none of model_index\.json, config\.json"):
        open_extractor(tmp_path)


def test_lite0_knows_what_is_in_a_picture_and_says_that_it_is_not_comparable():
    extractor = open_extractor("lite0")
    red, noisy = Image.new("RGB", (300, 200), "red"), coloured(1, 0)[0]
    found = extractor([red, noisy])
    assert found.values.shape == (2, 1280) == (2, extractor.width)
    assert found.logits is not None and found.logits.shape == (2, 1000)
    alone = extractor([noisy])
    assert torch.allclose(alone.values, found.values[1:], atol=1e-4)
    assert "cannot be compared with published" in extractor.note
    assert extractor.suffix == "_lite0"


# --- the Inception network -----------------------------------------------------------------------


def made_weights() -> dict[str, Tensor]:
    """Random weights under the names of torch-fidelity's file, in a range that keeps the signal."""
    made: dict[str, Tensor] = {}
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in Inception().state_dict().items()}
    counters = {
        f"{k.removesuffix('weight')}num_batches_tracked" for k in shapes if k.endswith("bn.weight")
    }
    for i, name in enumerate(sorted(shapes.keys() | counters)):
        chance = torch.Generator().manual_seed(i)
        shape = shapes.get(name, torch.Size())
        if name in counters:
            made[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            made[name] = torch.rand(shape, generator=chance) + 0.5
        elif name.endswith("bn.weight"):
            made[name] = torch.rand(shape, generator=chance) * 0.5 + 0.75
        elif name.endswith(("running_mean", "bias")):
            made[name] = torch.randn(shape, generator=chance) * 0.1
        else:
            made[name] = torch.randn(shape, generator=chance) * (2 / shape[1:].numel()) ** 0.5
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(made_weights(), path)
    return path


def test_inception_gives_the_numbers_of_torch_fidelity(weights: Path):
    # Recorded from FeatureExtractorInceptionV3 of torch-fidelity 0.4.0 on these weights.
    pixels = torch.randint(
        0, 256, (2, 3, 64, 80), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    features = [0.2312326, 0.0111307, 1.2443351, 2.6709206]
    logits = [1.6198436, -3.1567917, -4.5434775, -10.3021488]
    images = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
    found = InceptionExtractor(weights)(images)
    assert found.values.shape == (2, 2048)
    assert found.logits is not None and found.logits.shape == (2, 1008)
    assert found.values[0, :4].tolist() == pytest.approx(features, abs=1e-4)
    assert found.logits[0, :4].tolist() == pytest.approx(logits, abs=1e-4)


def test_inception_is_opened_strictly(weights: Path, tmp_path: Path):
    made = torch.load(weights, weights_only=True)
    path = tmp_path / "wrong.safetensors"

    def message(changed: dict[str, Tensor]) -> str:
        save_file(changed, path)
        with pytest.raises(ValueError) as caught:
            open_inception(path)
        return str(caught.value)

    lacking = {k: v for k, v in made.items() if k != "Mixed_7c.branch1x1.conv.weight"}
    assert "1 missing keys, such as Mixed_7c.branch1x1.conv.weight" in message(lacking)
    more = made | {"AuxLogits.conv0.conv.weight": torch.zeros(1)}
    assert "1 unknown keys, such as AuxLogits" in message(more)
    classes = made | {"fc.weight": torch.zeros(1000, 2048)}
    assert "fc.weight is [1000, 2048], not [1008, 2048]" in message(classes)
    narrow = made | {"Mixed_5b.branch_pool.bn.bias": torch.zeros(31)}
    assert "Mixed_5b.branch_pool.bn.bias is [31], not [32]" in message(narrow)
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        open_inception(path)


def test_pictures_are_resized_as_tensorflow_1_does():
    row = torch.tensor([0.0, 10.0, 40.0]).reshape(1, 1, 1, 3).expand(1, 3, 2, 3)
    x = resized(row)
    assert x.shape == (1, 3, 299, 299)
    step = 3 / 299  # the first pixels' corners coincide
    assert x[0, 0, 0, 0] == 0
    assert x[0, 0, 0, 50] == pytest.approx(50 * step * 10, abs=1e-4)
    assert x[0, 0, 0, 150] == pytest.approx(10 + (150 * step - 1) * 30, abs=1e-4)
    assert x[0, 0, 7, 290] == 40  # behind the last pixel, which is repeated


# --- reconstructions and folders -----------------------------------------------------------------


def test_psnr_and_ssim_agree_with_scikit_image():
    pixels = (noise(40, 33, 3, seed=3) * 40 + 120).clamp(0, 255).byte().numpy()
    changed = (pixels.astype(float) + noise(40, 33, 3, seed=4).numpy() * 12).clip(0, 255)
    changed = changed.astype(np.uint8)
    scores = pair_scores(pixels, changed)
    assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(pixels, changed), abs=1e-4)
    expected = structural_similarity(
        pixels / 255,
        changed / 255,
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert scores["ssim"] == pytest.approx(expected, abs=1e-4)
    assert pair_scores(pixels, pixels) == {"psnr": pytest.approx(100), "ssim": pytest.approx(1)}


def test_a_pair_of_two_sizes_and_tiny_pictures_are_errors():
    small, large = Image.new("RGB", (10, 12)), Image.new("RGB", (12, 12))
    with pytest.raises(ValueError, match="10 x 12 pixels, the reconstruction 12 x 12"):
        pair_scores(small, large)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels"):
        pair_scores(small, small)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "real" / "more").mkdir(parents=True)
    for i, image in enumerate(coloured(3, 0)):
        image.save(tmp_path / "real" / f"{i}.png")
    coloured(1, 1)[0].resize((9, 9)).save(tmp_path / "real" / "more" / "x.jpg")
    (tmp_path / "real" / "notes.txt").write_text("no picture")
    return tmp_path / "real"


def test_a_folder_is_counted_and_its_unreadable_files_are_named(folder: Path):
    (folder / "1.png").write_bytes(b"\x89PNG cut off")
    pictures = PictureFolder(folder)
    assert [p.size for p in pictures.pictures()] == [(5, 4), (5, 4), (9, 9)]
    assert pictures.read == 3
    assert list(pictures.unreadable) == ["1.png"]
    assert "1 of 4 files" in pictures.notes()[0] and "1.png" in pictures.notes()[0]


def test_pairs_have_one_name_and_missing_and_extra_pictures_are_named(folder: Path, tmp_path: Path):
    other = tmp_path / "made"
    other.mkdir()
    for name in ("0.jpg", "1.jpg", "9.jpg"):
        coloured(1, 2)[0].save(other / name)
    with pytest.raises(ValueError, match=r"lacks 2 pictures \(2, more/x\), which"):
        pairs(PictureFolder(folder), PictureFolder(other))
    (other / "more").mkdir()
    for name in ("2.jpg", "more/x.png"):
        coloured(1, 2)[0].save(other / name)
    with pytest.raises(ValueError, match=r"has 1 pictures \(9\), which"):
        pairs(PictureFolder(folder), PictureFolder(other))
    (other / "9.jpg").unlink()
    found = pairs(PictureFolder(folder), PictureFolder(other))
    assert [(name, a.suffix, b.suffix) for name, a, b in found][-1] == ("more/x", ".jpg", ".png")
    coloured(1, 2)[0].save(other / "2.png")
    with pytest.raises(ValueError, match=r"has 2 twice: 2.jpg, 2.png"):
        pairs(PictureFolder(folder), PictureFolder(other))


def test_an_empty_or_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no pictures"):
        PictureFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        PictureFolder(tmp_path / "none")


def test_features_that_are_not_finite_are_an_error():
    class Dazed(MeanColour):
        def __call__(self, images):
            return Features(super().__call__(images).values * float("nan"))

    with pytest.raises(ValueError, match="features that are not finite"):
        features_of(Dazed(), coloured(2, 0))
