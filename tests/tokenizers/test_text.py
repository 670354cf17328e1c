import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from tokenizers.normalizers import Lowercase
from tokenizers.processors import ByteLevel

from unitok.emoji import captions
from unitok.emoji.sprites import NAMES
from unitok.emoji.text_tokenizer import SPECIAL_TOKENS, save, train
from unitok_tokenizers.text import TextTokenizer

ASSETS = Path(__file__).resolve().parents[2] / "unitok" / "assets" / "default"
DEFAULT = TextTokenizer.load(ASSETS)
TEMPLATE = "<|User|>: draw a cat\n\n<|Assistant|>:<begin_of_image>"
BREAKS = [f"{letter}<br>{letter}" for letter in "abcdefgh"] * 10
AS_IS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}

fuzzed = settings(derandomize=True, deadline=None, database=None)


def sentencepiece_model(**options) -> bytes:
    """A small model with byte fallback, like Llama's, and one user-defined special string."""
    model = io.BytesIO()
    like_llama: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 400,
        "byte_fallback": True,
        "user_defined_symbols": ["<|User|>"],
    }
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([*captions.corpus(500, seed=1), *BREAKS]),
        model_writer=model,
        minloglevel=2,
        **like_llama | options,
    )
    return model.getvalue()


def saved(folder: Path, model: bytes, **beside: Any) -> TextTokenizer:
    """The tokenizer of a folder with a tokenizer.model and JSON files beside it."""
    (folder / "tokenizer.model").write_bytes(model)
    write(folder, **beside)
    return TextTokenizer.load(folder)


def write(folder: Path, **contents: Any) -> None:
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    file = tmp_path_factory.mktemp("llama") / "tokenizer.model"
    file.write_bytes(sentencepiece_model())
    return TextTokenizer.load(file)


@pytest.fixture(scope="module")
def as_is(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    """Models that change no text, as Llama's, by their type."""
    kinds = {"bpe": 400, "unigram": 390}
    return {
        kind: saved(
            tmp_path_factory.mktemp(kind),
            sentencepiece_model(model_type=kind, vocab_size=size, **AS_IS),
        )
        for kind, size in kinds.items()
    }


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


def test_dropout_kept_in_a_file_changes_no_ids(tmp_path: Path):
    document = json.loads((ASSETS / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"]["dropout"] = 0.9
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    loaded = TextTokenizer.load(tmp_path)
    assert loaded.encode(TEMPLATE, True) == DEFAULT.encode(TEMPLATE, True)
    assert loaded.encode_plain("a red apple") == DEFAULT.encode_plain("a red apple")


@fuzzed
@given(st.text())
def test_any_text_comes_back_in_lower_case(text: str):
    assert DEFAULT.decode(DEFAULT.encode_plain(text)) == Lowercase().normalize_str(text)


@fuzzed
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


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "text",
    ["", " ", "  a cat ", "a\x00b\x7f\r\n\t", "雪 👩‍👩‍👧", "</s><|User|>", "e\u0301 ﬁ İ\ufffd"],
)
def test_a_model_that_changes_no_text_gives_it_back_whole(
    as_is: dict[str, TextTokenizer], model_type: str, text: str
):
    tokenizer = as_is[model_type]
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text
    ids = tokenizer.encode(text, add_special=True)
    assert tokenizer.decode(ids, skip_special=False) == "<s>" + text


def test_markup_that_a_model_learned_from_text_stays_one_piece(tmp_path: Path):
    model = sentencepiece_model(split_by_unicode_script=False)
    tokenizer = saved(tmp_path, model)
    assert tokenizer.id("<br>") in tokenizer.encode_plain("x<br>x")


def test_the_longest_special_string_is_meant(tmp_path: Path):
    tokenizer = saved(tmp_path, sentencepiece_model(control_symbols=["<end", "<end>"]))
    short, long = tokenizer.id("<end"), tokenizer.id("<end>")
    assert tokenizer.encode("<end<end>", add_special=False) == [short, long]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "▁ ▁a </s> ▁ ▁a </s> ▁a"),
        ({"legacy": True, "add_prefix_space": False}, "▁ ▁a </s> ▁ ▁a </s> ▁a"),
        ({"legacy": False}, "▁ ▁a </s> ▁a </s> a"),
        ({"legacy": False, "add_prefix_space": False}, "▁a </s> ▁a </s> a"),
    ],
)
def test_a_space_comes_before_each_run_or_before_the_first(
    tmp_path: Path, config: dict[str, bool], expected: str
):
    tokenizer = saved(tmp_path, sentencepiece_model(**AS_IS), tokenizer_config=config)
    ids = tokenizer.encode(" a</s> a</s>a", add_special=False)
    assert ids == [tokenizer.id(piece) for piece in expected.split()]
    assert tokenizer.decode(ids, skip_special=False) == " a</s> a</s>a"


ADDED = {"401": {"content": "<|im_start|>", "special": True}, "402": {"content": "雪"}}


@pytest.mark.parametrize(
    "beside",
    [
        {"tokenizer_config": {"added_tokens_decoder": ADDED}},
        {
            "added_tokens": {"<|im_start|>": 401, "雪": 402},
            "special_tokens_map": {"additional_special_tokens": ["<|im_start|>"]},
        },
        {
            "tokenizer_config": {"pad_token": {"__type": "AddedToken", "content": "<|im_start|>"}},
            "added_tokens": {"<|im_start|>": 401, "雪": 402},
        },
    ],
)
def test_tokens_of_the_files_beside_a_model_have_the_ids_that_these_give(
    tmp_path: Path, beside: dict[str, Any]
):
    """Even with a gap before them: the model ends at 399."""
    tokenizer = saved(tmp_path, sentencepiece_model(), **beside)
    assert (tokenizer.size, tokenizer.id("<|im_start|>"), tokenizer.id("雪")) == (403, 401, 402)
    a_cat = tokenizer.encode("a cat", add_special=False)
    ids = tokenizer.encode("<|im_start|>a cat雪", add_special=True)
    assert ids == [tokenizer.id("<s>"), 401, *a_cat, 402]
    assert tokenizer.decode(ids) == "a cat雪"
    assert tokenizer.decode(ids, skip_special=False) == "<s><|im_start|>a cat雪"
    plain = tokenizer.encode_plain("<|im_start|>雪")
    assert 401 not in plain
    assert plain[-1] == 402


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ["x ", "<m>", " x<m>x"]),
        ({"lstrip": True}, ["x", "<m>", " x<m>x"]),
        ({"rstrip": True}, ["x ", "<m>", "x<m>x"]),
    ],
)
def test_an_added_token_takes_the_spaces_beside_it_if_its_flags_say_so(
    tmp_path: Path, flags: dict[str, bool], expected: list[str]
):
    token = {"content": "<m>", "special": True, "single_word": True} | flags
    config = {"added_tokens_decoder": {"400": token}}
    tokenizer = saved(tmp_path, sentencepiece_model(**AS_IS), tokenizer_config=config)
    ids = [tokenizer.encode_plain(run) if run != "<m>" else [400] for run in expected]
    assert tokenizer.encode("x <m> x<m>x", add_special=False) == [i for part in ids for i in part]


def test_an_added_token_may_take_the_place_of_a_placeholder(tmp_path: Path):
    model = sentencepiece_model(user_defined_symbols=["<unused>"])
    config = {"added_tokens_decoder": {"3": {"content": "<|im_end|>", "special": True}}}
    tokenizer = saved(tmp_path, model, tokenizer_config=config)
    assert tokenizer.encode("<|im_end|>", add_special=False) == [3]
    assert tokenizer.decode([3], skip_special=False) == "<|im_end|>"
    assert 3 not in tokenizer.encode_plain("<|im_end|><unused>")


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        ({}, (["<s>"], [])),
        ({"add_bos_token": False, "add_eos_token": True}, ([], ["</s>"])),
        (
            {"bos_token": "<|User|>", "eos_token": "", "add_eos_token": True},
            (["<|User|>"], ["</s>"]),
        ),
    ],
)
def test_a_model_is_put_between_the_ends_that_its_folder_asks_for(
    tmp_path: Path, config: dict[str, Any], ends: tuple[list[str], list[str]]
):
    tokenizer = saved(tmp_path, sentencepiece_model(), tokenizer_config=config)
    before, after = ([tokenizer.id(token) for token in tokens] for tokens in ends)
    a_cat = tokenizer.encode("a cat", add_special=False)
    assert tokenizer.encode("a cat", add_special=True) == [*before, *a_cat, *after]


@pytest.mark.parametrize(
    ("config", "has_bos"), [({}, True), ({"add_bos_token": False}, False), (None, False)]
)
def test_the_class_of_llama_puts_a_bos_that_a_file_does_not(
    tmp_path: Path, config: dict[str, bool] | None, has_bos: bool
):
    """As with DeepSeek's files: byte-level, no BOS of their own, `LlamaTokenizerFast`."""
    library = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    library.post_processor = ByteLevel(trim_offsets=False)
    library.save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        bos = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<｜begin▁of▁sentence｜>"}
        write(tmp_path, tokenizer_config=bos | config)
    tokenizer = TextTokenizer.load(tmp_path)
    ids = DEFAULT.encode("a cat", add_special=True)
    assert tokenizer.encode("a cat", add_special=True) == ids[not has_bos :]


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (
            {"tokenizer_config": {"added_tokens_decoder": {"9": {"content": "<m>"}}}},
            "'<m>' at id 9",
        ),
        ({"added_tokens": {"<s>": 400}}, "'<s>' at id 400"),
        ({"added_tokens": {"<m>": 400, "<n>": 400}}, "disagree on the ids"),
        (
            {
                "added_tokens": {"<m>": 401},
                "tokenizer_config": {"added_tokens_decoder": {"400": {"content": "<m>"}}},
            },
            "disagree on the ids",
        ),
        ({"added_tokens": {"<m>": "first"}}, "badly written added token"),
        ({"added_tokens": ["<m>"]}, "added_tokens.json holds no JSON object"),
        ({"tokenizer_config": {"bos_token": "<m>"}}, "has no '<m>'"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    tmp_path: Path, beside: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        saved(tmp_path, sentencepiece_model(), **beside)


@pytest.mark.parametrize("i", [641, 5])
def test_an_id_that_the_library_would_not_give_is_refused(tmp_path: Path, i: int):
    (tmp_path / "tokenizer.json").write_bytes((ASSETS / "tokenizer.json").read_bytes())
    write(tmp_path, added_tokens={"<new>": i})
    with pytest.raises(ValueError, match=f"gives '<new>' the id 640, where a file asks for {i}"):
        TextTokenizer.load(tmp_path)


def test_a_broken_file_beside_a_tokenizer_is_refused(tmp_path: Path):
    (tmp_path / "special_tokens_map.json").write_text("{")
    with pytest.raises(ValueError, match=r"special_tokens_map\.json is not JSON"):
        saved(tmp_path, sentencepiece_model())


def test_a_special_token_without_an_id_is_refused_where_a_template_needs_it(tmp_path: Path):
    """transformers counts on from the last id, but which tokens were there before it?"""
    tokenizer = saved(tmp_path, sentencepiece_model(), special_tokens_map={"pad_token": "[PAD]"})
    assert tokenizer.size == 400
    assert tokenizer.encode_plain("[PAD]")
    with pytest.raises(ValueError, match=r"no file gives '\[PAD\]' an id"):
        tokenizer.encode("a cat[PAD]", add_special=False)
    with pytest.raises(ValueError, match="no token"):
        tokenizer.id("[PAD]")


@pytest.mark.parametrize("kind", ["unigram", "words"])
def test_a_vocabulary_that_finds_special_strings_by_itself_is_not_trusted(
    tmp_path: Path, kind: str
):
    letters = ["<unk>", "</s>", "<", "/", "s", ">", "▁"]
    if kind == "unigram":
        model = models.Unigram([(piece, -float(n)) for n, piece in enumerate(letters)], unk_id=0)
    else:
        vocabulary = {piece: i for i, piece in enumerate(letters)}
        model = models.BPE(vocabulary, [], unk_token="<unk>", ignore_merges=True)
    library = Tokenizer(model)
    library.add_special_tokens(["<unk>", "</s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.encode("</s>", add_special=False) == [1]
    assert tokenizer.encode_plain("</s>") == [2, 3, 4, 5]
    assert tokenizer.encode_plain("雪") == [0]


def test_letters_that_no_model_knows_stay_unknown(tmp_path: Path):
    model = sentencepiece_model(byte_fallback=False)
    tokenizer = saved(tmp_path, model, tokenizer_config={"unk_token": "<unk>"})
    assert tokenizer.encode_plain("雪")[-1] == tokenizer.id("<unk>")


@pytest.mark.parametrize(("is_added", "word"), [(True, "STOP"), (False, "cat")])
def test_a_word_that_a_file_names_special_is_not_that_in_a_users_text(
    tmp_path: Path, is_added: bool, word: str
):
    library = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    library.add_tokens([word] if is_added else [])
    library.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, tokenizer_config={"eos_token": word})
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.encode(word, add_special=False) == [tokenizer.id(word)]
    assert tokenizer.id(word) not in tokenizer.encode_plain(word)
    assert tokenizer.decode(tokenizer.encode_plain(word)) == word.lower()
    assert tokenizer.decode([tokenizer.id("cat")]) == ("cat" if is_added else "")


def test_ids_of_no_token_give_no_text(tokenizer: TextTokenizer):
    ids = tokenizer.encode_plain("a cat")
    assert tokenizer.decode([*ids, tokenizer.size, 10**6]) == "a cat"
    stream = tokenizer.stream()
    assert "".join(stream.push([i]) for i in [*ids, 10**6]) + stream.finish() == "a cat"


def test_a_stream_keeps_spaces_that_by_themselves_are_nothing(llama: TextTokenizer):
    ids = [llama.id(piece) for piece in ("▁a", "▁", "▁b")]
    stream = llama.stream()
    assert [stream.push([i]) for i in ids] == ["a", " ", " b"]
    assert llama.decode(ids) == "a  b"


def test_a_stream_waits_for_bytes_that_a_later_one_may_break(tmp_path: Path):
    """The decoder of Llama's tokenizer.json gives up a whole run of bytes for one broken one."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "a"]
    library = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path)
    for last, text in ((256, "雪a"), (0xF0, "\ufffd" * 4)):
        ids = [*"雪".encode(), last]
        stream = tokenizer.stream()
        assert [stream.push([i]) for i in ids[:-1]] == ["", "", ""]
        assert stream.push(ids[-1:]) + stream.finish() == text == tokenizer.decode(ids)


def test_the_vocabulary_lists_all_tokens_with_their_ids(tokenizer: TextTokenizer):
    tokens = tokenizer.vocabulary()
    assert sorted(tokens.values()) == list(range(tokenizer.size))
    assert all(tokenizer.id(token) == id for token, id in tokens.items())


def test_an_added_token_is_in_the_vocabulary_once(tmp_path: Path):
    """Under its own name, where it took the place of a piece, or behind all pieces."""
    model = sentencepiece_model(user_defined_symbols=["<place>"])
    plain = saved(tmp_path, model)
    beside = {"<mark>": plain.id("<place>"), "<late>": plain.size}
    tokens = saved(tmp_path, model, added_tokens=beside).vocabulary()
    assert "<place>" not in tokens and len(tokens) == plain.size + 1
    assert {name: tokens[name] for name in beside} == beside


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
