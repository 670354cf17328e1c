"""Weights found, checked, streamed into place and written back; folders and their JSON folders."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import unitok
from unitok.checkpoints import folders
from unitok.checkpoints.adapter import Stored, renaming
from unitok.checkpoints.folders import find_folder, read_json
from unitok.checkpoints.saving import stored_tensors, write_tensors
from unitok.checkpoints.tensors import TorchFile, open_tensors
from unitok.checkpoints.weights import fill, parameters
from unitok.cli import app


class Tiny(nn.Module):
    """Two parts of what a file holds as one, a buffer, and what no checkpoint stores."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(3, 2), nn.Linear(3, 2)
        self.table = nn.Embedding(4, 3)
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
        self.quantizer = nn.ModuleDict({"vq": nn.Linear(5, 5)})


def adapter(key: str) -> Stored:
    part, _, leaf = key.partition(".")
    if part in ("q", "k"):
        return Stored(f"net.qk.{leaf}", "qk".index(part), 2)
    if part == "table":
        return Stored("net.table", load=lambda t: t.squeeze(0), store=lambda t: t.unsqueeze(0))
    return Stored(f"net.{key}")


def stored() -> dict[str, Tensor]:
    """A file's content that fits."""
    return {
        "net.qk.weight": torch.arange(12.0).view(4, 3),
        "net.qk.bias": torch.arange(4.0),
        "net.table": torch.arange(12.0).view(1, 4, 3) + 0.25,
        "net.steps": torch.tensor([7, 8]),
    }


def filled(folder: Path, dtype: torch.dtype = torch.float32, dropped: tuple[str, ...] = ()) -> Tiny:
    with torch.device("meta"):
        model = Tiny()
    fill(model, open_tensors(folder), adapter, dtype, "cpu", dropped)
    return model


def shard(folder: Path, tensors: dict[str, Tensor], kind: str) -> None:
    """Two files and their index."""
    name = {"bin": "pytorch_model.bin", "safetensors": "model.safetensors"}[kind]
    write = {"bin": torch.save, "safetensors": save_file}[kind]
    index = {}
    for i, keys in enumerate((sorted(tensors)[:2], sorted(tensors)[2:])):
        write({key: tensors[key] for key in keys}, folder / f"part-{i}.{kind}")
        index |= dict.fromkeys(keys, f"part-{i}.{kind}")
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": index}))


def write(folder: Path, tensors: dict[str, Tensor], kind: str) -> None:
    if kind == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    elif kind == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        shard(folder, tensors, kind.removeprefix("sharded "))


KINDS = ["safetensors", "bin", "sharded safetensors", "sharded bin"]


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_fills_a_model(tmp_path: Path, kind: str):
    write(tmp_path, stored(), kind)
    model = filled(tmp_path)
    assert torch.equal(model.q.weight, torch.arange(6.0).view(2, 3))
    assert torch.equal(model.k.weight, torch.arange(6.0, 12.0).view(2, 3))
    assert torch.equal(model.k.bias, torch.tensor([2.0, 3.0]))
    assert torch.equal(model.table.weight, stored()["net.table"][0])
    assert torch.equal(model.get_buffer("steps"), torch.tensor([7, 8]))
    assert not any(p.requires_grad for p in (model.q.weight, model.table.weight))


def test_floats_take_the_type_that_is_asked_for_and_integers_keep_theirs(tmp_path: Path):
    write(tmp_path, stored(), "safetensors")
    model = filled(tmp_path, torch.bfloat16)
    assert model.q.weight.dtype == torch.bfloat16
    assert model.get_buffer("steps").dtype == torch.int64


def test_what_must_be_exact_stays_in_float32(tmp_path: Path):
    write(tmp_path, stored(), "safetensors")
    with torch.device("meta"):
        model = Tiny()
    fill(model, open_tensors(tmp_path), adapter, torch.bfloat16, "cpu", exact="table.")
    assert (model.table.weight.dtype, model.q.weight.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(model.table.weight, stored()["net.table"][0])


def test_what_is_dropped_may_be_there_by_its_whole_name_only(tmp_path: Path):
    write(tmp_path, stored() | {"net.loss": torch.ones(1)}, "bin")
    filled(tmp_path, dropped=(r"net\.loss", r"net\.other"))
    with pytest.raises(ValueError, match=r"1 unknown keys, such as net\.loss"):
        filled(tmp_path, dropped=("net",))


def test_a_name_on_the_list_to_drop_is_used_if_the_model_needs_it(tmp_path: Path):
    write(tmp_path, stored(), "bin")
    assert filled(tmp_path, dropped=(r"net\..*",)).k.bias[1] == 3


def test_errors_count_and_name_a_few(tmp_path: Path):
    write(tmp_path, {}, "bin")
    with pytest.raises(ValueError, match=r"4 missing keys, such as net\.qk\.bias, net\.qk\.weight"):
        filled(tmp_path)
    extra = {f"other.{i}": torch.ones(1) for i in range(5)}
    write(tmp_path, stored() | extra, "bin")
    with pytest.raises(ValueError, match=r"5 unknown keys, such as other\.0, other\.1, other\.2$"):
        filled(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("net.qk.weight", (6, 3), r"net\.qk\.weight is \[6, 3\], not 2 x \[2, 3\]"),
        ("net.qk.weight", (3, 3), r"net\.qk\.weight is \[3, 3\], not 2 x \[2, 3\]"),
        ("net.steps", (3,), r"net\.steps is \[3\], not \[2\]"),
        ("net.table", (2, 4, 3), r"net\.table is \[2, 4, 3\], not \[4, 3\]"),
        ("net.qk.bias", (), r"net\.qk\.bias is \[\], not 2 x \[2\]"),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path, name: str, shape, message: str):
    write(tmp_path, stored() | {name: torch.zeros(shape)}, "safetensors")
    with pytest.raises(ValueError, match=rf"1 tensors of a wrong shape: {message}"):
        filled(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin", "sharded safetensors"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool])
def test_weights_that_are_no_plain_floats_are_refused(
    tmp_path: Path, kind: str, dtype: torch.dtype
):
    rounded = {name: stored()[name].to(dtype) for name in ("net.qk.weight", "net.table")}
    write(tmp_path, stored() | rounded, kind)
    message = (
        r"2 tensors of a wrong type, such as net\.qk\.weight \(\w+\), net\.table .*unquantised"
    )
    with pytest.raises(ValueError, match=message):
        filled(tmp_path)


def test_integers_in_floats_are_refused(tmp_path: Path):
    write(tmp_path, stored() | {"net.steps": torch.tensor([7.5, 8.0])}, "safetensors")
    with pytest.raises(ValueError, match=r"1 tensors of a wrong type, such as net\.steps \(F32\)"):
        filled(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_floats_of_any_width_are_read(tmp_path: Path, kind: str, dtype: torch.dtype):
    write(tmp_path, stored() | {"net.qk.bias": torch.arange(4.0).to(dtype)}, kind)
    assert torch.equal(filled(tmp_path).k.bias, torch.tensor([2.0, 3.0]))


# --- files that are not whole --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_truncated_file_is_one_clear_line(tmp_path: Path, kind: str):
    tensors = stored() | {"net.qk.weight": torch.zeros(400, 300)}
    write(tmp_path, tensors, kind)
    path = next(tmp_path.glob("*model.*"))
    whole = path.read_bytes()
    for size in (0, 1, 5, 40, 300, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read") as caught:
            open_tensors(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    path = tmp_path / "pytorch_model.bin"
    path.write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"cannot be read as a file of weights"):
        open_tensors(tmp_path)
    torch.save({"net.table": [1, 2]}, path)
    with pytest.raises(ValueError, match="holds something else than tensors by name"):
        open_tensors(tmp_path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="holds something else than tensors by name"):
        open_tensors(tmp_path)


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "pytorch_model.bin"
    for protocol in ("zip", "plain"):
        if protocol == "zip":
            torch.save({"a": Bomb()}, path)
        else:
            path.write_bytes(pickle.dumps({"a": Bomb()}))
        with pytest.raises(ValueError, match=r"cannot be read as a file of weights") as caught:
            open_tensors(tmp_path)
        assert "\n" not in str(caught.value)
    assert "boom" not in capsys.readouterr().out


def test_weights_are_found_under_a_key(tmp_path: Path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "net.ckpt")
    file = TorchFile(tmp_path / "net.ckpt", inside=("model", "state_dict"))
    assert file.names == {"a"} and file.shape("a") == (2,)
    with pytest.raises(ValueError, match="something else"):
        TorchFile(tmp_path / "net.ckpt")


def test_files_of_an_old_torch_are_read_as_those_of_a_new_one(tmp_path: Path):
    path, weights = tmp_path / "net.pth", {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    file = TorchFile(path)
    assert file.names == {"a", "b"} and torch.equal(file.tensor("a"), weights["a"])
    content = path.read_bytes()
    for kept in (0, 3, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"net\.pth cannot be read as a file of weights"):
            TorchFile(path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_missing_shard_is_named(tmp_path: Path, kind: str):
    shard(tmp_path, stored(), kind)
    (tmp_path / f"part-1.{kind}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"part-1\.{kind} is missing, one of 1 of 2 files"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["../part-0.bin", "/etc/passwd", "deep/part-0.bin"])
def test_an_index_that_names_a_file_outside_is_refused(tmp_path: Path, name: str):
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="names a file outside its folder"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map_is_refused(tmp_path: Path, text: str):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="has no weight_map"):
        open_tensors(tmp_path)


def test_a_name_in_two_shards_is_refused(tmp_path: Path):
    shard(tmp_path, stored(), "safetensors")
    save_file({"net.qk.bias": torch.ones(4), "x": torch.ones(1)}, tmp_path / "part-1.safetensors")
    with pytest.raises(ValueError, match=r"net\.qk\.bias stands in two files"):
        open_tensors(tmp_path)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_was_read(tmp_path: Path, kind: str):
    write(tmp_path, stored(), kind)
    model, target = filled(tmp_path), tmp_path / "target"
    write_tensors(stored_tensors(model, adapter, torch.float32), target)
    written = load_file(target / "model.safetensors")
    assert written.keys() == stored().keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in stored().items())


def test_parts_of_a_fused_tensor_can_be_written_apart(tmp_path: Path):
    write(tmp_path, stored(), "safetensors")
    model = filled(tmp_path)
    apart = stored_tensors(model, renaming([(r"^([qk])\.", r"\1_proj.")]), torch.float32)
    write_tensors(apart, tmp_path)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["k_proj.weight"], model.k.weight)


def test_a_quantizers_working_state_is_not_stored():
    assert parameters(Tiny()).keys() == {
        "q.weight", "q.bias", "k.weight", "k.bias", "table.weight", "steps",
    }  # fmt: skip


def test_a_model_is_written_over_the_file_that_it_maps(tmp_path: Path):
    write(tmp_path, stored(), "sharded safetensors")
    model = filled(tmp_path)
    before = {key: value.clone() for key, value in parameters(model).items()}
    write_tensors(stored_tensors(model, adapter, torch.bfloat16), tmp_path)
    assert all(torch.equal(parameters(model)[key], value) for key, value in before.items())
    again = filled(tmp_path)  # the new file, not the old index
    assert torch.equal(again.table.weight, before["table.weight"].bfloat16().float())


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_of_this_disk_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_folder(tmp_path) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert find_folder(f"~/{tmp_path.name}") == tmp_path
    (tmp_path / "model.bin").touch()
    with pytest.raises(ValueError, match="is a file; give the folder that holds it"):
        find_folder(tmp_path / "model.bin")
    for name in (tmp_path / "none", "./a/b", "a", "a/b/c", "../a/b", "a b/c", " ", "a\0b"):
        with pytest.raises(FileNotFoundError, match=r"no such folder$"):
            find_folder(name)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("", ValueError, "the model's name is empty; give a folder, such as '.', or a hub id"),
        (5, TypeError, "a model is a folder or a hub id, not int"),
        (b"tiny", TypeError, "a model is a folder or a hub id, not bytes"),
    ],
)
def test_what_names_no_model_is_refused(name: Any, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        unitok.load(name, "cpu")


def test_an_empty_name_is_refused_on_the_command_line():
    result = CliRunner().invoke(app, ["info", "--model", ""])
    assert result.exit_code == 2
    assert "the model's name is empty" in result.output and "Traceback" not in result.output


def lost(*args: object, **options: object) -> None:
    raise ConnectionError("cannot reach the hub\nTry again later.")


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders, "model_info", lost)
    monkeypatch.setattr(folders, "snapshot_download", lost)
    with pytest.raises(FileNotFoundError) as caught:
        find_folder("deepseek-community/Janus-Pro-1B")
    assert str(caught.value) == (
        "deepseek-community/Janus-Pro-1B: no such folder here, and the hub did not give it: "
        "cannot reach the hub; load it once where the hub can be reached, or give a folder"
    )


def test_a_download_that_breaks_off_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders, "model_info", lambda *_, **__: SimpleNamespace(siblings=[]))
    monkeypatch.setattr(folders, "snapshot_download", lost)
    with pytest.raises(OSError, match="a/b: the download broke off: cannot reach the hub"):
        find_folder("a/b")


def test_an_earlier_download_serves_when_the_hub_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def cached(name: str, local_files_only: bool = False, **options: object) -> str:
        assert local_files_only
        return str(tmp_path)

    monkeypatch.setattr(folders, "model_info", lost)
    monkeypatch.setattr(folders, "snapshot_download", cached)
    assert find_folder("a/b") == tmp_path


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["config.json", "pytorch_model.bin", "model.safetensors"], "*.safetensors"),
        (["config.json", "pytorch_model.bin"], "*.bin"),
        (["params.json", "consolidated.00.pth"], "*.pth"),
    ],
)
def test_one_kind_of_weights_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: list[str], kind: str
):
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(tmp_path)

    siblings = [SimpleNamespace(rfilename=name) for name in names]
    monkeypatch.setattr(folders, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(folders, "snapshot_download", download)
    assert find_folder("a/b") == tmp_path
    assert [p for p in asked if p in folders.WEIGHTS] == [kind] and "*.json" in asked


def fetched(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> list[str]:
    """Which files of a repository are downloaded."""
    kept: list[str] = []

    def download(name: str, **patterns: Any) -> str:
        kept.extend(filter_repo_objects(names, **patterns))
        return "."

    siblings = [SimpleNamespace(rfilename=name) for name in names]
    monkeypatch.setattr(folders, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(folders, "snapshot_download", download)
    find_folder("a/b")
    return kept


def test_a_pipeline_is_downloaded_once_with_the_folders_of_its_parts(
    monkeypatch: pytest.MonkeyPatch,
):
    wanted = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    others = [
        "README.md",
        "pipeline.py",
        "pipeline_in_one_file.ckpt",
        "pipeline_in_one_file.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "transformer/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
        "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]
    assert sorted(fetched(monkeypatch, [*others, *wanted])) == wanted


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (["config.json", "model.safetensors"], ["model.fp16.safetensors", "model.fp32.bin"]),
        (["config.json", "model.fp16.safetensors"], ["README.md"]),
        (["model_index.json", "diffusion_pytorch_model.safetensors"], []),
        (["config.json", "model.v2-00001-of-00002.safetensors"], []),
        (["tokenizer/vqgan.ckpt", "model.safetensors"], ["pytorch_model.bin"]),
    ],
)
def test_weights_are_not_downloaded_twice(
    monkeypatch: pytest.MonkeyPatch, wanted: list[str], others: list[str]
):
    assert fetched(monkeypatch, wanted + others) == wanted


def test_json_that_is_no_object_is_refused(tmp_path: Path):
    path = tmp_path / "config.json"
    assert read_json(path, optional=True) == {}
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        read_json(path)
    for text, message in (("{", "is not JSON"), ("[1]", "holds no JSON object")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(path, optional=True)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="is not JSON"):
        read_json(path)
