"""Prompts of rollouts: lines, mistakes in them, and the order in which they come."""

from pathlib import Path

import pytest

from tests.training.rollouts import said, toy_prompts, write_prompts
from unitok.requests import Caption, Draw, Reply
from unitok.training.reinforcement.prompts import Prompt, PromptStream, read_prompts


def test_lines_of_all_kinds_become_prompts(tmp_path: Path):
    path = toy_prompts(tmp_path)
    prompts = read_prompts([str(path)])
    assert [prompt.kind for prompt in prompts] == ["image"] * 3 + ["text"] * 2
    assert prompts[0] == Prompt(f"{path}:1", Draw("two apples"))
    assert prompts[3].request == Caption(tmp_path / "a.png", "what is this?")
    assert prompts[3].answers == ("a cat", "a dog")
    assert isinstance(prompts[4].request, Reply) and prompts[4].answers == ("yes",)
    other = write_prompts(tmp_path / "b.jsonl", [{"draw": "x", "id": 3, "negative_prompt": "y"}])
    both = read_prompts([str(path), str(other), str(path)])
    assert len(both) == 6 and both[-1].request == Draw("x", negative_prompt="y")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"draw": "a", "seed": 3}, "unknown key 'seed'; the keys beside \"draw\" are answer, id, "),
        ({"draw": "a", "temperature": 1}, r"and \[rollout\] says how is sampled"),
        ({"caption": "gone.png"}, r"gone\.png: no such file"),
        ({"caption": "https://x.y/a.png"}, "is a URL"),
        ({"messages": said("a"), "max_tokens": 4}, "unknown key 'max_tokens'"),
        ({"messages": []}, "messages"),
        ({"edit": "a.png", "prompt": "b"}, '"edit" is not learned from'),
        ({"question": "a"}, 'a line has either "caption" or "edit"'),
        ({"draw": 3}, '"draw" must be text'),
        ({"draw": "a", "answer": 3}, '"answer" must be a text or a list of texts, not 3'),
        ({"draw": "a", "answer": ["b", " "]}, '"answer" must be a text or a list of texts'),
        ([1], "a line must be an object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, told: str):
    (tmp_path / "a.png").write_bytes(b"no picture is opened yet")
    path = write_prompts(tmp_path / "p.jsonl", [{"draw": "fine"}, line])
    with pytest.raises(ValueError, match=told) as error:
        read_prompts([str(path)])
    assert str(error.value).startswith(f"{path}:2: ")


def test_a_file_that_is_spelt_in_two_ways_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two prompts of one name would never both be solved."""
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "a.jsonl", [{"draw": "x"}])
    assert names(read_prompts(["a.jsonl", "./a.jsonl"])) == ["a.jsonl:1"]


def test_no_file_and_no_prompt_are_told(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_prompts([str(tmp_path / "gone.jsonl")])
    with pytest.raises(ValueError, match="there is no prompt in it"):
        read_prompts([str(write_prompts(tmp_path / "empty.jsonl", []))])


def stream(count: int = 5, seed: int = 3) -> PromptStream:
    return PromptStream([Prompt(str(i), Draw(f"{i}")) for i in range(count)], seed)


def names(prompts: list[Prompt]) -> list[str]:
    return [prompt.name for prompt in prompts]


def test_every_prompt_comes_once_in_a_pass_in_another_order_each_time():
    made = stream()
    passes = [names(made.take(5)) for _ in range(4)]
    assert all(sorted(one) == list("01234") for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    assert [names(stream().take(5)) for _ in range(1)] == passes[:1]
    assert names(stream(seed=4).take(5)) != passes[0]


def test_no_prompt_comes_twice_at_once_and_solved_ones_come_no_more():
    made = stream()
    assert len(made.take(3)) == 3
    for _ in range(5):
        assert len(set(names(made.take(4)))) == 4
    assert sorted(names(made.take(9))) == list("01234")
    made.solve(made.prompts[2])
    assert sorted(names(made.take(9))) == list("0134")
    for prompt in made.prompts:
        made.solve(prompt)
    assert made.take(3) == []


def test_a_place_in_the_order_is_resumed_exactly():
    made, again = stream(), stream()
    made.take(3)
    made.solve(made.prompts[1])
    made.take(4)
    again.load_state_dict(made.state_dict())
    assert [names(made.take(3)) for _ in range(6)] == [names(again.take(3)) for _ in range(6)]
    with pytest.raises(ValueError, match="the prompts have changed since the checkpoint"):
        stream(6).load_state_dict(made.state_dict())
