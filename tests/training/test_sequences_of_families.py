"""Sequences to learn, for every family: what the engine would get, and what its plans let out."""

from pathlib import Path

import pytest
import torch

from tests.training.conversations import assistant, conversation, noise, picture, user
from tests.unitok import tiny
from tests.unitok.golden.folders import FOLDERS
from unitok.driver import Driver
from unitok.families import Family, ImageOptions, open_folder
from unitok.prompt import Message
from unitok.training.data.sequence_maker import SequenceMaker
from unitok_engine import Allow, Engine, EngineConfig, Request, Sampling, Stop

NAMES = ("janus", "janus4o", "chameleon", "unitoken-base", "unitoken-anyres", "emu3-original")
IN_ONE = ("janus", "janus4o", "unitoken-base", "unitoken-anyres")  # whose answers end as in history
MAKERS = FOLDERS | {"janus4o": lambda folder: tiny.save_tiny(folder.with_name("tiny-Janus-4o"))}


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def family(name: str, tmp_path_factory) -> Family:
    folder = MAKERS[name](tmp_path_factory.mktemp("families") / name)
    return open_folder(folder, "cpu", torch.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise(1, 40, 30).save(tmp_path / "seen.png")
    noise(2, 50, 70).save(tmp_path / "painted.png")
    return tmp_path


def test_an_answer_is_one_that_the_plan_lets_out(family: Family):
    text = "a red cat"
    ids = family.answer_ids(text)
    plan = family.text_plan(len(ids))
    for i, id in enumerate(ids):
        allowed = plan.next(ids[:i])
        assert isinstance(allowed, Allow) and id in allowed.id_range
        assert allowed.mask is None or allowed.mask[id - allowed.id_range.start]
    assert plan.next(ids) == Stop("stop", drop=1)
    assert family.tokenizer.decode(ids[:-1]).strip() == text


def test_answers_stand_behind_the_prompts_of_the_engine(name: str, family: Family, folder: Path):
    talk = conversation(
        user(picture("seen.png"), "what?"), assistant("a cat"), user("more"), assistant("a dog"),
        folder=folder,
    )  # fmt: skip
    made = SequenceMaker(family)(talk)
    assert len(made) == (1 if name in IN_ONE else 2)
    shown = family.encode_image(noise(1, 40, 30))
    first = Message("user", "what?", (shown,))
    rest = [Message("assistant", "a cat"), Message("user", "more")]
    prompts = [family.chat_prompt([first], None), family.chat_prompt([first, *rest], None)]
    answers = [family.answer_ids("a cat"), family.answer_ids("a dog")]
    for sequence, prompt, answer in zip(made[::-1], prompts[::-1], answers[::-1], strict=False):
        assert sequence.branch.token_ids == (*prompt.token_ids, *answer)
        assert [e.digest for e in sequence.branch.embeddings] == [
            e.digest for e in prompt.embeddings
        ]
    pairs = [pair for s in made for pair in zip(s.branch.token_ids, s.targets, strict=True)]
    assert [id for id, target in pairs if target] == [*answers[0], *answers[1]]


def test_a_painting_stands_behind_the_prompt_of_the_engine(family: Family, folder: Path):
    talk = conversation(user("a cat"), assistant(picture("painted.png")), folder=folder)
    options = ImageOptions(2.0, family.defaults.dropped_prompt)
    spec = family.generation_spec([Message("user", "a cat")], options)
    config = EngineConfig(memory=2**24, max_context=family.max_context)
    request = Request(spec.branches, spec.plan, Sampling(seed=1))
    (output,) = Driver(Engine(family.model, config)).complete([request])
    emitted = output.token_ids
    for dropout, prompt in ((0, spec.branches[0]), (1, spec.branches[-1])):
        (sequence,) = SequenceMaker(family, dropout=dropout)(talk)
        start, (image,) = len(prompt.token_ids), sequence.painted
        assert sequence.branch.token_ids[:start] == prompt.token_ids
        assert sequence.branch.first_position == prompt.first_position
        assert len(sequence) == start + len(emitted) == start + family.picture_tokens
        learned = [i for i, target in enumerate(sequence.targets) if target]
        assert image.places == tuple(learned)
        for i, id in enumerate(emitted):
            sampled = isinstance(spec.plan.next(emitted[:i]), Allow)
            assert sequence.targets[start + i] == sampled
            assert sampled or sequence.branch.token_ids[start + i] == id
            assert not sampled or id in family.model.vocabulary.image_range


def test_the_pixels_of_a_painting_have_a_code_for_each_place(family: Family, folder: Path):
    talk = conversation(user("a cat"), assistant(picture("painted.png")), folder=folder)
    (sequence,) = SequenceMaker(family)(talk)
    (image,) = sequence.painted
    pixels = image.pixels()
    width, height = family.picture_size
    assert pixels.shape == (3, height, width)
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1
    assert family.model.image_tokenizer.encode(pixels[None])[0].numel() == len(image.places)


def test_a_picture_of_the_size_of_a_drawing_stays_as_it_is(family: Family):
    image = noise(3, *family.picture_size)
    pixels = family.picture_pixels(image)
    assert torch.equal(pixels, family.picture_pixels(image.copy()))
    data = (pixels * 255).round().byte().permute(1, 2, 0).numpy().tobytes()
    assert data == image.tobytes()


def test_what_a_family_cannot_have_names_the_conversation(name: str, family: Family, folder: Path):
    seen = user(picture("seen.png"), "a cat")
    system = {"role": "system", "content": "Be brief."}
    wrong = {
        "chameleon": conversation(system, user("a"), assistant("b")),
        "emu3-original": conversation(seen, assistant(picture("painted.png")), folder=folder),
    }
    if name in wrong:
        with pytest.raises(ValueError, match=r"here:1: .*(system prompt|from text alone)"):
            SequenceMaker(family)(wrong[name])
    else:
        talk = conversation(seen, assistant(picture("painted.png")), folder=folder)
        assert len(SequenceMaker(family)(talk)) == 1
