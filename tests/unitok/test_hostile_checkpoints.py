"""Checkpoints that are damaged, or made to fill memory or to waste time, end in a short error."""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import unitok
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.test_checkpoint import filled, stored
from tests.unitok.tiny import save_tiny
from unitok.checkpoints import folders
from unitok.checkpoints.settings import MAX_INT, MAX_INTS, Settings
from unitok.checkpoints.tensors import TorchFile, open_tensors
from unitok.checkpoints.weights import SEARCHED
from unitok.families import open_folder
from unitok.families.chameleon.config import MAX_YAML, read_vqgan_yaml
from unitok.families.common import loading
from unitok.nn.config import MAX_ROTATIONS
from unitok_tokenizers.bounded_files import MAX_BYTES

ABSURD = 10**12
CODEBOOK = "model.vqmodel.quantize.embedding.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("hostile") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A folder of a tiny model, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "damaged"))


def change(file: Path, at: tuple[str | int, ...], value: object) -> None:
    """Change a value inside a JSON file."""
    data = json.loads(file.read_text(encoding="utf-8"))
    inner = data
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    file.write_text(json.dumps(data), encoding="utf-8")


def refused(folder: Path) -> str:
    """The message of the error with which a folder is refused: a short line that names it."""
    with pytest.raises(ValueError) as caught:
        open_folder(folder, "cpu", torch.float32)
    message = str(caught.value)
    assert message.startswith(str(folder)) and "\n" not in message and len(message) < 600
    return message.removeprefix(str(folder))


# --- absurd sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "text_config",
            "hidden_size",
            ABSURD,
            "hidden_size = 1000000000000 is too large; the most",
        ),
        ("text_config", "hidden_size", -64, "hidden_size must be a whole number above 0, not -64"),
        (
            "text_config",
            "hidden_size",
            64.0,
            "hidden_size must be a whole number above 0, not 64.0",
        ),
        ("text_config", "num_hidden_layers", 10**9, "num_hidden_layers = 1000000000 is too large;"),
        ("text_config", "num_hidden_layers", 513, "num_hidden_layers = 513 is too large"),
        ("text_config", "vocab_size", ABSURD, "vocab_size = 1000000000000 is too large"),
        (
            "text_config",
            "max_position_embeddings",
            10**9,
            "max_position_embeddings = 1000000000 is",
        ),
        ("vision_config", "num_hidden_layers", 10**9, "num_hidden_layers = 1000000000 is too"),
        (
            "vision_config",
            "image_size",
            10**6,
            "image_size = 1000000 is too large; the most is 4096",
        ),
        ("vision_config", "mlp_ratio", 1e300, "mlp_ratio = 1e+300 is too large"),
        ("vision_config", "mlp_ratio", 10**400, "mlp_ratio must be a number above 0"),
        ("vq_config", "num_res_blocks", 10**9, "num_res_blocks = 1000000000 is too large"),
        ("vq_config", "num_embeddings", ABSURD, "num_embeddings = 1000000000000 is too large"),
        ("vq_config", "channel_multiplier", [1] * 1000, "channel_multiplier has 1000 numbers; the"),
        (
            "vq_config",
            "channel_multiplier",
            [ABSURD],
            "channel_multiplier = [1000000000000] is too",
        ),
    ],
)
def test_an_absurd_size_is_named_with_its_file(
    folder: Path, section: str, key: str, value: object, message: str
):
    change(folder / "config.json", (section, key), value)
    assert refused(folder).startswith(f": {section} of config.json: {message}")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "text_config",
            "hidden_size",
            MAX_INT,
            "embed_tokens.weight is [640, 64], not [640, 16777",
        ),
        (
            "text_config",
            "vocab_size",
            MAX_INT,
            "embed_tokens.weight is [640, 64], not [16777216, 64",
        ),
        (
            "text_config",
            "num_hidden_layers",
            20,
            "missing keys, such as model.language_model.layers",
        ),
        ("text_config", "head_dim", 2**20, "256 positions times heads of 1048576 numbers are more"),
        ("vision_config", "hidden_size", 2**20, "wrong shape"),
        ("vq_config", "num_embeddings", MAX_INT, f"{CODEBOOK} is [48, 8], not [16777216, 8]"),
        ("vq_config", "embed_dim", MAX_INT, f"{CODEBOOK} is [48, 8], not [48, 16777216]"),
        ("vq_config", "base_channels", MAX_INT, "wrong shape"),
    ],
)
def test_other_sizes_are_compared_with_the_weights(
    folder: Path, section: str, key: str, value: int, message: str
):
    change(folder / "config.json", (section, key), value)
    assert message in refused(folder)


def test_sizes_beyond_any_tensor_are_refused(folder: Path):
    change(folder / "config.json", ("vq_config", "base_channels"), MAX_INT)
    change(folder / "config.json", ("vq_config", "channel_multiplier"), [MAX_INT] * 5)
    assert ": the sizes of the model: " in refused(folder)


def test_a_codebook_is_compared_before_room_is_made_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "UnifiedModel", lambda config: pytest.fail("it was built"))
    change(folder / "config.json", ("vq_config", "num_embeddings"), 49)
    assert f"{CODEBOOK} is [48, 8], not [49, 8]" in refused(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors[CODEBOOK]
    save_file(tensors, folder / "model.safetensors")
    assert f"1 missing keys, such as {CODEBOOK}" in refused(folder)


def test_a_table_of_rotations_is_bounded(folder: Path):
    most = MAX_ROTATIONS // 16
    change(folder / "config.json", ("text_config", "max_position_embeddings"), 2**20)
    change(folder / "config.json", ("text_config", "head_dim"), 128)
    assert "1048576 positions times heads of 128 numbers" in refused(folder)
    assert most > 2**20, "a context of a million positions is no error by itself"


def numbers(data: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the whole numbers of a JSON file are, but for vocabularies."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            if key not in ("vocabulary_map", "vocab"):
                yield from numbers(value, (*at, key))
    elif isinstance(data, int) and not isinstance(data, bool):
        yield at


# Numbers from which no size follows, since others or the weights give it.
UNUSED = """background_color image_token_embed image_token_embed_dim image_token_id image_token_size
    input_dim n_embed num_image_tokens num_patches projection_dim seed select_layer""".split()


@pytest.mark.parametrize(
    "name", ["janus", "janus-original", "chameleon-original", "unitoken-base", "emu3-original"]
)
def test_no_number_of_any_family_takes_the_memory_or_the_time(name: str, tmp_path: Path):
    made = FOLDERS[name](tmp_path / "made")
    inner = (made, made / "vision_tokenizer", made / "tokenizer")
    settings = ("config.json", "params.json", "preprocessor_config.json", "processor_config.json")
    files = [folder / file for folder in inner for file in settings if (folder / file).is_file()]
    assert files
    for file in files:
        content = file.read_text(encoding="utf-8")
        for at in numbers(json.loads(content)):
            change(file, at, ABSURD)
            try:
                open_folder(made, "cpu", torch.float32)
            except ValueError as error:
                assert "\n" not in str(error) and len(str(error)) < 600
            else:
                assert not set(UNUSED).isdisjoint(at), at
            file.write_text(content, encoding="utf-8")


# --- JSON and YAML -------------------------------------------------------------------------------

JSON_FILES = """config.json generation_config.json preprocessor_config.json processor_config.json
    tokenizer_config.json special_tokens_map.json added_tokens.json tokenizer.json unitok.json
    model.safetensors.index.json chat_template.json""".split()


@pytest.mark.parametrize("name", JSON_FILES)
def test_json_nested_deeply_is_refused_by_name(folder: Path, name: str):
    (folder / name).write_text('{"a":' * 200_000 + "1" + "}" * 200_000)
    with pytest.raises(ValueError, match=rf"{name} is .*nested more than 64 deep$"):
        unitok.load(folder, "cpu", memory="1MB")


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_file_that_is_too_large_is_refused_by_name(folder: Path, name: str):
    with (folder / name).open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=rf"{name} is larger than 33,554,432 bytes"):
        unitok.load(folder, "cpu", memory="1MB")


def test_a_foreign_file_may_have_a_key_twice(folder: Path):
    file = folder / "config.json"
    file.write_text('{"model_type": "llama",' + file.read_text(encoding="utf-8").strip()[1:])
    assert open_folder(folder, "cpu", torch.float32).name == "damaged"


@pytest.mark.parametrize("text", ["[" * 3_000, "a: " * 20_000, "model: {params: " + "[" * 3_000])
def test_yaml_nested_deeply_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "vqgan.yaml"
    file.write_text(text[:MAX_YAML])
    with pytest.raises(ValueError, match=r"vqgan\.yaml is no VQGAN's settings"):
        read_vqgan_yaml(file)
    file.write_text(" " * (MAX_YAML + 1))
    with pytest.raises(ValueError, match=r"vqgan\.yaml is larger than 65,536 bytes"):
        read_vqgan_yaml(file)


def test_a_list_of_sizes_is_bounded():
    Settings({"widths": [1] * MAX_INTS}).ints_setting("widths", ())
    with pytest.raises(ValueError, match="widths has 17 numbers; the most is 16"):
        Settings({"widths": [1] * (MAX_INTS + 1)}).ints_setting("widths", ())


# --- safetensors ---------------------------------------------------------------------------------


def safetensors_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def header(**tensors: dict[str, Any]) -> bytes:
    return json.dumps(tensors).encode()


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors_file(b"{}", length=2**60),
        safetensors_file(b"{}", length=2**64 - 1),
        safetensors_file(b"{}", length=10**8 + 1),
        safetensors_file(b"{"),
        safetensors_file(b"\xff\xfe"),
        safetensors_file(b'{"a":' * 200_000),
        safetensors_file(header(a=entry([2], 0, 8)), bytes(4)),
        safetensors_file(header(a=entry([2], 0, 8), b=entry([2], 4, 12)), bytes(12)),
        safetensors_file(header(a=entry([2], 0, 8), b=entry([2], 0, 8)), bytes(8)),
        safetensors_file(header(a=entry([2], 8, 0)), bytes(8)),
        safetensors_file(header(a=entry([3], 0, 8)), bytes(8)),
        safetensors_file(header(a=entry([-1], 0, 8)), bytes(8)),
        safetensors_file(header(a=entry([2**40, 2**40], 0, 8)), bytes(8)),
        safetensors_file(header(a=entry([2], 0, 8, "F99")), bytes(8)),
    ],
)
def test_a_damaged_header_is_one_line_that_names_the_file(tmp_path: Path, content: bytes):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read: ") as caught:
        open_tensors(tmp_path)
    assert "\n" not in str(caught.value)


# --- files of torch.save -------------------------------------------------------------------------


def test_tensors_are_looked_for_under_one_key_alone(tmp_path: Path):
    file, inside = tmp_path / "net.ckpt", ("model", "state_dict")
    for outer, inner in (inside, inside[::-1]):
        torch.save({outer: {inner: {"a": torch.ones(2)}}}, file)
        with pytest.raises(ValueError, match=r"net\.ckpt holds something else than tensors"):
            TorchFile(file, inside)
    torch.save({"model": {"a": torch.ones(2)}, "state_dict": {"b": torch.ones(2)}}, file)
    assert TorchFile(file, inside).names == {"a"}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**12),
        torch.empty(10**12, device="meta"),
        torch.zeros(3).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ],
    ids=["expanded", "meta", "sparse", "nested"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_tensor_without_all_of_its_numbers_is_refused(tmp_path: Path, tensor: torch.Tensor):
    torch.save({"a": torch.ones(2), "b": tensor}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: b has not all of its numbers"):
        open_tensors(tmp_path)


def test_parts_of_one_storage_are_whole(tmp_path: Path):
    both = torch.arange(6.0)
    torch.save({"a": both[:2], "b": both[2:].view(2, 2).T}, tmp_path / "pytorch_model.bin")
    tensors = open_tensors(tmp_path)
    assert tensors.tensor("b").tolist() == [[2.0, 4.0], [3.0, 5.0]]


# --- indices, and links --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", ".", "", "../x.safetensors", "/dev/zero", "a/../b"])
def test_an_index_leads_to_no_file_outside_its_folder(tmp_path: Path, name: str):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    index = {"weight_map": {"a": name}}
    (inside / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names a file outside its folder"):
        open_tensors(inside)


def test_the_links_of_a_hub_cache_are_followed(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    repository = tmp_path / "models--someone--tiny"
    snapshot, blobs = repository / "snapshots" / "0123abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(original, blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(os.path.relpath(blob, snapshot))
    monkeypatch.setattr(folders, "model_info", lambda *_, **__: pytest.fail("asked"))
    with unitok.load(snapshot, "cpu", memory="1MB") as model:
        assert model.draw("a dog", seed=0).image.size == (64, 64)


# --- numbers that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_codebook_with_nan_is_refused_by_name(folder: Path, value: float, kind: str):
    tensors = load_file(folder / "model.safetensors")
    tensors[CODEBOOK][7, 3] = value
    if kind == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    name = {"bin": "pytorch_model.bin", "safetensors": "model.safetensors"}[kind]
    assert f"/{name}: {CODEBOOK} holds NaN or infinity" in refused(folder)


def test_every_small_tensor_is_searched_and_its_shard_named(tmp_path: Path):
    from tests.unitok.test_checkpoint import shard

    for name, tensor in stored().items():
        if tensor.is_floating_point():
            tensors = stored()
            tensors[name].view(-1)[-1] = float("nan")
            shard(tmp_path, tensors, "safetensors")
            at = sorted(tensors).index(name) // 2
            with pytest.raises(ValueError, match=rf"part-{at}\.safetensors: {name} holds NaN"):
                filled(tmp_path)


def test_large_weights_are_searched_in_an_image_tokenizer_alone(tmp_path: Path):
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image_tokenizer, self.decoder = torch.nn.Module(), torch.nn.Module()
            self.image_tokenizer.register_buffer("conv", torch.empty(SEARCHED // 8, 16))
            self.decoder.register_buffer("up", torch.empty(SEARCHED // 8, 16))

    from unitok.checkpoints.adapter import Stored
    from unitok.checkpoints.weights import fill

    weights = {
        name: torch.zeros(SEARCHED // 8, 16) for name in ("image_tokenizer.conv", "decoder.up")
    }
    weights["decoder.up"][-1, -1] = float("nan")

    def load() -> None:
        save_file(weights, tmp_path / "model.safetensors")
        with torch.device("meta"):
            model = Model()
        fill(model, open_tensors(tmp_path), Stored, torch.float32, "cpu")

    load()  # such a tensor is only mapped
    weights["image_tokenizer.conv"][-1, -1] = float("nan")
    with pytest.raises(ValueError, match=r"image_tokenizer\.conv holds NaN or infinity"):
        load()


# --- messages ------------------------------------------------------------------------------------


def test_a_library_that_quotes_the_file_is_cut_short(folder: Path):
    (folder / "tokenizer.json").write_text('{"version": "' + "x" * 5000 + '"}')
    assert len(refused(folder)) < 400
    weights = safetensors_file(header(a={"dtype": "x" * 5000, "shape": [], "data_offsets": [0, 0]}))
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read: .{,300}$"):
        open_tensors(folder)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("unitok.json", "system", 5, "unitok.json: system must be text, not 5"),
        ("unitok.json", "question", ["a"], "unitok.json: question must be text, not ['a']"),
        ("generation_config.json", "guidance_scale", -1e30, "guidance_scale must be from -1000 to"),
        ("generation_config.json", "guidance_scale", 1001, "guidance_scale must be from -1000 to"),
        ("generation_config.json", "temperature", 10**400, "temperature must be a number"),
    ],
)
def test_how_a_model_is_asked_and_sampled_is_checked_on_loading(
    folder: Path, name: str, key: str, value: object, message: str
):
    change(folder / name, (key,), value)
    assert message in refused(folder)
