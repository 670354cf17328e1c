"""A tiny random decoder over two id ranges, and what it gives without a paged cache."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unitok_engine import (
    Branch,
    CacheView,
    Embeddings,
    Engine,
    EngineConfig,
    FixedPlan,
    FreePlan,
    IdRange,
    KVShape,
    Output,
    Request,
    Sampling,
    join_outputs,
)
from unitok_engine.sequence import one_line

TEXT = IdRange(0, 40)
IMAGE = IdRange(40, 72)
WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 32, 2, 4, 2, 8


class TinyModel:
    """Two attention layers with rotary positions and grouped-query heads; no MLP.

    A place is also added to the embeddings: rotation alone sees differences of positions only.
    """

    kv_shape = KVShape(LAYERS, KV_HEADS, HEAD_DIM)
    hidden_size = WIDTH
    dtype = torch.float32
    device = torch.device("cpu")
    id_ranges = (IdRange(0, IMAGE.stop),)

    def __init__(self, seed: int = 0) -> None:
        def weights(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        generator = torch.Generator().manual_seed(seed)
        self.table = weights(IMAGE.stop, WIDTH)
        self.place = weights(WIDTH)
        self.head = weights(IMAGE.stop, WIDTH) * 0.5
        self.q = weights(LAYERS, WIDTH, HEADS * HEAD_DIM) / WIDTH**0.5
        self.kv = weights(LAYERS, 2, WIDTH, KV_HEADS * HEAD_DIM) / WIDTH**0.5
        self.out = weights(LAYERS, HEADS * HEAD_DIM, WIDTH) / WIDTH**0.5

    def embed(self, ids: Tensor) -> Tensor:
        return self.table[ids]

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        hidden = hidden + positions.sin()[:, None] * self.place
        for layer in range(LAYERS):
            x = norm(hidden)
            q = rotate((x @ self.q[layer]).unflatten(1, (HEADS, HEAD_DIM)), positions)
            k, v = ((x @ weight).unflatten(1, (KV_HEADS, HEAD_DIM)) for weight in self.kv[layer])
            attended = cache.attend(layer, q, rotate(k, positions), v)
            hidden = hidden + attended.flatten(1) @ self.out[layer]
        return norm(hidden)

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        return hidden @ self.head[id_range.start : id_range.stop].T


class WholeLine:
    """A cache that keeps nothing: the step is one whole line."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5
        scores += torch.full(scores.shape[1:], -torch.inf).triu(1)
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def norm(x: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angles = positions[:, None, None] * 0.1 ** torch.arange(half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat(
        [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=-1
    )


def recomputed_logits(
    model: TinyModel, branch: Branch, emitted: Sequence[int], id_range: IdRange
) -> Tensor:
    """Logits [size] after branch and emitted ids, from one pass over the whole line."""
    ids = torch.tensor([*branch.token_ids, *emitted])
    hidden = model.embed(ids)
    for features in branch.embeddings:
        hidden[features.start : features.stop] = features.compute()
    positions = torch.arange(len(ids)) + branch.first_position
    return model.logits(model.forward(hidden, positions, WholeLine())[-1:], id_range)[0]


def vectors(seed: int, length: int) -> Tensor:
    return torch.randn(length, WIDTH, generator=torch.Generator().manual_seed(seed))


def caption(seed: int, max_tokens: int = 12, stop_ids: Sequence[int] = (1,)) -> Request:
    """A short prompt with six features in it, then free text."""
    features = Embeddings(2, 6, f"picture {seed}", lambda: vectors(seed, 6))
    prompt = Branch(tuple((seed + i) % 38 + 2 for i in range(9 + seed % 3)), embeddings=(features,))
    return Request((prompt,), FreePlan(TEXT, frozenset(stop_ids), max_tokens), Sampling(seed=seed))


def drawing(seed: int, length: int = 16, n: int = 1) -> Request:
    """A guided request: two branches that differ in length, then ids of the image range."""
    conditional = Branch(tuple((3 * seed + i) % 38 + 2 for i in range(7 + seed % 4)), weight=2.5)
    unconditional = Branch((0, 5), weight=-1.5, first_position=seed % 3)
    branches = (conditional, unconditional)
    return Request(branches, FixedPlan(IMAGE, length), Sampling(seed=seed), n=n)


def engine(
    model: TinyModel | None = None,
    *,
    num_blocks: int = 400,
    block_size: int = 4,
    max_batch_tokens: int = 2048,
    max_running: int = 256,
    prefix_caching: bool = True,
    preempt_every_step: bool = False,
) -> Engine:
    config = EngineConfig(
        num_blocks=num_blocks,
        block_size=block_size,
        max_batch_tokens=max_batch_tokens,
        max_running=max_running,
        max_context=256,
        prefix_caching=prefix_caching,
        preempt_every_step=preempt_every_step,
    )
    return Engine(model or TinyModel(), config)


def finish(engine: Engine, requests: Iterable[Request]) -> list[Output]:
    """The final outputs of all requests, in their order, sample by sample.

    Requests are added as there is room for them; one that the engine refuses gives errors.
    """
    source = enumerate(requests)
    ended: dict[tuple[int, int], Output] = {}
    outputs: dict[tuple[int, int], list[Output]] = {}
    places: dict[int, int] = {}  # of requests, by their id
    left: Counter[int] = Counter()  # their samples in flight
    while True:
        while left.total() < engine.config.max_running and (taken := next(source, None)):
            place, request = taken
            try:
                request_id = engine.add(request)
                places[request_id], left[request_id] = place, request.n
            except Exception as error:  # a plan is its caller's code
                ended |= {(place, output.sample): output for output in refused(request, error)}
        if not left.total():
            return [ended[key] for key in sorted(ended)]
        for output in engine.step():
            if output.request_id not in places:
                continue
            key = places[output.request_id], output.sample
            outputs.setdefault(key, []).append(output)
            if output.finished:
                ended[key] = whole(outputs[key])
                left[output.request_id] -= 1


def whole(outputs: Sequence[Output]) -> Output:
    """All that one sample emitted, from its outputs, which must follow on each other."""
    for one, next in pairwise(outputs):
        assert not one.finished, "an output after the last"
        assert next.start == one.stop, "tokens are told twice, or not at all"
    assert outputs[0].start == 0
    return join_outputs(outputs)


def finals(outputs: Iterable[Output]) -> dict[tuple[int, int], Output]:
    """All that each sample emitted which has ended, by request and sample."""
    pieces: dict[tuple[int, int], list[Output]] = {}
    for output in outputs:
        pieces.setdefault((output.request_id, output.sample), []).append(output)
    return {key: whole(mine) for key, mine in pieces.items() if mine[-1].finished}


def refused(request: Request, error: Exception) -> list[Output]:
    """An output for each sample of a request that was not added."""
    prompt = len(request.branches[0].token_ids)
    return [
        Output(-1, sample, (), 0, prompt, "error", one_line(error)) for sample in range(request.n)
    ]


def finished_ids(engine: Engine, requests: Sequence[Request]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in finish(engine, requests)]


class Waits(TorchDispatchMode):
    """Notes operators whose results the host has to wait for on CUDA: numbers and unknown sizes.

    Not under inference mode, where numbers are asked for past the dispatcher.
    """

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if name in self.NAMES or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))
