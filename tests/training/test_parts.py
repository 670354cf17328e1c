"""Which parts of a model are trained."""

import pytest

from tests.unitok.tiny import tiny_model
from unitok.training.parts import choose_parts


def trained(parts: list[str], freeze: list[str]) -> set[str]:
    """The parts of the model of which a weight is trained, with what the model itself says."""
    model = tiny_model()
    names = choose_parts(model, parts, freeze)
    assert names == [name for name, weight in model.named_parameters() if weight.requires_grad]
    return {name.partition(".")[0] for name in names}


def test_the_aliases_are_the_names_of_the_modules():
    assert trained(["vision_aligner", "image_aligner", "image_head"], []) == {
        "vision_aligner",
        "image_aligner",
        "image_head",
    }


def test_all_but_what_is_frozen():
    every = trained(["*"], ["image_tokenizer"])
    assert every == {
        *("text_embedding", "decoder", "text_head", "image_embedding", "image_aligner"),
        *("image_head", "vision", "vision_aligner"),
    }
    assert trained(["*"], ["vision", "image_tokenizer"]) == every - {"vision"}


def test_patterns_name_modules_inside_of_parts():
    model = tiny_model()
    names = choose_parts(model, ["decoder.blocks.*.attention", "text_head.weight"])
    assert names and all(".attention." in name for name in names[:-1])
    assert names[-1] == "text_head.weight"


@pytest.mark.parametrize(
    ("parts", "freeze", "message"),
    [
        (
            ["decodr"],
            [],
            r"no part 'decodr'; did you mean decoder\? Its parts are text_embedding, ",
        ),
        (["zzz"], [], r"no part 'zzz'. Its parts are"),
        (["decoder"], ["visoin"], r"train.freeze: .* did you mean vision"),
        (["decoder"], ["*"], "no weight is left"),
        (["*"], [], "image_tokenizer only gives the codes"),
    ],
)
def test_a_wrong_part_is_named(parts: list[str], freeze: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        choose_parts(tiny_model(), parts, freeze)
