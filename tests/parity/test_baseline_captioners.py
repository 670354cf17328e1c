"""BLIP, BLIP-2, InstructBLIP, LLaVA and LLaVA-NeXT as captioners: the tokens of transformers."""

import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parity.tiny_captioners import (
    TEMPLATE,
    blip2_folder,
    blip_folder,
    instructblip_folder,
    language_tokenizer,
    llava_folder,
    llava_next_folder,
    original_llava_folder,
)
from tests.parity.tiny_scorers import pictures
from unitok.baselines.captioners import DESCRIBE, VICUNA
from unitok.baselines.opening import load
from unitok.baselines.protocols import Captioner
from unitok.requests import Caption, Draw
from unitok.results import TextResult

hf: Any = import_module("transformers")  # whose types know no settings that are made here

QUESTION = "what is this"
# How each is made, its class, and the text that the library is given for the question.
KINDS: dict[str, tuple[Callable[[Path], Path], str, str | None]] = {
    "blip": (blip_folder, "BlipForConditionalGeneration", None),
    "blip_answers": (
        lambda folder: blip_folder(folder, "BlipForQuestionAnswering"),
        "BlipForQuestionAnswering",
        QUESTION,
    ),
    "blip2": (
        blip2_folder,
        "Blip2ForConditionalGeneration",
        f"Question: {QUESTION} Answer:",
    ),
    "instructblip": (instructblip_folder, "InstructBlipForConditionalGeneration", QUESTION),
    "llava": (llava_folder, "LlavaForConditionalGeneration", f"<image> {QUESTION} answer :"),
    "llava_next": (
        llava_next_folder,
        "LlavaNextForConditionalGeneration",
        f"<image> {QUESTION} answer :",
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("captioners")
    return {name: make(place / name) for name, (make, *_) in KINDS.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {n: load(f, "captioner", device="cpu", batch_size=2) for n, f in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def generated(
    kind: str, folder: Path, text: str | None, images: Sequence[Any] = (), **options: Any
) -> list[str]:
    """What the library says of each picture alone; by default of all `pictures`."""
    model = getattr(hf, KINDS[kind][1]).from_pretrained(folder).eval()
    processor = hf.AutoProcessor.from_pretrained(folder)
    said = []
    for image in images or pictures():
        told = {} if text is None else {"text": text}
        inputs = processor(images=image, return_tensors="pt", **told)
        torch.manual_seed(options.pop("seed", 0))
        with torch.no_grad():
            ids = model.generate(**inputs, num_beams=1, **options)[0]
        # A BLIP returns the start of its answer, the others the prompt, if there is one.
        start = 1 if kind.startswith("blip_") or kind == "blip" else len(inputs["input_ids"][0])
        ids = ids[start:]
        said.append(processor.tokenizer.decode(ids, skip_special_tokens=True).strip())
    return said


def texts(results: list[TextResult]) -> list[str]:
    return [result.text for result in results]


# --- the same as the library ---------------------------------------------------------------------


def test_answers_are_those_of_the_library(kind: str, models: dict[str, Any], folders):
    text = KINDS[kind][2]
    question = None if text is None else QUESTION
    results = models[kind].caption(pictures(), question, max_tokens=6)
    wanted = generated(kind, folders[kind], text, max_new_tokens=6, do_sample=False)
    assert isinstance(models[kind], Captioner)
    assert texts(results) == wanted and len(set(wanted)) > 1


def test_captions_are_those_of_the_library(models: dict[str, Any], folders: dict[str, Path]):
    asked = {
        "blip": None,
        "instructblip": "A short image description:",
        "llava": f"<image> {DESCRIBE} answer :",
        "llava_next": f"<image> {DESCRIBE} answer :",
    }
    for kind, text in asked.items():
        wanted = generated(kind, folders[kind], text, max_new_tokens=6, do_sample=False)
        assert texts(models[kind].caption(pictures(), max_tokens=6)) == wanted


def test_a_blip2_captions_without_a_text(models: dict[str, Any], folders: dict[str, Path]):
    model = hf.Blip2ForConditionalGeneration.from_pretrained(folders["blip2"]).eval()
    processor = hf.AutoProcessor.from_pretrained(folders["blip2"])
    inputs = processor(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    wanted = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert texts(models["blip2"].caption(pictures(), max_tokens=6)) == [w.strip() for w in wanted]


def test_a_sampled_answer_is_that_of_the_library_after_the_same_seed(models, folders):
    options = {"temperature": 1.5, "top_k": 5, "top_p": 0.9}
    result = models["llava"].caption(pictures()[0], QUESTION, seed=7, max_tokens=6, **options)
    wanted = generated(
        "llava",
        folders["llava"],
        KINDS["llava"][2],
        seed=7,
        max_new_tokens=6,
        do_sample=True,
        **options,
    )
    assert (result.text, result.seed) == (wanted[0], 7)
    again = models["llava"].caption([pictures()[0]] * 3, QUESTION, seed=7, max_tokens=6, **options)
    assert texts(again) == [wanted[0]] * 3


# --- LLaVA in other forms ------------------------------------------------------------------------


def test_a_llava_without_a_template_speaks_as_vicuna(tmp_path: Path):
    folder = llava_folder(tmp_path / "llava", template=None)
    model = load(folder, "captioner", device="cpu")
    text = VICUNA.format(image="<image>", question=QUESTION)
    wanted = generated("llava", folder, text, max_new_tokens=6, do_sample=False)
    assert texts(model.caption(pictures(), QUESTION, max_tokens=6)) == wanted


def test_a_template_that_writes_the_start_of_a_text_writes_it_once(tmp_path: Path):
    plain, begun = (
        load(llava_folder(tmp_path / name, template), "captioner", device="cpu")
        for name, template in (("plain", TEMPLATE), ("begun", "<s>" + TEMPLATE))
    )
    wanted, found = (model.caption(pictures(), QUESTION, max_tokens=6) for model in (plain, begun))
    assert texts(found) == texts(wanted)
    assert [one.prompt_tokens for one in found] == [one.prompt_tokens for one in wanted]


@pytest.mark.parametrize("with_tower", [False, True], ids=["tower beside", "tower within"])
def test_a_sharegpt4v_says_what_the_same_weights_say_as_a_llava(tmp_path: Path, with_tower: bool):
    folder = original_llava_folder(tmp_path, with_tower=with_tower)
    ours = load(folder, "captioner", device="cpu", vision_tower=tmp_path / "tower-l12")
    assert type(ours).__name__ == "OriginalLlavaCaptioner"
    token = language_tokenizer().convert_tokens_to_ids("<image>")
    wanted = generated(
        "llava",
        tmp_path / "hf",
        VICUNA.format(image="<image>", question=QUESTION),
        max_new_tokens=8,
        do_sample=False,
        suppress_tokens=[token],  # the authors' layout has no word for a picture
    )
    assert len(set(wanted)) > 1
    assert texts(ours.caption(pictures(), QUESTION, max_tokens=8)) == wanted


def test_the_tower_of_a_sharegpt4v_lies_beside_it_or_is_named(tmp_path: Path):
    folder = original_llava_folder(tmp_path)
    load(folder, "captioner", device="cpu")
    (tmp_path / "tower-l12").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="'someone/tower-l12': give its folder as the opt"):
        load(folder, "captioner", device="cpu")


def test_another_projector_is_refused(tmp_path: Path):
    folder = original_llava_folder(tmp_path)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("mlp2x_gelu", "linear"))
    with pytest.raises(ValueError, match="mm_projector_type must be mlp2x_gelu, not 'linear'"):
        load(folder, "captioner", device="cpu")


# --- requests ------------------------------------------------------------------------------------


def test_a_result_tells_why_it_ended_and_what_was_asked(models: dict[str, Any]):
    results = models["llava"].caption(pictures(), QUESTION, max_tokens=3, seed=5)
    assert {result.finish_reason for result in results} <= {"stop", "length"}
    for result in results:
        assert result.seed == 5 and result.completion_tokens <= 3
        assert result.completion_tokens == 3 or result.finish_reason == "stop"
        assert result.prompt_tokens == 16 + len(f"<s> {QUESTION} answer :".split())
        assert result.request.question == QUESTION and result.seconds > 0


def test_requests_of_all_kinds_run_together(models: dict[str, Any]):
    image = pictures()[0]
    asked = [
        Caption(image, max_tokens=3),
        Caption(image, QUESTION, max_tokens=5),
        Caption(image, "what is what", max_tokens=3, temperature=1.0, seed=2),
        Caption(image, "how many dog are there", max_tokens=3),
    ]
    results = sorted(models["llava"].run(asked), key=lambda result: result.index)
    assert [result.index for result in results] == [0, 1, 2, 3]
    for one, result in zip(asked, results, strict=True):
        assert result.request is one and result.error is None
        alone = next(models["llava"].run([one]))
        assert (result.text, result.finish_reason) == (alone.text, alone.finish_reason)


def test_one_that_fails_does_not_stop_the_others(models: dict[str, Any], tmp_path: Path):
    asked = [
        Caption(pictures()[0], max_tokens=3),
        Caption(tmp_path / "none.png", max_tokens=3),
        Caption(pictures()[1], "see <image>", max_tokens=3),
        Caption(pictures()[1], max_tokens=3),
        Draw("a cat"),
    ]
    results = {result.index: result for result in models["llava"].run(asked)}
    assert [results[i].finish_reason == "error" for i in range(5)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert "none.png: no such file" in str(results[1].error)
    assert "question holds <image>" in str(results[2].error)
    assert results[4].error == "llava takes Caption requests, not Draw"
    assert results[0].text == models["llava"].caption(pictures()[0], max_tokens=3).text


def test_what_a_model_cannot_honour_is_refused_by_name(models: dict[str, Any]):
    image = pictures()[0]
    for options in ({"stop": "."}, {"system": "a"}, {"logprobs": True}, {"priority": 3}):
        with pytest.raises(ValueError, match=f"llava has no option {next(iter(options))}"):
            models["llava"].caption(image, **options)
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        models["llava"].caption(image, max_tokens=0)
    assert [
        models[name].can_take(Caption("x.png", q))
        for name in ("blip", "blip_answers")
        for q in (None, "what?")
    ] == [True, False, False, True]
    with pytest.raises(ValueError, match="blip captions alone: leave the question out"):
        models["blip"].caption(image, QUESTION)
    with pytest.raises(ValueError, match="blip_answers answers questions alone: give a question"):
        models["blip_answers"].caption(image)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        models["llava"].caption(["none.png", image])


def test_questions_of_several_lengths_are_answered_as_by_the_library(kind, models, folders):
    text, image = KINDS[kind][2], pictures()[0]
    asked = ["what is a red dog", "what", "how many"] if text else [None] * 3
    together = models[kind].run([Caption(image, q, max_tokens=4) for q in asked])
    said = {result.index: result.text for result in together}
    assert sorted(said) == [0, 1, 2]
    for i, question in enumerate(asked):
        told = text.replace(QUESTION, question) if text and question else None
        options = {"max_new_tokens": 4, "do_sample": False}
        assert [said[i]] == generated(kind, folders[kind], told, [image], **options)


def test_one_with_a_repetition_penalty_is_answered_alone(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    model = models["llava"]._model  # the penalty would be on the padding of others
    sizes: list[int] = []
    generate = model.generate

    def counted(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", counted)
    asked = [
        Caption(pictures()[0], question, max_tokens=6, repetition_penalty=penalty)
        for question in ("what is a red dog", "what")
        for penalty in (1.0, 5.0)
    ]
    results = {result.index: result for result in models["llava"].run(asked)}
    assert [results[i].request for i in range(4)] == asked and sorted(sizes) == [1, 1, 2]


def test_a_seed_that_is_too_large_is_refused(models: dict[str, Any]):
    asked = [Caption(pictures()[0], temperature=1.0, seed=s, max_tokens=2) for s in (2**64, 3)]
    results = {result.index: result for result in models["llava"].run(asked)}
    assert "seed must fit in 64 bits" in str(results[0].error) and results[1].error is None


def test_a_closed_model_says_so(folders: dict[str, Path]):
    model = load(folders["blip"], "captioner", device="cpu")
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="blip is closed"):
        model.caption(pictures()[0])
    with pytest.raises(TypeError, match="run takes a list of requests"):
        model.run(Caption(pictures()[0]))


# --- folders that cannot be opened ---------------------------------------------------------------


def test_a_missing_part_is_named(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "llava"
    shutil.copytree(folders["llava"], folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not complete: it has no tokenizer\.json"):
        load(folder, "captioner", device="cpu")


def test_a_class_that_no_adapter_covers_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ValueError, match="holds 'mamba', which is no captioner: no adapter covers"):
        load(tmp_path, "captioner")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="holds 'clip', which is no captioner: it can be a scorer"):
        load(tmp_path, "captioner")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json does not say what it holds"):
        load(tmp_path, "captioner")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has none of model_index\.json, config\.json"):
        load(tmp_path, "captioner")


def test_a_chat_template_that_is_wrong_is_named(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "llava"
    shutil.copytree(folders["llava"], folder)
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(ValueError, match=r"llava: its chat template cannot be used: .*unsafe"):
        load(folder, "captioner", device="cpu").caption(pictures()[0])


def test_a_question_that_is_too_long_fails_alone(models: dict[str, Any]):
    image = pictures()[0]
    asked = [Caption(image, "what", max_tokens=2), Caption(image, "cat " * 2100, max_tokens=2)]
    results = {result.index: result for result in models["llava"].run(asked)}
    assert results[0].error is None
    assert "tokens; llava reads 2,048" in str(results[1].error)
