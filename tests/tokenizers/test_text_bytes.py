"""The bytes of tokens, which joined are the text that they decode to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from tests.tokenizers.test_text import AS_IS, DEFAULT, fuzzed, saved, sentencepiece_model
from unitok_tokenizers.text import TextTokenizer

PIECES = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "é", "<unk>"]


def llama_json(folder: Path) -> TextTokenizer:
    """A tokenizer.json with Llama's decoder, a special token and an added word."""
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    library = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    library.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    library.add_special_tokens([AddedToken("<|end|>", special=True)])
    library.add_tokens([AddedToken("word")])
    library.save(str(folder / "tokenizer.json"))
    return TextTokenizer.load(folder)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    return {
        "default": DEFAULT,
        "llama": saved(tmp_path_factory.mktemp("llama"), sentencepiece_model(**AS_IS)),
        "llama json": llama_json(tmp_path_factory.mktemp("json")),
    }


@fuzzed
@given(data=st.data())
@pytest.mark.parametrize("name", ["default", "llama", "llama json"])
def test_bytes_joined_are_what_the_tokens_decode_to(
    tokenizers: dict[str, TextTokenizer], name: str, data: st.DataObject
):
    tokenizer = tokenizers[name]
    spelt = tokenizer.token_bytes()
    anchor = tokenizer.encode_plain("a")  # as a decoder may drop a blank before the first word
    ids = data.draw(st.lists(st.sampled_from([i for i in range(tokenizer.size) if spelt[i]])))
    joined = b"".join(spelt[i] for i in ids)
    try:
        text = joined.decode()
    except UnicodeDecodeError:
        return
    assert tokenizer.decode([*anchor, *ids]) == tokenizer.decode(anchor) + text


@pytest.mark.parametrize("name", ["default", "llama", "llama json"])
def test_special_and_unknown_tokens_have_no_bytes(tokenizers: dict[str, TextTokenizer], name: str):
    tokenizer = tokenizers[name]
    spelt = tokenizer.token_bytes()
    assert len(spelt) == tokenizer.size
    special = {"default": ["<|User|>"], "llama": ["<|User|>", "<s>", "<unk>"]}
    for token in special.get(name, ["<|end|>", "<unk>"]):
        assert spelt[tokenizer.id(token)] == b""
    assert {bytes([byte]) for byte in range(256)} <= set(spelt)


def test_words_that_were_added_have_their_letters(tokenizers: dict[str, TextTokenizer]):
    tokenizer = tokenizers["llama json"]
    assert tokenizer.token_bytes()[tokenizer.id("word")] == b"word"
    assert tokenizer.token_bytes()[tokenizer.id("▁a")] == b" a"


def test_a_tokenizer_without_a_decoder_has_no_bytes(tmp_path: Path):
    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has no decoder"):
        TextTokenizer.load(tmp_path).token_bytes()
