"""`unitok batch --ray`, killed and run again, and used wrongly."""

import pytest
from typer.testing import CliRunner

from scripts.check_ray import check
from tests.ray.batches import write_work
from unitok.cli import app


@pytest.mark.timeout(900)  # it starts Ray three times
def test_lines_are_there_exactly_once_after_kills_of_a_replica_and_of_the_command(
    short_folder, tmp_path
):
    assert check(tmp_path, lines=400, replicas=2, kills=1, model=str(short_folder)) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--replicas", "2"], "--replicas and its like need --ray: add --ray local"),
        (["--format", "parquet"], "--replicas and its like need --ray: add --ray local"),
        (["--ray", "here"], "--ray takes local, auto or HOST:PORT, not 'here'"),
        (["--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1: "),
        (
            ["--ray", "local", "--gpus-per-replica", "1.5"],
            "gpus_per_replica must be whole or a part",
        ),
        (["--ray", "local", "--device", "cpu", "--adapters", "x"], "--adapters takes NAME=FOLDER"),
        (["--ray", "local", "-o", "nope://a"], "nope://a: "),
        (["--ray", "local", "--model", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_use_is_one_line_and_ray_is_not_started(words, told, short_folder, tmp_path):
    work = write_work(tmp_path, [{"draw": "a cat"}])
    start = ["batch", str(work), "-o", str(tmp_path / "out"), "--model", str(short_folder)]
    done = CliRunner().invoke(app, [*start, *words])
    assert done.exit_code == 2
    assert done.stderr.startswith("unitok: ") and done.stderr.count("\n") == 1
    assert told in done.stderr
    assert not (tmp_path / "out" / "run.json").exists()
