"""Settings: what is read has its type, what changes the maths is refused, the rest is named."""

import warnings
from dataclasses import dataclass

import pytest

from unitok.checkpoints.settings import IGNORED_KEYS, REQUIRED_VALUES, Settings, fields_to_json


@dataclass(frozen=True)
class Sizes:
    layers: int = 3
    eps: float = 1e-6
    widths: tuple[int, ...] = (1, 2)
    tied: bool = False
    kind: str = "conv"


NAMES = {
    "num_layers": "layers",
    "eps": "eps",
    "mult": "widths",
    "tie": "tied",
    "encoder": "kind",
}


def test_fields_have_the_types_of_their_defaults():
    assert Sizes(**Settings({}).fields(NAMES, Sizes())) == Sizes()
    stated = {"num_layers": 5, "eps": 1, "mult": [4], "tie": True, "encoder": "patch"}
    assert Sizes(**Settings(stated).fields(NAMES, Sizes())) == Sizes(5, 1, (4,), True, "patch")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number above 0, not 0"),
        ({"num_layers": True}, "num_layers must be a whole number"),
        ({"num_layers": 2.0}, "num_layers must be a whole number"),
        ({"eps": "1"}, "eps must be a number above 0, not '1'"),
        ({"eps": float("inf")}, "eps must be a number above 0"),
        ({"mult": [1, 0]}, "mult must be a list of whole numbers"),
        ({"mult": 3}, "mult must be a list of whole numbers"),
        ({"tie": 1}, "tie must be true or false, not 1"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_place(stated: dict, message: str):
    settings = Settings({"part": stated}, "some.json").section("part")
    with pytest.raises(ValueError, match=f"^part of some.json: {message}"):
        settings.fields(NAMES, Sizes())


def test_what_is_written_is_read_again():
    sizes = Sizes(7, 1e-3, (1, 1, 2), True, "patch")
    data = fields_to_json(NAMES, sizes)
    assert data["mult"] == [1, 1, 2], "as JSON has it"
    assert Sizes(**Settings(data).fields(NAMES, Sizes())) == sizes


def test_unknown_settings_are_all_named_and_if_strict_refused():
    data = dict.fromkeys("abcdefg", 1)
    with pytest.warns(UserWarning, match=r"^there: config\.json has b, c, d, e, f, \.\.\., which"):
        Settings(data, folder="there").check("a")
    with pytest.raises(ValueError, match=r"^config\.json has b, c, d, e, f, \.\.\., which unitok"):
        Settings(data, strict=True, folder="there").check("a")


@pytest.mark.parametrize("strict", [False, True])
def test_a_section_is_as_strict_as_its_file(strict: bool):
    section = Settings({"part": {"mystery": 1}}, strict=strict, folder="x").section("part")
    assert (section.where, section.strict, section.folder) == ("part of config.json", strict, "x")
    assert Settings({"part": None}).section("part").data == {}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("key", REQUIRED_VALUES)
def test_what_changes_the_maths_is_refused_whether_strict_or_not(key: str, strict: bool):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in REQUIRED_VALUES[key]:
            Settings({key: value}, strict=strict).check(())
    with pytest.raises(ValueError, match=f"{key} "):
        Settings({key: "other"}, strict=strict).check(())
    Settings({key: "other"}, strict=True).check([key])  # the caller sees to it


@pytest.mark.filterwarnings("error")
def test_what_does_not_matter_is_passed_over():
    Settings(dict.fromkeys(IGNORED_KEYS - {"model_type"}, 1), strict=True).check(())
    Settings({"model_type": "llama"}, strict=True).check((), model_type="llama")
    with pytest.raises(ValueError, match="model_type is 'llama', not 'emu3'"):
        Settings({"model_type": "llama"}).check((), model_type="emu3")
