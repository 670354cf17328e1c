# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""What vLLM finds of us, and that our wheel leaves its environment as it is."""

import json
import logging.handlers
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import vllm
from vllm import SamplingParams

from unitok.backends.vllm import plugin
from unitok.backends.vllm.guidance import Guidance, mix
from unitok.backends.vllm.layout import TokenLayout
from unitok.backends.vllm.versions import KNOWN

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = TokenLayout(text_size=3, image_size=2, bos=1, pad=0, begin_of_image=2)
NOTHING = float("-inf")
OTHER = SimpleNamespace(model_config=SimpleNamespace(hf_config=None))  # the config of another model


def test_the_entry_points_lead_to_the_plugin():
    (general,) = entry_points(group="vllm.general_plugins", name="unitok")
    assert general.load() is plugin.register
    (processor,) = entry_points(group="vllm.logits_processors", name="unitok")
    assert processor.load() is Guidance


def test_the_installed_version_is_a_known_one():
    assert vllm.__version__.partition("+")[0] in KNOWN


def test_registering_twice_is_registering_once():
    from vllm import ModelRegistry

    plugin.register()
    plugin.register()
    assert set(plugin.ARCHITECTURES) <= set(ModelRegistry.get_supported_archs())


def test_another_version_is_warned_of_and_one_without_our_parts_is_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    told = logging.handlers.BufferingHandler(100)
    logging.getLogger("vllm.plugins.unitok").addHandler(told)
    monkeypatch.setattr(vllm, "__version__", "0.99.1")
    plugin.register()
    (warned,) = told.buffer
    assert "known to work with vLLM 0.32.0; this is 0.99.1" in warned.getMessage()
    monkeypatch.setitem(sys.modules, "vllm.model_executor.models.config", None)
    with pytest.raises(ImportError, match=r"does not work with vLLM 0\.99\.1.*with vLLM 0\.32\.0"):
        plugin.register()


@pytest.mark.timeout(300)
def test_our_wheel_changes_no_pin_of_vllms_environment(tmp_path: Path):
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-build-isolation"]
    subprocess.run([*pip, "--report", str(report), str(ROOT)], check=True, cwd=tmp_path)
    installed = json.loads(report.read_text())["install"]
    names = [each["metadata"]["name"] for each in installed]
    assert names in ([], ["unitok-engine"])


# --- guidance ------------------------------------------------------------------------------------


def test_the_streams_are_mixed_in_rows_of_drawings_alone():
    logits = torch.tensor([
        [1.0, 2.0, 3.0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],  # text
        [NOTHING, NOTHING, NOTHING, 2.0, 4.0, NOTHING, 1.0, 8.0],  # a drawing
    ])  # fmt: skip
    mix(logits, LAYOUT, torch.tensor([[5.0], [5.0]]))
    assert logits[0].tolist() == [1.0, 2.0, 3.0, *[NOTHING] * 5]
    assert logits[1].tolist() == [*[NOTHING] * 3, 6.0, -12.0, *[NOTHING] * 3]


class Batch:
    """A processor on each of vLLM's two runners, over a config of the tiny layout."""

    def __init__(self, *more: Any) -> None:
        self.processor = Guidance(
            SimpleNamespace(model_config=SimpleNamespace(hf_config=None)), *more
        )
        self.processor.layout, self.processor.default = LAYOUT, 2.0

    def mixed(self, rows: int, ctx: Any = None) -> list[float]:
        """The logit of the first image id of so many equal rows of drawings."""
        row = [NOTHING, NOTHING, NOTHING, 1.0, 0.0, NOTHING, 0.0, 0.0]
        return self.processor.apply(torch.tensor([row] * rows), ctx)[:, 3].tolist()


def scaled(scale: float | None) -> SamplingParams:
    """Sampling parameters with a scale, or without one."""
    return SamplingParams(extra_args=None if scale is None else {"guidance": scale})


def test_on_runner_v1_scales_follow_the_rows():
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    batch = Batch("cpu", False)
    added = [(i, scaled(scale), None, []) for i, scale in enumerate((3.0, None, 0.0))]
    batch.processor.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    assert batch.mixed(3) == [3.0, 2.0, 0.0]
    batch.processor.update_state(None)
    moved = [(2, 0, MoveDirectionality.UNIDIRECTIONAL)]
    batch.processor.update_state(BatchUpdate(2, removed=[0], added=[], moved=moved))
    assert batch.mixed(2) == [0.0, 2.0]
    swapped = [(0, 1, MoveDirectionality.SWAP)]
    batch.processor.update_state(BatchUpdate(2, removed=[], added=[], moved=swapped))
    assert batch.mixed(2) == [2.0, 0.0]


def test_on_runner_v2_scales_keep_their_slots():
    batch = Batch(None)
    for slot, scale in ((4, 3.0), (7, None), (2, 5.0), (4, 6.0)):  # slot 4 is used again
        assert batch.processor.add_request(slot, scaled(scale))
    ctx = SimpleNamespace(expanded_idx_mapping=torch.tensor([2, 4, 7]))
    assert batch.mixed(3, ctx) == [5.0, 6.0, 2.0]


def test_other_models_logits_pass_through():
    processor = Guidance(
        SimpleNamespace(model_config=SimpleNamespace(hf_config=None)), "cpu", False
    )
    logits = torch.randn(2, 9)
    assert torch.equal(processor.apply(logits.clone()), logits)
    assert processor.add_request(0, scaled(3.0)) is False


def test_a_scale_out_of_range_is_refused_when_a_request_arrives():
    Guidance.validate_params(scaled(None))
    Guidance.validate_params(scaled(-3.5))
    for wrong in ("5", 1e9, float("nan"), True):
        with pytest.raises(ValueError, match="guidance must be a number from -1000 to 1000"):
            Guidance.validate_params(scaled(wrong))  # pyright: ignore[reportArgumentType]
