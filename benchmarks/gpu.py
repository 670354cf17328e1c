"""The parts of scripts/bench_gpu.py: Janus-Pro's shapes, and the engine's pieces alone."""

from collections.abc import Callable, Iterator

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention

import unitok
from benchmarks.attention import PagedAttention, tables_in_order
from benchmarks.device import DeviceBench
from benchmarks.gpu_finetuning import finetuning
from benchmarks.gpu_quantization import quantization
from benchmarks.gpu_shapes import shape
from benchmarks.models import TOY
from benchmarks.report import Result
from benchmarks.speculation import held_out_prompts
from unitok.api import Model
from unitok.nn.config import DEFAULT, JANUS_PRO_1B
from unitok_engine import KVShape
from unitok_engine.attention.backends import BackendName
from unitok_tokenizers.image import make_image_tokenizer


def machine(here: DeviceBench) -> str:
    """Hardware and versions, in a line."""
    name = torch.cuda.get_device_name() if here.is_cuda else "a CPU, as a rehearsal"
    return f"{name}; torch {torch.__version__}, transformers {transformers.__version__}"


def attention(here: DeviceBench) -> Iterator[Result]:
    """Decode attention over all layers' K/V in turn: more than the device's cache holds."""
    bandwidth = here.bandwidth()
    for count in here.sizes.counts:
        yield attention_of(here, 2 * count, bandwidth)


def attention_of(here: DeviceBench, rows: int, bandwidth: float) -> Result:
    """Decode attention of so many rows: paged, gathered, and on contiguous K/V."""
    decoder, context = TOY if here.rehearse else JANUS_PRO_1B.decoder, here.sizes.context
    heads = (decoder.heads, decoder.kv_heads, decoder.kv_heads)
    q, k, v = (
        torch.randn(rows, n, decoder.head_dim, dtype=torch.bfloat16, device=here.device)
        for n in heads
    )
    kv = KVShape(decoder.layers, decoder.kv_heads, decoder.head_dim)
    tables, contexts = tables_in_order(rows, context), [context] * rows

    def paged(backend: BackendName | None) -> PagedAttention:
        return PagedAttention(kv, tables, contexts, 1, q.dtype, here.device, backend)

    def over_layers(cache: PagedAttention) -> Callable[[], None]:
        def run() -> None:
            for layer in range(kv.layers):
                cache.attend(layer, q, k, v)

        return run

    size = (kv.layers, rows, kv.kv_heads, context, kv.head_dim)
    keys, values = torch.zeros(2, *size, dtype=torch.bfloat16, device=here.device)

    def contiguous() -> None:
        for layer in range(kv.layers):
            scaled_dot_product_attention(q[:, :, None], keys[layer], values[layer])

    own = paged(None)
    contenders = {
        "own": over_layers(own),
        "gathered": over_layers(paged("torch-gather")),
        "contiguous": contiguous,
    }
    seconds = here.median(contenders, here.sizes.rounds)
    floor = keys.nbytes * 2 / bandwidth
    micro = {name: 1e6 / kv.layers * time for name, time in (seconds | {"floor": floor}).items()}
    return Result(
        f"attention of 1B, {rows} rows: time of {own.backend}'s paged over the contiguous one's",
        seconds["own"] / seconds["contiguous"], "x", detail=
        f"{micro['own']:.0f} µs a layer, gathered {micro['gathered']:.0f}, "
        f"contiguous {micro['contiguous']:.0f}, floor {micro['floor']:.0f}",
    )  # fmt: skip


def pixels(here: DeviceBench) -> Iterator[Result]:
    """VQ-16's decoder, from codes to pictures."""
    config = DEFAULT.image_tokenizer if here.rehearse else JANUS_PRO_1B.image_tokenizer
    tokenizer = make_image_tokenizer(config).to(here.device, torch.bfloat16).eval()
    for count in here.sizes.counts:
        codes = torch.zeros(count, config.grid**2, dtype=torch.int64, device=here.device)
        seconds = here.median({"decode": lambda codes=codes: tokenizer.decode(codes)}, 5)["decode"]
        side = config.image_size
        yield Result(
            f"VQ-16, {count} at once: from codes to pixels", 1e3 * seconds / count, "ms a picture",
            detail=f"{side} x {side}, bf16",
        )  # fmt: skip


def embedded(here: DeviceBench) -> Iterator[Result]:
    """The embedded model, from prompts to pictures: without drafts, and what they save."""
    dtype = "bfloat16" if here.is_cuda else "float32"
    plain, drafting = (
        unitok.load(device=here.device.type, dtype=dtype, drafts=drafts) for drafts in (False, True)
    )
    with plain, drafting:
        for model in (plain, drafting):
            model.draw("a cat")
        for count in here.sizes.counts:
            yield from embedded_at_once(here, plain, drafting, count)


def embedded_at_once(
    here: DeviceBench, plain: Model, drafting: Model, count: int
) -> Iterator[Result]:
    """So many pictures of held-out prompts at once, with drafts and without."""
    prompts = held_out_prompts(count, seed=count)
    drawn: dict[str, list[bytes]] = {}

    def draw(name: str, model: Model) -> None:
        drawn[name] = [result.image.tobytes() for result in model.draw(prompts, seed=1)]

    contenders = {"plain": lambda: draw("plain", plain), "drafts": lambda: draw("drafts", drafting)}
    seconds = here.median(contenders, 5)
    what = f"embedded model, {count} at once"
    yield Result(f"{what}: pictures", count / seconds["plain"], "/s", detail="with pixels")
    same = sum(a == b for a, b in zip(drawn["plain"], drawn["drafts"], strict=True))
    yield Result(
        f"{what}: faster with drafts", seconds["plain"] / seconds["drafts"], "x",
        detail=f"{drafting.stats().tokens_per_step:.1f} tokens a step so far; {same} of {count} "
        "pictures are the same",
    )  # fmt: skip


PARTS: dict[str, Callable[[DeviceBench], Iterator[Result]]] = {
    "1B": lambda here: shape(here, "1B"),
    "7B": lambda here: shape(here, "7B"),
    "attention": attention,
    "pixels": pixels,
    "embedded": embedded,
    "finetuning": finetuning,
    "quantization": quantization,
}
