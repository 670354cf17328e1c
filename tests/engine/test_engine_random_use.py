from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.tiny import TinyModel, caption, drawing, engine, finals, finished_ids
from unitok_engine import Embeddings, Request

MODEL = TinyModel()


def failing(seed: int) -> Request:
    """A caption whose features cannot be computed."""
    request = caption(seed)
    features = Embeddings(2, 6, "gone", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    return replace(request, branches=(replace(request.branches[0], embeddings=(features,)),))


REQUESTS = st.one_of(
    st.builds(caption, st.integers(0, 9), st.integers(1, 12)),
    st.builds(drawing, st.integers(0, 9), st.integers(1, 10), st.integers(1, 3)),
    st.builds(failing, st.integers(0, 9)),
)
ACTIONS = st.lists(
    st.one_of(REQUESTS, st.just("step"), st.tuples(st.just("abort"), st.integers(0, 5))),
    max_size=14,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    actions=ACTIONS,
    num_blocks=st.integers(12, 30),
    budget=st.sampled_from([1, 5, 64]),
    preempt=st.booleans(),
    caching=st.booleans(),
)
def test_under_random_use_every_request_ends_and_no_block_leaks(
    actions, num_blocks, budget, preempt, caching
):
    machine = engine(
        MODEL,
        num_blocks=num_blocks,
        max_batch_tokens=budget,
        preempt_every_step=preempt,
        prefix_caching=caching,
    )
    requests: dict[int, Request] = {}
    outputs = []
    for action in actions:
        if isinstance(action, Request):
            requests[machine.add(action)] = action
        elif action == "step":
            outputs += machine.step()
        else:
            machine.abort(action[1])
    for _ in range(2000):
        if not machine.has_work:
            break
        outputs += machine.step()
    assert not machine.has_work
    assert machine.stats.free_blocks == num_blocks
    ended = finals(outputs)
    wanted = sorted((id, k) for id, request in requests.items() for k in range(request.n))
    assert sorted(ended) == wanted
    for output in ended.values():
        if output.finish_reason in ("stop", "length", "complete"):
            request = requests[output.request_id]
            alone = finished_ids(engine(MODEL), [request])
            assert output.token_ids == alone[output.sample]
