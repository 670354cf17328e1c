"""Drafts of pictures: the same pictures and scores to the bit, in fewer steps; a kept table."""

import tempfile
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file

import unitok
from tests.unitok.tiny import tiny_model
from unitok import Caption, Draw, DrawResult, drafts
from unitok.drafts import CACHE, MOST_BYTES, KeptTable, cache_folder, decide_drafts, name_of
from unitok_engine import DraftTable, EngineStats

PROMPTS = ("two apples", "a dog", "three cats on a table", "a star")
TEMPERATURES = (0.6, 0.0, 1.0, 0.6)


def requests() -> list[Draw]:
    return [
        Draw(prompt, seed=seed, temperature=temperature, logprobs=True)
        for seed, (prompt, temperature) in enumerate(zip(PROMPTS, TEMPERATURES, strict=True))
    ]


def one_by_one(model: unitok.Model) -> list[DrawResult]:
    results = [result for request in requests() for result in model.run([request])]
    return cast(list[DrawResult], results)


@pytest.fixture(scope="module")
def plain() -> list[DrawResult]:
    """What the embedded model draws without drafts, one picture after the other."""
    with unitok.load(drafts=False) as model:
        return one_by_one(model)


@pytest.fixture
def unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package know nothing of the embedded model's pictures; gives the cache folder."""
    monkeypatch.setattr(drafts, "SHIPPED", tmp_path / "none")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(unknown: Path):
    """The embedded model, of whose pictures nothing is known yet."""
    with unitok.load() as model:
        yield model


def check_same(results: list[DrawResult], plain: list[DrawResult]) -> None:
    for result, expected in zip(results, plain, strict=True):
        assert result.logprobs == expected.logprobs, "scores to the bit"
        assert result.image.tobytes() == expected.image.tobytes()


def test_pictures_and_scores_are_those_of_plain_decoding_to_the_bit_in_fewer_steps(model, plain):
    cold = one_by_one(model)
    check_same(cold, plain)
    warm = one_by_one(model)
    check_same(warm, plain)
    steps = [sum(result.steps for result in results) for results in (plain, cold, warm)]
    assert steps[0] == 4 * 64 and steps[1] < steps[0] / 2 and steps[2] < steps[0] / 4


def test_beside_captions_and_other_drawings_they_are_the_same_to_the_bit(model, plain):
    captions = [Caption(result.image, max_tokens=20) for result in plain[:2]]
    results = sorted(model.run([*requests(), *captions]), key=lambda result: result.index)
    check_same(results[:4], plain)
    assert model.stats().accepted_tokens > 0


def edits(drafts: bool) -> tuple[list[DrawResult], EngineStats]:
    """Edits of an embedded model's picture, with long and short runs of tokens that stay."""
    boxes = ((16, 8, 40, 24), (0, 0, 64, 8), (40, 24, 64, 48))
    with unitok.load(drafts=drafts) as model:
        picture = model.draw("two apples", seed=1).image
        results = [
            model.edit(picture, "a dog", box=box, seed=0, branch_logprobs=True, logprobs=True)
            for box in boxes
        ]
        return results, model.stats()


def test_edits_with_several_tries_are_those_of_plain_decoding_to_the_bit():
    drafted, stats = edits(drafts=True)
    plain, _ = edits(drafts=False)
    check_same(drafted, plain)
    assert [r.branch_logprobs for r in drafted] == [r.branch_logprobs for r in plain]
    assert stats.accepted_tokens > 0


def test_results_and_stats_count_what_drafts_saved(model):
    result = model.draw("two apples", seed=1, n=2)
    stats = model.stats()
    assert stats.sampling_steps == result.steps
    assert stats.accepted_tokens == result.completion_tokens - result.steps > 0
    assert stats.drafted_tokens >= stats.accepted_tokens
    assert result.tokens_per_step == pytest.approx(stats.tokens_per_step)


def test_without_guidance_nothing_is_drafted(model):
    result = model.draw("a dog", seed=2, guidance=1.0)
    assert result.steps == result.completion_tokens and model.stats().drafted_tokens == 0


def test_without_drafts_a_step_brings_a_token(plain):
    assert {result.tokens_per_step for result in plain} == {1.0}


def test_the_embedded_model_drafts_well_from_its_first_picture_on(tmp_path, monkeypatch, plain):
    monkeypatch.setenv(CACHE, str(tmp_path))
    with unitok.load() as model:
        results = one_by_one(model)
    check_same(results, plain)
    assert results[0].tokens_per_step > 4
    assert sum(result.steps for result in results) < 4 * 64 / 5


def test_what_is_in_the_package_is_a_small_table_of_image_tokens():
    (path,) = drafts.SHIPPED.iterdir()
    with unitok.load(drafts=False) as model:
        assert path.name == f"{name_of(model.family.model)}.safetensors"
        image = model.family.model.vocabulary.image_range
    assert path.stat().st_size < MOST_BYTES / 4
    entries = drafts.read_entries(path)
    assert len(entries) > 500 and {token in image for _, token, _ in entries} == {True}


def test_the_same_weights_have_one_table_in_whatever_type_they_are_loaded():
    with unitok.load(drafts=False) as one, unitok.load(drafts=False, dtype="bfloat16") as other:
        assert name_of(one.family.model) == name_of(other.family.model)


def test_what_was_learned_is_kept_when_the_model_is_closed(unknown):
    steps = []
    for _ in range(2):
        with unitok.load() as model:
            steps.append(model.draw("two apples", seed=1).steps)
    assert steps[1] < steps[0]
    (file,) = (unknown / "drafts").iterdir()
    assert file.suffix == ".safetensors" and load_file(file)["entries"].shape[1] == 3


def test_nothing_is_written_where_nothing_was_drawn_or_drafted(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    with unitok.load():
        pass
    with unitok.load(drafts=False) as model:
        model.draw("a dog", seed=1)
    assert list(tmp_path.iterdir()) == []


# -- the file


def kept(folder: Path) -> KeptTable:
    return KeptTable(folder / "drafts" / "some.safetensors")


def test_a_table_is_read_as_it_was_written(tmp_path):
    first = kept(tmp_path)
    for token in (5, 5, 6):
        first.table.learn(1, None, token)
    first.save()
    assert kept(tmp_path).table.entries() == first.table.entries()


def test_what_was_learned_last_goes_before_what_was_known_at_first(tmp_path):
    start, path = tmp_path / "start", tmp_path / "cache" / "kept"
    for file, tokens in ((start, (5, 6)), (path, (7,))):
        table = DraftTable()
        for left, token in enumerate(tokens):
            table.learn(left, None, token)
        drafts.write_table(table, file)
    table = KeptTable(path, start).table
    assert (table.get(0, None), table.get(1, None)) == (7, 6)
    assert KeptTable(path / "none", start).table.entries() == drafts.read_entries(start)
    assert table.learned == 0, "what is read is not written again"


def test_a_small_model_takes_wider_steps_than_a_large_one():
    model, large = tiny_model(), tiny_model().bfloat16()
    for one in (model, large):
        one.prepare()
    widths = [[drafts.drafter_of(m, DraftTable()).width(rows, 0) for m in (large, model)]
              for rows in (2, 16, 64)]  # fmt: skip
    assert all(narrow <= wide for narrow, wide in widths) and widths[0] == [8, 16]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no safetensors", "header"),
        (b"", "header"),
        (bytes(MOST_BYTES + 1), "larger than"),
        ({"others": torch.zeros(2, 3, dtype=torch.int64)}, "no table"),
        ({"entries": torch.zeros(2, 4, dtype=torch.int64)}, "no table"),
        ({"entries": torch.zeros(3, dtype=torch.int64)}, "no table"),
        ({"entries": torch.zeros(2, 3)}, "no table"),
        ({"entries": torch.full((2, 3), -1)}, "no table"),
    ],
    ids=["no file", "empty", "large", "name", "columns", "one dimension", "floats", "negative"],
)
def test_a_file_that_is_no_table_is_named_and_learned_anew(tmp_path, caplog, content, says):
    path = tmp_path / "drafts" / "some.safetensors"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    table = kept(tmp_path)
    assert len(table.table) == 0
    assert str(path) in caplog.text and says in caplog.text
    table.table.learn(1, 2, 3)
    table.save()
    assert kept(tmp_path).table.get(1, 2) == 3


def test_a_folder_that_cannot_be_made_loses_what_was_learned_and_nothing_else(tmp_path, caplog):
    (tmp_path / "drafts").write_text("a file")
    table = kept(tmp_path)
    table.table.learn(1, 2, 3)
    with caplog.at_level("INFO"):
        table.save()
    assert "is not kept" in caplog.text


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv(CACHE, "/some/cache")
    assert cache_folder() == Path("/some/cache")
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/other")
    assert cache_folder() == Path("/other/unitok")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/unitok").expanduser()


# -- on or off


def test_models_of_other_weights_have_other_files():
    assert name_of(tiny_model()) == name_of(tiny_model())
    assert name_of(tiny_model()) != name_of(tiny_model(seed=1))


def test_by_default_a_model_drafts_only_where_its_steps_round_alike():
    model = tiny_model()
    assert not decide_drafts("auto", model), "it is not packed yet"
    model.prepare()
    assert decide_drafts("auto", model)
    assert not decide_drafts("auto", tiny_model().double())
    assert not decide_drafts("auto", tiny_model().bfloat16())


def test_a_value_that_is_none_is_refused():
    for value in ("yes", 1, None):
        with pytest.raises(ValueError, match="drafts must be True, False or 'auto', not"):
            unitok.load(drafts=value)  # type: ignore[arg-type]


def test_without_a_home_the_table_is_kept_among_temporary_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNITOK_CACHE", "~nobody-of-this-name/cache")
    assert cache_folder() == Path(tempfile.gettempdir()) / "unitok"
