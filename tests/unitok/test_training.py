"""Training: what is packed where, that losses fall, and that a resumed run is the same run."""

import dataclasses
import io
from collections.abc import Callable

import pytest
import torch

from tests.unitok.tiny import PATCHES, TINY, tiny_template
from unitok.emoji import captions, split
from unitok.emoji.scenes import BACKGROUNDS, SceneSampler, render
from unitok.training.data import Sample, SampleMaker, pack
from unitok.training.image_tokenizer import TokenizerRun, TokenizerTrainer, random_backing
from unitok.training.optimisers import MixedOptimiser, matrices_in, others
from unitok.training.pretrain import Losses, Pretrainer, PretrainRun, fill, merge
from unitok_tokenizers.image import ImageTokenizer

TEMPLATE = tiny_template()
PAD, BOS, EOS, BEGIN, END, PLACEHOLDER, ASSISTANT = 0, 1, 2, 3, 4, 5, 7
RUN = PretrainRun(
    steps=40,
    drawings=3,
    readings=2,
    conversation_every=2,
    conversation_ids=256,
    warmup=2,
    accumulate=1,
)


def maker(seed: int = 0, drop: float = 0.1) -> SampleMaker:
    return SampleMaker(TEMPLATE, seed, drop)


def pretrainer(run: PretrainRun = RUN) -> Pretrainer:
    torch.manual_seed(7)
    # Conversations ask for 1024 ids at times.
    decoder = dataclasses.replace(TINY.decoder, max_positions=1024)
    config = dataclasses.replace(TINY, decoder=decoder)
    return Pretrainer(config, ImageTokenizer(config.image_tokenizer), TEMPLATE, run)


def tokenizer_trainer() -> TokenizerTrainer:
    return TokenizerTrainer(TINY.image_tokenizer, TokenizerRun(steps=8, batch=3, warmup=2))


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def targets(sample: Sample) -> list[str]:
    """The runs of target ids, as text with markup; picture ids (0 until filled) as "[n]"."""
    painted = {i for start, _ in sample.draws for i in range(start, start + PATCHES)}
    runs: list[list[int]] = []
    for i, target in enumerate(sample.target):
        if target and (i == 0 or not sample.target[i - 1]):
            runs.append([])
        if target:
            runs[-1].append(-1 if i in painted else sample.ids[i])
    return [
        f"[{len(run)}]" if run[0] < 0 else TEMPLATE.tokenizer.decode(run, skip_special=False)
        for run in runs
    ]


# --- samples -------------------------------------------------------------------------------------


def test_a_drawing_learns_its_picture_alone():
    for sample in (maker(drop=0.0).drawing() for _ in range(5)):
        [(start, scene)] = sample.draws
        assert sample.ids[start - 1] == BEGIN and start + PATCHES == len(sample.ids)
        assert targets(sample) == [f"[{PATCHES}]"] and sample.reads == []
        said = TEMPLATE.tokenizer.decode(sample.ids[: start - 1])
        claim = captions.parse(said.removeprefix(": ").removesuffix(":").strip())
        assert claim is not None
        assert claim.objects == captions.claim(scene).objects
        assert claim.background == scene.background


def test_one_prompt_in_ten_is_dropped():
    made = maker()
    samples = [made.drawing() for _ in range(3000)]
    dropped = [s for s in samples if set(s.ids[1 : s.draws[0][0] - 1]) == {PAD}]
    assert 0.08 < len(dropped) / len(samples) < 0.12
    for sample in dropped:
        assert sample.ids[0] == BOS and sample.ids[sample.draws[0][0] - 1] == BEGIN
    kept = [s for s in samples if PAD not in s.ids[1 : s.draws[0][0] - 1]]
    assert len(kept) + len(dropped) == len(samples), "all of a prompt is dropped, or none"


def test_a_reading_learns_true_answers_and_their_ends():
    made, describes, counts = maker(), 0, set()
    for _ in range(200):
        sample = made.reading()
        [(start, scene)] = sample.reads
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
        if sample.draws:
            painted += 1
            assert runs.pop() == f"[{PATCHES}]"
        # Each answer stands behind "<|Assistant|>:"; drawn pictures are no targets.
        assert all(run.startswith(" ") and run.endswith(TEMPLATE.eos) for run in runs)
        assert all(run.count(TEMPLATE.eos) == 1 for run in runs)
        starts = [i for i, t in enumerate(sample.target) if t and not sample.target[i - 1]]
        colon = sample.ids[starts[0] - 1]
        for start in starts[: len(runs)]:
            assert sample.ids[start - 2 : start] == [ASSISTANT, colon]
        for start, _ in sample.reads:
            assert sample.ids[start : start + PATCHES] == [PLACEHOLDER] * PATCHES
            assert not any(sample.target[start - 1 : start + PATCHES + 1])
    assert 15 < painted < 45, "about half of them end in a drawing"


def test_answers_in_a_conversation_are_about_the_last_picture():
    made = maker(3)
    for _ in range(40):
        sample = made.conversation(256)
        pictures = sample.reads
        for i, target in enumerate(sample.target):
            if not target or sample.target[i - 1] or any(i == at for at, _ in sample.draws):
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
            for _, scene in [*sample.reads, *sample.draws]:
                seen += 1
                assert not split.is_heldout(scene)
    for _ in range(20):
        sample = made.conversation(512)
        for _, scene in [*sample.reads, *sample.draws]:
            seen += 1
            assert not split.is_heldout(scene)
    assert seen > 800
    rare = [SceneSampler(0, "heldout").sample("colour") for _ in range(5)]
    assert all(map(split.is_heldout, rare)), "the test can tell"


# --- packing -------------------------------------------------------------------------------------


def test_packing_pads_on_the_right_and_keeps_places():
    made = maker(drop=0.0)
    samples = [made.drawing(), made.reading(), made.conversation(256)]
    lines = pack(samples, PAD)
    assert lines.ids.shape == lines.target.shape == (3, max(len(s.ids) for s in samples))
    for row, sample in enumerate(samples):
        size = len(sample.ids)
        assert lines.ids[row, :size].tolist() == sample.ids
        assert lines.target[row, :size].tolist() == sample.target
        assert (lines.ids[row, size:] == PAD).all() and not lines.target[row, size:].any()
    draws = [(row, start) for row, s in enumerate(samples) for start, _ in s.draws]
    reads = [(row, start) for row, s in enumerate(samples) for start, _ in s.reads]
    assert [tuple(at) for at in lines.draw_at.tolist()] == draws
    assert [tuple(at) for at in lines.read_at.tolist()] == reads
    assert [scene for s in samples for _, scene in s.reads] == lines.read_scenes


def test_lines_without_pictures_pack_to_empty_places():
    lines = pack([Sample([1, 9], [False, True])], PAD)
    assert lines.read_at.shape == lines.draw_at.shape == (0, 2)


def test_filling_writes_where_it_is_told_and_nowhere_else():
    rows = torch.zeros(3, 8, 2)
    values = torch.arange(1, 13).reshape(2, 3, 2)
    fill(rows, torch.tensor([[2, 1], [0, 5]]), values)
    assert torch.equal(rows[2, 1:4], values[0].float())
    assert torch.equal(rows[0, 5:8], values[1].float())
    assert rows.count_nonzero() == 12


def test_the_model_learns_codes_at_draws_and_features_at_reads():
    trainer = pretrainer()
    made = maker(drop=0.0)
    lines = pack([made.drawing(), made.reading()], PAD)
    seen: list[torch.Tensor] = []
    model, aims = trainer.model, []

    def forward(hidden, positions, cache=None):
        seen.append(hidden.detach())
        return hidden

    def logits(hidden, id_range):
        aims.append((id_range.start, len(hidden)))
        return original(hidden, id_range)

    original, model.forward, model.logits = model.logits, forward, model.logits
    model.logits = logits
    torch.manual_seed(0)
    state = trainer.generator.get_state()
    trainer.losses(lines)
    trainer.generator.set_state(state)
    features = model.encode_images(trainer.views(lines))
    codes = trainer.codes(lines)
    row, start = lines.draw_at[0].tolist()
    painted = model.embed(codes)[0]
    torch.testing.assert_close(seen[0][row, start : start + PATCHES], painted)
    row, start = lines.read_at[0].tolist()
    torch.testing.assert_close(seen[0][row, start : start + PATCHES], features[0])
    assert aims == [(640, PATCHES), (0, int(lines.target[1].sum()))]


def test_codes_are_those_of_the_scene_on_square_cards():
    trainer, made = pretrainer(), maker()
    lines = pack([made.drawing() for _ in range(3)], PAD)
    pictures = render(lines.draw_scenes, style="square")
    expected = trainer.model.image_tokenizer.encode(pictures).flatten(1) + 640
    assert torch.equal(trainer.codes(lines), expected)


# --- optimisers ----------------------------------------------------------------------------------


def test_every_weight_has_one_optimiser_and_moves():
    trainer = pretrainer()
    frozen = {id(p) for p in trainer.model.image_tokenizer.parameters()}
    owned = [*trainer.optimiser.matrices, *trainer.optimiser.rest]
    assert len({id(p) for p in owned}) == len(owned)
    every = {id(p) for p in trainer.model.parameters()}
    assert {id(p) for p in owned} == every - frozen
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.step()
    trainer.step()
    for name, value in trainer.model.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved != name.startswith("image_tokenizer"), name


def test_muon_moves_the_very_weights_it_flattens():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 4, 3)
    matrices = matrices_in(conv)
    optimiser = MixedOptimiser(matrices, others(conv, matrices))
    before = conv.weight.detach().clone()
    conv(torch.randn(1, 2, 5, 5)).square().sum().backward()
    optimiser.step(0.1)
    assert not torch.equal(conv.weight, before)
    assert conv.weight.grad is None and conv.bias is not None and conv.bias.grad is None


# --- losses --------------------------------------------------------------------------------------


def test_a_missing_loss_does_not_count_in_the_mean():
    nan = float("nan")
    merged = merge([Losses(2.0, nan, 5), Losses(4.0, 1.0, 6), Losses(nan, nan, 1)])
    assert merged == Losses(3.0, 1.0, 12)
    assert merge([Losses(nan, 1.0, 1)]).image != merge([Losses(nan, 1.0, 1)]).image


def test_losses_fall():
    trainer = pretrainer(dataclasses.replace(RUN, drawings=6, readings=6, conversation_every=99))
    losses = [trainer.step() for _ in range(16)]
    first, last = losses[1], losses[-1]
    assert last.text < 0.75 * first.text
    assert last.image < first.image - 0.3
    assert losses[0].image == pytest.approx(torch.tensor(48.0).log().item(), abs=0.6)


def test_the_tokenizers_loss_falls_and_its_codebook_is_fitted_on_the_way():
    run = TokenizerRun(steps=32, batch=4, warmup=2)
    trainer = TokenizerTrainer(TINY.image_tokenizer, run)
    before = trainer.model.quantizer.codebook.clone()
    losses = [trainer.step() for _ in range(32)]
    assert [c == 0 for _, c in losses] == [True] * 8 + [False] * 24, "a quarter has no codes"
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert not torch.equal(trainer.model.quantizer.codebook, before)


def test_backing_colours_are_of_the_palette_and_white_half_of_the_time():
    backing = random_backing(2000, torch.Generator().manual_seed(0))
    assert backing.shape == (2000, 4, 3)
    white = (backing == 1).flatten(1).all(1).float().mean()
    assert 0.45 < white < 0.56


# --- resume --------------------------------------------------------------------------------------


def assert_resumes_exactly(make: Callable, steps_before: int, steps_after: int) -> None:
    """k steps, a file, m steps == k + m steps, to the last bit of losses and weights."""
    whole = make()
    losses = [whole.step() for _ in range(steps_before + steps_after)]
    first = make()
    for _ in range(steps_before):
        first.step()
    state = through_a_file(first.state_dict())
    del first
    torch.manual_seed(999)  # a new process has another random state
    second = make()
    second.load_state_dict(state)
    assert torch.equal(torch.get_rng_state(), state["torch"])
    resumed = [second.step() for _ in range(steps_after)]
    assert repr(resumed) == repr(losses[steps_before:])  # nan, too, equals nan by its name
    assert second.step_count == whole.step_count
    expected = whole.model.state_dict()
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("accumulate", [1, 2])
def test_pretraining_resumes_exactly(accumulate: int):
    run = dataclasses.replace(RUN, accumulate=accumulate)
    assert_resumes_exactly(lambda: pretrainer(run), 3, 3)


@pytest.mark.parametrize("steps_before", [1, 2, 4])
def test_tokenizer_training_resumes_exactly_before_and_after_the_fit(steps_before: int):
    assert_resumes_exactly(tokenizer_trainer, steps_before, 6 - steps_before)


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
