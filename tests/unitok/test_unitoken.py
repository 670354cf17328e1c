"""UniToken: layouts with the published ids, AnyRes by hand, plans, folders that do not fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unitok
from tests.unitok.tiny_chameleon import (
    REAL_SIZE,
    VISION_CONFIG,
    real_words,
    save_unitoken,
    tokenizer_json,
    unitoken_json,
    write,
)
from unitok.checkpoints.settings import Settings
from unitok.families import ImageOptions, open_folder
from unitok.families.common.siglip import SIGLIP_SO400M
from unitok.families.unitoken import UniToken
from unitok.families.unitoken.config import read_vision
from unitok.families.unitoken.tiling import Tiling
from unitok.prompt import Embeddings, EncodedImage, Message, PromptBuilder
from unitok_engine import Allow, Force, GridPlan, IdRange, Stop

BOS, EOI, BOI, SEPARATOR, EOT, NEW_LINE, ANSWER = 1, 8196, 8197, 8198, 8710, 8803, 16853
SIZE = 8804 + 2  # of 4 codes a side, as published: 32 codes are 8804 + 16
REQUEST = "Generate an image according to the following prompt:\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("unitoken")
    return {name: save_unitoken(root / name, name) for name in ("Base", "AnyRes")}


@pytest.fixture(scope="module")
def families(folders: dict[str, Path]) -> dict[str, UniToken]:
    return {name: opened(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("variant", ["Base", "AnyRes"])
def test_a_tuned_model_is_written_and_opens_again(
    folders: dict[str, Path], tmp_path: Path, variant: str
):
    tuned = opened(folders[variant])
    with torch.no_grad():
        for weight in (tuned.model.decoder.norm.weight, tuned.model.vision_aligner.fc1.weight):
            weight.add_(1)
    tuned.save(tmp_path / "tuned", None)
    again = opened(tmp_path / "tuned")
    assert again.anyres == tuned.anyres
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, tuned.model.state_dict()[name]), name
    with pytest.raises(ValueError, match="layout must be original, not 'transformers'"):
        tuned.save(tmp_path / "other", "transformers")


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(folders["Base"], tmp_path / "tiny"))


def opened(folder: Path) -> UniToken:
    family = open_folder(folder, "cpu", torch.float32, strict=True)
    assert isinstance(family, UniToken)
    return family


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def segments(read: EncodedImage) -> tuple[tuple[int, ...], Embeddings, tuple[int, ...]]:
    before, vectors, after = read.segments
    assert (
        isinstance(before, tuple) and isinstance(vectors, Embeddings) and isinstance(after, tuple)
    )
    return before, vectors, after


# --- layouts -------------------------------------------------------------------------------------


def test_a_picture_of_512_pixels_is_laid_out_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    vq = {"resolution": 512, "channel_multiplier": [1, 1, 1, 1, 1], "num_embeddings": 8192}
    vq |= {"embed_dim": 4, "latent_channels": 8, "base_channels": 32, "num_res_blocks": 1}
    vision = VISION_CONFIG | {"image_size": 384, "patch_size": 14}
    folder = save_unitoken(tmp_path / "full", vq_config=vq, vision_config=vision)
    family = opened(folder)
    codes = 4 + torch.arange(1024).view(32, 32)
    monkeypatch.setattr(family, "image_ids", lambda square: codes)
    before, vectors, after = segments(family.encode_image(noise(700, 600)))
    assert before[:3] == (8197, 8820, 8820) and before[-1] == 8198 and after == (8196,)
    assert len(before) + len(after) == 1060 + 1
    rows = torch.tensor(before[3:-1]).view(32, 33)
    assert torch.equal(rows[:, :32], codes) and rows[:, 32].eq(8803).all()
    assert (vectors.length, vectors.compute().shape) == (729, (729, 32))
    assert (family.picture_size, family.picture_tokens) == ((512, 512), 32 * 33 + 1)


def test_a_question_stands_behind_its_picture(families: dict[str, UniToken]):
    family = families["Base"]
    read = family.encode_image(noise(40, 20))
    before, _, _ = segments(read)
    line = family.chat_prompt([Message("user", "What?", (read,))], None)
    picture = [*before, *[SEPARATOR] * 16, EOI]
    assert list(line.token_ids) == [BOS, *picture, *real_words("What?"), EOT]
    (features,) = line.embeddings
    assert (features.start, features.length) == (1 + 3 + 4 * 5 + 1, 16)


def test_a_wish_ends_where_the_reference_begins_to_draw(families: dict[str, UniToken]):
    ask = [Message("user", "hi"), Message("assistant", "ho"), Message("user", "a {cat}")]
    prompt, against = families["Base"].generation_spec(ask, ImageOptions(3.0)).branches
    talk = [*real_words("hi"), EOT, *real_words("ho"), EOT]
    assert list(prompt.token_ids) == [
        BOS, *talk, *real_words(REQUEST + "a {cat}"), EOT, ANSWER, BOI, SIZE, SIZE
    ]  # fmt: skip
    assert against.token_ids == (BOI, SIZE, SIZE), "no prompt, and positions of its own"
    assert (prompt.weight, against.weight) == (3.0, -2.0)


def test_of_a_picture_a_drawing_sees_the_ids_alone(families: dict[str, UniToken]):
    """The reference's `generate_img` gives the ids of pictures, and computes no embeddings."""
    for family in families.values():
        read = family.encode_image(noise(40, 26))
        before, _, _ = segments(read)
        talk = [Message("user", "see", (read,)), Message("user", "like it", (read,))]
        prompt, against = family.generation_spec(talk, ImageOptions(3.0)).branches
        ids = [*before[:-1], EOI]
        asked = [*real_words(REQUEST + "like it"), EOT, ANSWER, BOI, SIZE, SIZE]
        assert list(prompt.token_ids) == [BOS, *ids, *real_words("see"), EOT, *ids, *asked]
        assert prompt.embeddings == () and against.token_ids == (BOI, SIZE, SIZE)


def test_an_answer_holds_no_picture_and_ends_with_its_turn(families: dict[str, UniToken]):
    plan = families["Base"].text_plan(7)
    step = plan.next([])
    assert isinstance(step, Allow) and step.mask is not None
    assert set((~step.mask).nonzero().flatten().tolist()) == {BOI, *range(4, 8196)}
    for stop in (2, EOT):
        assert plan.next([16600, stop]) == Stop("stop", drop=1)


def test_guidance_of_one_is_none_and_negative_words_are_a_wish(families: dict[str, UniToken]):
    ask = [Message("user", "it")]
    (prompt,) = families["Base"].generation_spec(ask, ImageOptions(1.0)).branches
    assert prompt.weight == 1.0
    against = families["Base"].generation_spec(ask, ImageOptions(2.0, "mud")).branches[1]
    opening = (EOT, ANSWER, BOI, SIZE, SIZE)
    assert against.token_ids == (BOS, *real_words(REQUEST + "mud"), *opening)


# --- plans ---------------------------------------------------------------------------------------


def walk(plan: GridPlan) -> list[int | str]:
    """What a plan asks for: forced ids, "?" for sampled ones, the reason of the end."""
    asked: list[int | str] = []
    emitted: list[int] = []
    while not isinstance(step := plan.next(emitted), Stop):
        asked.append(step.id if isinstance(step, Force) else "?")
        emitted.append(step.id if isinstance(step, Force) else 7)
    return [*asked, step.reason]


def test_rows_are_closed_by_new_lines_and_the_picture_by_its_end():
    plan = GridPlan(IdRange(4, 9), rows=2, columns=3, row_end=90, closing=(91,))
    expected = ["?", "?", "?", 90, "?", "?", "?", 90, 91]
    assert walk(plan) == [*expected, "complete"]
    assert (plan.max_length, plan.exact) == (len(expected), True)
    step = plan.next([])
    assert isinstance(step, Allow) and step.id_range == IdRange(4, 9)


def test_what_a_plan_emits_is_painted_without_its_marks(families: dict[str, UniToken]):
    family = families["Base"]
    codes = [[4 + 4 * row + column for column in range(4)] for row in range(4)]
    ids = [id for row in codes for id in (*row, NEW_LINE)] + [EOI]
    flat = torch.tensor([[id - 4 for row in codes for id in row]])
    assert torch.equal(family.decode_images([ids]), family.model.image_tokenizer.decode(flat))


# --- the square for the ids ----------------------------------------------------------------------


def test_large_pictures_are_halved_first_and_cut_in_the_middle(families: dict[str, UniToken]):
    picture = noise(75, 40)
    half = picture.resize((37, 20), Image.Resampling.BOX)  # 20 is less than twice 16
    small = half.resize((round(37 * 16 / 20), 16), Image.Resampling.BICUBIC)
    left = (small.width - 16) // 2
    expected = small.crop((left, 0, left + 16, 16))
    assert np.array_equal(np.array(families["Base"].fit(picture)), np.array(expected))


# --- AnyRes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        # 2 x 1 tiles keep all pixels, as 2 x 2 and 3 x 1 do, and waste the fewest
        ((500, 333), (2, 1)),
        ((333, 500), (1, 2)),
        ((800, 800), (2, 2)),
        # 1 x 2: 384 x 384 of it, 2 x 2: all of it
        ((400, 400), (2, 2)),
        # both ways of two tiles keep all and waste alike: the first, 1 column of 2
        ((300, 300), (1, 2)),
        ((2000, 600), (3, 1)),
        ((600, 2000), (1, 3)),
        ((1, 1), (1, 2)),
        # int(1 * 1152 / 20000) = 0: none keeps a pixel, the first wastes the fewest
        ((1, 20000), (1, 2)),
        ((20000, 1), (1, 2)),
        # 1 * 1152 / 1167 = 0.99 is no pixel, so that 1 x 3 keeps none either
        ((1, 1167), (1, 2)),
    ],
)
def test_the_grid_keeps_most_pixels_and_wastes_the_fewest(size: tuple, grid: tuple):
    assert Tiling(size, 384).grid == grid


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        # 2 x 1 tiles are 54 x 27 patches; 500 * 27 / 333 = 40.5, 40 of them and 7 on each side
        ((500, 333), (27, 40)),
        # 1 x 3 tiles: 27 x 81; 600 * 81 / 2000 = 24.3, 24 of 27: 1 on each side
        ((600, 2000), (81, 25)),
        # 3 x 1: 81 x 27; 400 * 81 / 2000 = 16.2, 16 of 27: 5 on each side
        ((2000, 400), (17, 81)),
        ((800, 800), (54, 54)),
        # 100 * 54 / 250 = 21.6, 21 of 27: 3 on each side, where 22 would leave 2
        ((100, 250), (54, 21)),
        # 100 * 54 / 400 = 13.5, 13 of 27: 7 on each side, where 14 would leave 6
        ((400, 100), (13, 54)),
        ((1, 20000), (54, 1)),
        ((20000, 1), (0, 27)),  # the whole picture in one tile is all that is seen
    ],
)
def test_patches_of_the_black_border_are_left_out(size: tuple, shape: tuple):
    rows, columns = Tiling(size, 384).unpadded(27)
    grid = Tiling(size, 384).grid
    patches = torch.zeros(27 * grid[1], 27 * grid[0])
    assert patches[rows, columns].shape == shape


def test_tiles_are_the_whole_and_then_rows_of_a_padded_picture():
    picture = noise(40, 26)
    tiling = Tiling(picture.size, 30)
    assert tiling.grid == (2, 1)
    whole, left, right = (np.array(tile) for tile in tiling.tiles(picture))
    assert np.array_equal(whole, np.array(picture.resize((30, 30), Image.Resampling.BICUBIC)))
    fitted = np.array(picture.resize((47, 30), Image.Resampling.BICUBIC))  # 40 * 30 / 26 = 46.2
    assert np.array_equal(np.concatenate([left, right], axis=1)[:, 6:53], fitted)
    assert not left[:, :6].any() and not right[:, 23:].any()


def test_features_of_tiles_are_joined_row_by_row():
    parts = torch.arange(4 * 9).view(4, 9, 1)  # 2 x 2 tiles of 3 x 3 patches
    joined = UniToken.join(parts, (2, 2), 3)[..., 0]
    assert joined[0].tolist() == [0, 1, 2, 9, 10, 11]
    assert joined[4].tolist() == [21, 22, 23, 30, 31, 32]


def test_anyres_reads_the_whole_then_closed_rows_of_tiles(families: dict[str, UniToken]):
    family, picture = families["AnyRes"], noise(40, 26)
    before, vectors, after = segments(family.encode_image(picture))
    assert before[:3] == (BOI, SIZE, SIZE) and before[-1] == SEPARATOR and after == (EOI,)
    # 2 x 1 tiles are 8 x 4 patches; int(40 * 4 / 26) = 6: a border of 1 on each side
    found = vectors.compute()
    assert vectors.length == len(found) == 16 + 4 * (6 + 1)
    model = family.model
    tiles = [np.array(t) / 255 * 2 - 1 for t in Tiling(picture.size, 30).tiles(picture)]
    with torch.no_grad():
        whole, left, right = (
            model.encode_images(torch.tensor(t).permute(2, 0, 1)[None].float())[0] for t in tiles
        )
        expected = list(whole)
        for row in range(4):
            line = [*left[4 * row : 4 * row + 4], *right[4 * row : 4 * row + 4]]
            expected += [*line[1:7], model.text_embedding.weight[NEW_LINE]]
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("variant", ["Base", "AnyRes"])
def test_pictures_read_together_are_as_if_read_alone(families: dict[str, UniToken], variant: str):
    family = families[variant]
    sizes = [(40, 26), (40, 40), (26, 40), (90, 20), (40, 26), (20, 30), (30, 30)]
    read = [segments(family.encode_image(noise(*size, seed=i)))[1] for i, size in enumerate(sizes)]
    (together,) = {vectors.compute_many for vectors in read}
    assert together is not None
    found = together([vectors.payload for vectors in read])
    for vectors, many in zip(read, found, strict=True):
        assert many.shape[0] == vectors.length
        torch.testing.assert_close(many, vectors.compute(), atol=1e-5, rtol=0)


def test_pictures_of_other_sizes_or_pixels_have_other_digests(families: dict[str, UniToken]):
    def key(name: str, picture: Image.Image) -> str:
        return segments(families[name].encode_image(picture))[1].digest

    black = Image.new("RGB", (40, 40)), Image.new("RGB", (40, 35))
    assert key("AnyRes", black[0]) != key("AnyRes", black[1]), "the same tiles, fewer patches"
    assert key("Base", noise(40, 40)) != key("Base", noise(40, 40, seed=1))
    assert key("Base", noise(40, 40)) == key("Base", noise(40, 40))


def test_a_tiled_picture_finds_room_beyond_the_trained_context(families: dict[str, UniToken]):
    assert families["Base"].max_context == 256
    assert families["AnyRes"].max_context == 8192


# --- folders -------------------------------------------------------------------------------------


def test_the_variant_is_told_by_the_class_that_was_saved(folder: Path):
    saved_by_inference = ["ChameleonGenForConditionalGenerationBase"]
    write(folder / "config.json", unitoken_json(architectures=saved_by_inference))
    assert opened(folder).anyres is False
    write(folder / "config.json", unitoken_json("AnyRes"))
    assert opened(folder).anyres is True


def test_without_sizes_siglip_is_that_of_the_reference():
    vision = read_vision(Settings({}))
    assert vision == SIGLIP_SO400M and vision.patches == 729
    tiny = read_vision(Settings({"vision_config": VISION_CONFIG}))
    assert (tiny.patches, tiny.activation, tiny.norm_eps) == (16, "gelu_tanh", 1e-6)
    with pytest.raises(ValueError, match="hidden_act"):
        read_vision(Settings({"vision_config": {"hidden_act": "gelu"}}))


def test_a_folder_without_the_vqgan_says_where_to_get_it(folder: Path):
    shutil.rmtree(folder / "tokenizer")
    message = r"no vqgan\.ckpt; put Meta's file of Chameleon's tokenizer/ there"
    with pytest.raises(FileNotFoundError, match=message):
        opened(folder)


def test_a_vqgan_that_training_left_in_the_folder_is_not_used(folder: Path, families):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.vqmodel.encoder.conv_in.bias"] = torch.ones(32)
    save_file(tensors, folder / "model.safetensors")
    ours, plain = opened(folder).model.image_tokenizer, families["Base"].model.image_tokenizer
    assert torch.equal(ours.encoder.conv_in.bias, plain.encoder.conv_in.bias)


def test_a_folder_without_the_encoder_names_what_is_missing(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith(("vit.", "adapter."))}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing keys, such as adapter\.0\.bias"):
        opened(folder)


@pytest.mark.parametrize("name", ["<sentinel:0>", "<reserved08799>", "<reserved08802>"])
def test_a_tokenizer_without_a_mark_is_refused(folder: Path, name: str):
    names = unitoken_json()["vocabulary_map"]
    names["<other>"] = names.pop(name)
    write(folder / "tokenizer.json", tokenizer_json(names))
    with pytest.raises(ValueError, match=f"no token '{name}'"):
        opened(folder)


def test_a_tokenizer_of_another_size_is_refused(folder: Path):
    names = unitoken_json()["vocabulary_map"]
    write(folder / "tokenizer.json", tokenizer_json({n: i for n, i in names.items() if i < 16853}))
    with pytest.raises(ValueError, match="the tokenizer has no id 16853"):
        opened(folder)
    write(folder / "tokenizer.json", tokenizer_json(names | {"<late>": REAL_SIZE}))
    with pytest.raises(ValueError, match="has 16865 ids, the model 16864"):
        opened(folder)


def test_what_a_folder_says_of_sampling_is_followed(folder: Path):
    assert (opened(folder).defaults.top_k, opened(folder).defaults.guidance) == (4000, 3.0)
    write(folder / "generation_config.json", {"top_k": 7, "guidance_scale": 2.5})
    defaults = opened(folder).defaults
    assert (defaults.top_k, defaults.guidance, defaults.temperature) == (7, 2.5, 1.0)


def test_a_preprocessor_of_either_encoder_may_be_there(folder: Path):
    half = {"rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    siglip = {"image_processor_type": "SiglipImageProcessor", "resample": 3, **half}
    chameleon = {"resample": 1, "rescale_factor": 0.0078, "image_mean": 1.0, "image_std": 1.0}
    side = VISION_CONFIG["image_size"]
    path = folder / "preprocessor_config.json"
    for data, right in ((siglip, side), (chameleon, 16)):
        write(path, data | {"size": {"height": right, "width": right}})
        opened(folder)
        write(path, data | {"size": {"height": right + 1, "width": right + 1}})
        with pytest.raises(ValueError, match=rf"asks for pictures of \[{right + 1}\] pixels"):
            opened(folder)


def test_an_encoder_of_another_class_is_refused():
    with pytest.raises(ValueError, match="model_type is 'clip_vision_model', not 'siglip_vision"):
        read_vision(Settings({"vision_config": {"model_type": "clip_vision_model"}}))
    with pytest.raises(ValueError, match="patch_size must be a whole number above 0, not 0"):
        read_vision(Settings({"vision_config": {"patch_size": 0}}))


# --- through the API -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["Base", "AnyRes"])
def test_it_captions_draws_and_talks_about_its_drawing(folders: dict[str, Path], variant: str):
    model = unitok.load(folders[variant], memory="16MB")
    pictures = [noise(40, 26), noise(26, 40), Image.new("RGB", (20000, 1))]
    seen = model.caption(pictures, "What?", max_tokens=4)
    tiled = (0, 0, 0) if variant == "Base" else (4 * (6 + 1), 6 * (4 + 1), 0)
    around = 1 + 3 + 4 * 5 + 1 + 1 + 5 + 1
    assert [result.prompt_tokens - around for result in seen] == [16 + count for count in tiled]
    drawn = model.draw(["a cat", "two dogs"], seed=1)
    assert [d.image.size for d in drawn] == [(16, 16)] * 2
    assert drawn[0].completion_tokens == 4 * 5 + 1
    chat = model.chat()
    chat.draw("a cat", seed=1)
    assert chat.send("What is it?", max_tokens=3).completion_tokens <= 3


def test_vocabularies_have_the_published_ids(families: dict[str, UniToken]):
    family, ids = families["Base"], [BOS, BOI, EOI, SEPARATOR, EOT, NEW_LINE]
    names = ["<s>", "<racm3:break>", "<eoss>", "<sentinel:0>", "<reserved08706>"]
    assert [family.tokenizer.id(n) for n in [*names, "<reserved08799>"]] == ids
    assert (family.image_range.start, family.image_range.stop) == (4, 8196)
    assert family.model.vocabulary.text_range.stop == REAL_SIZE
    assert PromptBuilder(family.tokenizer).text("a\nb").branch().token_ids == tuple(
        real_words("a\nb")
    )
