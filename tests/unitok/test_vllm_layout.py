"""The parts of the vLLM backend that need no vLLM: ids, drawings, prompts, versions."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.unitok.tiny import ASSETS, tiny_model, tiny_template
from unitok.backends.vllm import versions
from unitok.backends.vllm.chat_template import chat_template, write_template
from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.backends.vllm.drawings import check_guidance, drawing_of
from unitok.backends.vllm.layout import TokenLayout
from unitok.backends.vllm.readings import reading_prompt
from unitok.families import Defaults, ImageOptions
from unitok.families.janus import Janus, Preprocessor
from unitok.loading import DEFAULT_FOLDER
from unitok.prompt import Message

LAYOUT = TokenLayout(text_size=640, image_size=48, bos=1, pad=0, begin_of_image=3)


@pytest.fixture(scope="module")
def family() -> Janus:
    defaults = Defaults(1.0, 0, 1.0, 3.0, question="what is this?", system="")
    return Janus("tiny", tiny_model(), tiny_template(), Preprocessor(64), defaults)


def test_ids_follow_one_another_without_a_gap():
    assert (LAYOUT.images.start, LAYOUT.images.stop) == (640, 688)
    assert LAYOUT.paint == 688
    assert (LAYOUT.second.start, LAYOUT.second.stop) == (689, 737)
    assert LAYOUT.size == 737
    assert replace(LAYOUT, streams=1).size == 640


def test_the_layout_passes_through_a_config_as_json_holds_it():
    config = SimpleNamespace()
    LAYOUT.to_config(config)
    assert all(type(value) is int for value in config.unitok.values())
    assert TokenLayout.of_config(config) == LAYOUT


def test_the_layout_of_a_folder_is_its_models():
    layout = TokenLayout.of_folder(open_checkpoint(str(ASSETS)))
    assert (layout.text_size, layout.image_size, layout.streams) == (640, 1024, 2)


def test_the_second_stream_is_the_families_unconditional_prompt(family: Janus):
    spec = family.generation_spec([Message("user", "a blue cat")], ImageOptions(4.0))
    made = drawing_of(spec, LAYOUT)
    assert made.token_ids[-1] == LAYOUT.paint
    assert made.token_ids[:-1] == list(spec.branches[0].token_ids[:-1])
    assert LAYOUT.second_prompt(made.token_ids) == list(spec.branches[1].token_ids)
    assert [LAYOUT.second_id(id) for id in (640, 687)] == [640, 687]
    assert (made.guidance, made.tokens) == (4.0, 16)


def test_a_drawing_without_guidance_has_scale_one(family: Janus):
    spec = family.generation_spec([Message("user", "a blue cat")], ImageOptions(1.0))
    assert drawing_of(spec, LAYOUT).guidance == 1.0


def test_drawings_with_another_second_prompt_are_refused(family: Janus):
    cat = Message("user", "a cat")
    negative = family.generation_spec([cat], ImageOptions(4.0, negative="a dog"))
    inside_chat = family.generation_spec([cat, Message("assistant", "yes"), cat], ImageOptions(4.0))
    for spec in (negative, inside_chat):
        with pytest.raises(ValueError, match=r"no negative prompt, no drawing inside a chat"):
            drawing_of(spec, LAYOUT)
    shown = Message("user", "like this", (family.encode_image(Image.new("RGB", (8, 8))),))
    with pytest.raises(ValueError, match="from text alone"):
        drawing_of(family.generation_spec([shown], ImageOptions(4.0)), LAYOUT)


def test_a_replica_for_text_alone_refuses_to_draw():
    with pytest.raises(
        ValueError, match="serves text alone, as it was started with unitok_streams"
    ):
        replace(LAYOUT, streams=1).drawing_prompt([1, 3])


def test_a_drawings_prompt_must_end_in_begin_of_image():
    for ids in ([], [1, 2]):
        with pytest.raises(ValueError, match="must end in begin-of-image"):
            LAYOUT.drawing_prompt(ids)


def test_a_picture_that_is_read_becomes_one_placeholder(family: Janus):
    image = Image.new("RGB", (64, 64), "blue")
    shown = [family.encode_image(image) for _ in range(2)]
    branch = family.chat_prompt([Message("user", "what is this?", tuple(shown))], None)
    begin, place, end = map(
        family.tokenizer.id, ("<begin_of_image>", "<image_placeholder>", "<end_of_image>")
    )
    ids = reading_prompt(branch.token_ids, family.template)
    assert ids.count(place) == 2 and not {begin, end} & set(ids)
    assert len(ids) == len(branch.token_ids) - 2 * (16 + 1)
    # A text's own ids stay, also those of a mark that stands alone.
    assert reading_prompt([1, begin, 9, end], family.template) == [1, begin, 9, end]


@pytest.mark.parametrize("scale", ["5", None, True, float("nan"), float("inf"), 1001, -1e9, [1]])
def test_a_guidance_scale_that_is_no_number_in_range_is_refused(scale: object):
    with pytest.raises(ValueError, match="guidance must be a number from -1000 to 1000"):
        check_guidance(scale)


@pytest.mark.parametrize("scale", [0, 1, -1000, 7.5, 1000.0])
def test_a_guidance_scale_in_range_passes(scale: float):
    check_guidance(scale)


def test_a_folder_of_another_family_is_refused_by_its_kind(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "chameleon"}')
    with pytest.raises(ValueError, match=r"serves Janus and Janus-Pro .* not 'chameleon'"):
        open_checkpoint(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_checkpoint(str(tmp_path / "nowhere"))


def test_versions_of_vllm_that_were_not_tested_are_named_beside_those_that_were():
    assert all(versions.warning(version) is None for version in ("0.32.0", "0.32.0+cpu"))
    told = versions.warning("0.99.1")
    assert told and "0.99.1, which is untested" in told and "vLLM 0.32.0" in told
    refused = versions.refusal("0.99.1", ImportError("no module named vllm.moved"))
    assert "vLLM 0.99.1: no module named vllm.moved" in refused and "vLLM 0.32.0" in refused


def test_a_template_that_another_server_reads_is_replaced_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    place = SimpleNamespace(VLLM_CACHE_ROOT=str(tmp_path))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(envs=place))
    folder = open_checkpoint(str(DEFAULT_FOLDER))
    path = write_template(folder)
    path.write_text("older")
    with path.open() as reading:
        assert write_template(folder) == path
        assert reading.read() == "older"
    assert path.read_text() == chat_template(folder)
