"""What is decided before replicas start, and what is said if they do not."""

import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from unitok.backends.ray.cluster import Replicas
from unitok.flags import Common
from unitok.server.app_spec import AppSpec
from unitok.server.keys import ApiKeys
from unitok.server.ray_serve import APP, check_not_served, check_room_of_all, placed, stop, why_not
from unitok.server.settings import ServerSettings


def spec(*devices: str | None) -> AppSpec:
    models = tuple(Common(device=device) for device in devices)
    return AppSpec(models=models, settings=ServerSettings(), keys=ApiKeys())


def serving(**messages: str) -> Any:
    """Ray Serve with applications, each with a deployment that says something."""
    apps = {
        name: SimpleNamespace(deployments={"server": SimpleNamespace(message=message)})
        for name, message in messages.items()
    }
    done: list[str] = []
    return SimpleNamespace(
        status=lambda: SimpleNamespace(applications=apps),
        delete=lambda name: (done.append(f"delete {name}"), apps.pop(name)),
        shutdown=lambda: done.append("shutdown"),
        done=done,
    )


def test_models_of_replicas_without_a_gpu_compute_on_the_cpu():
    assert [m.device for m in placed(spec(None, "cuda:1"), Replicas()).models] == ["cpu", "cuda:1"]
    assert [m.device for m in placed(spec(None), Replicas(gpus=0.5)).models] == [None]


@pytest.mark.parametrize(
    ("cores", "told"),
    [(1.0, "--replicas 2: the cluster has room for 1"), (0.0, "no machine of the cluster has as")],
)
def test_replicas_without_room_are_said_once(
    monkeypatch: pytest.MonkeyPatch, cores: float, told: str
):
    nodes = [
        {"Alive": True, "Resources": {"CPU": cores}},
        {"Alive": False, "Resources": {"CPU": 9}},
    ]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=told):
            check_room_of_all(Replicas(2))
        nodes[0]["Resources"] = {"CPU": 2.0}
        check_room_of_all(Replicas(2))


def test_a_cluster_that_serves_already_is_left_alone():
    check_not_served(serving(other=""))
    with pytest.raises(ValueError, match="serves unitok already"):
        check_not_served(serving(**{APP: ""}))


def test_ray_serve_ends_only_if_it_has_nothing_else():
    alone, shared = serving(unitok=""), serving(unitok="", other="")
    stop(alone)
    stop(shared)
    assert alone.done == ["delete unitok", "shutdown"]
    assert shared.done == ["delete unitok"]


def test_the_cause_of_replicas_that_do_not_start_is_the_end_of_their_traceback():
    error = RuntimeError("Deploying application unitok failed.\nmore")
    told = "Traceback:\n  File ...\nFileNotFoundError: /x: no such folder\n\n"
    assert why_not(serving(unitok=told), error) == "FileNotFoundError: /x: no such folder"
    assert why_not(serving(), error) == "more"
