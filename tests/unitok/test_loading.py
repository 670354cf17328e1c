"""load(): folders, devices, precision and memory; and what a model tells of itself."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unitok
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.tiny import ASSETS, PATCHES, save_tiny, tiny_model, tiny_template
from unitok import precision
from unitok.api import Model
from unitok.checkpoints import folders
from unitok.checkpoints.folders import read_json
from unitok.emoji.export import save_folder
from unitok.families import FAMILIES, Defaults, janus
from unitok.families.janus import weights
from unitok.families.janus.files import QUESTION, SYSTEM, extra_to_json
from unitok.loading import parse_memory
from unitok.precision import Choice, choose, computes_bf16, cpu_computes_bf16, parse_dtype

BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("loading") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    """One loaded model for the file."""
    return unitok.load(folder, device="cpu", memory="16MB")


def test_opening_a_model_and_using_it_imports_no_library_of_training_and_no_compiler(folder: Path):
    code = (
        "import sys, unitok\n"
        "model = unitok.load(sys.argv[1])\n"
        "model.caption(model.draw('a cat', seed=1).image, max_tokens=2)\n"
        "heavy = {'vector_quantize_pytorch', 'einx', 'torch._dynamo'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=env, check=True)


def picture(seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


# --- info ----------------------------------------------------------------------------------------


def test_info_counts_what_is_there(model: Model):
    info = model.info()
    assert info.parameters == sum(p.numel() for p in tiny_model().parameters())
    assert (info.name, info.device, info.dtype) == ("tiny", "cpu", "float32")
    assert (info.context, info.picture_size, info.picture_tokens) == (256, (64, 64), PATCHES)
    assert 0 < info.kv_memory <= 16 * 2**20
    per_id = 2 * 2 * 2 * 16 * 4  # K and V, layers, heads, head_dim, bytes
    assert info.kv_memory == info.kv_tokens * per_id
    assert "tiny" in repr(model)


def test_a_folder_opens_in_every_precision(untrained_folder: Path):
    for dtype in (None, "bfloat16", torch.float32):
        loaded = unitok.load(untrained_folder, device="cpu", dtype=dtype)
        expected = "bfloat16" if dtype == "bfloat16" else "float32"
        assert loaded.info().dtype == expected
        assert loaded.draw("a dog", seed=0).image.size == (64, 64)
        assert loaded.caption(picture(), max_tokens=3).completion_tokens <= 3


def test_memory_sizes_the_pool_and_too_little_is_refused(folder: Path):
    blocks = 32 * 2 * 2 * 2 * 16 * 4
    assert unitok.load(folder, "cpu", memory=5 * blocks + 1).info().kv_memory == 5 * blocks
    with pytest.raises(ValueError, match="at least one block"):
        unitok.load(folder, "cpu", memory="1KB")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        (123, 123),
        ("512MB", 512 * 2**20),
        ("2GB", 2**31),
        (" 1.5 gb ", 3 * 2**29),
        ("8kb", 8192),
        (0.25, 0.25),
        ("50%", 0.5),
        (" 100 %", 1.0),
        ("0.5", 0.5),
    ],
)
def test_memory_is_bytes_or_text(text: str | int | float | None, value: int | float | None):
    assert parse_memory(text) == value


@pytest.mark.parametrize("share", [0.0, 1.5, -0.5, float("nan"), "0%", "150%", "nan%", "1.5"])
def test_a_share_of_memory_is_above_0_and_at_most_1(share: float | str):
    with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
        parse_memory(share)


def test_a_share_of_memory_is_of_what_is_free(folder: Path, monkeypatch: pytest.MonkeyPatch):
    block = 32 * 2 * 2 * 2 * 16 * 4
    monkeypatch.setattr("unitok_engine.config.free_memory", lambda device: 10 * block)
    for share in (0.5, "50%", "0.5"):
        assert unitok.load(folder, "cpu", memory=share).info().kv_memory == 5 * block


@pytest.mark.parametrize(
    "text", ["", "512", "much", "%", "half", "5TB", "GB", "nanGB", "infGB", "1,5GB"]
)
def test_other_memory_is_refused(text: str):
    with pytest.raises(ValueError, match="'512MB' or '2GB', or a share of what is free"):
        parse_memory(text)


@pytest.mark.parametrize("memory", [0, -1, "-2GB", "0MB"])
def test_no_memory_is_refused(folder: Path, memory: int | str):
    with pytest.raises(ValueError, match="memory must be at least 1"):
        unitok.load(folder, "cpu", memory=memory)


def test_what_cannot_be_loaded_says_why(folder: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        unitok.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"nobody-has-this-name/model.*: no such folder"):
        unitok.load("~nobody-has-this-name/model")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        unitok.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="model_type 'llama'"):
        unitok.load(tmp_path)
    with pytest.raises(ValueError, match="dtype must be one of"):
        unitok.load(folder, dtype="int8")
    with pytest.raises(ValueError, match="device 'warp' cannot be used here"):
        unitok.load(folder, device="warp")


@pytest.mark.parametrize(
    "device", ["", "cpu:x", "cuda:99", "cuda:-1", "xla", "mps:7", "CPU", " cpu"]
)
def test_a_device_that_is_not_there_is_a_short_line(folder: Path, device: str):
    with pytest.raises(ValueError, match=rf"^device '{device}' cannot be used here: ") as caught:
        unitok.load(folder, device)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 260


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": 0}, "device must be a name such as 'cpu' or 'cuda:1', not 0"),
        ({"device": ["cpu"]}, "device must be a name"),
        ({"dtype": 16}, "dtype must be one of auto, float32"),
        ({"dtype": np.float32}, "dtype must be one of auto, float32"),
        ({"dtype": np.dtype("float32")}, "dtype must be one of auto, float32"),
        ({"dtype": ["float32"]}, "dtype must be one of auto, float32"),
        ({"memory": True}, "memory must be a number of bytes, a share, or text, not True"),
        ({"memory": [1]}, "memory must be a number of bytes"),
    ],
)
def test_an_argument_of_another_type_is_a_type_error(folder: Path, given: dict, message: str):
    arguments: dict[str, Any] = {"device": "cpu"} | given
    with pytest.raises(TypeError, match=message):
        unitok.load(folder, **arguments)


@pytest.mark.parametrize(("memory", "kind"), [(np.int64(123), int), (np.float32(0.5), float)])
def test_numbers_of_numpy_are_numbers(memory: Any, kind: type):
    assert parse_memory(memory) == memory and type(parse_memory(memory)) is kind


@pytest.mark.parametrize("device", ["meta", "meta:0", torch.device("meta")])
def test_a_device_without_numbers_is_refused(folder: Path, device: str | torch.device):
    with pytest.raises(ValueError, match="device 'meta' cannot be used: it holds no numbers"):
        unitok.load(folder, device)


def test_a_model_tells_what_it_is(model: Model):
    assert (model.name, model.device, model.dtype) == ("tiny", torch.device("cpu"), torch.float32)
    assert model.tokenizer is model.family.tokenizer
    assert model.tokenizer.decode(model.tokenizer.encode_plain("a dog")) == "a dog"
    stats = model.stats()
    assert (stats.memory, stats.running, stats.waiting) == (model.info().kv_memory, 0, 0)
    count = f"{model.info().parameters:,}"
    assert repr(model) == f"<unitok.Model 'tiny': {count} parameters, float32 on cpu>"


# --- the choice of a precision -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "has_bf16", "stored", "dtype", "why"),
    [
        ("cpu", True, FP32, FP32, "as the checkpoint is stored"),
        ("cpu", False, FP32, FP32, "as the checkpoint is stored"),
        ("cpu", True, BF16, BF16, "as the checkpoint is stored"),
        ("cpu", False, BF16, FP32, "as this CPU has no AVX512-BF16 or AMX"),
        ("cpu", True, FP16, FP32, "as float16 on cpu is used only when asked for"),
        ("cpu", True, FP64, FP32, "as float64 on cpu is used only when asked for"),
        ("cuda", True, FP32, FP32, "as the checkpoint is stored"),
        ("cuda", True, BF16, BF16, "as the checkpoint is stored"),
        ("cuda", False, BF16, FP32, "as this GPU does not compute in bfloat16"),
        ("cuda", True, FP16, FP16, "as the checkpoint is stored"),
        ("cuda", False, FP16, FP16, "as the checkpoint is stored"),
        ("cuda", True, FP64, FP32, "as float64 on cuda is used only when asked for"),
        ("mps", False, BF16, FP32, "as bfloat16 on mps is used only when asked for"),
        ("mps", True, FP16, FP32, "as float16 on mps is used only when asked for"),
        ("mps", False, FP32, FP32, "as the checkpoint is stored"),
    ],
)
def test_the_precision_is_the_stored_one_where_the_device_is_good_at_it(
    device: str, has_bf16: bool, stored: torch.dtype, dtype: torch.dtype, why: str
):
    made = choose(device, has_bf16, stored)
    assert (made.dtype, made.why) == (dtype, why)
    assert str(made) == f"{str(dtype)[6:]}, {why}"


@pytest.mark.parametrize("stored", [BF16, FP16, FP32, FP64])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_the_models_own_precision_is_for_a_cpu(stored: torch.dtype, has_bf16: bool):
    for own in (FP32, BF16):
        made = choose("cpu", has_bf16, stored, own)
        assert str(made) == f"{str(own)[6:]}, as the model's unitok.json asks for on a CPU"
    for device in ("cuda", "mps"):
        assert choose(device, has_bf16, stored, BF16) == choose(device, has_bf16, stored)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("asked", [BF16, FP16, FP32, FP64])
def test_who_asks_for_a_precision_gets_it(device: str, asked: torch.dtype):
    for stored in (BF16, FP32):
        made = choose(device, False, stored, own=FP32, asked=asked)
        assert (made.dtype, made.why) == (asked, "as asked")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (None, None),
        ("auto", None),
        ("float32", FP32),
        ("fp32", FP32),
        ("bfloat16", BF16),
        ("bf16", BF16),
        ("float16", FP16),
        ("fp16", FP16),
        ("float64", FP64),
        ("fp64", FP64),
        (BF16, BF16),
        (FP64, FP64),
    ],
)
def test_a_precision_has_several_names(name: torch.dtype | str | None, dtype: torch.dtype | None):
    assert parse_dtype(name) is dtype


@pytest.mark.parametrize("name", ["int8", "", "BF16", "half", torch.int8, torch.float8_e4m3fn, 16])
def test_another_precision_is_refused(name: Any):
    allowed = r"auto, float32, bfloat16, float16, float64 \(or fp32, bf16, fp16, fp64\)"
    kind = ValueError if isinstance(name, str | torch.dtype) else TypeError
    with pytest.raises(kind, match=f"dtype must be one of {allowed}, not {name!r}"):
        parse_dtype(name)


def test_a_cpu_is_asked_for_its_abilities(monkeypatch: pytest.MonkeyPatch):
    for able in ({"avx512_bf16": True}, {"amx_bf16": True, "avx512_bf16": False}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        assert cpu_computes_bf16() and computes_bf16(torch.device("cpu"))
    for unable in ({}, {"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=unable: able, raising=False)
        assert not cpu_computes_bf16() and not computes_bf16(torch.device("cpu"))
    assert not computes_bf16(torch.device("mps"))


def test_an_older_torch_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for found in ((True, False), (False, True), (False, False)):
        for name, able in zip(names, found, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda able=able: able, raising=False)
        assert cpu_computes_bf16() is any(found)
    for name in names:
        monkeypatch.delattr(torch.cpu, name)
    assert cpu_computes_bf16() is False


def test_a_gpu_is_asked_without_emulation(monkeypatch: pytest.MonkeyPatch):
    seen = []

    class Current:
        def __init__(self, device: torch.device) -> None:
            seen.append(device)

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert not computes_bf16(torch.device("cuda:1"))
    assert seen == [torch.device("cuda:1")]


# --- the precision of a load ---------------------------------------------------------------------


def make_folder(
    folder: Path, stored: torch.dtype = FP32, extra: dict | None = None, vision: bool = False
) -> Path:
    """The tiny model's folder; `stored` of its weights, or of its vision encoder's alone, and what
    its unitok.json holds."""
    save_tiny(folder)
    (folder / "unitok.json").write_text(json.dumps(extra or {}))
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if value.is_floating_point() and (not vision or "language_model" not in name):
            weights[name] = value.to(stored)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that computes well in bfloat16."""
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: True)


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: False)


def told(folder: Path, **options) -> str:
    """The precision of a load, once it is seen that the model has it."""
    with unitok.load(folder, "cpu", memory="1MB", **options) as model:
        info = model.info()
        assert info.dtype == info.precision.partition(",")[0] == str(model.dtype)[6:]
        assert model.family.model.decoder.norm.weight.dtype is model.dtype
        return info.precision


@pytest.mark.usefixtures("able")
def test_a_checkpoint_is_loaded_as_it_is_stored(tmp_path: Path):
    rough, fine = make_folder(tmp_path / "rough", BF16), make_folder(tmp_path / "fine", FP32)
    for dtype in ("auto", None):
        assert told(rough, dtype=dtype) == "bfloat16, as the checkpoint is stored"
    assert told(rough) == "bfloat16, as the checkpoint is stored"
    assert told(fine) == "float32, as the checkpoint is stored"
    assert told(rough, dtype="fp32") == "float32, as asked"


@pytest.mark.usefixtures("able")
def test_config_json_does_not_say_how_weights_are_stored(tmp_path: Path):
    folder = make_folder(tmp_path / "rough", BF16)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert told(folder) == "bfloat16, as the checkpoint is stored"


@pytest.mark.usefixtures("able")
def test_the_decoder_is_what_counts(tmp_path: Path):
    assert told(make_folder(tmp_path / "mixed", FP16, vision=True)).startswith("float32, as the ch")


@pytest.mark.usefixtures("unable")
def test_a_cpu_without_bf16_computes_in_float32(tmp_path: Path):
    folder = make_folder(tmp_path / "rough", BF16)
    assert told(folder) == "float32, as this CPU has no AVX512-BF16 or AMX"
    assert told(folder, dtype="bf16") == "bfloat16, as asked"


@pytest.mark.usefixtures("able")
def test_the_models_own_wish_comes_before_what_is_stored(tmp_path: Path):
    asks = ", as the model's unitok.json asks for on a CPU"
    folder = make_folder(tmp_path / "rough", BF16, {"cpu_dtype": "float32"})
    assert told(folder) == f"float32{asks}"
    assert told(folder, dtype="bf16") == "bfloat16, as asked"
    (folder / "unitok.json").write_text('{"cpu_dtype": null}')
    assert told(folder) == "bfloat16, as the checkpoint is stored"
    fine = make_folder(tmp_path / "fine", FP32, {"cpu_dtype": "bfloat16"})
    assert told(fine) == f"bfloat16{asks}"


@pytest.mark.parametrize("wish", ["fp32", "auto", "int8", 32, ["float32"], ""])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_wish_that_is_no_type_is_refused(tmp_path: Path, wish: object, dtype: str):
    folder = make_folder(tmp_path / "odd", FP32, {"cpu_dtype": wish})
    message = r"odd/unitok\.json: cpu_dtype must be one of float32, bfloat16, float16, float64, not"
    with pytest.raises(ValueError, match=message):
        unitok.load(folder, "cpu", dtype)


def test_the_wish_is_written_back(tmp_path: Path):
    wish = {"cpu_dtype": "bfloat16", "question": "what is this?"}
    folder = make_folder(tmp_path / "own", FP32, wish)
    for layout in ("transformers", "original"):
        unitok.load(folder, "cpu", "float32").save(tmp_path / layout, layout)
        kept = json.loads((tmp_path / layout / "unitok.json").read_text())
        assert {key: kept[key] for key in wish} == wish
    free = make_folder(tmp_path / "free", FP32, {"question": "what is this?"})
    unitok.load(free, "cpu").save(tmp_path / "kept")
    assert "cpu_dtype" not in json.loads((tmp_path / "kept" / "unitok.json").read_text())


def test_the_embedded_model_is_the_same_on_every_cpu(tmp_path: Path):
    assert json.loads((ASSETS / "unitok.json").read_text())["cpu_dtype"] == "float32"
    wish = "float32, as the model's unitok.json asks for on a CPU"
    assert unitok.load(device="cpu", memory="1MB").info().precision == wish
    save_folder(tiny_model(), tiny_template(), ASSETS, tmp_path)  # as it was made
    assert told(tmp_path) == wish


def test_weights_are_not_read_to_choose(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    stored = weights.open_tensors(folder)
    tensor = stored.tensor

    def noting(name: str) -> torch.Tensor:
        read.append(name)
        return tensor(name)

    monkeypatch.setattr(stored, "tensor", noting)
    monkeypatch.setattr(weights, "open_tensors", lambda folder: stored)

    def choosing(dtype: torch.dtype) -> torch.dtype:
        assert (dtype, read) == (FP32, [])
        return BF16

    family = janus.load(folder, "cpu", choosing)
    assert family.model.dtype is BF16
    assert sorted(read) == sorted(set(read)), "each once"


def test_float64_runs(folder: Path):
    with unitok.load(folder, "cpu", "float64") as fine, unitok.load(folder, "cpu") as usual:
        assert fine.info().precision == "float64, as asked"
        assert fine.draw("a dog", seed=1).image.size == (64, 64)
        options = {"max_tokens": 4, "logprobs": True}
        told, near = (m.caption(picture(), **options).logprobs for m in (fine, usual))
        assert told is not None and told == pytest.approx(near, abs=1e-3)
        assert fine.stats().memory == fine.info().kv_tokens * 2 * 2 * 2 * 16 * 8


def test_a_device_may_be_torchs_own_object(folder: Path):
    info = unitok.load(folder, torch.device("cpu"), memory="1MB").info()
    assert (info.device, info.dtype) == ("cpu", "float32")
    assert unitok.load(folder, "cpu:0", memory="1MB").info().dtype == "float32"


def test_a_model_that_was_not_loaded_has_a_precision_too(model: Model):
    with Model(model.family) as made:
        assert made.info().precision == "float32, as the model was made"


def test_a_choice_remembers_why():
    choice = Choice(None, torch.device("cpu"), own=BF16)
    assert choice.made is None
    assert choice(FP32) is BF16
    assert str(choice.made) == "bfloat16, as the model's unitok.json asks for on a CPU"


def test_defaults_leave_the_precision_open():
    defaults = Defaults(1.0, 0, 1.0, 5.0, QUESTION, SYSTEM)
    assert defaults.cpu_dtype is None
    assert extra_to_json(defaults) == {}


# --- the log -------------------------------------------------------------------------------------


def test_a_load_is_logged(folder: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "unitok")
    info = unitok.load(folder, "cpu", memory="1MB").info()
    first, *_, last = [r for r in caplog.records if r.name == "unitok.loading"]
    assert (first.levelname, last.levelname) == ("INFO", "INFO")
    assert first.getMessage() == f"opening {folder} on cpu"
    facts = (
        "loaded tiny in",
        f"{info.parameters:,} parameters on cpu in {info.precision}",
        f"K/V pool of {info.kv_memory:,} bytes for {info.kv_tokens:,} tokens",
    )
    assert all(fact in last.getMessage() for fact in facts)


def test_a_download_is_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Listing:
        siblings = ()

    def unreachable(*_: object, **__: object) -> Listing:
        raise OSError("no route")

    caplog.set_level(logging.INFO, "unitok")
    monkeypatch.setattr(folders, "snapshot_download", lambda *_, **__: str(folder))
    monkeypatch.setattr(folders, "model_info", lambda *_, **__: Listing())
    assert folders.find_folder("someone/something") == folder
    monkeypatch.setattr(folders, "model_info", unreachable)
    assert folders.find_folder("someone/something") == folder
    messages = [r.getMessage() for r in caplog.records if r.name == "unitok.checkpoints.folders"]
    assert messages == [
        "someone/something: fetching from the hub what is not here yet",
        f"someone/something: lies in {folder}",
        f"someone/something: {folder} lies here; the hub could not be asked: no route",
    ]


@pytest.mark.parametrize("root", ["unitok", "unitok_engine"])
def test_a_log_that_nobody_wants_goes_nowhere(root: str):
    handlers = logging.getLogger(root).handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
    assert logging.getLogger(root).level == logging.NOTSET


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]):
    unitok.load(folder, "cpu", memory="1MB")
    assert capfd.readouterr() == ("", "")


# --- the package ---------------------------------------------------------------------------------


def test_type_checkers_may_trust_the_packages():
    import unitok_engine
    import unitok_tokenizers

    for package in (unitok, unitok_engine, unitok_tokenizers):
        assert (Path(package.__path__[0]) / "py.typed").is_file()
    assert all(hasattr(unitok, name) for name in unitok.__all__)


# --- settings that nobody knows ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_an_unknown_setting_is_named_with_its_file_and_if_strict_refused(
    folder: Path, tmp_path: Path, name: str
):
    odd = Path(shutil.copytree(folder, tmp_path / "odd"))
    data = json.loads((odd / name).read_text())
    (odd / name).write_text(json.dumps(data | {"mystery": 1, "riddle": 2}))
    with pytest.warns(UserWarning, match=rf"odd.*{name} has mystery, riddle, which unitok") as told:
        unitok.load(odd, "cpu", memory="1MB").close()
    assert len(told) == 1, "once"
    with pytest.raises(
        ValueError, match=rf"odd.*{name} has mystery, riddle, which unitok does not"
    ):
        unitok.load(odd, "cpu", memory="1MB", strict=True)


def test_exactly_one_family_claims_a_folder(tmp_path: Path):
    for name, save in FOLDERS.items():
        made = save(tmp_path / name)
        config = read_json(made / "config.json", optional=True)
        names = frozenset(path.name for path in made.iterdir())
        assert sum(family.matches(config, names, made) for family in FAMILIES) == 1, name


def test_every_family_of_the_registry_has_a_section_in_the_docs():
    text = (Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md").read_text("utf-8")
    sections = {
        word.lower().replace("-", "")
        for line in re.findall(r"^## (.*)$", text, re.M)
        for word in line.split()
    }
    assert FAMILIES and {family.__name__.rpartition(".")[2] for family in FAMILIES} <= sections


@pytest.mark.filterwarnings("error")
def test_a_folder_of_ours_has_no_unknown_setting(folder: Path):
    unitok.load(folder, "cpu", memory="1MB", strict=True).close()
    unitok.load(folder, "cpu", memory="1MB").close()


def test_a_setting_that_changes_the_maths_is_always_refused(folder: Path, tmp_path: Path):
    odd = Path(shutil.copytree(folder, tmp_path / "odd"))
    data = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(data | {"quantization_config": {"bits": 4}}))
    for strict in (False, True):
        with pytest.raises(ValueError, match="load the unquantised checkpoint instead"):
            unitok.load(odd, "cpu", memory="1MB", strict=strict)
