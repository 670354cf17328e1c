"""Records of two answers: parsed, refused by the place of what is wrong, checked and shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.training.conversations import assistant, noise, picture, text, user, write_lines
from tests.training.pairs import CODES, write_pairs
from unitok.training.data.conversations import CodedPicture, Conversation, DataError
from unitok.training.data.preferences import parse_record
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.sheet import shown_sides

PAIR = {"messages": [user("a")], "chosen": assistant("b"), "rejected": assistant("c")}


def parsed(**keys: Any) -> Conversation:
    record = {key: value for key, value in (PAIR | keys).items() if value is not None}
    return parse_record(record, "here:1")


def test_a_record_without_answers_is_a_conversation():
    talk = parse_record({"messages": [user("a"), assistant("b")], "chosen": None}, "here:1")
    assert talk.rejected is None and talk.sides == (talk,)


def test_answers_are_learned_and_nothing_before_them():
    before = [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c")]
    pair = parsed(messages=before, chosen=[assistant("d", text("e") | {"train": False})])
    assert pair.system == "s" and pair.rejected is not None
    chosen, rejected = pair.sides
    assert [turn.learned for turn in chosen.turns] == [(False,)] * 3 + [(True, False)]
    assert [turn.texts for turn in rejected.turns][-1] == [("c", True)]
    assert chosen.rejected is None and rejected.turns[:-1] == chosen.turns[:-1]


def test_a_list_of_pictures_goes_through_messages_and_answers():
    nameless = {"type": "image"}
    pair = parsed(
        messages=[user(nameless, "a")],
        chosen=assistant(nameless),
        rejected=assistant(nameless | {"codes": [1, 2]}),
        images=["x.png", "y.png", "z.png"],
    )
    assert pair.rejected is not None
    found = [p for turn in (*pair.turns, pair.rejected) for p, _ in turn.pictures]
    assert [p.where for p in found] == [
        "messages[0].content[0]",
        "chosen.content[0]",
        "rejected.content[0]",
    ]
    assert isinstance(found[2], CodedPicture) and found[2].codes == (1, 2)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"rejected": None}, "'rejected' is missing"),
        ({"rejected": assistant("b")}, "chosen and rejected are the same"),
        (
            {"messages": [user("a"), assistant("b")]},
            r"messages\[1\]: the last message must be of the",
        ),
        ({"chosen": user("b")}, "chosen must be a message of the assistant; it is of the user"),
        ({"chosen": []}, "chosen must be a message of the assistant; it is empty"),
        ({"chosen": "b"}, "chosen must be a dictionary, not str"),
        ({"rejected": [assistant(""), assistant("c")]}, r"rejected\[0\]: the message is empty"),
        ({"chosen": assistant("b", train=False)}, "chosen: nothing is learned"),
        ({"images": ["x.png"]}, "images has 1 pictures, and the record shows 0"),
        ({"prompt": "a"}, "unknown key 'prompt'"),
    ],
)
def test_a_wrong_pair_is_refused_by_its_place(keys: dict[str, Any], told: str):
    with pytest.raises(DataError, match=f"here:1: .*{told}"):
        parsed(**keys)


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ("12", "must be a list of whole numbers, not '12'"),
        ([], "must be a list of whole numbers"),
        ([1, 2.5], "must be whole numbers, not 2.5"),
        ([1, True], "must be whole numbers, not True"),
        ([1, -1], "-1 is no code"),
        ([2**31], "2147483648 is no code"),
        ([0] * (2**16 + 1), "has 65,537 entries; at most 65,536 are read"),
    ],
)
def test_wrong_codes_are_refused(codes: Any, told: str):
    with pytest.raises(DataError, match=rf"chosen\.content\[0\]\.codes:? ?{told}"):
        parsed(chosen=assistant(picture("x.png") | {"codes": codes}))


def test_codes_belong_to_what_the_assistant_paints():
    with pytest.raises(DataError, match="only what the assistant paints has codes"):
        parsed(messages=[user(picture("x.png") | {"codes": [1]})])
    with pytest.raises(DataError, match=r"chosen\.content\[0\]: a text has no codes"):
        parsed(chosen=assistant(text("b") | {"codes": [1]}))


def test_codes_must_fit_the_model(untrained_folder: Path, tmp_path: Path):
    import unitok

    noise(1).save(tmp_path / "x.png")

    def made(codes: list[int]) -> Any:
        known = picture("x.png") | {"codes": codes}
        record = {"messages": [user("a"), assistant(known)]}
        return maker(parse_record(record, "here:1", tmp_path))

    with unitok.load(untrained_folder) as model:
        maker = SequenceMaker(model.family, dropout=0)
        (sequence,) = made([3] * CODES)
        assert sequence.painted[0].codes is not None
        with pytest.raises(DataError, match=r"here:1: messages\[1\]\.content\[0\]: it has 3 codes"):
            made([1, 2, 3])
        size = model.family.model.vocabulary.image_size
        with pytest.raises(DataError, match=f"{size} is no code of this model, which has {size}"):
            made([size] * CODES)


def test_a_sheet_shows_both_answers():
    assert [side.name for side in shown_sides(parsed())] == ["here:1 chosen", "here:1 rejected"]


def test_tables_have_columns_of_answers(tmp_path: Path):
    from datasets import Dataset

    from unitok.training.data.sources import open_source

    plain = [{"role": "user", "content": "a"}]
    rows = {
        "messages": [plain, plain],
        "chosen": [[{"role": "assistant", "content": "b"}], None],
        "rejected": [[{"role": "assistant", "content": "c"}], None],
    }
    Dataset.from_dict(rows).to_parquet(tmp_path / "pairs.parquet")
    source = open_source(tmp_path / "pairs.parquet")
    first, second = source.references(None)
    pair = source.conversation(first)
    assert pair.rejected is not None and pair.rejected.texts == [("c", True)]
    with pytest.raises(DataError, match="the last message must be of the assistant"):
        source.conversation(second)


def test_check_counts_pairs_and_shows_both_pictures(
    untrained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from typer.testing import CliRunner

    from unitok.cli import app

    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, plain=False)
    write_lines(tmp_path / "wrong.jsonl", [PAIR, PAIR | {"rejected": assistant("b")}])

    def check(*arguments: str) -> Any:
        words = ["data", "check", *arguments, "--model", str(untrained_folder), "--quiet"]
        return CliRunner().invoke(app, words, prog_name="unitok")

    done = check("pairs.jsonl", "--json", "--sheet", "sheet.png", "--samples", "6")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["conversations"], found["pairs"], found["sequences"]) == (6, 6, 12)
    assert found["pictures_painted"] == 6 and found["image_tokens"] == 6 * CODES
    assert Image.open("sheet.png").height > 500
    wrong = check("wrong.jsonl")
    assert (
        wrong.exit_code == 1 and "wrong.jsonl:2: chosen and rejected are the same" in wrong.output
    )
    assert "pairs of answers" in wrong.stdout
