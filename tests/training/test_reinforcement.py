"""Runs of reinforcement learning: they learn, resume, count what fails, and say what is wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

import unitok
from tests.training.ranks import ROOT, SECONDS
from tests.training.rollouts import (
    REWARDS,
    evenness,
    grpo_recipe,
    said,
    toy_prompts,
    write_prompts,
)
from unitok.cli import app
from unitok.results import DrawResult
from unitok.training.log import TrainingLog
from unitok.training.recipe import Recipe
from unitok.training.recipe_file import to_toml
from unitok.training.reinforcement.plan import plan_of
from unitok.training.reinforcement.reward_names import RewardEntry
from unitok.training.reinforcement.rewards import RewardsFailedError
from unitok.training.reinforcement.rollout_updates import parts_of
from unitok.training.reinforcement.run import Reinforcement
from unitok.training.run_checkpoints import RunCheckpoints

ADAPTERS = {"lora": {"rank": 2, "dropout": 0.1, "also_train": ["image_head"]}}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_prompts(tmp_path_factory.mktemp("prompts"))


def records(recipe: Recipe) -> list[dict[str, Any]]:
    return TrainingLog(Path(recipe.out) / "log.jsonl").records()


# --- learning ------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_run_learns_drawings_and_answers_at_once(
    untrained_folder: Path, prompts: Path, tmp_path: Path
):
    rollout = {"prompts": [str(prompts)], "groups": 5, "samples": 8, "max_tokens": 6, "memory": 8}
    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        steps=8,
        rollout=rollout | {"guidance": 1.0, "top_k": 16, "drop_solved": False},
        grpo={"passes": 2, "kl": 0.01},
        optimiser={"learning_rate": 1e-2, "warmup": 1, "schedule": "constant"},
    )
    run = Reinforcement(recipe, REWARDS)
    result = run.run(shown=False)
    found = records(recipe)
    assert [record["step"] for record in found] == list(range(1, 9))
    for kind in ("reward_image", "reward_text"):
        first, last = (sum(r[kind] for r in part) / 3 for part in (found[:3], found[-3:]))
        assert last > first + 0.05, (kind, first, last)
    assert found[-1]["kl"] > found[0]["kl"] >= 0
    assert found[0]["entropy_image"] > found[-1]["entropy_image"] > 0
    assert found[0]["ratio"] == pytest.approx(1, abs=0.1)
    assert all(r["live_groups"] + r["flat_groups"] == 5 and r["failed"] == 0 for r in found)
    for record in found:
        assert record["rollout_seconds"] > 0 and record["update_seconds"] > 0
        assert 0 <= record["clipped"] <= 1 and record["answer_tokens"] <= 6
    assert (result.parent / "curves.png").stat().st_size > 1000
    with unitok.load(result, device="cpu", dtype="float32", memory="8MB") as model:
        drawn = model.draw("two apples", seed=list(range(8)), guidance=1.0)
        assert isinstance(drawn, DrawResult) and len(drawn.images) == 8


def test_rollouts_are_of_the_weights_of_their_step(
    untrained_folder: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first update of each step begins at ratio 1; between steps the rollout model sleeps."""
    recipe = grpo_recipe(
        untrained_folder, prompts, tmp_path / "run", grpo={}, steps=3, lora={"rank": 2}
    )
    run = Reinforcement(recipe, REWARDS)
    versions: list[int] = []
    learn = run.trainer.learn

    def learned(batches: Any) -> Any:
        assert run.rollout_model.driver.engine.paused
        versions.append(run.rollout_model.weight_version)
        losses = learn(batches)
        assert losses.parts["ratio"] == pytest.approx(1, abs=1e-4)
        return losses

    monkeypatch.setattr(run.trainer, "learn", learned)
    assert run.run(shown=False).name == "adapter"
    assert versions == [0, 1, 2]


def test_conversations_are_learned_beside(
    untrained_folder: Path, prompts: Path, toy_data: Path, tmp_path: Path
):
    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        steps=2,
        data=[{"path": str(toy_data)}],
        grpo={"supervised": 0.5, "minibatches": 2},
        held_out={"path": str(toy_data), "every": 1},
    )
    Reinforcement(recipe, REWARDS).run(shown=False)
    losses = TrainingLog(tmp_path / "run/log.jsonl").losses()
    for kind in ("text", "image"):
        assert any(record.get(kind, 0) > 1 for record in losses)
    assert all("held_out_text" in r for r in TrainingLog(tmp_path / "run/log.jsonl").scores())
    state = json.loads((tmp_path / "run/checkpoints/step-000002/state.json").read_text())
    (source,) = state["updates"]["supervised"]["stream"]["sources"]
    assert source["drawn"] == 2 * 2 * 2, "two conversations in each of two updates of each step"


# --- rounds without anything to learn ------------------------------------------------------------


def test_flat_groups_are_skipped_and_solved_prompts_come_no_more(
    untrained_folder: Path, prompts: Path, tmp_path: Path
):
    """All drawings are solved at once, and no answer ever is."""

    def reward(prompt: Any, result: Any) -> float:
        return float(isinstance(result, DrawResult))

    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        rollout={"prompts": [str(prompts)], "groups": 5, "samples": 2, "memory": 8},
        reward=[{"name": "kind"}],
    )
    run = Reinforcement(recipe, {"kind": RewardEntry(lambda setting: reward)})
    before = {n: p.detach().clone() for n, p in run.family.model.named_parameters()}
    run.run(shown=False)
    found = records(recipe)
    assert [r["solved"] for r in found] == [3, 0, 0, 0]
    assert [r["flat_groups"] for r in found] == [5, 2, 2, 2]
    assert all(r["live_groups"] == 0 for r in found)
    for name, weight in run.family.model.named_parameters():
        assert torch.equal(weight, before[name]), "nothing was learned"


def test_a_run_ends_when_all_prompts_are_solved(
    untrained_folder: Path, prompts: Path, tmp_path: Path
):
    rewards = {"one": RewardEntry(lambda setting: lambda prompt, result: 1.0)}
    recipe = grpo_recipe(
        untrained_folder, prompts, tmp_path / "run", steps=9, reward=[{"name": "one"}]
    )
    result = Reinforcement(recipe, rewards).run(shown=False)
    assert result.is_dir()
    assert [r["step"] for r in records(recipe)] == [1, 2], "five prompts, three at a time"
    with pytest.raises(ValueError, match="all prompts are solved"):
        plan_of(Reinforcement(recipe, rewards))


# --- rewards that fail ---------------------------------------------------------------------------


def broken(prompt: Any, result: Any) -> float:
    """Fails for answers."""
    return float("nan") if prompt.kind == "text" else result.seed % 1009 / 1009


def test_samples_without_a_reward_are_dropped_and_counted(
    untrained_folder: Path, prompts: Path, tmp_path: Path
):
    rewards = {"broken": RewardEntry(lambda setting: broken)}
    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        steps=2,
        rollout={
            "prompts": [str(prompts)],
            "groups": 5,
            "samples": 3,
            "memory": 8,
            "drop_solved": False,
        },
        reward=[{"name": "broken"}],
        grpo={"failures": 0.5},
    )
    Reinforcement(recipe, rewards).run(shown=False)
    found = records(recipe)
    assert [r["failed"] for r in found] == [6, 6] and found[-1]["failed_samples"] == 12
    assert all(r["live_groups"] == 3 and "reward_text" not in r for r in found)


def test_too_many_failures_stop_the_run_which_keeps_its_last_update(
    untrained_folder: Path, prompts: Path, tmp_path: Path
):
    """The checkpoint is written then, however rarely one is due."""
    calls: list[int] = []

    def later(prompt: Any, result: Any) -> float:
        calls.append(1)
        if len(calls) > 2 * 9:  # 3 prompts x 3 samples a step
            raise OSError("the judge is gone")
        return float(len(calls) % 2)

    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        reward=[{"name": "later"}],
        checkpoint={"every": 250},
    )
    run = Reinforcement(recipe, {"later": RewardEntry(lambda setting: later)})
    told = "9 of 9 samples have no reward, and grpo.failures allows 20%; the first is of .*: "
    with pytest.raises(RewardsFailedError, match=told + "reward later: OSError: the judge is gone"):
        run.run(shown=False)
    assert run.checkpoints.steps() == [2]
    with pytest.raises(RuntimeError, match="closed"):
        run.rollout_model.draw("a cat")


# --- going on ------------------------------------------------------------------------------------


def start(recipe: Recipe, path: Path) -> subprocess.Popen[bytes]:
    """The run in a process of its own."""
    path.write_text(to_toml(recipe))
    code = (
        "from pathlib import Path; from tests.training.rollouts import REWARDS; "
        "from unitok.training.recipe_file import read_recipe; "
        "from unitok.training.reinforcement.run import Reinforcement; "
        f"Reinforcement(read_recipe(Path({str(path)!r})), REWARDS).run(shown=False)"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)


def everything(folder: Path, step: int) -> dict[str, Any]:
    """What the last checkpoint and the result hold, by file and by tensor."""
    found: dict[str, Any] = {}
    for part in (folder / f"checkpoints/step-{step:06d}", folder / "adapter"):
        for path in part.iterdir():
            if path.suffix == ".safetensors":
                found |= {f"{part.name}/{name}": t for name, t in load_file(path).items()}
            else:
                found[f"{part.name}/{path.name}"] = path.read_bytes()
    return found


def assert_same(whole: dict[str, Any], other: dict[str, Any]) -> None:
    """Check that an unbroken run and another one have left the same."""
    assert whole.keys() == other.keys() and len(whole) > 50
    for name, value in whole.items():
        found = other[name]
        same = torch.equal(value, found) if isinstance(value, torch.Tensor) else value == found
        assert same, name


@pytest.mark.timeout(300)
def test_a_run_that_failing_rewards_stopped_resumes_bit_for_bit(
    untrained_folder: Path, prompts: Path, toy_data: Path, tmp_path: Path
):
    steps, gone_from = 5, 3 * 9  # 3 prompts x 3 samples a step
    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        steps=steps,
        data=[{"path": str(toy_data)}],
        grpo={"passes": 2, "kl": 0.05, "supervised": 0.1},
        checkpoint={"every": 250},
        **ADAPTERS,
    )
    calls: list[int] = []

    def gone(prompt: Any, result: Any) -> float:
        calls.append(1)
        if len(calls) > gone_from:
            raise OSError("the judge is gone")
        return evenness(prompt, result)

    failing = {**REWARDS, "evenness": RewardEntry(lambda setting: gone)}
    with pytest.raises(RewardsFailedError):
        Reinforcement(recipe, failing).run(shown=False)
    resumed = Reinforcement(recipe, REWARDS)
    assert resumed.trainer.step_count == 3
    resumed.run(shown=False)
    stopped = everything(Path(recipe.out), steps)
    shutil.rmtree(recipe.out)
    Reinforcement(recipe, REWARDS).run(shown=False)
    assert_same(everything(Path(recipe.out), steps), stopped)


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_resumes_bit_for_bit(
    untrained_folder: Path, prompts: Path, toy_data: Path, tmp_path: Path
):
    steps = 6
    recipe = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        steps=steps,
        data=[{"path": str(toy_data)}],
        grpo={"passes": 2, "kl": 0.05, "supervised": 0.1},
        **ADAPTERS,
    )
    folder = Path(recipe.out)
    process = start(recipe, tmp_path / "recipe.toml")
    checkpoints, limit = RunCheckpoints(folder / "checkpoints", 2), time.monotonic() + SECONDS
    while not checkpoints.steps() and time.monotonic() < limit:
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "adapter").exists(), "it was killed before its end"
    resumed = Reinforcement(recipe, REWARDS)
    assert 2 <= resumed.trainer.step_count < steps
    resumed.run(shown=False)
    interrupted = everything(folder, steps)
    shutil.rmtree(folder)
    Reinforcement(recipe, REWARDS).run(shown=False)
    assert_same(everything(folder, steps), interrupted)


def test_a_run_does_not_go_on_with_other_prompts(untrained_folder: Path, tmp_path: Path):
    path = toy_prompts(tmp_path / "prompts")
    recipe = grpo_recipe(untrained_folder, path, tmp_path / "run", steps=2)
    Reinforcement(recipe, REWARDS).run(shown=False)
    with path.open("a") as file:
        file.write('{"draw": "one more"}\n')
    with pytest.raises(ValueError, match="the prompts have changed since the checkpoint"):
        Reinforcement(recipe, REWARDS)


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def recipe_file(untrained_folder: Path, prompts: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    made = grpo_recipe(
        untrained_folder,
        prompts,
        tmp_path / "run",
        steps=1,
        reward=[{"name": "emoji"}, {"name": "exact", "weight": 0.5}],
    )
    path.write_text(to_toml(made))
    return path


def train(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, words)])


@pytest.mark.timeout(120)
def test_the_recipe_that_comes_with_unitok_makes_a_run(
    untrained_folder: Path, prompts: Path, tmp_path: Path
):
    words = [f"model={untrained_folder}", f"out={tmp_path / 'run'}", "steps=1", "device=cpu"]
    words += [f"rollout.prompts=['{prompts}']", "rollout.max_tokens=6", "rollout.memory=8"]
    done = train("grpo", *[part for word in words for part in ("--set", word)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "run" / "adapter")


def test_the_command_makes_a_plan_and_a_run(recipe_file: Path, tmp_path: Path):
    plan = train(recipe_file, "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert "3 to draw, 2 to answer" in plan.output and "1 x emoji, 0.5 x exact" in plan.output
    assert "1 of 3 prompts, 3 samples each" in plan.output
    assert not (tmp_path / "run").exists()
    done = train(recipe_file)
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "run" / "model")
    assert "step 1: " in done.stderr and "rollout seconds" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["reward.0.name=emojy"], "there is no reward 'emojy'; did you mean emoji?"),
        (["rollout.sample=3"], "there is no key rollout.sample; did you mean rollout.samples?"),
        (["rollout.samples=1"], "rollout.samples must be a whole number at least 2"),
        (["rollout.temperature=0"], "rollout.temperature must be a number above 0"),
        (["rollout.guidance=2e3"], "rollout.guidance must be a number at least -1000 and at most "),
        (["rollout.prompts=['gone.jsonl']"], "gone.jsonl: no such file"),
        (["rollout.prompts=[]"], "rollout.prompts is empty"),
        (["reward=[]"], "there is no reward: write [[reward]] and name = ..."),
        (["reward.1.name=own-caption", "reward.0.of=image"], "no reward judges answers"),
        (["grpo.supervised=0.1"], "there is no data: write [[data]] and path = ..."),
        (["data.0.path=a.jsonl"], "data are learned beside samples by grpo.supervised, which is 0"),
        (["grpo.policy=both"], "grpo.policy must be sampled or conditional"),
    ],
)
def test_a_mistake_is_one_line(recipe_file: Path, words: list[str], told: str):
    done = train(recipe_file, *[part for word in words for part in ("--set", word)])
    assert done.exit_code == 2 and told in done.stderr, done.output
    assert done.stderr.startswith("unitok: ") and done.stderr.count("\n") == 1


def test_rewards_without_rollouts_are_a_mistake(recipe_file: Path, tmp_path: Path):
    text = recipe_file.read_text()
    start, stop = text.index("[rollout]"), text.index("[[reward]]")
    recipe_file.write_text(text[:start] + text[stop:])
    done = train(recipe_file)
    assert done.exit_code == 2 and "rewards are of samples: write [rollout]" in done.stderr


def test_several_ranks_are_refused(recipe_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = train(recipe_file)
    assert done.exit_code == 2 and "a run with [rollout] has one rank" in done.stderr


def test_a_run_that_cannot_be_rewarded_says_what_is_kept(recipe_file: Path, tmp_path: Path):
    lines = [{"draw": "a unicorn"}, {"messages": said("describe the picture."), "answer": "yes"}]
    other = write_prompts(tmp_path / "wrong.jsonl", lines)
    done = train(recipe_file, "--set", f"rollout.prompts=['{other}']")
    assert done.exit_code == 1
    assert "of 6 samples have no reward" in done.stderr
    assert "cannot read the prompt 'a unicorn'; there is no checkpoint yet" in done.stderr


def test_places_are_split_into_even_parts():
    assert [list(part) for part in parts_of([3, 1, 2, 0, 4], 2)] == [[3, 1], [2, 0, 4]]
    assert [list(part) for part in parts_of([1], 3)] == [[1]] and parts_of([], 2) == []
