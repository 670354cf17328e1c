"""What scaling costs on paper: the formula by hand, what it is checked against, and the page."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_shapes import DECODERS
from benchmarks.scaling.measured import Measured, fit, read_page
from benchmarks.scaling.page import filled
from benchmarks.scaling.plot import plot
from benchmarks.scaling.shapes import (
    CHAMELEON_34B,
    H200,
    JANUS_1B,
    JANUS_7B,
    SHAPES,
    TWO_BYTES,
    Gpu,
    Link,
    Shape,
)
from benchmarks.scaling.steps import (
    Speed,
    all_reduces,
    layout_of,
    least_gpus,
    room,
    step_of,
)
from benchmarks.scaling.tables import Plan, all_tables
from scripts.scaling_table import DRAWINGS, PRICE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scaling_costs.md"
MEASURED = (ROOT / "docs" / "benchmarks_gpu.md").read_text(encoding="utf-8")

# Sizes that are easily worked out by hand.
SMALL = Shape(
    name="small",
    layers=10,
    hidden=100,
    ffn=200,
    heads=10,
    kv_heads=5,
    head_dim=10,
    image_ids=1000,
    head_layers=1,
    tokens=200,
    prompt=20,
    memory=3e6,
)
CARD = Gpu(
    name="card",
    memory=10e6,
    flops=1e9,
    node=4,
    inside=Link(bandwidth=1e6, latency=0.001),
    between=Link(bandwidth=1e5, latency=0.01),
)
SPEED = Speed(bandwidth=2e6, per_layer=0.01, weight_share=0.5, kv_share=0.25)


@pytest.fixture(scope="module")
def measured() -> Measured:
    """The figures that the page of GPU benchmarks has."""
    return read_page(MEASURED)


@pytest.fixture(scope="module")
def plan(measured: Measured) -> Plan:
    """The plan whose tables the page has."""
    return Plan(gpu=H200, speed=fit(measured), per_gpu=DRAWINGS, price=PRICE)


# --- the formula, by hand ------------------------------------------------------------------------


def test_the_terms_of_a_step_are_those_that_the_page_writes():
    # Attention 2 * 100 * 10 * 15 + feed-forward 3 * 100 * 200, in 10 layers, and the head.
    assert SMALL.weights == 10 * (30_000 + 60_000) + 100 * 1000 + 100 * 100
    assert SMALL.kv_per_token == 2 * 10 * 5 * 10 * TWO_BYTES
    step = step_of(SMALL, CARD, SPEED, drawings=3)
    assert step.fixed == pytest.approx(10 * 0.01)
    assert step.weights == pytest.approx(2 * 1_010_000 / 1e6)
    assert step.compute == pytest.approx(2 * 1_010_000 * 6 / 0.5e9)
    assert step.kv == pytest.approx(6 * 120 * 2000 / 0.5e6)
    assert step.link == 0
    assert step.seconds == pytest.approx(step.fixed + step.weights + step.kv)
    assert step.binds == "K/V"


def test_products_count_where_they_take_longer_than_reading_the_weights():
    slow = dataclasses.replace(CARD, flops=1e6)
    step = step_of(SMALL, slow, SPEED, drawings=3)
    assert step.compute > step.weights
    assert step.seconds == pytest.approx(step.fixed + step.compute + step.kv)
    assert step.binds == "compute"


def test_a_split_divides_weights_and_kv_but_not_what_is_fixed():
    one, four = (step_of(SMALL, CARD, SPEED, 3, tensor) for tensor in (1, 4))
    assert four.fixed == one.fixed
    for term in ("weights", "compute", "kv"):
        assert getattr(four, term) == pytest.approx(getattr(one, term) / 4)


def test_kv_are_split_over_no_more_gpus_than_there_are_heads():
    five, ten = (step_of(SMALL, CARD, SPEED, 3, tensor) for tensor in (5, 10))
    assert ten.kv == five.kv
    assert ten.weights == pytest.approx(five.weights / 2)


def test_an_all_reduce_sends_what_a_ring_does_over_the_link_that_it_has():
    sent = 2 * 3 / 4 * TWO_BYTES * 6 * 100
    assert all_reduces(SMALL, CARD, rows=6, tensor=4) == pytest.approx(20 * (0.001 + sent / 1e6))
    sent = 2 * 7 / 8 * TWO_BYTES * 6 * 100
    assert all_reduces(SMALL, CARD, rows=6, tensor=8) == pytest.approx(20 * (0.01 + sent / 1e5))


def test_room_is_what_the_weights_leave():
    drawing = 2 * 220 * 2000
    assert SMALL.kv_per_drawing == drawing
    assert room(SMALL, 10e6) == (9_000_000 - 3_000_000) // drawing
    assert room(SMALL, 3e6) == 0
    assert room(SMALL, 3e6, tensor=2) == 2 * (2_700_000 - 1_500_000) // drawing
    assert (least_gpus(SMALL, 10e6), least_gpus(SMALL, 3e6)) == (1, 2)


def test_rates_and_prices_follow_from_the_step():
    layout = layout_of(SMALL, CARD, SPEED, gpus=8, tensor=2, per_gpu=3)
    assert (layout.data, layout.tensor, layout.drawings) == (4, 2, 6)
    assert layout.picture_seconds == pytest.approx(200 * layout.step.seconds)
    assert layout.rate == pytest.approx(4 * 6 / layout.picture_seconds)
    # 8 GPUs at 3 dollars an hour, for as long as 1,000 pictures take.
    assert layout.dollars(3.0) == pytest.approx(8 * 3.0 * (1000 / layout.rate) / 3600)


def test_no_more_drawings_are_under_way_than_there_is_room_for():
    assert layout_of(SMALL, CARD, SPEED, 1, 1, per_gpu=1000).drawings == room(SMALL, CARD.memory)


# --- what it is checked against ------------------------------------------------------------------


def test_the_shapes_of_janus_are_those_that_were_measured():
    for shape in (JANUS_1B, JANUS_7B):
        decoder = DECODERS[shape.name]
        assert (shape.layers, shape.hidden, shape.ffn, shape.heads, shape.kv_heads) == (
            decoder.layers,
            decoder.hidden_size,
            decoder.intermediate_size,
            decoder.heads,
            decoder.kv_heads,
        )
        assert shape.head_dim == decoder.head_dim


def test_the_largest_model_has_the_parameters_that_its_name_says():
    embeddings = 2 * 65_536 * CHAMELEON_34B.hidden
    assert CHAMELEON_34B.weights + embeddings == pytest.approx(34e9, rel=0.02)
    assert CHAMELEON_34B.memory == pytest.approx(TWO_BYTES * 34e9)


def test_the_bytes_of_a_step_are_those_that_the_benchmark_counted(measured: Measured):
    told = re.findall(r"^\| 1B, (\d+) at once: floor .* floor (\S+); ", MEASURED, re.MULTILINE)
    assert len(told) == 3
    for drawings, floor in told:
        rows = JANUS_1B.branches * int(drawings)
        kv = rows * JANUS_1B.context * JANUS_1B.kv_per_token
        seconds = (TWO_BYTES * JANUS_1B.weights + kv) / measured.bandwidth
        assert 1e3 * seconds == pytest.approx(float(floor), abs=0.011)


def test_the_fit_gives_the_steps_that_it_was_made_of_and_the_others_nearly(
    measured: Measured, plan: Plan
):
    def step(shape: Shape, drawings: int) -> float:
        return step_of(shape, H200, plan.speed, drawings).seconds

    assert step(JANUS_7B, 1) == pytest.approx(measured.steps_7b[1])
    for drawings in (1, 64):
        assert step(JANUS_1B, drawings) == pytest.approx(measured.steps_1b[drawings])
    assert step(JANUS_1B, 16) == pytest.approx(measured.steps_1b[16], rel=0.05)
    assert 0 < plan.speed.kv_share < 1 and 0 < plan.speed.weight_share < 1


def test_pictures_of_one_gpu_are_within_15_percent_of_what_was_measured(
    measured: Measured, plan: Plan
):
    assert sorted(measured.pictures_1b) == [1, 16, 64]
    for drawings, rate in measured.pictures_1b.items():
        layout = layout_of(JANUS_1B, H200, plan.speed, 1, 1, drawings)
        assert 1 < layout.rate / rate < 1.15


# --- the page and the script ---------------------------------------------------------------------


def test_the_page_has_the_tables_that_the_script_gives(measured: Measured, plan: Plan):
    text = PAGE.read_text(encoding="utf-8")
    told = "run python scripts/scaling_table.py --write docs"
    assert filled(text, all_tables(plan, measured)) == text, told


def test_what_the_page_says_in_short_is_so(plan: Plan):
    def alone(shape: Shape, tensor: int) -> float:
        return step_of(shape, H200, plan.speed, 1, tensor).seconds

    gains = {shape.name: alone(shape, 1) / alone(shape, 8) for shape in SHAPES}
    assert gains["1B"] < 1.2 and 1.8 < gains["7B"] < 2.2 and gains["34B"] > 3
    for shape in SHAPES:
        assert alone(shape, 16) > alone(shape, 8)
        assert plan.layout(shape, 64, 1).rate == pytest.approx(64 * plan.layout(shape, 1, 1).rate)
    many = {shape.name: plan.layout(shape, 1, 1).step.binds for shape in SHAPES}
    assert many == {"1B": "K/V", "7B": "K/V", "34B": "weights"}


def test_a_missing_row_is_said():
    without = re.sub(r"^\| reading memory .*\n", "", MEASURED, flags=re.MULTILINE)
    with pytest.raises(ValueError, match=r"no row like .*reading memory"):
        read_page(without)
    without = re.sub(r"^\| 1B, .*pictures .*\n", "", MEASURED, flags=re.MULTILINE)
    with pytest.raises(ValueError, match=r"no row like .*pictures"):
        read_page(without)


def test_a_table_without_its_markers_is_said():
    assert filled("<!-- a -->old<!-- end of a -->", {"a": r"\1"}) == (
        "<!-- a -->\n\n\\1\n\n<!-- end of a -->"
    )
    with pytest.raises(ValueError, match="0 times <!-- b -->"):
        filled("<!-- a --><!-- end of a -->", {"b": "x"})


def test_the_plot_is_drawn(plan: Plan, tmp_path: Path):
    plot(plan, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "scripts/scaling_table.py", *arguments]
    return subprocess.run(
        run, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )


def test_the_script_takes_a_price_and_a_number_of_drawings():
    told = script("--price", str(2 * PRICE), "--drawings", "16")
    assert told.returncode == 0
    speed = fit(read_page(MEASURED))
    layout = layout_of(JANUS_1B, H200, speed, 1, 1, 16)
    assert f"| 1B | 1 | {layout.rate:.3g} /s | {layout.dollars(2 * PRICE):.3f} |" in told.stdout


@pytest.mark.parametrize("wrong", [("--price", "0"), ("--price", "nan"), ("--drawings", "0")])
def test_what_is_wrong_is_said_in_one_line(wrong: tuple[str, str]):
    told = script(*wrong)
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].endswith("--drawings and --price must be above 0")
