"""Engines of others behind the protocol of our own, and what vLLM's backend does without vLLM."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

import unitok
from unitok import Caption, Draw, Edit, Model, Reply
from unitok.backends.vllm.counting import Counting
from unitok.backends.vllm.endpoint import ImagesEndpoint
from unitok.backends.vllm.engine import VllmEngine, VllmSizes
from unitok.backends.vllm.layout import TokenLayout
from unitok.backends.vllm.loop import LoopThread
from unitok.backends.vllm.opening import sizes_of
from unitok.backends.vllm.outputs import OutputReader
from unitok.backends.vllm.request import SEEDS, Translator, seed_of
from unitok.checkpoints.weights import ImageTokenizerOnly
from unitok.families import open_folder
from unitok.families.janus import Janus
from unitok.prompt import Message
from unitok_engine import Engine, EngineConfig, Output

SCENE = Image.new("RGB", (64, 64), "pink")


class Elsewhere(Engine):
    """Our own engine as if it were one of others."""

    name = "elsewhere"
    closed = 0

    def close(self) -> None:
        """Count how often it is closed."""
        self.closed += 1


@pytest.fixture
def own(untrained_folder: Path) -> Iterator[Model]:
    with unitok.load(untrained_folder, dtype="float32", drafts=False) as model:
        yield model


@pytest.fixture
def engine(own: Model) -> Elsewhere:
    return Elsewhere(own.family.model, EngineConfig(max_context=own.family.max_context))


@pytest.fixture
def model(untrained_folder: Path, engine: Elsewhere) -> Model:
    """A model whose decoder is elsewhere: only its image tokenizer is loaded."""
    family = open_folder(untrained_folder, "cpu", ImageTokenizerOnly(torch.float32))
    return Model(family, other=engine)


def test_a_model_on_another_engine_gives_the_same_results(own: Model, model: Model):
    drawn, ours = model.draw("a cat", seed=3, n=2), own.draw("a cat", seed=3, n=2)
    assert [i.tobytes() for i in drawn.images] == [i.tobytes() for i in ours.images]
    asked: list[Any] = [Draw("a dog", seed=1), Reply([{"role": "user", "content": "a"}])]
    events = list(model.stream(asked[0]))
    assert events[-1].result is not None and events[-1].result.error is None
    results = sorted(model.run(asked), key=lambda result: result.index)
    ours = sorted(own.run(asked), key=lambda result: result.index)
    assert [r.completion_tokens for r in results] == [r.completion_tokens for r in ours]


def test_a_run_keeps_as_many_going_as_the_engine_has_room_for(own: Model, untrained_folder: Path):
    taken: list[int] = []

    def requests() -> Iterator[Reply]:
        for number in range(300):
            taken.append(number)
            yield Reply([{"role": "user", "content": "a"}], max_tokens=1)

    next(own.run(requests()))
    assert len(taken) == 128
    taken.clear()
    large = Elsewhere(own.family.model, EngineConfig(max_context=64, max_running=500))
    family = open_folder(untrained_folder, "cpu", ImageTokenizerOnly(torch.float32))
    with Model(family, other=large) as model:
        next(model.run(requests()))
    assert len(taken) == 250


def test_only_the_image_tokenizer_lies_in_memory(own: Model, model: Model):
    assert model.info().parameters == own.info().parameters
    stored = {
        name
        for name, value in model.family.model.named_parameters()
        if value.device.type != "meta" and value.untyped_storage().nbytes() > 4
    }
    assert stored and all(name.startswith("image_tokenizer.") for name in stored)
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


def test_the_other_weights_are_checked_all_the_same(untrained_folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    folder.mkdir()
    for path in untrained_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in tensors if "language_model" in name)]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="1 missing keys"):
        open_folder(folder, "cpu", ImageTokenizerOnly(torch.float32))


def test_the_engine_is_closed_with_the_model(model: Model, engine: Elsewhere):
    with model:
        model.draw("a cat")
        assert engine.closed == 0
    assert engine.closed == 1
    with pytest.raises(RuntimeError, match="the model is closed"):
        model.draw("a cat")


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.save("folder"),
        lambda model: model.load_adapter("mine", "folder"),
        lambda model: model.unload_adapter("mine"),
        lambda model: model.update_weights({}),
        lambda model: model.update_adapter("mine", {}),
    ],
    ids=["save", "load_adapter", "unload_adapter", "update_weights", "update_adapter"],
)
def test_what_needs_the_weights_is_refused(model: Model, call: Any, request: pytest.FixtureRequest):
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"^{name} needs the weights, .* of elsewhere"):
        call(model)
    assert model.adapters == ()


@pytest.mark.parametrize("call", ["pause", "resume", "sleep", "wake"])
def test_pauses_are_refused(model: Model, call: str):
    with pytest.raises(ValueError, match=f"^elsewhere has no {call}: load the model without"):
        getattr(model, call)()


# --- the arguments of `load` ----------------------------------------------------------------------


def test_without_vllm_one_line_says_what_to_install(untrained_folder: Path):
    with pytest.raises(ImportError, match="needs vLLM, which is not installed here") as raised:
        unitok.load(untrained_folder, backend="vllm", tensor_parallel_size=2)
    assert "\n" not in str(raised.value) and raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"tensor_parallel_size": 2}, ValueError, "is an option of backend='vllm' alone"),
        ({"backend": "ray"}, ValueError, "backend must be 'unitok' or 'vllm', not 'ray'"),
        ({"tensor_size": 2}, TypeError, "unexpected keyword argument 'tensor_size'"),
        ({"backend": "vllm", "data_parallel_size": 0}, ValueError, "must be 1 or more, not 0"),
        ({"backend": "vllm", "max_num_seqs": True}, TypeError, "must be a whole number"),
        ({"backend": "vllm", "text_only": 1}, TypeError, "text_only must be True or False"),
        (
            {"backend": "vllm", "gpu_memory_utilization": 1.5},
            ValueError,
            "must be above 0 and at most 1",
        ),
        ({"backend": "vllm", "gpu_memory_utilization": "1"}, TypeError, "must be a number"),
        ({"backend": "vllm", "quantize": "int8"}, ValueError, "takes no quantize"),
        ({"backend": "vllm", "adapters": {"a": "b"}}, ValueError, "takes no adapters"),
        ({"backend": "vllm", "memory": 0.5}, ValueError, "gpu_memory_utilization"),
    ],
)
def test_options_are_checked_before_anything_is_opened(
    given: dict[str, Any], error: type[Exception], why: str
):
    with pytest.raises(error, match=why):
        unitok.load("nowhere", **given)


# --- requests for vLLM ----------------------------------------------------------------------------


@pytest.fixture
def translator(own: Model) -> Translator:
    family = own.family
    assert isinstance(family, Janus)
    template, words = family.template, family.tokenizer
    names = (template.bos, template.pad, template.begin_of_image)
    sizes = family.model.vocabulary
    layout = TokenLayout(sizes.text_size, sizes.image_size, *map(words.id, names))
    return Translator(layout, template, family.max_context, priorities=False)


def test_a_drawing_becomes_one_prompt(own: Model, translator: Translator):
    request = own.prepare.job(Draw("a cat", guidance=3.0)).request
    translator.check(request)
    first = request.branches[0].token_ids
    assert translator.prompt(request) == {
        "prompt_token_ids": [*first[:-1], translator.layout.paint]
    }


def test_a_picture_that_is_read_becomes_one_placeholder_and_its_pixels(
    own: Model, translator: Translator
):
    request = own.prepare.job(Caption(SCENE, "what is this?")).request
    translator.check(request)
    (branch,) = request.branches
    (picture,) = branch.embeddings
    prompt = translator.prompt(request)
    place = own.family.tokenizer.id(translator.template.placeholder)
    ids = prompt["prompt_token_ids"]
    assert ids.count(place) == 1
    assert len(ids) == len(branch.token_ids) - picture.length - 1  # of its marks, too
    assert prompt["multi_modal_data"]["image"] == [picture.payload]
    assert prompt["multi_modal_uuids"]["image"] == [picture.digest]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Draw("a", negative_prompt="blue"), "negative_prompt is not for the vLLM backend"),
        (Draw("a", images=[SCENE]), "images in the prompt of a drawing"),
        (Draw("a", branch_logprobs=True), "branch_logprobs is not for"),
        (Draw("a", adapter="mine"), "adapter 'mine' is not for"),
        (Draw("a", priority=1), "priority is not for the vLLM backend: .*--scheduling-policy"),
        (Edit(SCENE, "a", box=(0, 0, 32, 32)), "painting a part of a picture is not for"),
        (Edit(SCENE, "a", box=(0, 0, 32, 32), tries=1), "painting a part of a picture is not for"),
        (
            Reply([{"role": "user", "content": "a"}], regex="[a-z]+"),
            "an answer of a form .json_schema, regex, choice. is not for",
        ),
    ],
)
def test_what_two_streams_cannot_do_is_refused(
    own: Model, translator: Translator, asked: Any, why: str
):
    with pytest.raises(ValueError, match=f"^{why}"):
        translator.check(own.prepare.job(asked).request)


@pytest.mark.parametrize("shown", [(), (SCENE,)], ids=["text", "picture"])
def test_a_drawing_inside_a_chat_is_refused_unless_it_has_no_guidance(
    own: Model, translator: Translator, shown: tuple[Image.Image, ...]
):
    pictures = tuple(map(own.prepare.encode, shown))
    said = [Message("user", "a", pictures), Message("assistant", "b"), Message("user", "c")]
    with pytest.raises(ValueError, match=r"^a drawing inside a chat is not for the vLLM backend"):
        translator.check(own.prepare.drawing(Draw("c", guidance=2.0), said).request)
    alone = own.prepare.drawing(Draw("c", guidance=1.0), said).request
    if shown:
        with pytest.raises(ValueError, match=r"^images in the prompt of a drawing"):
            translator.check(alone)
    else:
        translator.check(alone)


def test_a_replica_of_text_draws_nothing(own: Model, translator: Translator):
    layout = replace(translator.layout, streams=1)
    text = replace(translator, layout=layout)
    with pytest.raises(ValueError, match="serves text alone"):
        text.check(own.prepare.job(Draw("a")).request)
    text.check(own.prepare.job(Reply([{"role": "user", "content": "a"}])).request)


def test_a_request_longer_than_vllms_context_is_refused(own: Model, translator: Translator):
    with pytest.raises(ValueError, match="exceed the context of 64"):
        replace(translator, max_context=64).check(own.prepare.job(Draw("a")).request)


def test_seeds_are_what_vllm_takes_and_differ_between_samples():
    assert seed_of(7, 0) == 7 and seed_of(0, 0) == 0
    seeds = [seed_of(s, n) for s in (0, 7, -1, -(2**63), 2**64 - 1, SEEDS) for n in range(4)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < SEEDS for seed in seeds)


def test_sizes_are_those_of_all_copies_and_both_streams(own: Model, translator: Translator):
    sizes = SimpleNamespace(unitok=asdict(translator.layout))  # as the plugin leaves it there
    config = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=sizes),
        cache_config=SimpleNamespace(num_gpu_blocks=10, block_size=32),
        parallel_config=SimpleNamespace(data_parallel_size=2),
        scheduler_config=SimpleNamespace(max_num_seqs=8),
    )
    found, shape = sizes_of(config, own.family), own.family.model.kv_shape
    assert (found.num_blocks, found.block_size, found.max_running) == (10, 32, 32)
    assert found.memory == 10 * 32 * 2 * shape.bytes_per_token(torch.float32)


# --- outputs of vLLM ------------------------------------------------------------------------------


def told(*ids: int, reason: str | None = None, logprobs: Any = None) -> Any:
    """What vLLM tells of one sample."""
    completion = SimpleNamespace(token_ids=ids, finish_reason=reason, logprobs=logprobs)
    return SimpleNamespace(outputs=[completion])


def test_outputs_are_those_of_our_engine(own: Model):
    request = own.prepare.job(Reply([{"role": "user", "content": "a"}], logprobs=True)).request
    (stop,) = request.plan.stop_ids  # type: ignore[attr-defined]
    reader = OutputReader(request, 5, 0)
    step = [{7: SimpleNamespace(logprob=-1.0)}, {stop: SimpleNamespace(logprob=-2.0)}]
    prompt = len(request.branches[0].token_ids)
    assert reader.read(told(7, logprobs=step[:1])) == Output(
        5, 0, (7,), 0, prompt, logprobs=(-1.0,)
    )
    end = reader.read(told(7, stop, reason="stop", logprobs=step))
    assert (end.token_ids, end.start, end.finish_reason) == ((7,), 1, "stop")
    assert end.logprobs == (-1.0,)


@pytest.mark.parametrize(
    ("asked", "reason", "ours"),
    [
        (Draw("a"), "length", "complete"),
        (Reply([{"role": "user", "content": "a"}]), "length", "length"),
        (Draw("a"), "abort", "error"),
        (Draw("a"), "error", "error"),
    ],
)
def test_ends_are_in_our_words(own: Model, asked: Any, reason: str, ours: str):
    output = OutputReader(own.prepare.job(asked).request, 0, 0).read(told(3, reason=reason))
    assert output.finish_reason == ours
    assert (output.error is None) == (ours != "error")


def test_a_failure_of_vllm_ends_the_sample_behind_what_it_had(own: Model):
    reader = OutputReader(own.prepare.job(Draw("a")).request, 0, 0)
    reader.read(told(3, 4))
    failed = reader.failed("the engine is dead")
    assert (failed.finish_reason, failed.error, failed.start) == ("error", "the engine is dead", 2)


def test_steps_are_counted_over_all_copies():
    counting = Counting()
    cache = SimpleNamespace(queries=10, hits=4, preempted_queries=3, preempted_hits=1)
    scheduler = SimpleNamespace(prefix_cache_stats=cache, kv_cache_usage=0.25)
    counting.note(scheduler, SimpleNamespace(num_preempted_reqs=2))
    counting.note(None, SimpleNamespace(num_preempted_reqs=1))
    counting.note(scheduler, None)
    assert counting == Counting(
        steps=2, preemptions=3, prompt_tokens=26, cached_tokens=10, usage=0.25
    )


# --- a client of vLLM's ---------------------------------------------------------------------------


class Client:
    """Answers each request with tokens, one at a time, or fails."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens = tokens
        self.names: list[str] = []

    async def generate(
        self, prompt: Any, sampling: Any, name: str, priority: int = 0
    ) -> AsyncIterator[Any]:
        self.names.append(name)
        for token in self.tokens:
            await asyncio.sleep(0)
            yield told(token, logprobs=[{token: SimpleNamespace(logprob=-1.0)}])
        if not self.tokens:
            raise RuntimeError("the engine is dead")
        yield told(reason="length")


class Untold(Translator):
    """Says nothing of how to sample, which takes vLLM's own class."""

    def sampling(self, request: Any, sample: int) -> Any:
        return None


def on_client(own: Model, translator: Translator, client: Client) -> Model:
    """A model on vLLM's engine, with a client of the test."""
    thread = LoopThread("client")
    engine = VllmEngine(
        client,
        thread.loop,
        Untold(**vars(translator)),
        VllmSizes(0, 1, 16, 8),
        end=lambda: thread.end(asyncio.sleep(0)),
    )
    return Model(own.family, other=engine)


def test_what_a_client_tells_is_what_a_model_gives(own: Model, translator: Translator):
    client = Client((7, 8, 9))
    asked = Reply([{"role": "user", "content": "a"}], max_tokens=3, logprobs=True)
    with on_client(own, translator, client) as model:
        for result in (*model.run([asked, asked]), *model.run([asked])):
            assert isinstance(result, unitok.TextResult)
            assert (result.token_ids, result.finish_reason) == ((7, 8, 9), "length")
        assert len(set(client.names)) == 3
        assert model.driver.wait_until_idle(60)
        assert model.stats().running_requests == 0


def test_a_client_that_fails_fails_the_request_alone(own: Model, translator: Translator):
    asked = Reply([{"role": "user", "content": "a"}], max_tokens=3, logprobs=True)
    with on_client(own, translator, client := Client(())) as model:
        (failed,) = model.run([asked])
        assert (failed.finish_reason, failed.error) == ("error", "the engine is dead")
        client.tokens = (7,)
        (result,) = model.run([asked])
        assert isinstance(result, unitok.TextResult) and result.token_ids == (7,)


# --- pictures in `vllm serve` ---------------------------------------------------------------------


def asked_over_http(app: Any, *bodies: Any) -> list[httpx2.Response]:
    """What an app answers to requests for pictures, one after another."""

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return [await http.post("/v1/images/generations", json=body) for body in bodies]

    return asyncio.run(ask())


def test_the_endpoint_answers_inside_an_app_that_handles_errors_itself(own: Model):
    async def of_vllm(request: Request, error: Exception) -> Response:
        return Response("vLLM's own", 500)

    app, endpoint = Starlette(exception_handlers={ValueError: of_vllm}), ImagesEndpoint()
    endpoint.attach_router(app)
    endpoint.serve(own, ["gpt-image-1", own.name])
    asked = {"model": "gpt-image-1", "prompt": "a", "seed": 3}
    made, wrong, unknown = asked_over_http(
        app, asked, {**asked, "seeed": 1}, {**asked, "model": "b"}
    )
    data = base64.b64decode(made.json()["data"][0]["b64_json"])
    assert Image.open(BytesIO(data)).tobytes() == own.draw("a", seed=3).image.tobytes()
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "seeed")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
