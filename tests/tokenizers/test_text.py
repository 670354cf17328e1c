import io
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase

from scripts.train_text_tokenizer import SPECIAL_TOKENS, save, train
from unitok.emoji import captions
from unitok.emoji.sprites import NAMES
from unitok_tokenizers.text import TextTokenizer

ASSETS = Path(__file__).resolve().parents[2] / "unitok" / "assets" / "default"
DEFAULT = TextTokenizer.load(ASSETS)
TEMPLATE = "<|User|>: draw a cat\n\n<|Assistant|>:<begin_of_image>"


def sentencepiece_model(**options) -> bytes:
    """A small model with byte fallback, like Llama's, and one user-defined special string."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=captions.corpus(500, seed=1),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        minloglevel=2,
        **{"byte_fallback": True, "user_defined_symbols": ["<|User|>"]} | options,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    file = tmp_path_factory.mktemp("llama") / "tokenizer.model"
    file.write_bytes(sentencepiece_model())
    return TextTokenizer.load(file)


@pytest.fixture(params=["default", "llama"])
def tokenizer(request: pytest.FixtureRequest, llama: TextTokenizer) -> TextTokenizer:
    return {"default": DEFAULT, "llama": llama}[request.param]


def test_the_default_tokenizer_has_its_special_ids_and_size():
    assert DEFAULT.size == 640
    assert [DEFAULT.id(token) for token in SPECIAL_TOKENS] == list(range(16))


@pytest.mark.parametrize("space", ["", " "])
def test_every_word_of_the_grammar_is_one_token_but_for_a_plural_s(space: str):
    s = DEFAULT.id("s")
    plurals = {captions.plural(name): name for name in NAMES}
    for word in captions.vocabulary_words():
        ids = DEFAULT.encode_plain(space + word)
        if word in plurals:
            assert ids == [*DEFAULT.encode_plain(space + plurals[word]), s], word
        else:
            assert len(ids) == 1, word


def test_special_strings_in_a_template_become_their_ids():
    ids = DEFAULT.encode(TEMPLATE, add_special=True)
    assert ids[:2] == [DEFAULT.id("<｜begin▁of▁sentence｜>"), DEFAULT.id("<|User|>")]
    assert ids[-3:] == [DEFAULT.id(t) for t in ("<|Assistant|>", ":", "<begin_of_image>")]
    assert DEFAULT.encode(TEMPLATE, add_special=False) == ids[1:]


def test_special_strings_in_a_users_text_stay_text():
    ids = DEFAULT.encode_plain("".join(SPECIAL_TOKENS))
    assert min(ids) >= len(SPECIAL_TOKENS)
    assert DEFAULT.decode(ids) == "".join(SPECIAL_TOKENS).lower()


def test_markup_that_a_file_does_not_flag_as_special_stays_text_too(tmp_path: Path):
    content = json.loads((ASSETS / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    unflagged = TextTokenizer.load(tmp_path)
    assert unflagged.encode_plain(TEMPLATE) == DEFAULT.encode_plain(TEMPLATE)
    assert unflagged.encode(TEMPLATE, add_special=False) == DEFAULT.encode(TEMPLATE, False)


def test_added_letters_still_work_in_a_users_text(tmp_path: Path):
    library = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    library.add_tokens(["雪"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.size == 641
    assert tokenizer.encode_plain("雪") == [640]


def test_padding_and_truncation_kept_in_a_file_change_no_ids(tmp_path: Path):
    library = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    library.enable_padding(length=32)
    library.enable_truncation(max_length=4)
    library.save(str(tmp_path / "tokenizer.json"))
    assert TextTokenizer.load(tmp_path).encode(TEMPLATE, True) == DEFAULT.encode(TEMPLATE, True)


@given(st.text())
def test_any_text_comes_back_in_lower_case(text: str):
    assert DEFAULT.decode(DEFAULT.encode_plain(text)) == Lowercase().normalize_str(text)


@given(st.lists(st.integers(0, 639)), st.integers(1, 4))
def test_a_stream_gives_what_decoding_at_once_gives(ids: list[int], stride: int):
    stream = DEFAULT.stream()
    parts = [stream.push(ids[i : i + stride]) for i in range(0, len(ids), stride)]
    assert "".join(parts) + stream.finish() == DEFAULT.decode(ids)


def test_a_stream_holds_back_unfinished_characters(tokenizer: TextTokenizer):
    text = "a crown 👑 and 雪 on a house"
    stream = tokenizer.stream()
    parts = [stream.push([i]) for i in tokenizer.encode_plain(text)]
    assert all("\ufffd" not in part for part in parts)
    assert "".join(parts) == text
    assert len([part for part in parts if part]) > 5
    assert stream.finish() == ""


def test_a_stream_that_ends_within_a_character_says_so(tokenizer: TextTokenizer):
    stream = tokenizer.stream()
    given_so_far = stream.push(tokenizer.encode_plain("a 👑")[:-1])
    assert "\ufffd" not in given_so_far
    assert (given_so_far + stream.finish()).startswith("a \ufffd")


def test_a_stream_keeps_the_space_after_a_skipped_special_token(tokenizer: TextTokenizer):
    stop = tokenizer.id("<｜end▁of▁sentence｜>" if tokenizer is DEFAULT else "</s>")
    ids = [*tokenizer.encode_plain("a cat"), stop, *tokenizer.encode_plain(" house")]
    stream = tokenizer.stream()
    assert "".join(stream.push([i]) for i in ids) + stream.finish() == tokenizer.decode(ids)


def test_decoding_shows_special_tokens_when_asked():
    ids = DEFAULT.encode(TEMPLATE, add_special=False)
    assert DEFAULT.decode(ids, skip_special=False) == TEMPLATE
    assert DEFAULT.decode(ids) == ": draw a cat\n\n:"


def test_a_sentencepiece_file_reads_and_writes(llama: TextTokenizer):
    assert llama.size == 400
    ids = llama.encode("two apples", add_special=True)
    assert ids == [llama.id("<s>"), *llama.encode_plain("two apples")]
    assert llama.decode(ids) == "two apples"
    assert llama.decode(ids, skip_special=False) == "<s>two apples"


def test_a_sentencepiece_template_may_name_special_strings(llama: TextTokenizer):
    ids = llama.encode("<|User|>a cat</s>", add_special=False)
    assert ids[-1] == llama.id("</s>")
    assert llama.id("<|User|>") in ids


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_no_text_makes_a_sentencepiece_special_id(tmp_path: Path, byte_fallback: bool):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(byte_fallback=byte_fallback))
    tokenizer = TextTokenizer.load(tmp_path)
    ids = tokenizer.encode_plain("<|User|>a cat</s>")
    special = {tokenizer.id(token) for token in ("<s>", "</s>", "<|User|>")}
    assert not special & set(ids)
    if byte_fallback:
        assert tokenizer.decode(ids) == "<|User|>a cat</s>"


def test_a_token_that_is_not_there_is_named(tokenizer: TextTokenizer):
    with pytest.raises(ValueError, match="no token '<no_such>'"):
        tokenizer.id("<no_such>")


def test_text_that_is_not_unicode_is_refused(tokenizer: TextTokenizer):
    with pytest.raises(ValueError, match="not valid Unicode at character 2"):
        tokenizer.encode_plain("a \ud83d")


def test_what_is_not_there_or_not_a_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json and no tokenizer\.model"):
        TextTokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        TextTokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "words.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"expected a \.json or a \.model file"):
        TextTokenizer.load(tmp_path / "words.txt")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_broken_file_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"{not a tokenizer")
    with pytest.raises(ValueError, match=f"{name} is not a readable tokenizer"):
        TextTokenizer.load(tmp_path)


def test_training_twice_gives_the_same_file(tmp_path: Path):
    files = [tmp_path / name / "tokenizer.json" for name in ("one", "two")]
    for file in files:
        save(train(640, line_count=500, seed=3), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_vocabulary_too_small_for_the_words_is_refused():
    with pytest.raises(ValueError, match="raise the vocabulary size"):
        train(400, line_count=100, seed=0)
