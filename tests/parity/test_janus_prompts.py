"""Prompts and pictures of Janus: the ids of DeepSeek's and transformers' processors, and pixels.

DeepSeek's rendering of a conversation is spelt out here after janus/utils/conversation.py (style
DeepSeek) and janus/models/processing_vlm.py; ids come from transformers' own tokenizer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.janus.processing_janus import JanusProcessor

import unitok
from tests.parity.janus_reference import (
    BOS,
    EOS,
    PAD,
    PICTURE,
    ROLES,
    SHAPES,
    make_tokenizer,
    reference,
    write_folder,
    write_words,
)
from unitok.families.janus import Preprocessor, Template
from unitok.families.janus.files import SYSTEM
from unitok.families.janus.prompts import read_roles
from unitok.prompt import Embeddings, EncodedImage, Message
from unitok_tokenizers.text import TextTokenizer

PATCHES = 9
PLAIN = ("User", "Assistant")


@dataclass(frozen=True)
class Said:
    """A turn: what is said, behind so many pictures."""

    text: str
    pictures: int = 0


# Turns of user and assistant, one after the other; the assistant is to answer the last.
CONVERSATIONS = [
    [Said("Describe the picture.", 1)],
    [Said("How many cats?")],
    [Said("  Which of both\nis bigger? \n", 2)],
    [Said("\n图片里有什么？ 🐈 User: 5 < 6\n\n", 1)],
    [
        Said("a cat", 1),
        Said("It is a cat."),
        Said("And this? ", 1),
        Said(" A house.\n"),
        Said("ok"),
    ],
]


def rendered(turns: list[Said], roles: tuple[str, str], system: str) -> str:
    """The text that DeepSeek's processor tokenizes, up to where the assistant speaks."""
    seps = ("\n\n", EOS)
    text = system + seps[0] if system else ""
    for i, turn in enumerate(turns):
        content = (f"{PICTURE[0]}\n" * turn.pictures + turn.text).strip()
        text += f"{roles[i % 2]}: {content}{seps[i % 2]}"
    return (text + roles[1] + ":").strip()


class Words:
    """One tokenizer file, opened by us and by transformers."""

    def __init__(self, folder: Path, in_file: tuple[str, ...], **config: str) -> None:
        write_words(folder, make_tokenizer(in_file))
        if config:
            (folder / "processor_config.json").write_text(json.dumps(config))
        self.ours = TextTokenizer.load(folder)
        names = dict(zip(("image_token", "boi_token", "eoi_token"), PICTURE, strict=True))
        self.theirs: Any = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            bos_token=BOS,
            eos_token=EOS,
            pad_token=PAD,
            extra_special_tokens=names,
        )
        self.roles = read_roles(folder, self.ours)
        user, assistant = self.roles
        self.template = Template(self.ours, PATCHES, user=user, assistant=assistant)

    def deepseek(self, text: str) -> list[int]:
        """VLChatProcessor: each placeholder becomes its marks and as many places as patches."""
        place, begin, end = (self.theirs.convert_tokens_to_ids(t) for t in PICTURE)
        full = {place: [begin, *[place] * PATCHES, end]}
        return [part for i in self.theirs.encode(text) for part in full.get(i, [i])]

    def processor(self, system: bool) -> Any:
        images = JanusImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3)
        return JanusProcessor(
            images, self.theirs, num_image_tokens=PATCHES, use_default_system_prompt=system
        )

    def messages(self, turns: list[Said]) -> list[Message]:
        place, begin, end = (self.ours.id(t) for t in PICTURE)
        zeros = torch.zeros(PATCHES, 1)
        vectors = Embeddings(0, PATCHES, "same", lambda: zeros, placeholder=place)
        picture = EncodedImage(((begin,), vectors, (end,)))
        roles = ("user", "assistant")
        return [
            Message(roles[i % 2], turn.text, (picture,) * turn.pictures)
            for i, turn in enumerate(turns)
        ]


@pytest.fixture(scope="module", params=["pro", "1.3B", "words that are tokens"])
def words(request, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """Janus-Pro's roles are special tokens; those of 1.3B are text, whatever the file has."""
    folder = tmp_path_factory.mktemp("words")
    if request.param == "pro":
        return Words(folder, ROLES)
    if request.param == "1.3B":
        return Words(folder, ())
    return Words(folder, ROLES, sft_format="deepseek_old")


def test_roles_follow_the_folder(words: Words, request):
    pro = "pro" in request.node.callspec.id
    assert words.roles == (ROLES if pro else PLAIN)


@pytest.mark.parametrize("turns", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
@pytest.mark.parametrize("system", [SYSTEM, "", "You are terse. "])
def test_a_conversation_has_the_ids_of_deepseeks_processor(words: Words, turns, system: str):
    line = words.template.answer(words.messages(turns), system)
    assert list(line.token_ids) == words.deepseek(rendered(turns, words.roles, system))
    assert [f.length for f in line.embeddings] == [PATCHES] * sum(t.pictures for t in turns)
    place = words.ours.id(PICTURE[0])
    for feature in line.embeddings:
        end = feature.start + feature.length
        assert line.token_ids[feature.start : end] == (place,) * PATCHES


@pytest.mark.parametrize("turns", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
def test_a_conversation_has_the_ids_of_transformers_processor(words: Words, turns):
    count = sum(t.pictures for t in turns)
    images = [Image.new("RGB", (20, 20))] * count or None
    text = rendered(turns, words.roles, "")
    expected = words.processor(system=True)(text=text, images=images)["input_ids"][0]
    assert list(words.template.answer(words.messages(turns), SYSTEM).token_ids) == list(expected)


@pytest.mark.parametrize(
    "prompt", ["a cat", " A portrait of a young girl.\n", "蓝色背景上的两个苹果"]
)
def test_a_drawing_has_the_ids_of_both_processors(words: Words, prompt: str):
    text = rendered([Said(prompt)], words.roles, "")
    line = words.template.draw([Message("user", prompt)])
    assert list(line.token_ids) == words.theirs.encode(text + PICTURE[1])
    theirs = words.processor(system=True)(text=text, generation_mode="image")["input_ids"][0]
    assert list(line.token_ids) == list(theirs)
    against = words.template.unconditional(line)
    assert set(against.token_ids[1:-1]) == {words.theirs.convert_tokens_to_ids(PAD)}
    assert (against.token_ids[0], against.token_ids[-1]) == (line.token_ids[0], line.token_ids[-1])
    assert len(against.token_ids) == len(line.token_ids)


def test_a_chat_template_tells_the_roles(tmp_path: Path):
    words = Words(tmp_path, ROLES)
    template = tmp_path / "chat_template.jinja"
    for text, roles in (("{{ 'User: ' }}", PLAIN), ("{{ '<|User|>: ' }}", ROLES)):
        template.write_text(text)
        assert read_roles(tmp_path, words.ours) == roles
    template.unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for text, roles in (("User: ", PLAIN), ([{"template": "<|User|>: "}], ROLES)):
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps(config | {"chat_template": text}))
        assert read_roles(tmp_path, words.ours) == roles


def test_janus_processor_opens_a_saved_folder_and_makes_the_same_ids(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    words = make_tokenizer()
    folder = write_folder(source, reference(SHAPES["grouped heads"], words), words)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["extra_special_tokens"]  # as in DeepSeek's folders
    path.write_text(json.dumps(config))
    model = unitok.load(folder, device="cpu")
    model.save(target)
    processor: Any = JanusProcessor.from_pretrained(target)
    text = rendered([Said("How many?", 1)], ROLES, "")
    image = Image.new("RGB", (96, 48), "red")
    expected = processor(text=text, images=[image])
    family: Any = model.family
    line = family.chat_prompt([Message("user", "How many?", (family.encode_image(image),))], None)
    assert list(line.token_ids) == list(expected["input_ids"][0])
    pixels = torch.as_tensor(expected["pixel_values"][0])
    torch.testing.assert_close(family.preprocess(image), pixels, atol=1e-5, rtol=0)


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 48), (24, 96), (384, 384), (30, 20), (100, 38)])
@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.48145466, 0.4578275, 0.40821073)])
def test_pixels_are_those_of_transformers_where_its_rounding_agrees(size, mean):
    assert all(int(s / max(size) * 96) == round(s / max(size) * 96) for s in size)
    std = (0.5, 0.4, 0.3)
    theirs = JanusImageProcessorPil(
        size={"height": 96, "width": 96}, image_mean=list(mean), image_std=list(std)
    )
    array = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(array)
    expected = torch.as_tensor(np.array(theirs(image)["pixel_values"]))[0]
    pixels = Preprocessor(96, mean, std)(image)
    torch.testing.assert_close(pixels, expected.float(), atol=1e-5, rtol=0)
