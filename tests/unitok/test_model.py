"""The real model: one forward for training and engine, embedding and head by range."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.unitok.tiny import PATCHES, TINY, tiny_model
from unitok.driver import Driver
from unitok.nn.config import DecoderConfig, JanusConfig
from unitok.nn.layers import RotaryTable, causal_attention, rotate
from unitok.nn.model import UnifiedModel
from unitok_engine import (
    Branch,
    Embeddings,
    Engine,
    EngineConfig,
    FixedPlan,
    FreePlan,
    IdRange,
    Request,
    Sampling,
)

TEXT, IMAGE = IdRange(0, 640), IdRange(640, 688)


@pytest.fixture(scope="module")
def model() -> UnifiedModel:
    return tiny_model()


class Recorded:
    """A model for the engine that notes the logits it gives."""

    def __init__(self, model: UnifiedModel) -> None:
        self.model = model
        self.kv_shape, self.dtype, self.device = model.kv_shape, model.dtype, model.device
        self.hidden_size, self.id_ranges = model.hidden_size, model.id_ranges
        self.embed, self.forward = model.embed, model.forward
        self.given: list[Tensor] = []

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        self.given.append(self.model.logits(hidden, id_range))
        return self.given[-1].clone()


def trained_logits(model: UnifiedModel, branch: Branch, emitted: list[int], r: IdRange) -> Tensor:
    """[len(emitted), r.size]: what the training path says before each emitted id."""
    ids = torch.tensor([[*branch.token_ids, *emitted]])
    hidden = model.embed(ids)
    for features in branch.embeddings:
        hidden[0, features.start : features.stop] = features.compute()
    positions = torch.arange(ids.shape[1])
    hidden = model(hidden, positions)[0, len(branch.token_ids) - 1 : -1]
    return model.logits(hidden, r)


def picture(model: UnifiedModel, seed: int) -> Tensor:
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    with torch.no_grad():
        return model.encode_images(pixels)[0]


# --- training == engine --------------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("chunk", [7, 2048])
def test_the_paged_engine_gives_the_logits_of_the_training_forward(kv_heads: int, chunk: int):
    decoder = dataclasses.replace(TINY.decoder, kv_heads=kv_heads)
    model = tiny_model(config=dataclasses.replace(TINY, decoder=decoder))
    recorded = Recorded(model)
    prompt = tuple(range(8, 60))
    features = Embeddings(5, PATCHES, "p", lambda: picture(model, 0))
    requests = [
        (Branch(prompt, embeddings=(features,)), FreePlan(TEXT, frozenset([2]), 14), TEXT),
        (Branch(prompt[:9]), FixedPlan(IMAGE, PATCHES), IMAGE),
        # A line that goes on after text and image ids are mixed in its prompt.
        (Branch((1, 650, 687, 9, 640, 3)), FixedPlan(IMAGE, 5), IMAGE),
    ]
    for branch, plan, id_range in requests:
        recorded.given.clear()
        config = EngineConfig(num_blocks=40, block_size=4, max_batch_tokens=chunk, max_context=256)
        driver = Driver(Engine(recorded, config))
        [output] = driver.complete([Request((branch,), plan, Sampling(seed=3))])
        paged = torch.cat(recorded.given)
        emitted = list(output.token_ids)
        with torch.no_grad():
            expected = trained_logits(model, branch, emitted, id_range)
        assert len(paged) >= len(expected) > 4
        torch.testing.assert_close(paged[: len(expected)], expected, atol=1e-4, rtol=0)
        assert expected.std() > 0.1, "logits so flat would agree by accident"


def test_a_batch_of_lines_gives_what_each_gives_alone(model: UnifiedModel):
    ids = torch.randint(0, 688, (3, 20), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(20)
    together = model(model.embed(ids), positions)
    for row, line in zip(together, ids, strict=True):
        torch.testing.assert_close(row, model(model.embed(line), positions), atol=1e-5, rtol=0)


def test_an_id_sees_nothing_that_comes_later(model: UnifiedModel):
    ids = torch.arange(30, 50)
    changed = ids.clone()
    changed[12:] = 645
    before, after = (model(model.embed(x), torch.arange(20)) for x in (ids, changed))
    torch.testing.assert_close(before[:12], after[:12], atol=1e-6, rtol=0)
    assert (before[12:] - after[12:]).abs().max() > 0.1


def test_grouped_heads_share_keys_in_order():
    q, k, v = torch.randn(5, 4, 8), torch.randn(5, 2, 8), torch.randn(5, 2, 8)
    grouped = causal_attention(q, k, v)
    for head in range(4):
        shared = head // 2
        alone = causal_attention(q[:, [head]], k[:, [shared]], v[:, [shared]])
        torch.testing.assert_close(grouped[:, [head]], alone)


def test_rotation_depends_on_differences_of_positions_alone():
    table = RotaryTable(16, 64, 10000.0)
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(i: int, j: int) -> Tensor:
        turned = [rotate(x, table(torch.tensor([p]), torch.float32)) for x, p in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(9, 4), score(59, 54), atol=1e-5, rtol=0)
    assert (score(9, 4) - score(9, 5)).abs() > 1e-3


# --- embedding and heads by range ----------------------------------------------------------------


def test_text_and_image_ids_are_embedded_by_range(model: UnifiedModel):
    ids = torch.tensor([[0, 640, 639], [687, 5, 641]])
    mixed = model.embed(ids)
    assert mixed.shape == (2, 3, 64)
    for row in range(2):
        for column in range(3):
            token = ids[row, column]
            if token < 640:
                expected = model.text_embedding.weight[token]
            else:
                expected = model.image_aligner(model.image_embedding.weight[token - 640])
            torch.testing.assert_close(mixed[row, column], expected)


def test_logits_come_from_the_head_of_their_range(model: UnifiedModel):
    hidden = torch.randn(3, 64)
    text, image = model.text_head(hidden), model.image_head(hidden)
    assert torch.equal(model.logits(hidden, TEXT), text)
    assert torch.equal(model.logits(hidden, IMAGE), image)
    part = model.logits(hidden, IdRange(10, 20))  # by fewer rows of the head
    torch.testing.assert_close(part, text[:, 10:20], atol=1e-5, rtol=0)
    assert torch.equal(model.logits(hidden, IdRange(650, 688)), image[:, 10:])


@pytest.mark.parametrize("wrong", [(639, 641), (0, 688), (640, 689), (700, 710)])
def test_a_range_of_no_single_head_is_refused(model: UnifiedModel, wrong: tuple[int, int]):
    with pytest.raises(ValueError, match="belong to no single head"):
        model.logits(torch.randn(1, 64), IdRange(*wrong))


# --- reading -------------------------------------------------------------------------------------


def test_a_picture_becomes_one_feature_per_patch(model: UnifiedModel):
    features = model.encode_images(torch.rand(3, 3, 64, 64))
    assert features.shape == (3, PATCHES, 64)


def test_features_replace_the_placeholders_in_the_engine(model: UnifiedModel):
    """Another picture in the slot changes what is written; another placeholder id does not."""

    def logits(seed: int, placeholder: int) -> Tensor:
        recorded = Recorded(model)
        ids = (1, 6, *[placeholder] * PATCHES, 9, 10)
        features = Embeddings(2, PATCHES, f"p{seed}", lambda: picture(model, seed))
        engine = Engine(recorded, EngineConfig(num_blocks=20, block_size=4, max_context=256))
        plan = FreePlan(TEXT, frozenset([2]), 1)
        Driver(engine).complete([Request((Branch(ids, embeddings=(features,)),), plan)])
        return recorded.given[0]

    assert torch.equal(logits(0, 5), logits(0, 77))
    assert (logits(0, 5) - logits(1, 5)).abs().max() > 0.1


# --- sizes ---------------------------------------------------------------------------------------


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of kv_heads"):
        DecoderConfig(10, 8, 8, 1, heads=4, kv_heads=3, head_dim=2, max_positions=8)
    with pytest.raises(ValueError, match="multiple of its heads"):
        dataclasses.replace(TINY.vision, heads=3)
    vision = dataclasses.replace(TINY.vision, patch_size=8)
    with pytest.raises(ValueError, match="64 patches to read but 16 codes to draw"):
        JanusConfig(TINY.decoder, vision, TINY.image_tokenizer)
