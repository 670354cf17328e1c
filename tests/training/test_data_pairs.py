"""`unitok data pairs`: a model's own answers, ranked by a reward, as pairs that it learns from."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import unitok
from tests.training.toy import COLOURS, toy_recipe
from unitok.cli import app
from unitok.commands import data_pairs
from unitok.results import DrawResult, Result
from unitok.training.data.preferences import parse_record
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.sources import open_source
from unitok.training.preferences.pair_journal import PairEntry, PairJournal
from unitok.training.preferences.ranked import Ranked, rank
from unitok.training.recipe import FAILURES
from unitok.training.reinforcement.prompts import Prompt, read_prompts
from unitok.training.reinforcement.reward_names import BUILT_IN, RewardEntry
from unitok.training.reinforcement.rewards import ChosenReward, Rewards
from unitok.training.reinforcement.rollouts import RolloutCollector, RolloutOptions
from unitok.training.run import FineTuning


def redness(prompt: Prompt, result: Result) -> float:
    """How red a drawing is; of an answer, how long."""
    if isinstance(result, DrawResult):
        return float(np.asarray(result.image, dtype=np.float32)[..., 0].mean())
    return float(len(result.text))


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two drawings, a question of a picture, and a conversation in another order.

    The path is relative, since samples depend on the names of their prompts.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64), COLOURS["red"]).save(tmp_path / "in" / "red.png")
    asked = [{"type": "text", "text": "what is this?"}, {"type": "image", "image": "red.png"}]
    lines = [
        {"draw": "a red apple"},
        {"draw": "two cats"},
        {"caption": "red.png", "question": "what is this?", "answer": "a red apple"},
        {"messages": [{"role": "user", "content": asked}], "answer": "a red apple"},
    ]
    path = Path("in/prompts.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(untrained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `unitok data pairs` in a folder, with one more reward."""
    monkeypatch.chdir(tmp_path)
    known: Any = BUILT_IN
    monkeypatch.setitem(known, "redness", RewardEntry(lambda setting: redness))

    def run(*arguments: str) -> Any:
        words = ["data", "pairs", "--model", str(untrained_folder), "--quiet"]
        words += ["--max-tokens", "6", *arguments]
        return CliRunner().invoke(app, words, prog_name="unitok")

    return run


def records(path: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_and_the_worst_sample_become_a_pair(run: Any, prompts: Path, tmp_path: Path):
    done = run(str(prompts), "--reward", "redness", "-n", "4", "--out", "pairs.jsonl")
    assert done.exit_code == 0, done.output
    found = records(tmp_path / "pairs.jsonl")
    assert f"{len(found)} pairs of 4 prompts, mean reward" in done.stdout
    drawn = [record for record in found if "codes" in record["chosen"]["content"][0]]
    assert len(drawn) == 2
    for record in drawn:
        red = [
            np.asarray(Image.open(tmp_path / record[key]["content"][0]["image"]))[..., 0].mean()
            for key in ("chosen", "rejected")
        ]
        assert red[0] > red[1]


def test_codes_are_those_that_were_sampled(
    run: Any, prompts: Path, tmp_path: Path, untrained_folder: Path
):
    """They decode to the picture beside them, byte for byte, and the model learns them."""
    assert run(str(prompts), "--reward", "redness", "--out", "pairs.jsonl").exit_code == 0
    record = records(tmp_path / "pairs.jsonl")[0]
    part = record["chosen"]["content"][0]
    with unitok.load(untrained_folder) as model:
        maker = SequenceMaker(model.family, dropout=0)
        pair = parse_record(record, "here:1", tmp_path)
        (sequence,) = maker(pair.sides[0])
        codes = sequence.painted[0].codes
        assert codes is not None
        tokens = model.family.model.vocabulary.code_to_id(codes)
        seed = int(unitok.read_info(tmp_path / part["image"])["seed"])
        drawn = model.draw("a red apple", seed=seed, temperature=1.0, logprobs=True)
        assert drawn.token_ids is not None
        image_ids = [
            t for t in drawn.token_ids[0] if t >= model.family.model.vocabulary.image_start
        ]
        assert image_ids == tokens.tolist()
        assert np.array_equal(np.asarray(drawn.image), np.asarray(Image.open(part["image"])))


def test_pairs_of_texts_and_pictures_train_in_one_run(
    run: Any, prompts: Path, tmp_path: Path, untrained_folder: Path
):
    (tmp_path / "out").mkdir()
    # So many that several answers of the untrained model come to an end.
    many = ("-n", "96", "--max-tokens", "60")
    done = run(str(prompts), "--reward", "redness", *many, "--out", "out/pairs.jsonl")
    assert done.exit_code == 0, done.output
    source = open_source(tmp_path / "out" / "pairs.jsonl")
    pairs = [source.conversation(reference) for reference in source.references(None)]
    opened = [p.open().size for pair in pairs for turn in pair.turns for p, _ in turn.pictures]
    assert len(opened) == len(pairs) == 4, "relative paths of prompts start at the new file"
    recipe = toy_recipe(
        untrained_folder,
        tmp_path / "out" / "pairs.jsonl",
        tmp_path / "run",
        steps=2,
        batch={"conversations": 4, "max_tokens": 400},
        dpo={"beta": 0.1, "chosen_weight": 0.1},
    )
    assert (FineTuning(recipe).run(shown=False) / "config.json").is_file()


def test_the_same_command_gives_the_same_pairs(run: Any, prompts: Path, tmp_path: Path):
    for name in ("a", "b"):
        assert run(str(prompts), "--reward", "redness", "--out", f"{name}.jsonl").exit_code == 0
    first, second = ((tmp_path / f"{n}.jsonl").read_text() for n in "ab")
    assert first.replace("a-pictures", "b-pictures") == second


def test_a_command_that_was_stopped_goes_on(
    run: Any, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from unitok.training.preferences import ranked

    monkeypatch.setattr(ranked, "TOGETHER", 1)
    words = (str(prompts), "--reward", "redness", "-n", "3", "--seed", "5", "--out", "pairs.jsonl")
    assert run(*words).exit_code == 0
    whole = (tmp_path / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").unlink()
    asked: list[str] = []

    def stops(prompt: Prompt, result: Result) -> float:
        asked.append(prompt.name)
        if len(asked) == 5:  # in the middle of the second prompt
            raise KeyboardInterrupt
        return redness(prompt, result)

    known: Any = BUILT_IN
    monkeypatch.setitem(known, "redness", RewardEntry(lambda setting: stops))
    assert run(*words).exit_code == 130
    part = tmp_path / "pairs.jsonl.part"
    assert len(part.read_text().splitlines()) == 2 and not (tmp_path / "pairs.jsonl").exists()
    part.write_text(part.read_text() + '{"record": null, "rew')  # as a kill would leave it
    other = run(*words[:-1], "pairs.jsonl", "--seed", "6")
    assert other.exit_code == 2 and "begun with other options" in " ".join(other.output.split())
    assert run(*words).exit_code == 0 and not part.exists()
    assert (tmp_path / "pairs.jsonl").read_text() == whole
    assert {name[-1] for name in asked[5:]} == {"2"}, (
        "the first is not asked again, answers are cut"
    )


@pytest.mark.parametrize("data", [b"no line break", b"first\nlast", b'{"identity": "x"}\nlast'])
def test_a_file_of_something_else_is_not_changed(tmp_path: Path, data: bytes):
    path = tmp_path / "pairs.jsonl.part"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is no beginning of these pairs"):
        PairJournal(path, "mine")
    assert path.read_bytes() == data


def test_what_a_kill_has_cut_off_is_written_anew(tmp_path: Path):
    path, entry = tmp_path / "pairs.jsonl.part", PairEntry(None, [1.0], [])
    with PairJournal(path, "mine") as journal:
        journal.append(entry)
        journal.append(entry)
    whole = path.read_bytes()
    first, second, _ = (i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with PairJournal(path, "mine") as journal:
            assert len(journal.entries) == (length >= second)
            if length >= first:
                continue
            journal.append(entry)
        assert path.read_bytes() == whole[:second]


def test_two_runs_do_not_write_to_one_file(tmp_path: Path):
    path = tmp_path / "pairs.jsonl.part"
    with PairJournal(path, "mine"):
        with pytest.raises(ValueError, match=r"another run is writing to .*pairs\.jsonl\.part"):
            PairJournal(path, "mine")
        assert path.exists()
    assert not path.exists(), "there is nothing in it to go on from"


def test_a_mistake_that_was_put_right_does_not_stand_in_the_way(
    run: Any, prompts: Path, tmp_path: Path
):
    """What judges nothing is found when the model is open; until then nothing is begun."""
    assert run(str(prompts), "--reward", "exact", "--out", "pairs.jsonl").exit_code == 2
    assert not (tmp_path / "pairs.jsonl.part").exists()
    done = run(str(prompts), "--reward", "redness", "-n", "2", "--out", "pairs.jsonl")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "pairs.jsonl.part").exists()


def test_prompts_of_equal_samples_give_no_pair(run: Any, prompts: Path, tmp_path: Path):
    done = run(str(prompts), "--reward", "redness", "--margin", "1e6", "--out", "pairs.jsonl")
    assert done.exit_code == 2 and "no pair: the samples of each of the 4 prompts" in done.output
    assert not (tmp_path / "pairs.jsonl").exists()
    part = tmp_path / "pairs.jsonl.part"
    assert len(part.read_text().splitlines()) == 5, "what was found is not lost"
    assert "pairs.jsonl.part says; remove it" in " ".join(done.output.split())


def test_a_judge_that_dies_stops_the_command_which_goes_on_when_it_is_back(
    run: Any, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from unitok.training.preferences import ranked

    monkeypatch.setattr(ranked, "TOGETHER", 1)
    words = (str(prompts), "--reward", "redness", "-n", "4", "--out", "pairs.jsonl")
    assert run(*words).exit_code == 0
    whole = (tmp_path / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").unlink()
    asked: list[str] = []

    def dies(prompt: Prompt, result: Result) -> float:
        asked.append(prompt.name)
        if len(asked) > 4:  # of the first prompt
            raise OSError("the judge is gone")
        return redness(prompt, result)

    known: Any = BUILT_IN
    monkeypatch.setitem(known, "redness", RewardEntry(lambda setting: dies))
    done = run(*words)
    told = " ".join(done.output.split())
    assert done.exit_code == 1, done.output
    assert "4 of 4 samples have no reward, and --failures allows 20%; the first is of" in told
    assert "OSError: the judge is gone; pairs.jsonl.part has the prompts before," in told
    assert len(asked) == 8, "no further prompt is asked"
    part = tmp_path / "pairs.jsonl.part"
    assert len(part.read_text().splitlines()) == 2 and "judge" not in part.read_text()
    monkeypatch.setitem(known, "redness", RewardEntry(lambda setting: redness))
    assert run(*words).exit_code == 0 and not part.exists()
    assert (tmp_path / "pairs.jsonl").read_text() == whole


def test_failures_that_are_allowed_are_told_and_stop_nothing(
    run: Any, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def moody(prompt: Prompt, result: Result) -> float:
        if prompt.name.endswith(":1"):
            raise OSError("not this one")
        return redness(prompt, result)

    known: Any = BUILT_IN
    monkeypatch.setitem(known, "redness", RewardEntry(lambda setting: moody))
    words = (str(prompts), "--reward", "redness", "-n", "4", "--out", "pairs.jsonl")
    assert run(*words).exit_code == 1 and not (tmp_path / "pairs.jsonl").exists()
    done = run(*words, "--failures", "0.9")
    assert done.exit_code == 0 and "4 samples have no reward" in done.output
    assert len(records(tmp_path / "pairs.jsonl")) >= 1


def test_one_failure_among_the_last_prompts_stops_nothing(
    untrained_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
):
    from unitok.training.preferences import ranked

    monkeypatch.setattr(ranked, "TOGETHER", 2)
    asked: list[str] = []

    def moody(prompt: Prompt, result: Result) -> float:
        asked.append(prompt.name)
        if len(asked) == 10:  # the second sample of the third prompt
            raise OSError("not this one")
        return redness(prompt, result)

    with unitok.load(untrained_folder) as model:
        collect = RolloutCollector(model, RolloutOptions(samples=4, max_tokens=4))
        first, second, *_ = read_prompts([str(prompts)])
        three = [first, second, replace(first, name="again")]
        rewards = Rewards((ChosenReward("moody", moody),))
        found = list(rank(collect, rewards, three))
    assert [len(each.failed) for each in found] == [0, 0, 1]


def test_recipes_and_the_command_allow_as_many_failures():
    default = inspect.signature(data_pairs.pairs).parameters["failures"].default
    assert default == FAILURES


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--reward", "rednes"), "there is no reward 'rednes'; did you mean redness?"),
        (("--reward", "exact"), "no reward judges drawings"),
    ],
)
def test_a_wrong_reward_is_refused(run: Any, prompts: Path, arguments: Any, told: str):
    done = run(str(prompts), *arguments, "--out", "pairs.jsonl")
    assert done.exit_code == 2 and told in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_a_drawing_of_another_size_is_refused_before_anything_is_sampled(run: Any, tmp_path: Path):
    """Pictures are learned at the model's own size, so that such a pair could not be."""
    lines = [{"draw": "a"}, {"draw": "a", "width": 64, "height": 64}]
    lines += [{"draw": "b", "width": 128, "height": 64}]
    (tmp_path / "sizes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("sizes.jsonl", "--reward", "redness", "--out", "pairs.jsonl")
    assert done.exit_code == 2, done.output
    told = "sizes.jsonl:3: drawings are learned at 64 x 64 pixels: leave out width and height"
    assert told in " ".join(done.output.split())


def test_a_reward_whose_library_is_missing_is_told_in_a_line(
    run: Any, prompts: Path, monkeypatch: pytest.MonkeyPatch
):
    def make(setting: Any) -> Any:
        raise ImportError("this needs transformers, which is not installed: pip install x")

    known: Any = BUILT_IN
    monkeypatch.setitem(known, "redness", RewardEntry(make))
    done = run(str(prompts), "--reward", "redness", "--out", "pairs.jsonl")
    assert done.exit_code == 2 and "this needs transformers" in " ".join(done.output.split())


def test_samples_of_several_prompts_are_judged_together(untrained_folder: Path, prompts: Path):
    calls: list[int] = []

    class Redness:
        def __call__(self, prompt: Prompt, result: Result) -> float:
            return redness(prompt, result)

        def many(self, pairs: Any) -> list[float]:
            calls.append(len(pairs))
            return [redness(*pair) for pair in pairs]

    with unitok.load(untrained_folder) as model:
        collect = RolloutCollector(model, RolloutOptions(samples=3))
        asked = read_prompts([str(prompts)])[:2]
        found = [
            [one.rewards for one in rank(collect, Rewards((ChosenReward("red", reward),)), asked)]
            for reward in (Redness(), redness)
        ]
    assert calls == [6] and found[0] == found[1]


def test_samples_that_say_the_same_are_no_pair(untrained_folder: Path, prompts: Path):
    """However a reward that tosses coins judges them: a record of them would stop a run."""
    calls: list[Result] = []

    def moody(prompt: Prompt, result: Result) -> float:
        calls.append(result)
        return float(len(calls))

    with unitok.load(untrained_folder) as model:
        rewards, asked = Rewards((ChosenReward("moody", moody),)), read_prompts([str(prompts)])[:1]
        for top_k, is_pair in ((1, False), (0, True)):
            collect = RolloutCollector(model, RolloutOptions(samples=2, top_k=top_k))
            (ranked,) = rank(collect, rewards, asked)
            assert (ranked.pair is not None) is is_pair and ranked.rewards[0] < ranked.rewards[1]


def test_samples_that_a_reward_fails_for_are_told(untrained_folder: Path, prompts: Path):
    calls = []

    def moody(prompt: Prompt, result: Result) -> float:
        calls.append(result)
        if len(calls) % 2:
            raise RuntimeError("not today")
        return float(len(calls))

    with unitok.load(untrained_folder) as model:
        collect = RolloutCollector(model, RolloutOptions(samples=4, max_tokens=4))
        asked = read_prompts([str(prompts)])[:1]
        rewards = Rewards((ChosenReward("moody", moody),))
        (ranked,) = rank(collect, rewards, asked, failures=0.5)
    assert isinstance(ranked, Ranked) and ranked.pair is not None
    assert ranked.failed == ("reward moody: RuntimeError: not today",) * 2
    assert (ranked.pair.chosen_reward, ranked.pair.rejected_reward) == (4.0, 2.0)
    assert ranked.rewards == (2.0, 4.0)
