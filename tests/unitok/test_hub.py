"""Hub ids: which revision, with which token, into which cache; and what an error says to do."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from typer.testing import CliRunner

import unitok
from tests.unitok.tiny import save_tiny
from unitok.checkpoints import folders
from unitok.checkpoints.folders import HubOptions, find_folder
from unitok.cli import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("hub") / "tiny")


class FakeHub:
    """A hub with one repository; it notes how it is asked.

    It refuses arguments that the hub's library does not have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.cached = False

    def model_info(self, repository: str, **options: Any) -> Any:
        inspect.signature(huggingface_hub.model_info).bind(repository, **options)
        self.asked.append((repository, options))
        if self.error is not None:
            raise self.error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors")])

    def snapshot_download(self, repository: str, **options: Any) -> str:
        inspect.signature(huggingface_hub.snapshot_download).bind(repository, **options)
        self.asked.append((repository, options))
        if options.get("local_files_only") and not self.cached:
            raise FileNotFoundError("nothing is cached")
        return str(self.folder)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub(folder)
    monkeypatch.setattr(folders, "model_info", made.model_info)
    monkeypatch.setattr(folders, "snapshot_download", made.snapshot_download)
    return made


def http_error(kind: type, status: int) -> Exception:
    """An error of the hub as its library makes it: a useless line, and then the reason."""
    message = f"{status} Client Error. (Request ID: Root=1-abc)\n\nSomething for url: x."
    return kind(message, response=SimpleNamespace(headers={}, request=None))


# --- what is asked for ---------------------------------------------------------------------------


def test_a_hub_id_is_asked_for_as_in_transformers(hub: FakeHub, tmp_path: Path):
    asked = {"revision": "v1.0", "token": "hf_abc", "cache_dir": tmp_path}
    with unitok.load("someone/tiny", "cpu", memory="1MB", **asked) as model:
        assert model.name == "tiny"
    (first, listing), (second, download) = hub.asked
    assert first == second == "someone/tiny"
    assert listing == {"revision": "v1.0", "token": "hf_abc", "timeout": 10}
    patterns = download.pop("allow_patterns")
    assert "*.safetensors" in patterns and "*.bin" not in patterns
    assert download == asked


def test_what_is_left_out_is_left_to_the_hubs_library(hub: FakeHub):
    find_folder("someone/tiny")
    assert hub.asked[0][1] == {"timeout": 10}
    assert hub.asked[1][1].keys() == {"allow_patterns"}


def test_no_token_at_all_may_be_asked_for(hub: FakeHub):
    find_folder("someone/tiny", HubOptions(token=False))
    assert [options["token"] for _, options in hub.asked] == [False, False]


def test_an_earlier_download_of_the_same_revision_serves_offline(hub: FakeHub, tmp_path: Path):
    hub.error, hub.cached = ConnectionError("no route"), True
    options = HubOptions("v1.0", cache_dir=tmp_path)
    assert find_folder("someone/tiny", options) == hub.folder
    last = hub.asked[-1][1]
    assert last == {"revision": "v1.0", "cache_dir": tmp_path, "local_files_only": True}


def test_a_command_has_flags_for_revision_and_cache(hub: FakeHub, tmp_path: Path):
    arguments = ["info", "--model", "someone/tiny", "--revision", "v1", "--cache-dir", tmp_path]
    result = CliRunner().invoke(app, [*map(str, arguments), "--memory", "1MB"])
    assert result.exit_code == 0, result.output
    asked = hub.asked[-1][1]
    assert (asked["revision"], asked["cache_dir"]) == ("v1", tmp_path)
    assert "--token" not in CliRunner().invoke(app, ["info", "--help"]).output


def test_a_batch_is_of_the_revision_that_it_names(hub: FakeHub, tmp_path: Path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text("")
    arguments = ["batch", str(lines), "--output", str(tmp_path / "out"), "--model", "someone/tiny"]
    result = CliRunner().invoke(app, [*arguments, "--revision", "v1", "--memory", "1MB"])
    assert result.exit_code == 0, result.output
    assert {options["revision"] for _, options in hub.asked} == {"v1"}


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"revision": "main"}, "revision"),
        ({"token": "hf_abc"}, "token"),
        ({"cache_dir": "cache"}, "cache_dir"),
        ({"revision": "main", "cache_dir": "cache"}, "revision and cache_dir"),
    ],
)
def test_a_folder_has_no_revision_and_no_cache(folder: Path, given: dict, names: str):
    message = rf"tiny is a folder of this disk: {names} can be given for a hub id only$"
    with pytest.raises(ValueError, match=message):
        unitok.load(folder, "cpu", **given)
    with pytest.raises(ValueError, match=rf"default is a folder of this disk: {names} can be"):
        unitok.load(device="cpu", **given)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"revision": ""}, ValueError, "revision is empty; leave it out"),
        ({"cache_dir": ""}, ValueError, "cache_dir is empty; leave it out"),
        ({"token": ""}, ValueError, "token is empty or has characters"),
        ({"token": "hf_abc\n"}, ValueError, "token is empty or has characters"),
        ({"token": "hf abc"}, ValueError, "token is empty or has characters"),
        ({"revision": 1}, TypeError, "revision must be text, not int"),
        ({"token": 1}, TypeError, "token must be text, True or False, not int"),
        ({"cache_dir": 1}, TypeError, "cache_dir must be a path, not int"),
    ],
)
def test_other_values_are_refused_before_the_hub_is_asked(
    hub: FakeHub, given: dict, kind: type[Exception], message: str
):
    with pytest.raises(kind, match=message) as caught:
        unitok.load("someone/tiny", "cpu", **given)
    assert hub.asked == [] and "abc" not in str(caught.value)


def test_a_token_is_not_shown():
    assert "hf_secret" not in repr(HubOptions(token="hf_secret"))


# --- what an error says --------------------------------------------------------------------------

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            http_error(GatedRepoError, 403),
            f"ask for access on its page there, then {LOGIN}",
        ),
        (
            http_error(RepositoryNotFoundError, 401),
            f"check the name; if the repository is private, {LOGIN}",
        ),
        (http_error(RevisionNotFoundError, 404), "it has no revision 'v9'"),
        (
            ConnectionError("no route\nto the hub"),
            "no route; load it once where the hub can be reached, or give a folder",
        ),
    ],
)
def test_an_error_of_the_hub_is_a_line_that_says_what_to_do(
    hub: FakeHub, error: Exception, advice: str
):
    hub.error = error
    with pytest.raises(FileNotFoundError) as caught:
        find_folder("someone/tiny", HubOptions(revision="v9"))
    start = "someone/tiny: no such folder here, and the hub did not give it: "
    assert str(caught.value) == start + advice


def test_a_command_offline_ends_with_one_line(hub: FakeHub):
    hub.error = ConnectionError("no route")
    result = CliRunner().invoke(app, ["info", "--model", "someone/tiny"])
    assert result.exit_code == 2
    assert "load it once where the hub can be reached" in " ".join(result.output.split())
    assert "Traceback" not in result.output
