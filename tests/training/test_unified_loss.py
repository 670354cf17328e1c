"""The loss of packed sequences is that of each alone, in value and in gradients."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.training.learned import (
    FAMILIES,
    answered,
    continued,
    janus,
    mixed_sequences,
    packed_means,
    painted,
    text_range,
    trainable,
)
from tests.unitok.tiny import PATCHES
from unitok.families import Family
from unitok.nn.activation_checkpointing import Mode
from unitok.nn.model import UnifiedModel
from unitok.training import cross_entropy
from unitok.training.hidden_states import compute, hidden_states, with_painted_ids
from unitok.training.losses import Loss
from unitok.training.packing import PackedBatch, pack
from unitok.training.sequences import TrainingSequence
from unitok.training.unified_loss import UnifiedLoss
from unitok_engine import Branch, IdRange

Gradients = dict[str, Tensor]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return trainable(FAMILIES[request.param](tmp_path_factory.mktemp(request.param)))


def gradients(model: UnifiedModel, total: Tensor) -> Gradients:
    """Of all weights that the total depends on."""
    model.zero_grad()
    total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: Gradients, theirs: Gradients) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        scale = max(1.0, float(theirs[name].abs().max()))
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5 * scale, rtol=0, msg=name)


def losses_alone(family: Family, sequence: TrainingSequence) -> dict[str, Tensor]:
    """The losses of a sequence's targets by kind, by the model's unpacked forward."""
    model = family.model
    ids = torch.tensor(sequence.branch.token_ids)
    for image in sequence.painted:
        codes = model.image_tokenizer.encode(image.pixels()[None]).flatten()
        ids[list(image.places)] = codes + model.vocabulary.image_start
    hidden = model.embed(ids[None]).clone()
    for e in sequence.branch.embeddings:
        hidden[0, e.start : e.stop] = e.compute()
    first = sequence.branch.first_position
    out = model(hidden, torch.arange(first, first + len(ids)))[0]
    return {
        kind: F.cross_entropy(
            model.logits(out[rows - 1], ids_of_kind),
            ids[rows] - ids_of_kind.start,
            reduction="none",
        )
        for kind, (rows, ids_of_kind) in kinds_of(family, ids, sequence.targets).items()
    }


def kinds_of(
    family: Family, ids: Tensor, targets: Sequence[bool]
) -> dict[str, tuple[Tensor, IdRange]]:
    """The rows of targets by kind, and the ids that compete there."""
    images = family.model.vocabulary.image_range
    rows = [i for i, is_target in enumerate(targets) if is_target]
    of_images = [i for i in rows if int(ids[i]) in images]
    of_text = [i for i in rows if int(ids[i]) not in images]
    return {
        "text": (torch.tensor(of_text, dtype=torch.int64), text_range(family)),
        "image": (torch.tensor(of_images, dtype=torch.int64), images),
    }


def run(family: Family, batch: PackedBatch, z_loss: float = 0.0) -> Loss:
    return UnifiedLoss(family.model, text_range(family), z_loss)(batch, 0)


def test_packed_equals_unpacked(family: Family):
    sequences = mixed_sequences(family)
    loss = run(family, packed_means(family, sequences))
    packed = gradients(family.model, loss.total)
    each = [losses_alone(family, sequence) for sequence in sequences]
    every = {kind: torch.cat([e[kind] for e in each]) for kind in ("text", "image")}
    expected = every["text"].mean() + 3 * every["image"].mean()
    assert loss.total.item() == pytest.approx(expected.item(), abs=1e-5)
    for kind, losses in every.items():
        assert loss.parts[kind].item() == pytest.approx(losses.mean().item(), abs=1e-5)
    assert loss.tokens == sum(map(len, sequences))
    assert_same(packed, gradients(family.model, expected))
    learned = {name.partition(".")[0] for name in packed}
    assert "image_tokenizer" not in learned and "decoder" in learned
    if family.model.vision is not None:
        assert {"vision", "vision_aligner"} <= learned, "pictures are read with gradients"


# --- one family is enough for the rest -----------------------------------------------------------


@pytest.fixture
def tiny() -> Family:
    return trainable(janus())


def test_batches_add_up_to_one_that_holds_all(tiny: Family):
    """However sequences are spread: the weights are those of one token."""
    sequences, weights = mixed_sequences(tiny), {"text": 0.2, "image": 0.03}
    whole = gradients(tiny.model, run(tiny, pack(sequences, weights)).total)
    parts = [run(tiny, pack(s, weights)).total for s in (sequences[3:], sequences[:1])]
    parts += [run(tiny, pack(sequences[1:3], weights)).total]
    assert_same(gradients(tiny.model, torch.stack(parts).sum()), whole)


def test_known_codes_are_taken_and_others_computed_in_one_call_of_a_shape(
    tiny: Family, monkeypatch: pytest.MonkeyPatch
):
    sequences = [painted(tiny, "a dog", seed) for seed in range(3)]
    batch = pack(sequences, {"text": 1, "image": 1})
    calls: list[int] = []
    tokenizer = tiny.model.image_tokenizer
    encode: Callable[[Tensor], Tensor] = tokenizer.encode

    def counted(pixels: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled("cpu"), "codes do not depend on the training's type"
        calls.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(tokenizer, "encode", counted)
    with torch.autocast("cpu", torch.bfloat16):
        ids = with_painted_ids(tiny.model, batch)
    assert calls == [3]
    own = encode(torch.stack([s.painted[0].pixels() for s in sequences])).flatten()
    assert torch.equal(ids[batch.targets], own + tiny.model.vocabulary.image_start)
    known = torch.arange(PATCHES).reshape(4, 4)
    images = [replace(batch.painted[0], codes=known), *batch.painted[1:]]
    ids = with_painted_ids(tiny.model, replace(batch, painted=tuple(images)))
    assert calls == [3, 2]
    assert (ids[batch.targets][:PATCHES] - tiny.model.vocabulary.image_start).tolist() == [
        *range(PATCHES)
    ]
    wrong = replace(batch, painted=(replace(batch.painted[0], codes=known[:3]),))
    with pytest.raises(ValueError, match="a dog: a painted picture has 12 codes for 16 places"):
        with_painted_ids(tiny.model, wrong)


def test_a_picture_that_stands_twice_is_encoded_once(tiny: Family):
    sequences = mixed_sequences(tiny)
    embeddings = pack([sequences[0], sequences[4], sequences[0]], {}).embeddings
    seen: list[int] = []
    handle = tiny.model.vision.register_forward_hook(lambda m, inputs, out: seen.append(len(out)))
    vectors = compute(embeddings)
    handle.remove()
    assert seen == [2] and torch.equal(vectors[0], vectors[2])
    for one, given in zip(vectors, embeddings, strict=True):
        torch.testing.assert_close(one, given.compute())


def test_the_z_loss_is_the_mean_square_of_the_log_of_the_denominator(tiny: Family):
    sequences = mixed_sequences(tiny)
    batch = packed_means(tiny, sequences)
    plain, with_z = run(tiny, batch), run(tiny, batch, z_loss=0.01)
    ids, hidden = hidden_states(tiny.model, batch)
    squares = {
        kind: tiny.model.logits(hidden[rows - 1], id_range).logsumexp(1).square()
        for kind, (rows, id_range) in kinds_of(tiny, ids, batch.targets.tolist()).items()
    }
    every = torch.cat(list(squares.values())).mean()
    assert with_z.parts["z_loss"].item() == pytest.approx(every.item(), rel=1e-5)
    assert "z_loss" not in plain.parts
    expected = plain.total + 0.01 * (squares["text"].mean() + 3 * squares["image"].mean())
    assert with_z.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same(
        gradients(tiny.model, with_z.total),
        gradients(tiny.model, expected),
    )


def test_logits_by_chunks_give_the_same_loss(tiny: Family, monkeypatch: pytest.MonkeyPatch):
    batch = packed_means(tiny, mixed_sequences(tiny))
    loss = run(tiny, batch, z_loss=0.01)
    expected = gradients(tiny.model, loss.total)
    made: list[tuple[int, int]] = []
    logits = tiny.model.logits

    def counted(hidden: Tensor, id_range: IdRange) -> Tensor:
        made.append((len(hidden), id_range.size))
        return logits(hidden, id_range)

    monkeypatch.setattr(cross_entropy, "CHUNK", 5 * 640)
    monkeypatch.setattr(tiny.model, "logits", counted)
    chunked = run(tiny, batch, z_loss=0.01)
    assert chunked.total.item() == pytest.approx(loss.total.item(), abs=1e-6)
    forward = list(made)
    assert max(rows * size for rows, size in forward) <= 5 * 640
    counts = batch.counts(tiny.model.vocabulary)
    assert sum(rows for rows, size in forward if size == 640) == counts["text"] > 5
    assert_same(gradients(tiny.model, chunked.total), expected)
    by_chunks = [made_again for made_again in forward if made_again[1] == 640]
    assert sorted(made) == sorted(forward + by_chunks), "they are made again for the gradients"


def test_a_frozen_head_makes_its_logits_once(tiny: Family, monkeypatch: pytest.MonkeyPatch):
    batch = packed_means(tiny, mixed_sequences(tiny))
    tiny.model.text_head.requires_grad_(False)
    loss = run(tiny, batch)
    expected = gradients(tiny.model, loss.total)
    made: list[int] = []
    logits = tiny.model.logits

    def counted(hidden: Tensor, id_range: IdRange) -> Tensor:
        made.append(len(hidden) if id_range.size == 640 else 0)
        return logits(hidden, id_range)

    monkeypatch.setattr(cross_entropy, "CHUNK", 5 * 640)
    monkeypatch.setattr(tiny.model, "logits", counted)
    chunked = run(tiny, batch)
    assert chunked.total.item() == pytest.approx(loss.total.item(), abs=1e-6)
    assert_same(gradients(tiny.model, chunked.total), expected)
    assert sum(made) == batch.counts(tiny.model.vocabulary)["text"]


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointed_activations_give_the_same_gradients(tiny: Family, mode: Mode):
    model, batch = tiny.model, packed_means(tiny, mixed_sequences(tiny))
    calls: list[bool] = []
    block = model.decoder.blocks[0]
    block.register_forward_pre_hook(lambda module, inputs: calls.append(torch.is_grad_enabled()))
    plain = gradients(model, run(tiny, batch).total)
    assert len(calls) == 1
    model.checkpoint_activations(mode)
    loss = run(tiny, batch)
    assert len(calls) == 2
    assert_same(gradients(model, loss.total), plain)
    assert len(calls) == 3, "the block was computed again"
    with torch.inference_mode():
        run(tiny, batch)
    assert len(calls) == 4
    model.checkpoint_activations("none")
    gradients(model, run(tiny, batch).total)
    assert len(calls) == 5


def test_under_autocast_the_loss_is_that_of_fp32_but_for_rounding(tiny: Family):
    batch = packed_means(tiny, mixed_sequences(tiny))
    expected = run(tiny, batch).total
    with torch.autocast("cpu", torch.bfloat16):
        loss = run(tiny, batch)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(expected.item(), rel=0.02)


def test_a_frozen_trunk_is_trained_through(tiny: Family):
    """As with an adapter: no weight before the trained one takes gradients."""
    tiny.model.requires_grad_(False)
    name = "decoder.blocks.1.mlp.down.weight"
    tiny.model.get_parameter(name).requires_grad_()
    tiny.model.checkpoint_activations()
    found = gradients(tiny.model, run(tiny, packed_means(tiny, mixed_sequences(tiny))).total)
    assert list(found) == [name] and found[name].any()


def test_the_model_is_a_part_of_the_loss(tiny: Family):
    loss = UnifiedLoss(tiny.model, text_range(tiny))
    assert loss.model is tiny.model
    assert {n for n, _ in loss.named_parameters()} == {
        f"model.{n}" for n, _ in tiny.model.named_parameters()
    }


def test_a_target_that_no_answer_holds_is_named(tmp_path_factory: pytest.TempPathFactory):
    family = FAMILIES["emu3"](tmp_path_factory.mktemp("emu3"))
    good = answered(family, "hello", "yes")
    outside = family.model.vocabulary.image_range.stop - 1
    narrow = UnifiedLoss(family.model, IdRange(0, 3))
    with pytest.raises(ValueError, match=r"hello: the id \d+ cannot be a target: .* ids 0 to 2"):
        narrow(pack([good], {"text": 1, "image": 1}), 0)
    image = continued(Branch((1, 2)), [outside], name="image")
    parts = narrow(pack([image], {"text": 1, "image": 1}), 0).parts
    assert parts.keys() == {"image"}
    nothing = TrainingSequence(Branch((1, 2)), (False, False))
    with pytest.raises(ValueError, match="no target tokens"):
        narrow(pack([nothing], {"text": 1, "image": 1}), 0)
