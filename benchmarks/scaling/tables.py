"""The tables of docs/scaling_costs.md, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scaling.measured import Measured
from benchmarks.scaling.shapes import JANUS_1B, SHAPES, Gpu, Shape
from benchmarks.scaling.steps import (
    Layout,
    Speed,
    layout_of,
    least_gpus,
    room,
    step_of,
)

GPUS = (1, 2, 4, 8, 16, 32, 64)
SPLITS = (1, 2, 4, 8, 16)  # GPUs of a replica
CARDS = (24e9, 48e9, 80e9, 141e9)  # bytes of memory


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the tables are made for.

    Attributes:
        gpu: The GPU.
        speed: What it reaches.
        per_gpu: Drawings under way for each GPU.
        price: Dollars for an hour of a GPU.
    """

    gpu: Gpu
    speed: Speed
    per_gpu: int
    price: float

    def layout(self, shape: Shape, gpus: int, tensor: int) -> Layout:
        """GPUs in replicas of `tensor` each."""
        return layout_of(shape, self.gpu, self.speed, gpus, tensor, self.per_gpu)

    def split(self, shape: Shape, gpus: int) -> Layout:
        """GPUs in the largest replicas that stay within a machine."""
        return self.layout(shape, gpus, min(gpus, self.gpu.node))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def all_tables(plan: Plan, measured: Measured) -> dict[str, str]:
    """Each table, by the name that its markers on the page have."""
    return {
        "speed": speed_line(plan.speed),
        "check": check_table(plan, measured),
        "terms": terms_table(plan),
        "rates": rates_table(plan),
        "alone": alone_table(plan),
        "room": room_table(),
    }


def speed_line(speed: Speed) -> str:
    """What was fitted, in a sentence."""
    return (
        f"Memory is read at {speed.bandwidth / 1e12:.2f} TB/s in one large read. Fitted are c = "
        f"{1e6 * speed.per_layer:.0f} µs a layer, w = {speed.weight_share:.0%} and a = "
        f"{speed.kv_share:.0%} of that bandwidth."
    )


def check_table(plan: Plan, measured: Measured) -> str:
    """One GPU at 1B: what is computed beside what was measured."""
    head = ("drawings at once", "ms a step", "measured", "pictures/s", "measured", "ratio")
    return table(head, _check_rows(plan, measured))


def _check_rows(plan: Plan, measured: Measured) -> Iterator[Sequence[str]]:
    for drawings, rate in measured.pictures_1b.items():
        layout = layout_of(JANUS_1B, plan.gpu, plan.speed, 1, 1, drawings)
        yield (
            str(drawings),
            f"{1e3 * layout.step.seconds:.2f}",
            f"{1e3 * measured.steps_1b[drawings]:.2f}",
            _short(layout.rate),
            _short(rate),
            f"{layout.rate / rate:.2f}",
        )


def terms_table(plan: Plan) -> str:
    """The terms of a step on one GPU, in milliseconds."""
    head = ("model", "drawings", "fixed", "weights", "compute", "K/V", "ms a step", "binds")
    rows = []
    for shape in SHAPES:
        for drawings in (1, plan.per_gpu):
            step = step_of(shape, plan.gpu, plan.speed, drawings)
            terms = (step.fixed, step.weights, step.compute, step.kv, step.seconds)
            cells = (f"{1e3 * seconds:.2f}" for seconds in terms)
            rows.append((shape.name, str(drawings), *cells, step.binds))
    return table(head, rows)


def rates_table(plan: Plan) -> str:
    """Pictures a second and what they cost, on 1 to 64 GPUs."""
    head = ("model", "GPUs", "one GPU a replica", "$ per 1,000", "binds")
    head += ("up to 8 GPUs a replica", "$ per 1,000", "binds")
    return table(head, (_rate_row(plan, shape, gpus) for shape in SHAPES for gpus in GPUS))


def _rate_row(plan: Plan, shape: Shape, gpus: int) -> Sequence[str]:
    data, split = plan.layout(shape, gpus, 1), plan.split(shape, gpus)
    return (shape.name, str(gpus), *_costs(data, plan.price), *_costs(split, plan.price))


def _costs(layout: Layout, price: float) -> Sequence[str]:
    return f"{_short(layout.rate)} /s", f"{layout.dollars(price):.3f}", layout.step.binds


def alone_table(plan: Plan) -> str:
    """Seconds of one picture that is drawn alone, by the GPUs that the replica is split over."""
    head = ("model", *(f"{tensor} GPU{'s' if tensor > 1 else ''}" for tensor in SPLITS))
    rows = [(shape.name, *(alone(plan, shape, t) for t in SPLITS)) for shape in SHAPES]
    return table(head, rows)


def alone(plan: Plan, shape: Shape, tensor: int) -> str:
    """Seconds of one picture that is drawn alone."""
    step = step_of(shape, plan.gpu, plan.speed, 1, tensor)
    return f"{shape.tokens * step.seconds:.2f} s"


def room_table() -> str:
    """How many drawings a GPU has memory for, or how many GPUs a replica needs."""
    head = ("model", "weights", "K/V of a drawing", *(f"{card / 1e9:.0f} GB" for card in CARDS))
    rows = []
    for shape in SHAPES:
        sizes = f"{shape.memory / 1e9:.1f} GB", f"{shape.kv_per_drawing / 1e9:.2f} GB"
        rows.append((shape.name, *sizes, *(_room(shape, card) for card in CARDS)))
    return table(head, rows)


def _room(shape: Shape, card: float) -> str:
    if (least := least_gpus(shape, card)) == 1:
        return f"{room(shape, card)} drawings"
    return f"{least} GPUs: {room(shape, card, least)} drawings"


def _short(rate: float) -> str:
    """Three digits that count."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
