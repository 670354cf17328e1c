import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitok.vocabulary import Vocabulary
from unitok_engine import IdRange

JANUS = Vocabulary(text_size=640, image_start=640, image_size=1024)
CHAMELEON = Vocabulary(text_size=65536, image_start=4, image_size=8192)


def test_image_ids_may_follow_the_text_ids():
    assert JANUS.size == 1664
    assert JANUS.text_range == IdRange(0, 640)
    assert JANUS.image_range == IdRange(640, 1664)


def test_image_ids_may_lie_inside_the_text_ids():
    assert CHAMELEON.size == 65536
    assert CHAMELEON.image_range == IdRange(4, 8196)
    assert 8195 in CHAMELEON.image_range and 8196 not in CHAMELEON.image_range


@pytest.mark.parametrize("start", [600, 641, -1])
def test_image_ids_may_not_straddle_or_leave_a_gap(start: int):
    with pytest.raises(ValueError):
        Vocabulary(text_size=640, image_start=start, image_size=1024)


@given(st.sampled_from([JANUS, CHAMELEON]), st.data())
def test_codes_and_ids_are_inverse(vocabulary: Vocabulary, data: st.DataObject):
    codes = data.draw(st.lists(st.integers(0, vocabulary.image_size - 1), max_size=8))
    tensor = torch.tensor(codes, dtype=torch.long)
    ids = vocabulary.code_to_id(tensor)
    assert torch.equal(vocabulary.id_to_code(ids), tensor)
    assert [vocabulary.code_to_id(code) for code in codes] == ids.tolist()
    assert vocabulary.is_image(ids).all()


@pytest.mark.parametrize("token", [639, 1664])
def test_an_id_that_is_no_image_id_has_no_code(token: int):
    with pytest.raises(ValueError, match=f"{token} is not an image token"):
        JANUS.id_to_code(token)
    with pytest.raises(ValueError, match=f"{token} is not an image token"):
        JANUS.id_to_code(torch.tensor([700, token]))


@pytest.mark.parametrize("code", [-1, 1024])
def test_what_is_no_code_has_no_id(code: int):
    with pytest.raises(ValueError, match=f"{code} is not an image code"):
        JANUS.code_to_id(code)


def test_is_image_marks_image_ids_only():
    ids = torch.tensor([[0, 639, 640], [1663, 1664, 5]])
    assert JANUS.is_image(ids).tolist() == [[False, False, True], [True, False, False]]


def test_a_range_counts_its_ids_and_does_not_run_backwards():
    assert IdRange(3, 7).size == 4
    with pytest.raises(ValueError):
        IdRange(7, 3)


@pytest.mark.parametrize(("start", "size"), [(-1, 5), (640, -2)])
def test_a_size_below_zero_is_refused_where_the_rest_would_fit(start: int, size: int):
    with pytest.raises(ValueError, match="must not be negative"):
        Vocabulary(text_size=640, image_start=start, image_size=size)
