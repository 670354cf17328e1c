"""What is checked before a run: addresses, room for replicas, options, inputs."""

import socket
import threading
import warnings
from pathlib import Path

import pytest

from unitok.backends.ray.api import load_model, loader, on_cpu
from unitok.backends.ray.attempts import Attempts
from unitok.backends.ray.cluster import Replicas, check_answers, check_nodes
from unitok.commands.batch_on_ray import check_source, folder_of

SMALL, LARGE = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}


def test_replicas_fit_where_each_has_room_on_one_machine():
    assert Replicas(cpus=2).fit({"CPU": 7.0}) == 3
    assert Replicas(cpus=2, gpus=1).fit({"CPU": 16.0, "GPU": 4.0}) == 4
    assert Replicas(gpus=0.1).fit({"CPU": 16.0, "GPU": 0.3}) == 3
    assert Replicas(gpus=1).fit({"memory": 5.0}) == 0


@pytest.mark.parametrize(
    ("replicas", "told"),
    [
        (Replicas(gpus=1), "a replica is to have 1 GPUs, and the cluster has none: leave out"),
        (Replicas(cpus=3), "a replica is to have 3 CPUs and 0 GPUs, and no machine"),
    ],
)
def test_a_replica_that_fits_nowhere_is_told(replicas, told):
    with pytest.raises(ValueError, match=told):
        check_nodes([SMALL, SMALL], replicas)


def test_more_gpus_than_a_machine_has_are_told():
    with pytest.raises(ValueError, match="8 GPUs, and no machine of the cluster has as many"):
        check_nodes([LARGE, LARGE], Replicas(gpus=8))


def test_fewer_machines_than_replicas_are_a_warning():
    with pytest.warns(UserWarning, match="has room for 3 of 4 replicas with 1 CPUs and 0 GPUs"):
        check_nodes([{"CPU": 3.0}], Replicas(4))
    with pytest.warns(UserWarning, match="the cluster has 4 GPUs, which no replica uses"):
        check_nodes([LARGE], Replicas())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_nodes([LARGE, SMALL], Replicas(4, 2, 1))


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((0, 1, 0), "replicas must be at least 1, not 0"),
        ((1, 0, 0), "cpus_per_replica must be at least 1, not 0"),
        ((1, 1, -1), "gpus_per_replica must be 0 or more, not -1"),
        ((1, 1, float("nan")), "gpus_per_replica must be 0 or more, not nan"),
        ((1, 1, 1.5), "gpus_per_replica must be whole or a part of one GPU, not 1.5"),
    ],
)
def test_wrong_numbers_are_told(numbers, told):
    with pytest.raises(ValueError, match=told):
        Replicas(*numbers)


def test_a_replica_without_a_gpu_computes_on_the_cpu_unless_told_where():
    assert on_cpu({}, Replicas()) == {"device": "cpu"}
    assert on_cpu({"device": None}, Replicas())["device"] == "cpu"
    assert on_cpu({"device": "cuda"}, Replicas()) == {"device": "cuda"}
    assert on_cpu({"backend": "vllm"}, Replicas()) == {"backend": "vllm"}
    assert on_cpu({}, Replicas(gpus=0.5)) == {}


def test_paths_hold_in_a_replica_that_has_another_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "lora", "cache"):
        (tmp_path / name).mkdir()
    given = {"adapter": "lora", "adapters": {"a": "lora", "b": "some/hub"}, "cache_dir": "cache"}
    made = loader("model", given | {"dtype": "bf16"})
    lora = str(tmp_path / "lora")
    assert (made.func, made.args[0]) == (load_model, str(tmp_path / "model"))
    assert made.args[1] == {
        "adapter": lora,
        "adapters": {"a": lora, "b": "some/hub"},
        "cache_dir": str(tmp_path / "cache"),
        "dtype": "bf16",
    }
    assert loader("some/hub", {}).args == ("some/hub", {})


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "cluster", "a:b", "a:99999", "http://a:1", "ray://a:1", "a b:1"]
)
def test_what_is_no_address_is_told(address):
    with pytest.raises(ValueError, match="--ray takes local, auto or HOST:PORT"):
        check_answers(address)


def test_an_address_where_nothing_listens_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(ConnectionError, match=rf"answers at 127\.0\.0\.1:{port}: .*refused"):
            check_answers(f"127.0.0.1:{port}")


def test_an_address_where_something_else_listens_is_told_within_bounds():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=silent.accept, daemon=True).start()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=r"no Ray cluster answers .* more than 3 s"):
            check_answers(address, wait=3)


# --- inputs --------------------------------------------------------------------------------------


def test_inputs_are_json_lines_or_parquet(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/a.parquet").write_bytes(b"")
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "a.parquet").write_bytes(b"")
    tables = [
        str(tmp_path / "tables"),
        str(tmp_path / "a.parquet"),
        "s3://a/b/",
        "s3://a/b.parquet",
    ]
    assert all(map(check_source, tables))
    assert not any(map(check_source, [str(tmp_path / "a.jsonl"), "s3://a/b.jsonl"]))


def test_inputs_that_cannot_be_read_are_told(tmp_path):
    for source, told in (
        ("-", "--ray needs a file that can be read again, not stdin"),
        (str(tmp_path), "has no Parquet; give a file of JSON lines, or Parquet"),
        (str(tmp_path / "nowhere"), "nowhere: no such file"),
        ("/dev/null", "is a stream; --ray needs a file that can be read again"),
    ):
        with pytest.raises((ValueError, OSError), match=told):
            check_source(source)


def test_pictures_are_relative_to_the_folder_of_the_input(tmp_path):
    assert folder_of(str(tmp_path / "a.jsonl"), False) == tmp_path
    assert folder_of(str(tmp_path), True) == tmp_path
    assert folder_of("s3://bucket/a.jsonl", False) == Path()


# --- attempts ------------------------------------------------------------------------------------


def test_starts_count_until_a_replica_is_ready_and_lives_for_ever():
    attempts = Attempts()
    assert [attempts.start("a") for _ in range(2)] == [(1, 1), (2, 2)]
    attempts.ready("a")
    assert attempts.start("a") == (3, 1) and attempts.start("b") == (1, 1)


def test_what_is_begun_counts_until_it_has_ended():
    attempts = Attempts()
    assert [attempts.begin(5), attempts.begin(5), attempts.begin(-5)] == [1, 2, 1]
    attempts.end(5)
    assert attempts.begin(5) == 1
