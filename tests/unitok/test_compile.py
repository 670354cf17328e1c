"""The decoder through torch.compile, which needs a C++ compiler; without one it is refused.

Which of both is tested is decided by what this machine has.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from typer.testing import CliRunner

import unitok
from tests.unitok.tiny import TINY, save_tiny, tiny_model
from unitok.cli import app
from unitok.driver import Driver
from unitok.loading import decide_compile
from unitok.nn import compiled
from unitok.nn.compiled import MAX_ROWS, CompiledBlocks, why_not_compiled
from unitok.nn.model import UnifiedModel
from unitok.nn.packed_linear import PackedLinear
from unitok_engine import Branch, Engine, EngineConfig, FixedPlan, IdRange, Request, Sampling

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DEEP = replace(TINY, decoder=replace(TINY.decoder, layers=4))
CAN_COMPILE = why_not_compiled(CPU) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


class CausalCache:
    """The context of one sequence, layer by layer."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if layer in self.seen:
            k, v = (torch.cat(both) for both in zip(self.seen[layer], (k, v), strict=True))
        self.seen[layer] = k, v
        group = q.shape[1] // k.shape[1]
        keys, values = (x.repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
        scores = q.transpose(0, 1) @ keys.transpose(1, 2) * q.shape[-1] ** -0.5
        later = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
        return (scores.masked_fill(later, -torch.inf).softmax(-1) @ values).transpose(0, 1)


def forced_logits(model: UnifiedModel) -> Tensor:
    """Logits of a given sequence, fed in runs of 2 and 4 tokens."""
    cache, given = CausalCache(), []
    with torch.inference_mode():
        for start, stop in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14)):
            hidden = model.embed(torch.arange(640 + start, 640 + stop))
            hidden = model(hidden, torch.arange(start, stop), cache)
            given.append(model.logits(hidden, IdRange(640, 688)))
    return torch.cat(given)


def drawn(model: UnifiedModel) -> list[tuple[int, ...]]:
    """Token ids of guided drawings, which take turns with 2 and 4 rows."""
    branches = (Branch((1, 9, 30), 3.0), Branch((1, 30), -2.0))
    requests = [
        Request(branches, FixedPlan(IdRange(640, 688), 8 + 4 * seed), Sampling(seed=seed))
        for seed in range(2)
    ]
    driver = Driver(Engine(model, EngineConfig(num_blocks=40, max_context=64)))
    return [output.token_ids for output in driver.complete(requests)]


def graphs() -> int:
    """How many graphs were compiled so far."""
    return counters["stats"]["unique_graphs"]


def test_the_compiled_decoder_gives_the_same_logits_and_ids(caplog: pytest.LogCaptureFixture):
    plain, model = tiny_model(config=DEEP), tiny_model(config=DEEP)
    plain.prepare()
    model.prepare(compile=True)
    blocks, before = model.decoder.compiled, graphs()
    assert blocks is not None
    assert all(m._packed is not None for m in model.decoder.modules() if type(m) is PackedLinear)
    expected = forced_logits(plain)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(forced_logits(model), expected, atol=1e-4, rtol=0)
        assert expected.std() > 0.1
        compiled = graphs() - before
        assert drawn(model) == drawn(plain)
    assert graphs() == before + compiled, "steps of shapes seen before are compiled no more"
    assert bool(blocks._compiled) == CAN_COMPILE, "without a compiler it goes on uncompiled"
    assert ("cannot be compiled" in caplog.text) != CAN_COMPILE
    # Three functions for all layers, for the first number of rows and for any other.
    assert compiled == 6 or not CAN_COMPILE


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("post_norm", [False, True])
def test_what_is_compiled_is_what_the_blocks_compute(
    monkeypatch: pytest.MonkeyPatch, qk_norm: bool, post_norm: bool
):
    monkeypatch.setattr(torch, "compile", lambda part, **options: part)
    decoder = replace(TINY.decoder, qk_norm=qk_norm, post_norm=post_norm)
    plain, model = (tiny_model(config=replace(TINY, decoder=decoder)) for _ in range(2))
    plain.prepare()
    model.prepare(compile=True)
    assert torch.equal(forced_logits(model), forced_logits(plain))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[UnifiedModel]:
    """A model whose functions cannot be compiled."""

    def refuse(*inputs: object) -> None:
        raise RuntimeError("the compiler crashed\nat great length")

    monkeypatch.setattr(torch, "compile", lambda part, **options: refuse)
    model = tiny_model()
    model.prepare(compile=True)
    yield model


def test_a_step_that_cannot_be_compiled_runs_uncompiled(
    broken: UnifiedModel, caplog: pytest.LogCaptureFixture
):
    plain = tiny_model()
    plain.prepare()
    with caplog.at_level(logging.WARNING):
        assert drawn(broken) == drawn(plain)
    [record] = caplog.records
    assert record.getMessage() == (
        "the model cannot be compiled, and runs uncompiled: the compiler crashed"
    )


def test_steps_of_many_rows_and_training_run_uncompiled(monkeypatch: pytest.MonkeyPatch):
    rows: list[int] = []
    monkeypatch.setattr(
        CompiledBlocks, "__call__", lambda self, x, *rest: (rows.append(len(x)), x)[1]
    )
    model = tiny_model()
    model.prepare(compile=True)
    with torch.inference_mode():
        for count in (3, MAX_ROWS, MAX_ROWS + 1):
            hidden = torch.randn(count, 64)
            model(hidden, torch.arange(count), CausalCache())
            model(hidden, torch.arange(count))
    assert rows == [4, MAX_ROWS]


# --- what is asked -------------------------------------------------------------------------------


def test_a_model_is_loaded_compiled_where_that_can_be_done(folder: Path):
    assert unitok.load(folder, device="cpu").family.model.decoder.compiled is None
    assert unitok.load(folder, device="cpu", compile="auto").family.model.decoder.compiled is None
    if CAN_COMPILE:
        model = unitok.load(folder, device="cpu", compile=True)
        assert model.family.model.decoder.compiled is not None
    else:
        with pytest.raises(
            ValueError, match=r"cannot be compiled here: there is no C\+\+ compiler"
        ):
            unitok.load(folder, device="cpu", compile=True)


def test_without_a_compiler_it_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"C\+\+ compiler 'no-such-compiler': install one"):
        unitok.load(tmp_path / "nothing", device="cpu", compile=True)


def test_what_is_missing_on_cuda_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    assert not decide_compile("auto", CUDA)
    with pytest.raises(ValueError, match="Triton is not installed"):
        decide_compile(True, CUDA)
    monkeypatch.setattr(compiled, "find_spec", lambda name: name)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="no C compiler"):
        decide_compile(True, CUDA)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)
    assert decide_compile("auto", CUDA) and decide_compile(True, CUDA)


def test_the_command_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = CliRunner().invoke(
        app, ["info", "--device", "cpu", "--compile", "--model", str(folder)]
    )
    assert result.exit_code == 2
    assert "cannot be compiled here: there is no C++ compiler 'no-such-compiler'" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["fast", "Auto", ""])
def test_another_word_is_refused(folder: Path, word: str):
    with pytest.raises(ValueError, match=f"compile must be True, False or 'auto', not '{word}'"):
        unitok.load(folder, compile=word)  # type: ignore[arg-type]
