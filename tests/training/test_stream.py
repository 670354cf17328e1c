"""The order of conversations: mixed, passed several times, resumed exactly, shared out."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.conversations import asked, said, write_lines, write_tar
from unitok.training.data.caption_pairs import CaptionPairs
from unitok.training.data.conversations import Conversation, DataError
from unitok.training.data.shares import balanced_shares, own_share
from unitok.training.data.sources import Source, open_source
from unitok.training.data.stream import ConversationStream
from unitok.training.data.tars import Tars


def lines(folder: Path, name: str, count: int) -> Source:
    records = [asked(f"{name}{i}", "x") for i in range(count)]
    return open_source(write_lines(folder / f"{name}.jsonl", records))


def tars(folder: Path, name: str, count: int) -> Source:
    """Tars of two samples each, shuffled in a small buffer."""
    paths = [
        write_tar(
            folder / f"{name}-{i}.tar",
            {f"{j}.json": asked(f"{name}{j}", "x") for j in range(i, min(i + 2, count))},
        )
        for i in range(0, count, 2)
    ]
    return Tars(paths, CaptionPairs(), buffer=3)


def told(conversations: list[Conversation]) -> list[tuple[str, int]]:
    """What is said first in each conversation, and its epoch."""
    return [(said(c)[0], c.epoch) for c in conversations]


def test_each_pass_has_all_conversations_in_another_order(tmp_path: Path):
    stream = ConversationStream([lines(tmp_path, "a", 6)], epochs=2)
    taken = told(stream.next_update(100))
    names = [f"a{i}" for i in range(6)]
    first, second = ([name for name, epoch in taken if epoch == e] for e in (0, 1))
    assert sorted(first) == sorted(second) == names and first != second
    assert stream.next_update(4) == []
    plain = ConversationStream([lines(tmp_path, "a", 6)], epochs=1, shuffle=False)
    assert [name for name, _ in told(plain.next_update(100))] == names


def test_a_seed_decides_the_order(tmp_path: Path):
    source = lines(tmp_path, "a", 20)
    one, same, other = (
        told(ConversationStream([source], seed=seed).next_update(30)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_data_sets_are_mixed_by_weight_at_every_moment(tmp_path: Path):
    sources = [lines(tmp_path, "a", 5), lines(tmp_path, "b", 50)]
    stream = ConversationStream(sources, weights=[3, 1])
    kinds = "".join(name[0] for name, _ in told(stream.next_update(40)))
    assert kinds.count("a") == 30
    for end in range(4, 41):
        assert abs(kinds[:end].count("a") - 0.75 * end) <= 1


def test_a_data_set_that_is_passed_leaves_the_others(tmp_path: Path):
    sources = [lines(tmp_path, "a", 2), lines(tmp_path, "b", 6)]
    taken = told(ConversationStream(sources, epochs=1).next_update(100))
    assert sorted(name for name, _ in taken) == ["a0", "a1", *(f"b{i}" for i in range(6))]


@pytest.mark.parametrize("kind", [lines, tars])
@pytest.mark.parametrize("before", range(0, 15, 2))
def test_a_stream_goes_on_in_the_middle_as_if_it_had_not_stopped(kind, before: int, tmp_path: Path):
    def made() -> ConversationStream:
        sources = [kind(tmp_path, "a", 7), lines(tmp_path, "b", 3)]
        return ConversationStream(sources, weights=[2, 1], seed=5)

    whole = told(made().next_update(30))
    stopped = made()
    assert told(stopped.next_update(before)) == whole[:before]
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = made()
    resumed.load_state_dict(state)
    assert told(resumed.next_update(30 - before)) == whole[before:]
    assert {epoch for _, epoch in whole} > {0, 1}


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path):
    stream = ConversationStream([lines(tmp_path, "a", 3)])
    state = stream.state_dict()
    changed = ConversationStream([lines(tmp_path, "a", 4)])
    with pytest.raises(ValueError, match=r"a\.jsonl has changed since the checkpoint"):
        changed.load_state_dict(state)
    path = tmp_path / "a.jsonl"
    path.write_text(path.read_text().replace("a2", "a7"))  # as long as before
    with pytest.raises(ValueError, match=r"a\.jsonl has changed since the checkpoint"):
        ConversationStream([open_source(path)]).load_state_dict(changed.state_dict())
    more = ConversationStream([lines(tmp_path, "a", 3), lines(tmp_path, "b", 3)])
    with pytest.raises(ValueError, match="the checkpoint is of 1 data sets, not 2"):
        more.load_state_dict(state)


def test_wrong_records_raise_or_are_left_out_and_counted(tmp_path: Path, caplog):
    path = write_lines(tmp_path / "a.jsonl", [asked("a", "x"), {}, asked("b", "x")])
    with pytest.raises(DataError, match=r"a\.jsonl:2: the record: 'messages' is missing"):
        ConversationStream([open_source(path)], shuffle=False).next_update(3)
    stream = ConversationStream([open_source(path)], shuffle=False, on_error="skip")
    assert [name for name, _ in told(stream.next_update(4))] == ["a", "b", "a", "b"]
    assert stream.skipped == 2
    assert "left out: " in caplog.text and "a.jsonl:2" in caplog.text
    again = ConversationStream([open_source(path)], shuffle=False, on_error="skip")
    again.load_state_dict(stream.state_dict())
    assert again.skipped == 2


def test_a_data_set_of_wrong_records_alone_does_not_turn_for_ever(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", [{}, {}])
    with pytest.raises(ValueError, match=r"a\.jsonl has no conversation.*all are wrong"):
        ConversationStream([open_source(path)], on_error="skip").next_update(1)
    empty = open_source(write_tar(tmp_path / "a.tar", {}))
    with pytest.raises(ValueError, match=r"a\.tar has no conversation.*it is empty"):
        ConversationStream([empty]).next_update(1)


def test_a_file_that_changes_ends_a_stream_that_skips(tmp_path: Path):
    stream = ConversationStream([lines(tmp_path, "a", 3)], on_error="skip")
    stream.next_update(1)
    lines(tmp_path, "a", 4)
    with pytest.raises(DataError, match=r"a\.jsonl was changed while it was in use"):
        stream.next_update(1)


def test_a_damaged_tar_takes_no_other_conversation_with_it(tmp_path: Path):
    """Not those before the damage, nor those of other tars, shuffled or not."""
    paths = [
        write_tar(tmp_path / f"{n}.tar", {f"{i}.json": asked(f"{n}{i}", "x") for i in range(3)})
        for n in "abc"
    ]
    paths[1].write_bytes(paths[1].read_bytes()[:1550])  # in the second sample
    good = ["a0", "a1", "a2", "b0", "c0", "c1", "c2"]
    for shuffle in (False, True):
        source = Tars(paths, CaptionPairs())
        stream = ConversationStream([source], epochs=1, shuffle=shuffle, on_error="skip")
        names = sorted(name for name, _ in told(stream.next_update(20)))
        assert names == good and stream.skipped == 1
    with pytest.raises(DataError, match=r"b\.tar"):
        ConversationStream([Tars(paths, CaptionPairs())]).next_update(9)


def test_a_data_set_of_damage_alone_does_not_turn_for_ever(tmp_path: Path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"no tar" * 300)
    with pytest.raises(ValueError, match=r"a\.tar has no conversation.*all are wrong"):
        ConversationStream([open_source(path)], on_error="skip").next_update(1)


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -1.0]])
def test_weights_are_checked(weights: list[float], tmp_path: Path):
    sources = [lines(tmp_path, "a", 1), lines(tmp_path, "b", 1)]
    with pytest.raises(ValueError, match="need a weight above 0 each"):
        ConversationStream(sources, weights)
    with pytest.raises(ValueError, match="no data set"):
        ConversationStream([])


# --- shares --------------------------------------------------------------------------------------

LENGTHS: list[Any] = [[], [5], [9, 1, 1, 1, 9, 3, 3], [7] * 6, list(range(40))]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_shares_are_the_whole_and_of_like_length(lengths: list[int], ranks: int):
    shares = balanced_shares(lengths, ranks)
    assert len(shares) == ranks
    assert sorted(itertools.chain(*shares)) == list(range(len(lengths)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(lengths[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)
    assert shares == balanced_shares(lengths, ranks)
    for rank, share in enumerate(shares):
        names = [f"item {i}" for i in range(len(lengths))]
        assert own_share(names, lengths, rank, ranks) == [names[i] for i in share]
