"""How much work a fixed mix of requests takes, in counts that no machine's speed can blur.

A change that raises one of these figures is slower, whatever a clock says; it has to change the
figure here, and to say why. One that lowers a figure lowers it here, too.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.unitok.tiny import tiny_model, tiny_template
from unitok import Caption, Draw
from unitok.draw_job import DrawJob
from unitok.families.common.family import Defaults
from unitok.families.janus import Janus, Preprocessor
from unitok.image_decoder import ImageDecoder
from unitok.preparer import Preparer
from unitok_engine import Engine, EngineConfig, FreePlan, Request, StepRecord, transfer
from unitok_engine.attention.backends import BackendName


@dataclass
class Work:
    """What the mix took.

    Attributes:
        forwards: Of the model.
        rows: Of all forwards: runs of tokens of a branch.
        tokens: Of all forwards.
        prefill_tokens: Those of them that belong to sequences which had not emitted any.
        cached_tokens: Tokens that admitted sequences found computed.
        copied_blocks: K/V blocks that were copied.
        encoded_images: Pictures that the vision encoder saw.
        decoded_pixels: Of generated pictures.
        transfers: Between host and device, by the operator that makes them.
    """

    forwards: int = 0
    rows: int = 0
    tokens: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    copied_blocks: int = 0
    encoded_images: int = 0
    decoded_pixels: int = 0
    transfers: Counter[str] = field(default_factory=Counter)

    def stepped(self, record: StepRecord) -> None:
        """Note a forward."""
        self.forwards += 1
        self.rows += record.rows
        self.tokens += record.tokens
        self.prefill_tokens += record.prefill_tokens
        self.copied_blocks += record.copied_blocks


def tiny_janus() -> Janus:
    defaults = Defaults(1.0, 0, 1.0, 5.0, "what?", "")
    return Janus("tiny", tiny_model(), tiny_template(), Preprocessor(64), defaults)


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, note: Callable[..., None]
) -> None:
    """Call `note` with the arguments of each call of a function."""
    original = getattr(owner, name)

    def noting(*args: Any, **options: Any) -> Any:
        note(*args, **options)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, noting)


def watch_transfers(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Count what would cross between host and device if the device were another."""
    transfer.constant.cache_clear()

    def add(operator: str) -> Callable[..., None]:
        return lambda *_, **__: work.transfers.update([operator])

    def made(*_: Any, device: Any = None, **__: Any) -> None:
        work.transfers.update(["tensor"] if device is not None else [])

    # Everything that `transfer` sends or fills passes through this.
    counted(monkeypatch, transfer, "_ready", add("send"))
    counted(monkeypatch, torch, "tensor", made)
    for operator in ("tolist", "item", "cpu"):
        counted(monkeypatch, Tensor, operator, add(operator))


def mix(prepare: Preparer) -> list[Any]:
    """Captions of two pictures, one of them asked about twice, and guided drawings."""
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    asked = [
        Caption(red, "what is this?", max_tokens=6),
        Caption(red, "what is this?", max_tokens=9),
        Caption(blue, "which colour?", max_tokens=3),
        Draw("two apples", seed=1, n=2),
        Draw("two apples on a table", seed=2),
        Draw("a dog", guidance=1.0, seed=3),
    ]
    return [prepare.job(one, index) for index, one in enumerate(asked)]


def endless(prepare: Preparer, request: Request) -> Request:
    """A text that no stop token ends, so that its length depends on no rounding."""
    text = prepare.family.model.vocabulary.text_range
    plan = FreePlan(text, frozenset(), request.plan.max_length)
    return replace(request, plan=plan)


def work_of_the_mix(monkeypatch: pytest.MonkeyPatch, attention: BackendName) -> dict[str, Any]:
    """Work the mix off, step by step, and give the figures of `Work`."""
    family, work = tiny_janus(), Work()
    image_decoder = ImageDecoder(torch.device("cpu"), background=False)
    prepare = Preparer(family, image_decoder)
    config = EngineConfig(
        num_blocks=60, block_size=8, max_context=256, max_batch_tokens=64, attention=attention
    )
    engine = Engine(family.model, config, work)
    watch_pictures(monkeypatch, family, work)
    jobs = mix(prepare)
    with monkeypatch.context() as patch:
        watch_transfers(patch, work)
        work_off(engine, jobs, prepare)
    while image_decoder.has_work:
        image_decoder.work()
    assert engine.stats.forwards == work.forwards
    assert all(job.result and not job.result.error for job in jobs)
    work.cached_tokens = engine.stats.cached_tokens
    return asdict(work) | {"transfers": dict(work.transfers)}


def watch_pictures(monkeypatch: pytest.MonkeyPatch, family: Janus, work: Work) -> None:
    """Count what is encoded and decoded."""
    tokenizer = family.model.image_tokenizer

    def encoded(pixels: Tensor) -> None:
        work.encoded_images += len(pixels)

    def decoded(codes: Tensor) -> None:
        work.decoded_pixels += len(codes) * tokenizer.config.image_size**2

    counted(monkeypatch, family.model.vision, "forward", encoded)
    counted(monkeypatch, tokenizer, "decode", decoded)


def work_off(engine: Engine, jobs: Sequence[Any], prepare: Preparer) -> None:
    """The last two jobs come after four steps."""
    flights = {}

    def step() -> None:
        for output in engine.step():
            flights[output.request_id].feed(output)

    for place, job in enumerate(jobs):
        request = job.request if isinstance(job, DrawJob) else endless(prepare, job.request)
        flights[engine.add(request)] = job
        for _ in range(4 if place == 3 else 0):
            step()
    while engine.has_work:
        step()


FIGURES = {
    "forwards": 20,
    "rows": 131,
    "tokens": 243,
    "prefill_tokens": 123,
    "cached_tokens": 50,
    "copied_blocks": 2,
    "encoded_images": 2,
    "decoded_pixels": 4 * 64 * 64,
}
# One `tolist` a forward is the wait for what was sampled. A backend makes tensors of block tables.
TRANSFERS = {
    "torch": {"send": 68, "tolist": 20, "tensor": 1},
    "torch-gather": {"send": 68, "tolist": 20, "tensor": 45},
}


@pytest.mark.parametrize("attention", TRANSFERS)
def test_the_mix_takes_just_so_much_work(monkeypatch: pytest.MonkeyPatch, attention: BackendName):
    taken = work_of_the_mix(monkeypatch, attention)
    assert taken == FIGURES | {"transfers": TRANSFERS[attention]}
