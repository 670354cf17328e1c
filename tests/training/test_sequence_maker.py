"""Sequences of conversations for the embedded model: prompts and answers as its engine has them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import unitok
from tests.training.conversations import assistant, conversation, noise, picture, text, user
from unitok.api import Model
from unitok.families import Family, ImageOptions
from unitok.prompt import Message
from unitok.training.data.conversations import DataError
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.sequences import TrainingSequence
from unitok_engine import Request, Sampling

QUESTION = "what is this?"
PROMPT = "a cat on a pink background"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with unitok.load(device="cpu") as model:
        yield model


@pytest.fixture(scope="module")
def family(model: Model) -> Family:
    return model.family


@pytest.fixture(scope="module")
def drawn(model: Model) -> Image.Image:
    return model.draw(PROMPT, seed=3).image


@pytest.fixture
def folder(tmp_path: Path, drawn: Image.Image) -> Path:
    drawn.save(tmp_path / "cat.png")
    noise(1, 90, 40).save(tmp_path / "noise.png")
    return tmp_path


def targets_of(sequence: TrainingSequence) -> list[int]:
    """The ids that are learned."""
    pairs = zip(sequence.branch.token_ids, sequence.targets, strict=True)
    return [id for id, target in pairs if target]


# --- answers -------------------------------------------------------------------------------------


def test_an_answer_is_what_the_engine_got_and_emitted(model: Model, drawn: Image.Image, folder):
    family = model.family
    asked = Message("user", QUESTION, (family.encode_image(drawn),))
    prompt = family.chat_prompt([asked], None)
    request = Request((prompt,), family.text_plan(32), Sampling(temperature=0))
    (output,) = model.driver.complete([request])
    emitted = [*output.token_ids, family.tokenizer.id("<｜end▁of▁sentence｜>")]
    said = model.caption(drawn, QUESTION).text
    talk = conversation(user(picture("cat.png"), QUESTION), assistant(said), folder=folder)
    (sequence,) = SequenceMaker(family)(talk)
    start = len(prompt.token_ids)
    assert sequence.branch.token_ids == (*prompt.token_ids, *emitted)
    assert sequence.targets == (*[False] * start, *[True] * len(emitted))
    assert [e.digest for e in sequence.branch.embeddings] == [e.digest for e in prompt.embeddings]
    assert (sequence.name, sequence.painted) == ("here:1", ())


def test_answers_that_go_on_from_each_other_are_one_sequence(family: Family, folder: Path):
    talk = conversation(
        user(picture("cat.png"), QUESTION), assistant("a cat"), user("how many?"), assistant("one"),
        folder=folder,
    )  # fmt: skip
    (sequence,) = SequenceMaker(family)(talk)
    assert targets_of(sequence) == [*family.answer_ids("a cat"), *family.answer_ids("one")]
    first = Message("user", QUESTION, (family.encode_image(Image.open(folder / "cat.png")),))
    messages = [first, Message("assistant", "a cat"), Message("user", "how many?")]
    prompt = family.chat_prompt(messages, None)
    assert sequence.branch.token_ids == (*prompt.token_ids, *family.answer_ids("one"))
    assert sequence.branch.embeddings[0].digest == prompt.embeddings[0].digest


def test_what_is_not_learned_is_only_seen(family: Family):
    talk = conversation(
        user("a"), assistant("a cat", train=False), user("b"),
        assistant(text("the cat") | {"train": False}, text("is a dog")),
    )  # fmt: skip
    (sequence,) = SequenceMaker(family)(talk)
    end = family.answer_ids("the cat\nis a dog")
    assert sequence.branch.token_ids[-len(end) :] == tuple(end)
    seen = len(family.answer_ids("the cat")) - 1
    assert targets_of(sequence) == end[seen:]
    assert family.tokenizer.decode(end[seen:-1]).strip() == "is a dog"


def test_a_system_prompt_is_that_of_the_engine(family: Family):
    talk = conversation({"role": "system", "content": "a star"}, user("a"), assistant("b"))
    (sequence,) = SequenceMaker(family)(talk)
    prompt = family.chat_prompt([Message("user", "a")], "a star").token_ids
    assert sequence.branch.token_ids[: len(prompt)] == prompt
    assert prompt != family.chat_prompt([Message("user", "a")], None).token_ids


# --- pictures to be painted ----------------------------------------------------------------------


def test_a_painted_picture_is_what_the_engine_got_and_emitted(model: Model, folder: Path):
    family = model.family
    spec = family.generation_spec([Message("user", PROMPT)], ImageOptions(2.0))
    request = Request(spec.branches, spec.plan, Sampling(seed=3))
    (output,) = model.driver.complete([request])
    talk = conversation(user(PROMPT), assistant(picture("cat.png")), folder=folder)
    (sequence,) = SequenceMaker(family, dropout=0)(talk)
    prompt = spec.branches[0].token_ids
    assert sequence.branch.token_ids[: len(prompt)] == prompt
    assert len(sequence) == len(prompt) + len(output.token_ids)
    assert sequence.targets == (*[False] * len(prompt), *[True] * len(output.token_ids))
    (image,) = sequence.painted
    assert image.places == tuple(range(len(prompt), len(sequence)))
    assert image.codes is None and sequence.branch.weight == 1
    pixels = image.pixels()
    width, height = family.picture_size
    assert pixels.shape == (3, height, width)
    assert torch.equal((pixels * 255).round().byte().permute(1, 2, 0), bytes_of(folder))


def bytes_of(folder: Path) -> torch.Tensor:
    """The bytes of the drawing, [H, W, 3]."""
    with Image.open(folder / "cat.png") as image:
        return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(
            image.height, image.width, 3
        )


def test_a_picture_of_another_shape_is_scaled_and_cut_in_the_middle(family: Family):
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    pixels = family.picture_pixels(image)
    assert pixels.shape == (3, *family.picture_size)
    middle = pixels[:, :, 5:-5]
    assert (middle[2] > 0.95).all() and (middle[0] < 0.05).all()


def test_a_dropped_prompt_is_the_unconditional_one(family: Family, folder: Path):
    spec = family.generation_spec([Message("user", PROMPT)], ImageOptions(2.0))
    talk = conversation(user(PROMPT), assistant(picture("cat.png")), folder=folder)
    for dropout, branch in ((0, spec.branches[0]), (1, spec.branches[-1])):
        (sequence,) = SequenceMaker(family, dropout=dropout)(talk)
        start = len(branch.token_ids)
        assert sequence.branch.token_ids[:start] == branch.token_ids
        assert sequence.painted[0].places[0] == start


def test_the_share_of_dropped_prompts_is_as_asked_and_changes_with_the_epoch(family, folder):
    import dataclasses

    talk = conversation(user(PROMPT), assistant(picture("cat.png")), folder=folder)
    prompt = family.generation_spec([Message("user", PROMPT)], ImageOptions(2.0)).branches[0]
    start = len(prompt.token_ids)

    def dropped(maker: SequenceMaker, epoch: int) -> bool:
        (sequence,) = maker(dataclasses.replace(talk, epoch=epoch))
        return sequence.branch.token_ids[:start] != prompt.token_ids

    maker = SequenceMaker(family, dropout=0.3, seed=1)
    marks = [dropped(maker, epoch) for epoch in range(300)]
    assert 60 < sum(marks) < 120
    assert marks[:50] == [dropped(maker, epoch) for epoch in range(50)]
    other = SequenceMaker(family, dropout=0.3, seed=2)
    assert marks[:50] != [dropped(other, epoch) for epoch in range(50)]


def test_a_later_turn_sees_a_painted_picture_as_the_family_shows_it(family: Family, folder: Path):
    talk = conversation(
        user(PROMPT), assistant(picture("cat.png")), user("what is this?"), assistant("a cat"),
        folder=folder,
    )  # fmt: skip
    answer, painting = SequenceMaker(family, dropout=0)(talk)
    shown = family.encode_image(Image.open(folder / "cat.png"))
    messages = [
        Message("user", PROMPT),
        Message("assistant", "", (shown,)),
        Message("user", "what is this?"),
    ]
    prompt = family.chat_prompt(messages, None)
    assert answer.branch.token_ids == (*prompt.token_ids, *family.answer_ids("a cat"))
    assert answer.branch.embeddings[0].digest == prompt.embeddings[0].digest
    assert painting.painted and not answer.painted


def test_a_picture_is_painted_after_the_pictures_before_it(family: Family, folder: Path):
    talk = conversation(
        user(picture("noise.png"), PROMPT), assistant(picture("cat.png"), picture("cat.png")),
        folder=folder,
    )  # fmt: skip
    made = SequenceMaker(family, dropout=0)(talk)
    assert len(made) == 2 and made[0].branch.token_ids == made[1].branch.token_ids
    shown = family.encode_image(Image.open(folder / "noise.png"))
    spec = family.generation_spec([Message("user", PROMPT, (shown,))], ImageOptions(2.0))
    prompt = spec.branches[0]
    assert made[0].branch.token_ids[: len(prompt.token_ids)] == prompt.token_ids
    assert [e.digest for e in made[0].branch.embeddings] == [e.digest for e in prompt.embeddings]


def test_a_picture_with_train_false_is_not_painted(family: Family, folder: Path):
    talk = conversation(
        user(PROMPT), assistant(picture("cat.png") | {"train": False}, "a cat"), folder=folder
    )
    (sequence,) = SequenceMaker(family)(talk)
    assert not sequence.painted and targets_of(sequence) == family.answer_ids("a cat")


# --- too long ------------------------------------------------------------------------------------


def test_an_answer_that_does_not_fit_is_dropped_or_cut(family: Family):
    first, second = "a cat", "two apples on a blue background"
    talk = conversation(user("a"), assistant(first), user("b"), assistant(second))
    (whole,) = SequenceMaker(family)(talk)
    length = len(whole) - 3
    maker = SequenceMaker(family, length)
    (short,) = maker(talk)
    assert targets_of(short) == family.answer_ids(first)
    assert whole.branch.token_ids[: len(short)] == short.branch.token_ids
    assert (maker.left_out.dropped, maker.left_out.cut) == (1, 0)
    maker = SequenceMaker(family, length, "cut")
    (short,) = maker(talk)
    assert short.branch.token_ids == whole.branch.token_ids[:length]
    assert short.targets == whole.targets[:length] and short.targets[-1]
    assert (maker.left_out.dropped, maker.left_out.cut) == (0, 1)


def test_a_cut_never_ends_in_a_picture(family: Family, folder: Path):
    talk = conversation(
        user("a"), assistant("a cat"), user(picture("cat.png"), QUESTION), assistant("a dog"),
        user("b"), assistant("a cow"), folder=folder,
    )  # fmt: skip
    (whole,) = SequenceMaker(family)(talk)
    (embeddings,) = whole.branch.embeddings
    for length in (embeddings.start + 1, embeddings.stop - 1, embeddings.stop + 2):
        for too_long in ("drop", "cut"):
            maker = SequenceMaker(family, length, too_long)
            (short,) = maker(talk)
            assert targets_of(short) == family.answer_ids("a cat")
            assert short.branch.embeddings == () and short.targets[-1]
            assert (maker.left_out.dropped, maker.left_out.cut) == (2, 0)


def test_a_painted_picture_that_does_not_fit_is_dropped_whole(family: Family, folder: Path):
    talk = conversation(user(PROMPT), assistant(picture("cat.png")), folder=folder)
    (whole,) = SequenceMaker(family, dropout=0)(talk)
    assert len(SequenceMaker(family, len(whole), "cut", dropout=0)(talk)) == 1
    maker = SequenceMaker(family, len(whole) - 1, "cut", dropout=0)
    assert maker(talk) == []
    assert maker.left_out.dropped == 1


def test_a_text_far_too_long_is_dropped_without_tokenizing_all_of_it(family: Family, folder: Path):
    endless = "a cat " * 500_000
    talk = conversation(user(endless), assistant("b"), user("c"), assistant("d"))
    maker = SequenceMaker(family)
    assert maker(talk) == [] and maker.left_out.dropped == 2
    paint = conversation(user(endless), assistant(picture("cat.png")), folder=folder)
    assert maker(paint) == [] and maker.left_out.dropped == 3


@pytest.mark.parametrize("max_length", [0, 1, 10**6])
def test_lengths_and_shares_are_checked(family: Family, max_length: int):
    with pytest.raises(ValueError, match="max_length must be from 2 to the model's context"):
        SequenceMaker(family, max_length)
    with pytest.raises(ValueError, match="dropout must be from 0 to 1"):
        SequenceMaker(family, dropout=1.5)


# --- errors and estimates ------------------------------------------------------------------------


def test_pictures_that_cannot_be_read_are_named_with_line_and_place(family, folder, caplog):
    (folder / "bad.png").write_bytes(b"no picture")
    for name, why in (("none.png", "no such file"), ("bad.png", "is not a picture")):
        for messages, place in (
            ((user(picture(name), "a"), assistant("b")), "messages[0].content[0]"),
            ((user("a"), assistant("b", picture(name))), "messages[1].content[1]"),
        ):
            talk = conversation(*messages, folder=folder)
            with pytest.raises(DataError) as caught:
                SequenceMaker(family)(talk)
            told = str(caught.value)
            assert told.startswith(f"here:1: {place}: ") and name in told and why in told
            maker = SequenceMaker(family, on_error="skip")
            assert maker(talk) == [] and maker.left_out.skipped == 1
            assert told in caplog.text


def test_an_estimate_opens_no_picture(family: Family, folder: Path):
    maker = SequenceMaker(family)
    short = maker.estimate(conversation(user("a"), assistant("b")))
    talk = conversation(user("a" * 400), assistant(picture("none.png")))
    assert maker.estimate(talk) == 100 + family.picture_tokens > short
