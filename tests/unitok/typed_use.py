"""What users write, with the types they may count on. It is not run: the type checker reads it.

Where a line is wrong on purpose, an unnecessary "type: ignore" would be an error itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import AsyncGenerator, Generator
from io import BytesIO
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from PIL import Image

import unitok


def load() -> unitok.Model:
    unitok.load()
    unitok.load("folder", device="cuda:1", dtype="bf16", memory="50%")
    unitok.load(device=torch.device("cpu"), dtype=torch.float32, memory=2**30)
    unitok.load(dtype=None, memory=0.5)
    unitok.load(drafts="auto")
    unitok.load(drafts=False)
    unitok.load(drafts="often")  # type: ignore
    unitok.load(dtyp="bf16")  # type: ignore
    return assert_type(unitok.load("someone/something"), unitok.Model)


def datasets(dataset: Any) -> None:
    report = unitok.run_dataset(dataset, Path("out"), "folder", replicas=2, dtype="bf16")
    assert_type(report, unitok.DatasetReport)
    assert_type(report.failed, tuple[unitok.FailedLine, ...])
    assert_type(report.replicas[0].lines_per_second, float)
    assert_type(unitok.run_dataset(dataset, "out", gpus_per_replica=0.5).kept, int)
    unitok.run_dataset(dataset, "out", format="csv")  # type: ignore
    unitok.run_dataset(dataset)  # type: ignore


def facts(model: unitok.Model) -> None:
    assert_type(model.name, str)
    assert_type(model.device, torch.device)
    assert_type(model.dtype, torch.dtype)
    assert_type(model.info(), unitok.Info)
    assert_type(model.info().precision, str)
    assert_type(model.stats(), unitok.Stats)
    assert_type(model.stats().free_blocks, int)
    assert_type(model.stats().hit_rate, float)
    assert_type(model.stats().tokens_per_second, float)
    assert_type(model.stats().tokens_per_step, float)
    assert_type(model.tokenizer.encode_plain("a dog"), list[int])
    _ = model.info().precison  # type: ignore


def scores(model: unitok.Model, array: np.ndarray) -> None:
    score = assert_type(model.score("a.png", "a dog"), unitok.ScoreResult)
    assert_type(score.logprob, float)
    assert_type(score.logprobs, tuple[float, ...])
    assert_type(model.score(array, ["a dog", "a cat"], question="?"), list[unitok.ScoreResult])
    assert_type(model.score(["a.png", array], "a dog"), list[unitok.ScoreResult])
    assert_type(model.score_tokens(unitok.Draw("a cat"), [1, 2]), unitok.ScoreResult)
    assert_type(model.score_tokens([unitok.Draw("a cat")], [[1, 2]]), list[unitok.ScoreResult])
    model.score("a.png", 5)  # type: ignore
    model.score_tokens("a cat", [1, 2])  # type: ignore


def captions(model: unitok.Model, array: np.ndarray) -> None:
    result = assert_type(model.caption("a.png"), unitok.TextResult)
    assert_type(result.text, str)
    assert_type(result.error, str | None)
    assert_type(result.logprobs, tuple[float, ...] | None)
    assert_type(model.caption(["a.png", "b.png"]), list[unitok.TextResult])
    pictures = [Image.open("a.png"), Image.open("b.png").convert("RGB")]
    assert_type(model.caption(pictures), list[unitok.TextResult])
    assert_type(model.caption(tuple(pictures)), list[unitok.TextResult])
    assert_type(model.caption(["a.png", array]), list[unitok.TextResult])
    with open("a.png", "rb") as file:
        assert_type(model.caption(file), unitok.TextResult)
    assert_type(model.caption([BytesIO(b""), b""]), list[unitok.TextResult])
    assert_type(
        model.caption(
            array,
            "how many?",
            system="be brief",
            max_tokens=5,
            temperature=0.7,
            top_k=10,
            top_p=0.9,
            min_p=0.1,
            repetition_penalty=1.1,
            stop=["\n"],
            seed=3,
            logprobs=True,
            branch_logprobs=True,
        ),
        unitok.TextResult,
    )
    model.caption("a.png", json_schema={"type": "object"})
    model.caption("a.png", json_schema="{}", choice=None, regex=None)
    model.caption("a.png", regex="[a-z]+")
    model.caption("a.png", choice=["yes", "no"])
    model.caption("a.png", choice=5)  # type: ignore
    model.caption("a.png", json_schema=5)  # type: ignore
    model.caption("a.png", max_token=5)  # type: ignore
    model.caption("a.png", seed="three")  # type: ignore
    model.caption(5)  # type: ignore
    model.caption([5])  # type: ignore
    assert_type(model.caption(name for name in "ab"), list[unitok.TextResult])
    model.caption("a.png", stop=None, timeout=0.5, priority=-1, adapter="emoji")
    model.caption("a.png", seed=[3, 4])  # type: ignore
    model.caption("a.png", timeout="long")  # type: ignore


def drawings(model: unitok.Model) -> None:
    result = assert_type(model.draw("a dog"), unitok.DrawResult)
    assert_type(result.image, Image.Image)
    assert_type(result.images, tuple[Image.Image, ...])
    assert_type(unitok.read_info("a.png"), dict[str, str])
    assert_type(model.draw(["a dog", "a cat"], seed=1, n=2), list[unitok.DrawResult])
    assert_type(
        model.draw(
            "a dog",
            seed=1,
            guidance=2.0,
            n=3,
            negative_prompt="a cat",
            temperature=None,
            top_k=5,
            top_p=0.5,
            width=64,
            height=64,
            min_p=0.1,
            logprobs=True,
            branch_logprobs=False,
        ),
        unitok.DrawResult,
    )
    assert_type(model.draw("a dog", seed=[1, 2]).seeds, tuple[int, ...])
    assert_type(model.draw((f"a {x}" for x in "ab"), seed=range(3)), list[unitok.DrawResult])
    model.draw("a dog", seed=(1, 2), n=None, timeout=5, priority=3)
    assert_type(unitok.Draw("a dog", seed=[1, 2]).samples, int)
    model.draw("a dog", preview=True, preview_count=3, preview_budget=0.1)
    model.draw("a dog", preview="yes")  # type: ignore
    model.draw("a dog", sead=1)  # type: ignore
    model.draw("a dog", seed=["1"])  # type: ignore
    model.draw("a dog", adapter=None)
    model.draw("a dog", adapter=1)  # type: ignore
    model.draw("a dog", priority="high")  # type: ignore
    model.draw("a dog", guidance="high")  # type: ignore
    _ = result.text  # type: ignore


def edits(model: unitok.Model, array: np.ndarray) -> None:
    result = assert_type(model.edit("a.png", "make it night"), unitok.DrawResult)
    assert_type(result.image, Image.Image)
    assert_type(model.edit(["a.png", array], "make it night"), list[unitok.DrawResult])
    assert_type(
        model.edit(
            array,
            "make it night",
            freedom=2.0,
            seed=1,
            guidance=3.0,
            n=2,
            temperature=0.9,
            top_k=5,
            top_p=0.5,
            min_p=0.1,
            logprobs=True,
            branch_logprobs=True,
        ),
        unitok.DrawResult,
    )
    model.edit(array, "make it night", preview=True, preview_count=None)
    model.edit("a.png", "a cat", mask="mask.png", tries=4, decode_all=True)
    model.edit("a.png", "a cat", mask=array > 0, strength=0.5)
    model.edit(["a.png", array], "a cat", box=(0, 0, 8, 8), margin=[0, 0, 8, 0])
    model.edit("a.png", "a cat", mask=5)  # type: ignore
    model.edit("a.png", "a cat", box=8)  # type: ignore
    model.edit("a.png")  # type: ignore
    model.edit("a.png", "make it night", fredom=2.0)  # type: ignore
    model.edit("a.png", "make it night", freedom="much")  # type: ignore
    model.edit("a.png", "make it night", negative_prompt="day")  # type: ignore
    model.edit(5, "make it night")  # type: ignore


async def awaited(model: unitok.Model) -> None:
    assert_type(await model.ascore("a.png", "a dog"), unitok.ScoreResult)
    assert_type(await model.ascore("a.png", ["a dog", "a cat"]), list[unitok.ScoreResult])
    assert_type(await model.ascore_tokens(unitok.Draw("a cat"), [1, 2]), unitok.ScoreResult)
    assert_type(await model.acaption("a.png", max_tokens=5), unitok.TextResult)
    assert_type(await model.acaption(["a.png"]), list[unitok.TextResult])
    assert_type(await model.adraw("a dog", seed=3), unitok.DrawResult)
    assert_type(await model.adraw(["a dog"]), list[unitok.DrawResult])
    assert_type(await model.aedit("a.png", "make it night", seed=3), unitok.DrawResult)
    assert_type(await model.aedit(["a.png"], "make it night"), list[unitok.DrawResult])
    async for event in assert_type(
        model.astream(unitok.Draw("a dog")), AsyncGenerator[unitok.Event, None]
    ):
        assert_type(event.image, Image.Image | None)
    async for result in model.arun([unitok.Draw("a dog")]):
        assert_type(result, unitok.Result)
    await model.adraw("a dog", sead=3)  # type: ignore


def streams(model: unitok.Model) -> None:
    events = model.stream(unitok.Caption("a.png", "what is this?", max_tokens=5))
    assert_type(events, Generator[unitok.Event, None, None])
    for event in events:
        assert_type(event.text, str)
        assert_type(event.rows, int)
        assert_type(event.result, unitok.Result | None)
    model.stream("a dog")  # type: ignore


def runs(model: unitok.Model) -> list[unitok.Result]:
    results = model.run(unitok.Draw("a dog", seed=i) for i in range(3))
    for result in results:
        assert_type(result, unitok.Result)
        if isinstance(result, unitok.DrawResult):
            assert_type(result.request, unitok.Draw | unitok.Edit | None)
        else:
            assert_type(result, unitok.TextResult)
    return list(model.run([unitok.Caption("a.png"), unitok.Draw("a dog")]))


def chats(model: unitok.Model) -> None:
    chat = assert_type(model.chat("be brief"), unitok.Chat)
    assert_type(chat.send("hello"), unitok.TextResult)
    assert_type(chat.send("and this?", images=["a.png"], temperature=0.5), unitok.TextResult)
    assert_type(chat.draw("a dog", seed=3, n=2), unitok.DrawResult)
    assert_type(chat.stream("hello", "a.png"), Generator[unitok.Event, None, None])
    assert_type(chat.stream_drawing("a dog"), Generator[unitok.Event, None, None])
    chat.draw("a dog like this", images=["a.png"], seed=3)
    assert_type(model.chat(system="be brief", when_full="drop"), unitok.Chat)
    assert_type(unitok.Chat.load(model, "talk.json"), unitok.Chat)
    chat.save("talk.json", new=True)
    assert_type(chat.undo()[0]["role"], Any)
    assert_type((chat.tokens, chat.room), tuple[int, int])
    model.chat(when_full="forget")  # type: ignore
    chat.send("hello", image="a.png")  # type: ignore
    chat.send(["hello"])  # type: ignore


async def messages(model: unitok.Model) -> None:
    said = [{"role": "user", "content": "hello"}]
    shown = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (8, 8))}]}]
    result = assert_type(model.chat(messages=said, max_tokens=5), unitok.TextResult)
    if result.dropped is not None:
        assert_type(result.dropped.pictures, int)
    assert_type(model.chat(shown, temperature=0.5, folder=Path("pictures")), unitok.TextResult)
    assert_type(await model.achat(messages=said, seed=3), unitok.TextResult)
    model.stream(unitok.Reply(said, max_tokens=5))
    model.run([unitok.Reply(said), unitok.Draw("a dog like this", images="a.png")])
    model.chat(messages=said, max_token=5)  # type: ignore
    model.chat(messages=5)  # type: ignore
    await model.achat("hello")  # type: ignore


def kinds(result: unitok.Result) -> str:
    return result.text if isinstance(result, unitok.TextResult) else result.prompt
