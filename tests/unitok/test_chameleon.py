"""Chameleon: image ids by name, lines, guidance, plans, pictures, folders that do not fit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unitok
from tests.unitok.tiny_chameleon import (
    BOI,
    BOS,
    CODES,
    DECODER,
    EOI,
    EOS,
    EOT,
    IMAGE_START,
    PATCHES,
    TEXT_START,
    VOCAB_SIZE,
    VQ_CONFIG,
    config_json,
    image_name,
    noise,
    opened,
    save_tiny,
    save_vqgan,
    tiny_model,
    tokenizer_json,
    vocabulary,
    vqgan_tensors,
    words,
    write,
)
from unitok.families import ImageOptions, chameleon, open_folder
from unitok.families.chameleon import Chameleon
from unitok.families.chameleon.config import CHAMELEON, read_vqgan_yaml
from unitok.families.chameleon.image_ids import ImageIds, code_of, read_image_ids
from unitok.families.chameleon.original import (
    NAMES,
    ParallelFiles,
    config_from_params,
    find_model,
    open_original,
    read_params,
)
from unitok.families.chameleon.weights import make_adapter
from unitok.families.common.preprocessing import centre_square
from unitok.nn.config import DecoderConfig, ModelConfig
from unitok.nn.layers import HeadNorm, RotaryTable, rotate
from unitok.prompt import EncodedImage, Message
from unitok_engine import Allow, Stop
from unitok_tokenizers.autoencoder import AutoencoderConfig

PICTURE = (BOI, *range(12, 12 + PATCHES), EOI)
READ = EncodedImage((PICTURE,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers' with Meta's VQGAN beside it."""
    folder = save_tiny(tmp_path_factory.mktemp("chameleon") / "tiny")
    save_vqgan(vqgan_tensors(tiny_model()), folder / "tokenizer" / "vqgan.ckpt")
    return folder


@pytest.fixture(scope="module")
def family(whole: Path) -> Chameleon:
    return opened(whole)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


# --- image ids -----------------------------------------------------------------------------------


def test_the_letters_of_a_name_are_the_digits_of_its_code():
    assert (code_of("A"), code_of("BA"), code_of("IBJB")) == (0, 10, 8191)


def test_image_ids_are_found_by_name_wherever_they_lie():
    found = read_image_ids(vocabulary(), "here")
    assert (found.start, found.codes) == (IMAGE_START, tuple(range(CODES)))
    book = torch.randn(CODES, 4)
    assert found.reorder(book) is book, "nothing is copied"


def test_another_order_of_names_reorders_the_codebook():
    order = [(7 * i) % CODES for i in range(CODES)]
    found = read_image_ids(vocabulary(order), "here")
    assert list(found.codes) == order
    rows = found.reorder(torch.arange(CODES)[:, None])
    assert rows.flatten().tolist() == order


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({image_name(0): 200}, "not one range"),
        ({image_name(0): [1]}, r"an image token has the id \[1\]"),
        ({image_name(0): -1}, "an image token has the id -1"),
        ({image_name(0): IMAGE_START + 1}, "not one range"),
        ({image_name(99): IMAGE_START + CODES}, "not one range"),
        (None, "names no image tokens"),
    ],
)
def test_image_names_that_make_no_range_are_refused(changes: dict | None, message: str):
    names = {"a": 1} if changes is None else vocabulary() | changes
    with pytest.raises(ValueError, match=f"here.*{message}"):
        read_image_ids(names, "here")


def test_ids_follow_the_names_of_a_shuffled_vocabulary(family: Chameleon, folder: Path):
    order = [(7 * i + 3) % CODES for i in range(CODES)]
    write(folder / "config.json", config_json(vocabulary_map=vocabulary(order)))
    write(folder / "tokenizer.json", tokenizer_json(vocabulary(order)))
    shuffled, picture = opened(folder), noise(16, 16)
    codes = (family.image_ids(picture) - IMAGE_START).flatten().tolist()
    ids = shuffled.image_ids(picture).flatten().tolist()
    assert [order[id - IMAGE_START] for id in ids] == codes
    assert len(set(codes)) > 4
    assert torch.equal(
        shuffled.decode_images([ids]), family.decode_images([[c + IMAGE_START for c in codes]])
    )


# --- lines ---------------------------------------------------------------------------------------


def test_a_picture_is_its_ids_between_their_marks(family: Chameleon):
    (ids,) = family.encode_image(noise(20, 30)).segments
    assert isinstance(ids, tuple)
    assert (ids[0], ids[-1], len(ids)) == (BOI, EOI, PATCHES + 2)
    assert all(IMAGE_START <= id < IMAGE_START + CODES for id in ids[1:-1])


def test_a_question_is_laid_out_as_meta_and_transformers_do(family: Chameleon):
    line = family.chat_prompt([Message("user", "What?", (READ,))], None)
    assert line.token_ids == (BOS, *PICTURE, *words("What?"), EOT)


def test_each_turn_ends_in_end_of_turn(family: Chameleon):
    talk = [Message("user", "Hi"), Message("assistant", "Ho", (READ,)), Message("user", "?")]
    expected = [BOS, *words("Hi"), EOT, *PICTURE, *words("Ho"), EOT, *words("?"), EOT]
    assert list(family.chat_prompt(talk, "").token_ids) == expected


def test_pictures_keep_their_places_among_the_texts(family: Chameleon):
    turn = Message.of("user", ["this", READ, "or", READ])
    expected = (BOS, *words("this"), *PICTURE, *words("or"), *PICTURE, EOT)
    assert family.chat_prompt([turn], None).token_ids == expected


def test_what_looks_like_a_special_token_in_a_text_is_only_letters(family: Chameleon):
    ids = family.chat_prompt([Message("user", "<racm3:break></s>")], None).token_ids[1:-1]
    assert not {BOI, EOS, EOT} & set(ids)


def test_a_text_that_spells_an_image_token_is_refused(family: Chameleon):
    with pytest.raises(ValueError, match="IMGIMGBAZ, the name of an image token"):
        family.chat_prompt([Message("user", "see IMGIMGBAZ")], None)


def test_there_is_no_system_prompt(family: Chameleon):
    with pytest.raises(ValueError, match="no system prompt"):
        family.chat_prompt([Message("user", "Hi")], "Be brief.")


# --- guidance and plans --------------------------------------------------------------------------


def test_without_pictures_guidance_has_two_lines(family: Chameleon):
    full, against = family.generation_spec([Message("user", "a cat")], ImageOptions(3.0)).branches
    assert full.token_ids == (BOS, *words("a cat"), EOT, BOI) and full.weight == 3.0
    assert against.token_ids == (BOS, BOI) and against.weight == -2.0


def test_with_pictures_guidance_has_three_lines(family: Chameleon):
    branches = family.generation_spec(
        [Message("user", "like it", (READ,))], ImageOptions(3.0)
    ).branches
    assert [branch.token_ids for branch in branches] == [
        (BOS, *PICTURE, *words("like it"), EOT, BOI),
        (BOS, *PICTURE, BOI),
        (BOS, BOI),
    ]
    assert [branch.weight for branch in branches] == pytest.approx([3.0, -1.8, -0.2])


def test_guidance_of_one_is_none(family: Chameleon):
    (branch,) = family.generation_spec([Message("user", "it", (READ,))], ImageOptions(1.0)).branches
    assert branch.weight == 1.0 and len(branch.token_ids) == 2 + len(PICTURE) + 2 + 1


def test_negative_words_take_the_place_of_nothing(family: Chameleon):
    branches = family.generation_spec(
        [Message("user", "it", (READ,))], ImageOptions(3.0, "mud")
    ).branches
    assert branches[-1].token_ids == (BOS, *words("mud"), EOT, BOI)
    branches = family.generation_spec([Message("user", "it")], ImageOptions(3.0, "mud")).branches
    assert [branch.token_ids[1:-2] for branch in branches] == [
        tuple(words("it")),
        tuple(words("mud")),
    ]


def test_a_drawing_is_exactly_one_picture_of_image_ids(family: Chameleon):
    drawing = family.generation_spec([Message("user", "a cat")], ImageOptions(3.0))
    assert (drawing.plan.max_length, drawing.plan.exact) == (PATCHES, True)
    step = drawing.plan.next([])
    assert isinstance(step, Allow)
    assert (step.id_range.start, step.id_range.size) == (IMAGE_START, CODES)
    pictures = drawing.decode([[IMAGE_START] * PATCHES, [IMAGE_START + 1] * PATCHES])
    assert pictures.shape == (2, 3, 16, 16)


def test_only_its_own_size_is_painted(family: Chameleon):
    with pytest.raises(ValueError, match="16 x 16 pixels only"):
        family.generation_spec([Message("user", "a cat")], ImageOptions(3.0, size=(32, 32)))


def test_text_holds_no_picture_and_no_markup_and_ends_where_meta_ends_it(family: Chameleon):
    plan = family.text_plan(7)
    step = plan.next([])
    assert isinstance(step, Allow) and step.mask is not None
    letters = range(TEXT_START, TEXT_START + 256)
    assert set(step.mask.nonzero().flatten().tolist()) == {EOS, *letters}
    assert len(step.mask) == VOCAB_SIZE
    assert plan.next([60, EOS]) == Stop("stop", drop=1)


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (50, 33), (33, 50), (7, 300), (1, 1), (17, 16)])
def test_the_middle_is_that_of_the_whole_picture_made_small(
    family: Chameleon, size: tuple[int, int]
):
    picture = noise(*size)
    scale = 16 / min(size)
    small = picture.resize(
        (round(scale * size[0]), round(scale * size[1])), Image.Resampling.LANCZOS
    )
    left, top = (small.width - 16) // 2, (small.height - 16) // 2
    expected = small.crop((left, top, left + 16, top + 16))
    assert np.array_equal(np.array(family.fit(picture)), np.array(expected))


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1)])
def test_a_very_long_picture_takes_no_memory(size: tuple[int, int]):
    picture = Image.new("RGB", size, (10, 20, 30))
    square = centre_square(picture, 512, Image.Resampling.LANCZOS)
    assert square.size == (512, 512) and square.getcolors() == [(512 * 512, (10, 20, 30))]


def test_white_is_one_and_black_is_minus_one(family: Chameleon, monkeypatch: pytest.MonkeyPatch):
    seen = []
    codec = family.model.image_tokenizer
    monkeypatch.setattr(
        codec.encoder, "forward", lambda x: seen.append(x) or torch.zeros(1, 8, 4, 4)
    )
    for colour in ("white", "black"):
        family.image_ids(Image.new("RGB", (16, 16), colour))
    assert seen[0].eq(1).all() and seen[1].eq(-1).all(), "2/255, not transformers' 0.0078"


# --- folders -------------------------------------------------------------------------------------


def test_the_image_tokenizer_keeps_its_precision(whole: Path, family: Chameleon):
    rough = open_folder(whole, "cpu", torch.bfloat16)
    assert rough.model.text_head.weight.dtype == torch.bfloat16
    assert rough.encode_image(noise(64, 64)) == family.encode_image(noise(64, 64))


def test_the_folder_of_transformers_reads_but_does_not_paint(folder: Path):
    shutil.rmtree(folder / "tokenizer")
    family = opened(folder)
    assert len(family.encode_image(noise(16, 16)).segments) == 1
    with pytest.raises(ValueError, match=r"no VQ decoder.*put Meta's vqgan\.ckpt"):
        family.generation_spec([Message("user", "a cat")], ImageOptions(3.0))


def test_a_conversion_that_kept_the_decoder_paints(family: Chameleon, folder: Path):
    tensors = load_file(folder / "model.safetensors")
    whole = vqgan_tensors(tiny_model())
    tensors |= {f"model.vqmodel.{k}": v for k, v in whole.items() if k.startswith("decoder.")}
    save_file(tensors, folder / "model.safetensors")
    shutil.rmtree(folder / "tokenizer")
    ids = [[IMAGE_START + i for i in range(PATCHES)]]
    assert torch.equal(opened(folder).decode_images(ids), family.decode_images(ids))


def test_older_folders_hold_one_norm_for_all_heads(family: Chameleon, folder: Path):
    tensors = load_file(folder / "model.safetensors")
    norms = [name for name in tensors if "self_attn.q_norm" in name or "self_attn.k_norm" in name]
    for name in norms:
        tensors[name] = tensors[name][:1].clone()
    save_file(tensors, folder / "model.safetensors")
    old = opened(folder).model.decoder.blocks[1].attention
    new = family.model.decoder.blocks[1].attention
    for which in ("q_norm", "k_norm"):
        one, all_heads = getattr(old, which).weight, getattr(new, which).weight
        assert one.shape == all_heads.shape
        assert torch.equal(one, all_heads[:1].expand_as(one))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling"),
        ({"quantization_config": {"bits": 4}}, "unquantised"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"vq_config": VQ_CONFIG | {"double_latent": True}}, "double_latent"),
        ({"vq_config": VQ_CONFIG | {"attn_type": "linear"}}, "attn_type"),
        ({"vq_config": VQ_CONFIG | {"attn_resolutions": [8]}}, r"\[8\] is neither \[\] nor \[4\]"),
        ({"vq_config": VQ_CONFIG | {"num_embeddings": 23}}, "24 image tokens from id 10"),
        ({"vocabulary_map": None}, "vocabulary_map of config.json names no image tokens"),
        ({"vocabulary_map": True}, "vocabulary_map must be an object, not True"),
        ({"vocabulary_map": vocabulary() | {"<eoss>": 38}}, "gives <eoss> the id 38, the .* 40"),
        ({"vocabulary_map": vocabulary([1, 0, *range(2, CODES)])}, "IMGIMGBZ the id 10, .* 11"),
        ({"vq_config": [1]}, "vq_config must be an object"),
        ({"vq_config": VQ_CONFIG | {"model_type": "janus_vqgan"}}, "not 'chameleon_vqgan'"),
        ({"vq_config": VQ_CONFIG | {"resolution": "16"}}, "resolution must be a whole number"),
        ({"swin_norm": "yes"}, "swin_norm must be true or false, not 'yes'"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number above 0"),
        ({"rope_parameters": [2]}, "rope_parameters must be an object"),
        ({"architectures": 5}, "architectures must be a list of names, not 5"),
        ({"architectures": [None]}, r"architectures must be a list of names, not \[None\]"),
        ({"vocab_size": 310}, r"\[320, 64\], not \[310, 64\]"),
        ({"vocab_size": 300}, "the tokenizer has 306 ids, the model 300"),
        ({"architectures": ["ChameleonXLLMXForConditionalGeneration"]}, "laid out otherwise"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, changes: dict, message: str):
    write(folder / "config.json", config_json(**changes))
    with pytest.raises(ValueError, match=message):
        opened(folder)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_vqgan_that_was_cut_off_is_one_clear_error(folder: Path, keep: int):
    path = folder / "tokenizer" / "vqgan.ckpt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"vqgan\.ckpt cannot be read") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_named_and_if_strict_refused(folder: Path):
    write(folder / "config.json", config_json(temporal_mixing=True))
    with pytest.raises(
        ValueError, match=r"config\.json has temporal_mixing, which unitok does not"
    ):
        opened(folder)
    with pytest.warns(
        UserWarning, match=r"config\.json has temporal_mixing, which unitok does not"
    ):
        open_folder(folder, "cpu", torch.float32)


def test_what_converters_leave_in_a_config_does_not_matter(folder: Path):
    """transformers' converter writes the settings of vqgan.yaml once more under Meta's names, that
    of Anole names ids as well; the settings of training are UniToken's."""
    yaml = {"n_embed": CODES, "z_channels": 8, "ch": 32, "ch_mult": [1, 1, 2], "out_ch": 3}
    yaml |= {"double_z": False, "monitor": "loss", "scheduler_config": {}, "out_channels": 3}
    vq = VQ_CONFIG | yaml | {"model_type": "chameleon_vqgan", "attn_resolutions": []}
    extra = {"boi_token_id": BOI, "eoi_token_id": EOI, "z_loss_weight": 1e-5, "dropout": 0.05}
    write(folder / "config.json", config_json(vq_config=vq, mask_image_logits=False, **extra))
    assert opened(folder).picture_size == (16, 16)


def test_a_vqgan_outside_the_folder_is_not_taken(folder: Path):
    """Two levels up is the place of Meta's download alone, where models lie in models/."""
    shutil.rmtree(folder / "tokenizer")
    outer = folder.parent.parent / "tokenizer" / "vqgan.ckpt"
    assert not opened(folder).model.image_tokenizer.can_decode
    try:
        save_vqgan(vqgan_tensors(tiny_model()), outer)
        assert not opened(folder).model.image_tokenizer.can_decode
    finally:
        shutil.rmtree(outer.parent)


def test_one_model_of_a_download_takes_the_files_beside_models(folder: Path, tmp_path: Path):
    model = tmp_path / "models" / "7b"
    shutil.copytree(folder, model)
    (model / "tokenizer").rename(tmp_path / "tokenizer")
    assert opened(model).model.image_tokenizer.can_decode


def test_what_a_folder_says_of_sampling_is_followed(folder: Path):
    ours = opened(folder).defaults
    assert (ours.temperature, ours.top_k, ours.top_p) == (0.7, 0, 0.9)
    write(folder / "generation_config.json", {"bos_token_id": 1, "temperature": 0.5, "top_k": 9})
    own = opened(folder).defaults
    assert (own.temperature, own.top_k, own.top_p, own.guidance) == (0.5, 9, 0.9, 3.0)


PIXELS = {  # as transformers writes it
    "do_convert_rgb": True,
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "size": {"shortest_edge": 16},
    "resample": 1,
    "rescale_factor": 0.0078,
    "image_mean": [1.0] * 3,
    "image_std": [1.0] * 3,
    "image_processor_type": "ChameleonImageProcessor",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rescale_factor": 2 / 255},
        {"rescale_factor": 1 / 255, "image_mean": 0.5, "image_std": 0.5},
    ],
)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_preprocessor_that_does_what_is_done_may_be_there(folder: Path, name: str, changes: dict):
    data = PIXELS | changes
    nested = {"image_processor": data, "processor_class": "ChameleonProcessor"}
    write(folder / name, nested if name.startswith("processor") else data)
    opened(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 20}}, r"asks for pictures of \[20, 16\] pixels"),
        ({"crop_size": {"height": 16, "width": 8}}, "must be square"),
        ({"crop_size": 8}, r"asks for pictures of \[16, 8\] pixels, not 16"),
        ({"do_center_crop": False}, "do_center_crop = False"),
        ({"resample": 3}, "resample = 3"),
        ({"rescale_factor": 1 / 255}, r"do not lie in \[-1, 1\]"),
        ({"image_mean": [0.5] * 3}, r"do not lie in \[-1, 1\]"),
        ({"image_std": [1.0, 1.0, 0.5]}, r"do not lie in \[-1, 1\]"),
        ({"mystery": 1}, "has mystery, which unitok does not know"),
    ],
)
def test_a_preprocessor_that_contradicts_is_refused(folder: Path, changes: dict, message: str):
    write(folder / "preprocessor_config.json", PIXELS | changes)
    with pytest.raises(ValueError, match=f"preprocessor_config.json.*{message}"):
        opened(folder)


def test_a_folder_without_words_says_so(folder: Path):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json and no text_tokenizer\.json"):
        opened(folder)
    write(folder / "tokenizer" / "text_tokenizer.json", tokenizer_json(vocabulary()))
    assert opened(folder).tokenizer.size <= VOCAB_SIZE


def test_words_that_do_not_fit_the_model_are_refused(folder: Path):
    write(folder / "tokenizer.json", tokenizer_json(vocabulary() | {"<late>": VOCAB_SIZE}))
    with pytest.raises(ValueError, match="the tokenizer has 321 ids, the model 320"):
        opened(folder)
    names = vocabulary() | {"<eoss>": 12}
    del names[image_name(12 - IMAGE_START)]
    write(folder / "tokenizer.json", tokenizer_json(names))
    with pytest.raises(ValueError, match="<eoss> of the tokenizer is an image id of the model"):
        opened(folder)


def test_a_tokenizer_without_the_marks_is_refused(folder: Path):
    names = vocabulary()
    names.pop("<eoss>")
    write(folder / "tokenizer.json", tokenizer_json(names))
    with pytest.raises(ValueError, match="no token '<eoss>'"):
        opened(folder)


# --- Meta's format -------------------------------------------------------------------------------


def test_the_sizes_of_the_published_7b_model():
    params = {"dim": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": 65536, "norm_eps": 1e-5}
    found = config_from_params(params | {"qk_normalization": True}, "here", CHAMELEON)
    assert found == CHAMELEON


def test_grouped_heads_and_a_wider_mlp_are_read():
    params: dict[str, Any] = {"dim": 64, "n_layers": 2, "n_heads": 8, "vocab_size": 320}
    params |= {"n_kv_heads": 2, "multiple_of": 32, "ffn_dim_multiplier": 1.3, "swin_norm": True}
    found = config_from_params(params, "here", DECODER)
    # 2 * 4 * 64 / 3 = 170, 1.3 of it 221, up to a multiple of 32
    assert (found.intermediate_size, found.kv_heads, found.head_dim) == (224, 2, 8)
    assert found.post_norm and not found.qk_norm
    with pytest.raises(ValueError, match=r"here: params\.json has no dim and no vocab_size"):
        config_from_params({"n_layers": 2, "n_heads": 8}, "here", DECODER)


def test_the_norms_eps_and_the_base_of_rotations_are_read():
    params = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 320}
    plain = config_from_params(params, "here", CHAMELEON)
    assert (plain.norm_eps, plain.rope_theta) == (1e-5, 10000.0)
    own = config_from_params(params | {"norm_eps": 1e-6, "rope_theta": 5e4}, "here", DECODER)
    assert (own.norm_eps, own.rope_theta) == (1e-6, 50000.0)


SIZES = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 320}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_scaled_rope": True}, "use_scaled_rope = True is not supported"),
        ({"rope_scaling": {"factor": 8}}, "rope_scaling = "),
        ({"quantization_args": {"scheme": "int8"}}, "quantization_args = "),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"activation": "gelu"}, "activation = 'gelu'"),
        ({"mystery": 1}, "has mystery, which unitok does not know"),
    ],
)
def test_params_that_would_change_the_maths_are_refused(
    tmp_path: Path, changes: dict, message: str
):
    write(tmp_path / "params.json", SIZES | changes)
    with pytest.raises(ValueError, match=rf"params\.json.*{message}"):
        read_params(tmp_path, strict=True)
    inside = {"model": SIZES | changes}
    write(tmp_path / "params.json", inside)
    with pytest.raises(ValueError, match=rf"params\.json.*{message}"):
        config_from_params(read_params(tmp_path, strict=True), str(tmp_path), DECODER)


def test_params_without_sizes_are_refused(tmp_path: Path):
    write(tmp_path / "params.json", {"model": "abc"})
    with pytest.raises(ValueError, match=r"params\.json: model must be an object, not 'abc'"):
        read_params(tmp_path)


def test_around_the_sizes_stands_what_the_training_run_had(tmp_path: Path):
    model = SIZES | {"dropout": 0.0, "recompute_attn": True, "attn_bias_type": "causal"}
    write(tmp_path / "params.json", {"model": model, "lr": 1e-4, "data": {"path": "x"}})
    write(tmp_path / "consolidate_params.json", {"model_parallel_size": 4, "src": "x"})
    params = read_params(tmp_path)
    assert (params["dim"], params["model_parallel_size"]) == (64, 4)
    write(tmp_path / "params.json", {"model": model, "quantization": "fp8"})
    with pytest.raises(ValueError, match="quantization = 'fp8' is not supported"):
        read_params(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 0}, "n_heads must be a whole number above 0, not 0"),
        ({"dim": "64"}, "dim must be a whole number above 0, not '64'"),
        ({"norm_eps": None}, "norm_eps must be a number above 0, not None"),
        ({"swin_norm": 1}, "swin_norm must be true or false, not 1"),
    ],
)
def test_params_of_the_wrong_kind_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=rf"here: params\.json: {message}"):
        config_from_params(SIZES | changes, "here", DECODER)


def test_one_model_of_a_download_is_found_and_of_two_one_is_wanted(tmp_path: Path):
    assert chameleon.matches({}, frozenset({"models", "tokenizer", "README.md"}), Path())
    with pytest.raises(FileNotFoundError, match=r"no params\.json"):
        find_model(tmp_path)
    write(tmp_path / "models" / "7b" / "params.json", {})
    assert find_model(tmp_path) == tmp_path / "models" / "7b"
    assert find_model(tmp_path / "models" / "7b") == tmp_path / "models" / "7b"
    write(tmp_path / "models" / "30b" / "params.json", {})
    with pytest.raises(ValueError, match=r"several models; give the folder of one: .*30b.*7b"):
        find_model(tmp_path)


def test_a_missing_file_of_tokenizers_says_where_it_belongs(tmp_path: Path):
    write(tmp_path / "params.json", {})
    torch.save({}, tmp_path / "consolidated.00.pth")
    assert chameleon.matches({}, frozenset({"params.json", "consolidated.00.pth"}), Path())
    write(tmp_path / "tokenizer" / "text_tokenizer.json", tokenizer_json(vocabulary()))
    with pytest.raises(FileNotFoundError, match=r"no vqgan\.yaml; put Meta's file"):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["", "model: {}", "{", "model: {params: {n_embed: 3}}", "- 1"])
def test_settings_of_no_vqgan_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "vqgan.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"vqgan\.yaml is no VQGAN's settings"):
        read_vqgan_yaml(path)


def save_slices(folder: Path, *slices: dict[str, torch.Tensor]) -> None:
    for i, tensors in enumerate(slices):
        torch.save(tensors, folder / f"consolidated.{i:02}.pth")


def test_slices_are_put_together_by_what_they_are(tmp_path: Path):
    rows, columns, norm = "layers.0.attention.wq.weight", "tok_embeddings.weight", "norm.weight"
    slices = [
        {name: torch.full((2, 3) if name != norm else (3,), i) for name in (rows, columns, norm)}
        for i in (1.0, 3.0)
    ]
    save_slices(tmp_path, *slices)
    found = open_original(tmp_path, 2)
    assert isinstance(found, ParallelFiles)
    assert found.tensor(rows)[:, 0].tolist() == [1, 1, 3, 3] and found.shape(rows) == (4, 3)
    assert found.tensor(columns)[0].tolist() == [1, 1, 1, 3, 3, 3]
    assert found.tensor(norm).tolist() == [2, 2, 2] and found.shape(norm) == (3,)


def test_slices_that_do_not_belong_together_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"consolidated\.00\.pth is missing"):
        open_original(tmp_path, None)
    save_slices(tmp_path, {"norm.weight": torch.zeros(3)}, {"norm.weight": torch.zeros(4)})
    with pytest.raises(FileNotFoundError, match=r"consolidated\.02\.pth is missing, of 4 files"):
        open_original(tmp_path, 4)
    with pytest.raises(ValueError, match=r"2 files of weights, but params\.json says 1"):
        open_original(tmp_path, 1)
    with pytest.raises(ValueError, match=r"slices of norm\.weight do not fit"):
        open_original(tmp_path, 2).shape("norm.weight")
    save_slices(tmp_path, {"norm.weight": torch.zeros(3)}, {"other": torch.zeros(4)})
    with pytest.raises(ValueError, match="is not in all files of weights"):
        open_original(tmp_path, None)


def test_slices_of_several_types_are_refused(tmp_path: Path):
    save_slices(tmp_path, {"norm.weight": torch.zeros(3)}, {"norm.weight": torch.zeros(3).half()})
    found = open_original(tmp_path, None)
    with pytest.raises(ValueError, match=r"slices of norm\.weight are of several types"):
        found.dtype("norm.weight")


def test_the_norm_of_heads_adds_its_eps_to_a_small_variance():
    x = torch.linspace(-2e-3, 2e-3, 8).expand(1, 2, 8)  # of variance 1.7e-6, below eps
    expected = x / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(HeadNorm(2, 8)(x), expected, rtol=1e-4)


@pytest.mark.parametrize("shards", [1, 2])
def test_metas_queries_and_keys_meet_as_in_its_own_maths(shards: int):
    """LayerNorm, then neighbours turned as complex numbers, on the tensors as Meta stores them."""
    heads, size, theta, distance = 4, 8, 10000.0, 5
    generator = torch.Generator().manual_seed(0)
    x, wq, wk = (torch.randn(n, 12, generator=generator) for n in (1, heads * size, heads * size))
    scale, shift = torch.randn(2, shards * size, generator=generator)

    def meta(weight: torch.Tensor, position: int) -> torch.Tensor:
        normed = torch.nn.functional.layer_norm((weight @ x[0]).view(heads, size), (size,))
        norms = (t.view(shards, size).repeat_interleave(heads // shards, 0) for t in (scale, shift))
        pairs = torch.view_as_complex((normed * next(norms) + next(norms)).view(heads, -1, 2))
        angle = position * theta ** -(torch.arange(0, size, 2) / size)
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(1)

    config = ModelConfig(
        DecoderConfig(9, 12, 8, 1, heads, heads, size, 64, qk_norm=True), None, AutoencoderConfig()
    )
    adapter = make_adapter(config, ImageIds(0, (0,)), NAMES, paired=True)
    block = "decoder.blocks.0.attention."
    take = {w: adapter(f"{block}{w}.weight").load for w in ("q", "k", "q_norm")}
    norm = HeadNorm(heads, size)
    norm.load_state_dict({"weight": take["q_norm"](scale), "bias": take["q_norm"](shift)})
    table = RotaryTable(size, 64, theta)

    def ours(weight: torch.Tensor, position: int) -> torch.Tensor:
        rotation = table(torch.tensor(position), torch.float32)
        return rotate(norm((weight @ x[0]).view(heads, size)), rotation)

    expected = (meta(wq, 3) * meta(wk, 3 + distance)).sum(-1)
    found = (ours(take["q"](wq), 3) * ours(take["k"](wk), 3 + distance)).sum(-1)
    assert torch.allclose(found, expected.float(), atol=1e-4)


# --- through the API -----------------------------------------------------------------------------


def test_it_captions_draws_and_chats_in_several_turns(whole: Path):
    model = unitok.load(whole, memory="16MB")
    seen = model.caption(noise(20, 20), "What?", max_tokens=5)
    assert seen.prompt_tokens == 1 + PATCHES + 2 + 5 + 1 and seen.completion_tokens <= 5
    drawn = model.draw("a cat", seed=1)
    assert drawn.image.size == (16, 16) and drawn.completion_tokens == PATCHES
    chat = model.chat()
    chat.draw("a dog", seed=2)
    told = chat.send("What is it?", max_tokens=2)
    assert told.prompt_tokens == 1 + (5 + 1) + (PATCHES + 2 + 1) + (11 + 1)
    assert chat.draw("again", seed=3, guidance=2.0).image.size == (16, 16)
    again = model.draw("a cat", seed=1)
    assert np.array_equal(np.array(again.image), np.array(drawn.image))


def test_it_cannot_be_written(family: Chameleon, tmp_path: Path):
    with pytest.raises(ValueError, match="cannot be written"):
        family.save(tmp_path, None)
