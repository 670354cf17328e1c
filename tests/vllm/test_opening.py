"""What `unitok.load(backend="vllm")` refuses before or while vLLM starts."""

import os
import signal
import threading
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

import unitok
from tests.unitok.tiny_chameleon import save_tiny as save_chameleon
from unitok import Model, Reply, TextResult
from unitok.backends.vllm import opening
from unitok.backends.vllm.starting import ENGINE

pytestmark = pytest.mark.timeout(1200)  # vLLM takes its time to start


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"adapters": {"a": "folder"}}, "takes no adapters"),
        ({"adapter": "folder"}, "takes no adapter: merge"),
        ({"compile": True}, "takes no compile"),
        ({"drafts": True}, "takes no drafts"),
        ({"quantize": "int8"}, "takes no quantize"),
        ({"memory": "50%"}, "gpu_memory_utilization"),
    ],
)
def test_what_only_our_engine_takes_is_refused(given: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        unitok.load(backend="vllm", **given)


def test_a_folder_of_another_family_is_refused(tmp_path: Path):
    folder = save_chameleon(tmp_path / "chameleon")
    with pytest.raises(ValueError, match=r"chameleon: .*serves Janus"):
        unitok.load(folder, backend="vllm")


def test_a_tensor_parallel_size_that_divides_nothing_is_refused():
    with pytest.raises(ValueError, match="tensor parallel size of 5 does not divide"):
        unitok.load(backend="vllm", device="cpu", tensor_parallel_size=5)


def test_a_plugin_that_vllm_may_not_load_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    with pytest.raises(ImportError, match="VLLM_PLUGINS is 'other'"):
        unitok.load(backend="vllm")


def test_an_interrupt_ends_a_start_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch):
    def interrupt() -> None:
        while not engines():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    ended: list[Any] = []
    monkeypatch.setattr(opening, "_shut_down", noted_in(ended))
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        unitok.load(backend="vllm", device="cpu", max_model_len=256, enforce_eager=True)
    assert not ended, "the start was not waited for"
    assert not engines()


def engines() -> list[Any]:
    """The processes of vLLM's that run."""
    return [one for one in active_children() if one.name.startswith(ENGINE)]


def noted_in(ended: list[Any]) -> Any:
    async def shut_down(client: Any) -> None:
        ended.append(client)

    return shut_down


def test_a_replica_of_text_answers_as_our_engine_does_and_draws_nothing():
    asked = [Reply([{"role": "user", "content": words}], max_tokens=9) for words in ("a cat", "b")]
    with unitok.load(device="cpu", dtype="float32") as own:
        wanted = [result.text for result in sorted_results(own, asked)]
        tokens = own.info().kv_tokens / own.info().kv_memory
    options: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 8, "enforce_eager": True}
    with unitok.load(
        device="cpu", dtype="float32", backend="vllm", text_only=True, **options
    ) as model:
        assert [result.text for result in sorted_results(model, asked)] == wanted
        assert model.info().kv_tokens / model.info().kv_memory == pytest.approx(tokens)
        with pytest.raises(ValueError, match="this replica serves text alone"):
            model.draw("a cat")


def sorted_results(model: Model, asked: list[Reply]) -> list[TextResult]:
    """The answers, in the order of the requests."""
    results = sorted(model.run(asked), key=lambda result: result.index)
    return [result for result in results if isinstance(result, TextResult)]
