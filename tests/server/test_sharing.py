"""Servers that are replicas behind one address: they keep nothing from one request to the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from tests.server.live import Live, served
from unitok import Model
from unitok.cli import app
from unitok.server.settings import ServerSettings

NOT_KEPT = "responses_not_kept"


@pytest.fixture(scope="module")
def sharing(model: Model) -> Iterator[Live]:
    """One of several replicas."""
    with served(model, settings=ServerSettings(shares_address=True)) as running:
        yield running


def test_a_response_is_made_and_says_that_it_is_not_kept(sharing: Live):
    made = sharing.openai().responses.create(model="default", input="draw a cat", temperature=0)
    assert made.status == "completed"
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError) as caught:
        sharing.openai().responses.retrieve(made.id)
    assert (caught.value.code, caught.value.status_code) == (NOT_KEPT, 404)
    for method, path in (("DELETE", ""), ("GET", "/input_items")):
        with sharing.http() as http:
            answer = http.request(method, f"/v1/responses/{made.id}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, NOT_KEPT)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_what_needs_a_response_that_was_kept_is_refused(
    sharing: Live, asked: dict[str, Any], param: str
):
    with pytest.raises(openai.BadRequestError) as caught:
        sharing.openai().responses.create(model="default", input="hello", **asked)
    assert (caught.value.code, caught.value.param) == (NOT_KEPT, param)
    assert "send the whole conversation" in caught.value.message


def test_an_item_of_an_earlier_response_is_refused(sharing: Live):
    reference: Any = [{"type": "item_reference", "id": "msg_1"}]
    with pytest.raises(openai.BadRequestError) as caught:
        sharing.openai().responses.create(model="default", input=reference)
    assert caught.value.code == NOT_KEPT


def test_a_conversation_goes_on_if_it_is_sent_as_a_whole(sharing: Live, model: Model):
    """What the model says is what a server says that keeps the first response."""
    first = {"role": "user", "content": "what is a cat?"}
    ours = sharing.openai().responses
    told = ours.create(model="default", input=[first], store=False)  # type: ignore[list-item]
    more: Any = [
        first,
        {"role": "assistant", "content": told.output_text},
        {"role": "user", "content": "and a dog?"},
    ]
    again = ours.create(model="default", input=more)
    with served(model) as keeping:
        theirs = keeping.openai().responses
        begun = theirs.create(model="default", input=[first])  # type: ignore[list-item]
        followed = theirs.create(model="default", input="and a dog?", previous_response_id=begun.id)
    assert (told.output_text, again.output_text) == (begun.output_text, followed.output_text)


def test_numbers_of_one_replica_alone_are_not_shown(sharing: Live):
    with sharing.http() as http:
        answer = http.get("/metrics")
        assert http.get("/health").status_code == 200
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "metrics_not_shared")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--replicas", "2"], "need --ray: add --ray local"),
        (["--gpus-per-replica", "1"], "need --ray: add --ray local"),
        (["--ray", "local", "--state", "kept"], "leave it out with --ray"),
        (["--cpus-per-replica", "1"], "need --ray: add --ray local"),
        (["--ray", "local", "--gpus-per-replica", "1.5"], "whole or a part of one GPU"),
        (["--ray", "local", "--host", "0.0.0.0"], "anybody who reaches 0.0.0.0"),
    ],
)
def test_flags_of_replicas_that_do_not_fit_are_said_in_one_line(
    arguments: list[str], wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["serve", "--port", "0", *arguments])
    assert done.exit_code == 2
    assert wrong in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "kept").exists()


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(app, ["serve", "--port", "0", "--ray", "local"])
    assert done.exit_code == 2
    assert done.stderr.strip().endswith("pip install 'unitok-engine[ray]'")
