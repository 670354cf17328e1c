"""Greedy ids of vLLM are those of our engine, however its scheduler cuts requests."""

import pytest

import unitok
from tests.vllm.engines import counted, ids_of, serving
from tests.vllm.work import Ids, Work, own_ids, work
from unitok.api import Model
from unitok.loading import DEFAULT_FOLDER as FOLDER


@pytest.fixture(scope="module")
def model() -> Model:
    """The embedded model on our engine."""
    return unitok.load(FOLDER, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def asked() -> Work:
    """64 drawings of eight guidance scales, 32 captions, 16 texts."""
    return work(64, 32, 16)


@pytest.fixture(scope="module")
def wanted(model: Model, asked: Work) -> list[Ids]:
    """Our engine's ids."""
    ids = own_ids(model, asked)
    assert len(set(map(tuple, ids[:64]))) > 48  # guidance and words matter
    assert len(set(map(tuple, ids[64:]))) > 12
    return ids


@pytest.mark.timeout(400)
def test_one_batch_of_all_kinds(model: Model, asked: Work, wanted: list[Ids]):
    with serving(FOLDER) as llm:
        assert ids_of(llm, model, asked) == wanted


@pytest.mark.timeout(400)
def test_chunked_prefill_and_prefix_caching(model: Model, asked: Work, wanted: list[Ids]):
    options = {"max_num_batched_tokens": 48, "max_num_seqs": 48, "enable_prefix_caching": True}
    with serving(FOLDER, **options) as llm:
        assert ids_of(llm, model, asked) == wanted
        before = counted(llm, "prefix_cache_hits")
        assert ids_of(llm, model, asked) == wanted
        assert counted(llm, "prefix_cache_hits") - before >= 32 * (32 + 64 // 3)


@pytest.mark.timeout(400)
def test_preemption(model: Model, asked: Work, wanted: list[Ids]):
    with serving(FOLDER, num_gpu_blocks_override=40, enable_prefix_caching=True) as llm:
        assert ids_of(llm, model, asked) == wanted
        assert counted(llm, "num_preemptions") >= 20
