"""Samples of the emoji world: what is learned, and that it is true and allowed."""

from dataclasses import replace

import pytest
import torch

from tests.unitok.resuming import through_a_file
from tests.unitok.tiny import PATCHES, tiny_template
from unitok.emoji import captions, split
from unitok.emoji.sample import Sample
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.samples import SampleMaker
from unitok.emoji.scenes import BACKGROUNDS
from unitok_engine import Embeddings

TEMPLATE = tiny_template()
PAD, BOS, EOS, BEGIN, END, PLACEHOLDER, ASSISTANT = 0, 1, 2, 3, 4, 5, 7


def maker(seed: int = 0, drop: float = 0.1) -> SampleMaker:
    return SampleMaker(TEMPLATE, seed, drop)


def targets(sample: Sample) -> list[str]:
    """The runs of target ids, as text with markup; picture ids (0 until filled) as "[n]"."""
    drawn = {i for start, _ in sample.target_pictures for i in range(start, start + PATCHES)}
    runs: list[list[int]] = []
    for i, target in enumerate(sample.target):
        if target and (i == 0 or not sample.target[i - 1]):
            runs.append([])
        if target:
            runs[-1].append(-1 if i in drawn else sample.ids[i])
    return [
        f"[{len(run)}]" if run[0] < 0 else TEMPLATE.tokenizer.decode(run, skip_special=False)
        for run in runs
    ]


def test_a_drawing_learns_its_picture_alone():
    for sample in (maker(drop=0.0).drawing() for _ in range(5)):
        [(start, scene)] = sample.target_pictures
        assert sample.ids[start - 1] == BEGIN and start + PATCHES == len(sample.ids)
        assert targets(sample) == [f"[{PATCHES}]"] and sample.input_pictures == []
        said = TEMPLATE.tokenizer.decode(sample.ids[: start - 1])
        claim = captions.parse(said.removeprefix(": ").removesuffix(":").strip())
        assert claim is not None
        assert claim.objects == captions.claim(scene).objects
        assert claim.background == scene.background


def test_one_prompt_in_ten_is_dropped():
    made = maker()
    samples = [made.drawing() for _ in range(3000)]
    dropped = [s for s in samples if set(s.ids[1 : s.target_pictures[0][0] - 1]) == {PAD}]
    assert 0.08 < len(dropped) / len(samples) < 0.12
    for sample in dropped:
        assert sample.ids[0] == BOS and sample.ids[sample.target_pictures[0][0] - 1] == BEGIN
    kept = [s for s in samples if PAD not in s.ids[1 : s.target_pictures[0][0] - 1]]
    assert len(kept) + len(dropped) == len(samples), "all of a prompt is dropped, or none"


def test_a_reading_learns_true_answers_and_their_ends():
    made, describes, counts = maker(), 0, set()
    for _ in range(200):
        sample = made.reading()
        [(start, scene)] = sample.input_pictures
        assert sample.ids[start : start + PATCHES] == [PLACEHOLDER] * PATCHES
        assert (sample.ids[start - 1], sample.ids[start + PATCHES]) == (BEGIN, END)
        answers = targets(sample)
        counts.add(len(answers))
        assert sample.target[-1] and all(a.endswith(TEMPLATE.eos) for a in answers)
        answers = [a.removesuffix(TEMPLATE.eos).strip() for a in answers]
        describes += captions.equivalent(answers[0], scene)
        for claim in filter(None, map(captions.parse, answers)):
            # A caption, or what is left of something: either way it is in the picture.
            assert {name for name, _ in claim.objects} <= scene.counts.keys()
    assert counts == {1, 7}
    assert describes > 80, "half of the readings begin with the caption, and more"


@pytest.mark.parametrize("length", [256, 512, 1024])
def test_conversations_keep_to_their_length_and_learn_every_answer(length: int):
    made = maker()
    painted = 0
    for _ in range(60):
        sample = made.conversation(length)
        assert len(sample.ids) == len(sample.target) <= length
        runs = targets(sample)
        if sample.target_pictures:
            painted += 1
            assert runs.pop() == f"[{PATCHES}]"
        # Each answer stands behind "<|Assistant|>:"; drawn pictures are no targets.
        assert all(run.startswith(" ") and run.endswith(TEMPLATE.eos) for run in runs)
        assert all(run.count(TEMPLATE.eos) == 1 for run in runs)
        starts = [i for i, t in enumerate(sample.target) if t and not sample.target[i - 1]]
        colon = sample.ids[starts[0] - 1]
        for start in starts[: len(runs)]:
            assert sample.ids[start - 2 : start] == [ASSISTANT, colon]
        for start, _ in sample.input_pictures:
            assert sample.ids[start : start + PATCHES] == [PLACEHOLDER] * PATCHES
            assert not any(sample.target[start - 1 : start + PATCHES + 1])
    assert 15 < painted < 45, "about half of them end in a drawing"


def test_answers_in_a_conversation_are_about_the_last_picture():
    made = maker(3)
    for _ in range(40):
        sample = made.conversation(256)
        pictures = sample.input_pictures
        for i, target in enumerate(sample.target):
            if (
                not target
                or sample.target[i - 1]
                or any(i == at for at, _ in sample.target_pictures)
            ):
                continue
            end = sample.target.index(False, i) if False in sample.target[i:] else len(sample.ids)
            answer = TEMPLATE.tokenizer.decode(sample.ids[i:end]).strip()
            scene = [s for start, s in pictures if start < i][-1]
            if answer in ("yes", "no") or answer in captions.NUMBERS or answer in BACKGROUNDS:
                continue
            names = [n for n in scene.counts if n in answer]
            assert names, (answer, scene)


def test_no_held_out_combination_is_ever_in_a_sample():
    made = maker(5)
    seen = 0
    for _ in range(400):
        for sample in (made.drawing(), made.reading()):
            for _, scene in [*sample.input_pictures, *sample.target_pictures]:
                seen += 1
                assert not split.is_heldout(scene)
    for _ in range(20):
        sample = made.conversation(512)
        for _, scene in [*sample.input_pictures, *sample.target_pictures]:
            seen += 1
            assert not split.is_heldout(scene)
    assert seen > 800
    rare = [SceneSampler(0, "heldout").sample("colour") for _ in range(5)]
    assert all(map(split.is_heldout, rare)), "the test can tell"


def test_rendered_pictures_take_the_places_of_their_scenes():
    made = maker(drop=0.0)
    samples = [made.drawing(), made.reading(), made.conversation(256)]
    for sample in samples:
        blank = [part for part in made.blank[0].segments if isinstance(part, Embeddings)]
        read = [replace(blank[0], digest=str(i)) for i in range(len(sample.input_scenes))]
        drawn = [torch.full((3, 64, 64), float(i)) for i in range(len(sample.target_scenes))]
        sequence = sample.sequence(read, drawn, (640,) * PATCHES)
        starts = [start for start, _ in sample.input_pictures]
        placed = sequence.branch.embeddings
        assert [(e.start, e.digest) for e in placed] == [(s, str(i)) for i, s in enumerate(starts)]
        assert [image.places[0] for image in sequence.painted] == [
            start for start, _ in sample.target_pictures
        ]
        assert [image.pixels().mean() for image in sequence.painted] == list(range(len(drawn)))
        filled = {place for image in sequence.painted for place in image.places}
        assert len(filled) == PATCHES * len(drawn)
        for i, id in enumerate(sequence.branch.token_ids):
            assert id == (640 if i in filled else sample.ids[i])
        assert sequence.targets == tuple(sample.target)


def test_a_maker_resumes_exactly():
    first = maker(4)
    for _ in range(5):
        first.drawing()
        first.conversation(256)
    second = maker(0)
    second.load_state_dict(through_a_file(first.state_dict()))
    for method in ("drawing", "reading"):
        left, right = (getattr(m, method)() for m in (first, second))
        assert left == right
    assert first.conversation(512) == second.conversation(512)
