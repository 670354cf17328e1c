"""A tokenizer's file may not make a long text of a short one."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers
from tokenizers.normalizers import Replace

from unitok_tokenizers import text_huggingface, text_sentencepiece
from unitok_tokenizers.text import TextTokenizer
from unitok_tokenizers.text_limits import (
    MAX_ADDED_CHARACTERS,
    MAX_GROWTH,
    check_added,
    check_growth,
)

ASSETS = Path(__file__).resolve().parents[2] / "unitok" / "assets" / "default"


def replacing(content: str, pattern: str = " ", kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def growing(growth: int) -> dict[str, Any]:
    return {"normalizer": replacing("x" * growth)}


def test_a_replacement_may_be_as_long_as_the_limit():
    check_growth(growing(MAX_GROWTH))
    with pytest.raises(ValueError, match="a normalizer whose replacements make more than 16 char"):
        check_growth(growing(MAX_GROWTH + 1))


@pytest.mark.parametrize(
    "steps",
    [
        [replacing("xx", "x")] * 7,
        [replacing("x", "", "Regex")] * 7,
        [replacing("x", "y?", "Regex")] * 7,
        [{"type": "Prepend", "prepend": "x" * 64}],
        [{"type": "Sequence", "normalizers": [replacing("x" * 8)]}, replacing("x" * 9)],
    ],
)
def test_steps_that_grow_a_text_one_after_the_other_count_together(steps: list[dict[str, Any]]):
    with pytest.raises(ValueError, match="has a normalizer"):
        check_growth({"normalizer": {"type": "Sequence", "normalizers": steps}})
    with pytest.raises(ValueError, match="has a decoder"):
        check_growth({"decoder": {"type": "Sequence", "decoders": steps}})


def test_the_limit_is_what_the_library_makes_of_a_character():
    library = normalizers.Sequence([Replace("a", "bb"), Replace(Regex("b?"), "ccc")])
    document = json.loads(json.dumps({"normalizer": state(library)}))
    grown = len(library.normalize_str("a" * 100)) / 100
    assert 4 <= grown <= 2 * 4, "2 of the first, and 1 + 3 of the second"
    check_growth(document)


def state(normalizer: Any) -> Any:
    """A normalizer as a tokenizer.json has it."""
    library = Tokenizer(models.BPE())
    library.normalizer = normalizer
    return json.loads(library.to_str())["normalizer"]


@pytest.mark.parametrize(
    "steps",
    [
        [normalizers.Prepend("▁"), Replace(" ", "▁")],  # Llama
        [Replace("``", '"'), Replace("''", '"'), normalizers.NFKD(), Replace(Regex(" {2,}"), " ")],
        [normalizers.NFC()],
    ],
)
def test_the_normalizers_of_published_models_are_far_from_the_limit(steps: list[Any]):
    check_growth({"normalizer": state(normalizers.Sequence(steps))})
    check_growth({"normalizer": None, "decoder": None})
    check_growth({})


def test_a_folder_with_a_long_replacement_is_refused_before_any_text(tmp_path: Path):
    document = json.loads((ASSETS / "tokenizer.json").read_text(encoding="utf-8"))
    document["normalizer"] = replacing("x" * 10_000, "a")
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"tokenizer\.json has a normalizer whose replacements"):
        TextTokenizer.load(tmp_path)


def test_added_tokens_may_be_as_long_as_the_limit():
    half, other = ("x" * (MAX_ADDED_CHARACTERS // 2), "y" * (MAX_ADDED_CHARACTERS // 2))
    check_added([half, other])
    with pytest.raises(ValueError, match=r"adds tokens of more than 2,097,152 characters in all"):
        check_added([half, other, "x"])


def test_a_token_that_several_files_of_a_folder_list_counts_once():
    visual = [f"<|visual token {i:06d}|>" for i in range(32768)]  # Emu3's
    check_added(visual * 3)


@pytest.mark.parametrize("where", ["tokenizer", "added_tokens", "tokenizer_config"])
def test_added_tokens_are_counted_wherever_they_stand(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    counted: list[str] = []
    monkeypatch.setattr(text_huggingface, "check_added", counted.extend)
    document = json.loads((ASSETS / "tokenizer.json").read_text(encoding="utf-8"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    token = {"content": "<long>", "special": True} | flags
    if where == "tokenizer":
        document["added_tokens"].append({"id": 640} | token)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    if where == "added_tokens":
        (tmp_path / "added_tokens.json").write_text('{"<long>": 640}')
    if where == "tokenizer_config":
        config = {"added_tokens_decoder": {"640": token}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert TextTokenizer.load(tmp_path).id("<long>") == 640
    assert counted.count("<long>") == 1


def test_added_tokens_beside_a_sentencepiece_model_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from tests.tokenizers.test_text import saved, sentencepiece_model

    monkeypatch.setattr(text_sentencepiece, "check_added", lambda tokens: refuse(list(tokens)))
    with pytest.raises(ValueError, match=r"tokenizer\.model counts <s> and <long>"):
        saved(tmp_path, sentencepiece_model(), added_tokens={"<long>": 400})


def refuse(tokens: list[str]) -> None:
    assert {"<s>", "<long>"} <= set(tokens)
    raise ValueError("counts <s> and <long>")


@pytest.mark.parametrize(
    "beside",
    [
        {"added_tokens": {"<m>": -1}},
        {"tokenizer_config": {"added_tokens_decoder": {"-1": {"content": "<m>"}}}},
        {"tokenizer_config": {"additional_special_tokens": 5}},
        {"tokenizer_config": {"added_tokens_decoder": [1]}},
    ],
)
def test_strange_values_beside_a_tokenizer_are_badly_written(tmp_path: Path, beside: dict):
    from tests.tokenizers.test_text import saved, sentencepiece_model

    with pytest.raises(ValueError, match="has a badly written added token"):
        saved(tmp_path, sentencepiece_model(), **beside)
