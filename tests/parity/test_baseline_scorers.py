"""CLIP, SigLIP and SigLIP 2 as scorers: the same numbers as transformers itself, and searches."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.parity.tiny_scorers import (
    LENGTH,
    TEXTS,
    clip_folder,
    pictures,
    siglip2_folder,
    siglip_folder,
)
from unitok.baselines.feature_store import FeatureStore
from unitok.baselines.opening import load
from unitok.baselines.protocols import ImageTextScorer
from unitok.baselines.scorers import Hit

MAKERS: dict[str, Callable[[Path], Path]] = {
    "CLIPModel": clip_folder,
    "SiglipModel": siglip_folder,
    "Siglip2Model": siglip2_folder,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {n: make(tmp_path_factory.mktemp("scorers") / n) for n, make in MAKERS.items()}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def clip(folders: dict[str, Path]) -> Any:
    return load(folders["CLIPModel"], "scorer", device="cpu", batch_size=2)


def reference(kind: str, folder: Path, texts: list[str] = TEXTS) -> Tensor:
    """Logits [pictures, texts], by the library alone."""
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    images = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    padding = True if kind == "CLIPModel" else "max_length"
    options = {"padding": padding, "truncation": True, "max_length": length}
    with torch.no_grad():
        shown = images(images=pictures(), return_tensors="pt")
        told = tokenizer(texts, **options, return_tensors="pt")
        return model(**shown, **told).logits_per_image


# --- the same as the library ---------------------------------------------------------------------


def test_scores_are_those_of_the_library(kind: str, folders: dict[str, Path]):
    scorer = load(folders[kind], "scorer", device="cpu", batch_size=2)
    assert isinstance(scorer, ImageTextScorer)
    scores = scorer.score(pictures(), TEXTS)
    torch.testing.assert_close(scores, reference(kind, folders[kind]), atol=1e-5, rtol=1e-5)
    assert scorer.name == kind


def test_probabilities_are_as_the_model_was_trained(kind: str, folders: dict[str, Path]):
    scorer = load(folders[kind], "scorer", device="cpu")
    logits = reference(kind, folders[kind])
    wanted = logits.softmax(1) if kind == "CLIPModel" else logits.sigmoid()
    torch.testing.assert_close(scorer.classify(pictures(), TEXTS), wanted, atol=1e-5, rtol=1e-4)


def test_features_have_unit_length(kind: str, folders: dict[str, Path]):
    scorer = load(folders[kind], "scorer", device="cpu")
    width = 24 if kind == "CLIPModel" else 32
    for features in (scorer.image_features(pictures()), scorer.text_features(TEXTS)):
        assert (features.shape, features.dtype) == ((3, width), torch.float32)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_the_type_can_be_chosen(folders: dict[str, Path]):
    scorer = load(folders["CLIPModel"], "scorer", device="cpu", dtype="bf16")
    scores = scorer.score(pictures(), TEXTS)
    exact = reference("CLIPModel", folders["CLIPModel"])
    assert 0 < (scores - exact).abs().max() < 0.5


# --- texts ---------------------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_cut_off_with_a_warning(folders: dict[str, Path]):
    long = "dog " * 40
    with pytest.warns(UserWarning, match=rf"has 122 tokens; the model reads the first {LENGTH}"):
        scorer = load(folders["CLIPModel"], "scorer", device="cpu")
        scores = scorer.score(pictures(), [long])
    wanted = reference("CLIPModel", folders["CLIPModel"], [long])
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-5)


def test_what_is_no_text_is_refused(clip: Any):
    with pytest.raises(TypeError, match="each text must be text, not 3"):
        clip.text_features(["a cat", 3])
    with pytest.raises(TypeError, match=r"give a list of texts, such as \['a cat'\]"):
        clip.classify(pictures(), "a cat")


def test_nothing_has_no_scores(clip: Any):
    assert clip.score([], TEXTS).shape == (0, 3)
    assert clip.score(pictures(), []).shape == clip.classify(pictures(), []).shape == (3, 0)


# --- searches ------------------------------------------------------------------------------------


def test_a_search_finds_what_scores_highest(clip: Any):
    scores = clip.score(pictures(), TEXTS)
    order = scores[:, 0].argsort(descending=True).tolist()
    found = clip.search(TEXTS[0], pictures(), k=2)
    assert [match.index for match in found] == order[:2]
    assert [match.score for match in found] == pytest.approx(
        scores[order[:2], 0].tolist(), abs=1e-5
    )
    order = scores[1].argsort(descending=True).tolist()
    assert [match.index for match in clip.search_texts(pictures()[1], TEXTS)] == order


def test_of_equal_pictures_the_first_comes_first(clip: Any):
    first, second, _ = pictures()
    found = clip.search("a cat", [second, first, first, second], k=4)
    assert sorted(m.index for m in found[:2]) == [m.index for m in found[:2]]
    assert found[0].score == found[1].score and isinstance(found[0], Hit)


def test_a_search_among_nothing_finds_nothing(clip: Any):
    assert clip.search("a cat", []) == clip.search_texts(pictures()[0], []) == []


def test_a_search_for_no_picture_is_refused(clip: Any):
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        clip.search("a cat", pictures(), k=0)


# --- features that are kept ----------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, picture in zip(paths, pictures(5), strict=True):
        picture.save(path)
    return paths


@pytest.fixture
def encoded(clip: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each batch has that is encoded from now on."""
    sizes: list[int] = []
    encode = clip.encode_images

    def counted(inputs: Any) -> Tensor:
        sizes.append(len(inputs["pixel_values"]))
        return encode(inputs)

    monkeypatch.setattr(clip, "encode_images", counted)
    return sizes


def test_features_are_computed_once(clip: Any, encoded: list[int], files: list[Path], tmp_path):
    kept = tmp_path / "features.safetensors"
    first = clip.search("a cat", files, store=FeatureStore(kept))
    assert sum(encoded) == 5
    assert first == clip.search("a cat", files, store=FeatureStore(kept))
    assert sum(encoded) == 5
    torch.testing.assert_close(
        torch.tensor([match.score for match in first]),
        torch.tensor([match.score for match in clip.search("a cat", pictures(5))]),
    )


def test_a_picture_is_known_by_its_content(
    clip: Any, encoded: list[int], files: list[Path], tmp_path: Path
):
    store = FeatureStore(tmp_path / "features.safetensors")
    before = store.features(clip, files)
    renamed = files[0].rename(tmp_path / "renamed.png")
    shutil.copy(files[2], files[1])  # another picture under the name of one that is known
    after = store.features(clip, [renamed, *files[1:]])
    assert sum(encoded) == 5
    assert torch.equal(after, before[[0, 2, 2, 3, 4]])


def test_two_pictures_alike_are_encoded_once(
    clip: Any, encoded: list[int], files: list[Path], tmp_path: Path
):
    features = FeatureStore().features(clip, [files[0], files[0], files[0]])
    assert sum(encoded) == 1 and torch.equal(features[0], features[2])


def test_a_file_holds_the_features_of_several_models(
    clip: Any, folders: dict[str, Path], files: list[Path], tmp_path: Path
):
    kept = tmp_path / "features.safetensors"
    other = load(folders["SiglipModel"], "scorer", device="cpu")
    one, two = FeatureStore(kept).features(clip, files), FeatureStore(kept).features(other, files)
    assert (one.shape, two.shape) == ((5, 24), (5, 32))
    again = FeatureStore(kept)
    assert torch.equal(again.features(clip, files), one)
    assert torch.equal(again.features(other, files), two)


def test_other_weights_have_other_features(
    clip: Any, encoded: list[int], folders: dict[str, Path], files: list[Path], tmp_path: Path
):
    changed = tmp_path / "changed"
    shutil.copytree(folders["CLIPModel"], changed)
    model = transformers.CLIPModel.from_pretrained(changed)
    torch.nn.init.normal_(model.visual_projection.weight)
    model.save_pretrained(changed)
    kept = tmp_path / "features.safetensors"
    one = FeatureStore(kept).features(clip, files)
    two = FeatureStore(kept).features(load(changed, "scorer", device="cpu"), files)
    assert not torch.allclose(one, two, atol=1e-2)


def test_another_type_has_other_features(
    clip: Any, folders: dict[str, Path], files, tmp_path: Path
):
    kept = tmp_path / "features.safetensors"
    half = load(folders["CLIPModel"], "scorer", device="cpu", dtype="bf16")
    one, two = FeatureStore(kept).features(clip, files), FeatureStore(kept).features(half, files)
    assert not torch.equal(one, two)


def test_what_was_computed_before_an_error_is_kept(
    clip: Any, encoded: list[int], files: list[Path], tmp_path: Path
):
    kept = tmp_path / "features.safetensors"
    files[3].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"3\.png is not a picture"):
        FeatureStore(kept).features(clip, files)
    wrong: list[tuple[Path, str]] = []
    features = FeatureStore(kept).features(clip, files, lambda p, e: wrong.append((p, str(e))))
    assert len(features) == 4
    assert wrong == [(files[3], f"{files[3]} is not a picture")]
    assert encoded == [2, 2]  # the second run needs the last picture and the third, which was lost


def test_a_file_of_something_else_is_refused(clip: Any, files: list[Path], tmp_path: Path):
    other = tmp_path / "other.safetensors"
    shutil.copy(clip.folder / "model.safetensors", other)
    with pytest.raises(ValueError, match=r"other\.safetensors holds no features of pictures"):
        FeatureStore(other)
    with pytest.raises(ValueError, match=r"0\.png cannot be read"):
        FeatureStore(files[0])
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        FeatureStore(tmp_path / "nowhere" / "features.safetensors")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        FeatureStore(tmp_path)


def test_features_are_kept_of_files_alone(clip: Any):
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(TypeError, match="give paths, not Image"):
        clip.search("a cat", [image], store=FeatureStore())


# --- folders that cannot be opened ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("model.safetensors", r"transformers cannot open it: .*model\.safetensors"),
        ("tokenizer.json", r"is not complete: it has no tokenizer\.json or vocab\.json"),
        ("processor_config.json", r"is not complete: it has no preprocessor_config\.json or proc"),
        ("config.json", r"has none of model_index\.json, config\.json"),
    ],
)
def test_a_missing_part_is_named(missing: str, told: str, folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    (folder / missing).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=told):
        load(folder, "scorer", device="cpu")


def test_missing_weights_are_named(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    with pytest.raises(ValueError, match=r"32 weights are missing, such as text_model\.encoder"):
        load(folder, "scorer", device="cpu")


KERNEL = "kernels-community/flash-attn3"  # of those that transformers fetches and runs unasked


@pytest.mark.parametrize(
    "name", ["attn_implementation", "_attn_implementation", "_experts_implementation"]
)
def test_a_kernel_that_a_folder_names_is_not_fetched(
    folders: dict[str, Path], tmp_path: Path, name: str
):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["vision_config"], config["text_config"]):
        part[name] = KERNEL
    (folder / "config.json").write_text(json.dumps(config))
    model = load(folder, "scorer", device="cpu")._model
    for part in (model.config, model.config.vision_config, model.config.text_config):
        assert KERNEL not in (part._attn_implementation, part._experts_implementation)


def test_an_attention_that_a_folder_names_is_not_fetched(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"attn_implementation": "evil/kernel", "auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    scores = load(folder, "scorer", device="cpu").score(pictures(), TEXTS)
    wanted = reference("CLIPModel", folders["CLIPModel"])
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "ran").exists()


def test_options_are_checked(folders: dict[str, Path]):
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        load(folders["CLIPModel"], "scorer", device="cpu", batch_size=0)
    with pytest.raises(ValueError, match="dtype must be one of"):
        load(folders["CLIPModel"], "scorer", device="cpu", dtype="int3")
    with pytest.raises(TypeError, match="ClipScorer has no option 'batch'; did you mean 'batch_s"):
        load(folders["CLIPModel"], "scorer", device="cpu", batch=2)


def test_features_that_are_not_numbers_are_an_error(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="clip computes values that are not numbers: its weights"):
        load(folder, "scorer", device="cpu").classify(pictures(), TEXTS)


def test_weights_of_another_shape_are_one_clear_line(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"open it: config\.json gives weights another shape$"):
        load(folder, "scorer", device="cpu")


def test_a_setting_of_a_wrong_type_is_named(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "clip"
    shutil.copytree(folders["CLIPModel"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"projection_dim": "x"}))
    with pytest.raises(ValueError, match=r"'projection_dim': TypeError: .*int"):
        load(folder, "scorer", device="cpu")
