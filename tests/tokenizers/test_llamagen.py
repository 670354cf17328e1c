"""LlamaGen's image tokenizers from files: what is read, under which names, and what is refused."""

import argparse
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.llamagen import load_llamagen, original_name
from unitok_tokenizers.taming import taming_name

VQ8 = AutoencoderConfig(
    image_size=24,
    codebook_size=40,
    code_dim=6,
    latent_channels=24,
    base_channels=32,
    channel_multiplier=(1, 2, 2, 4),
)


@pytest.fixture(scope="module")
def source() -> ImageTokenizer:
    """What the files of these tests hold; its codebook's rows have any length."""
    torch.manual_seed(0)
    made = ImageTokenizer(VQ8).eval()
    made.quantizer.codebook.mul_(torch.linspace(0.2, 5, 40)[:, None])
    made.refresh()
    return made


@pytest.fixture(scope="module")
def weights(source: ImageTokenizer) -> dict[str, Tensor]:
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("quantizer.vq.")}
    return {original_name(k): v for k, v in state.items()}


@pytest.fixture(scope="module")
def hollow(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes that take no room in a file."""
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in weights.items()}


def saved(data: object, folder: Path) -> Path:
    torch.save(data, folder / "vq_ds8_c2i.pt")
    return folder / "vq_ds8_c2i.pt"


def assert_same(loaded: ImageTokenizer, source: ImageTokenizer) -> None:
    for name, tensor in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    pictures = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    codes = loaded.encode(pictures)
    assert torch.equal(codes, source.encode(pictures))
    assert torch.equal(loaded.decode(codes), source.decode(codes))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "llamagen", "taming"),
    [
        ("quantizer.codebook", "quantize.embedding.weight", "quantize.embedding.weight"),
        ("quant_conv.weight", "quant_conv.weight", "quant_conv.weight"),
        ("post_quant_conv.bias", "post_quant_conv.bias", "post_quant_conv.bias"),
        ("encoder.conv_in.bias", "encoder.conv_in.bias", "encoder.conv_in.bias"),
        ("decoder.norm_out.weight", "decoder.norm_out.weight", "decoder.norm_out.weight"),
        (
            "encoder.levels.3.blocks.1.conv1.weight",
            "encoder.conv_blocks.3.res.1.conv1.weight",
            "encoder.down.3.block.1.conv1.weight",
        ),
        (
            "encoder.levels.2.blocks.0.shortcut.bias",
            "encoder.conv_blocks.2.res.0.nin_shortcut.bias",
            "encoder.down.2.block.0.nin_shortcut.bias",
        ),
        (
            "encoder.levels.4.attentions.1.proj.weight",
            "encoder.conv_blocks.4.attn.1.proj_out.weight",
            "encoder.down.4.attn.1.proj_out.weight",
        ),
        (
            "encoder.levels.0.resample.conv.weight",
            "encoder.conv_blocks.0.downsample.conv.weight",
            "encoder.down.0.downsample.conv.weight",
        ),
        (
            "encoder.middle.block1.norm2.weight",
            "encoder.mid.0.norm2.weight",
            "encoder.mid.block_1.norm2.weight",
        ),
        (
            "encoder.middle.attention.q.weight",
            "encoder.mid.1.q.weight",
            "encoder.mid.attn_1.q.weight",
        ),
        (
            "decoder.middle.attention.proj.bias",
            "decoder.mid.1.proj_out.bias",
            "decoder.mid.attn_1.proj_out.bias",
        ),
        (
            "decoder.middle.block2.conv2.bias",
            "decoder.mid.2.conv2.bias",
            "decoder.mid.block_2.conv2.bias",
        ),
        (
            "decoder.levels.0.blocks.2.norm1.weight",
            "decoder.conv_blocks.0.res.2.norm1.weight",
            "decoder.up.4.block.2.norm1.weight",
        ),
        (
            "decoder.levels.3.resample.conv.bias",
            "decoder.conv_blocks.3.upsample.conv.bias",
            "decoder.up.1.upsample.conv.bias",
        ),
    ],
)
def test_a_parameter_has_its_name_in_both_kinds_of_checkpoint(
    ours: str, llamagen: str, taming: str
):
    assert original_name(ours) == llamagen
    assert taming_name(ours) == taming


def test_the_decoder_of_a_checkpoint_counts_its_levels_from_the_other_end():
    names = [taming_name(f"decoder.levels.{i}.blocks.0.conv1.bias", levels=3) for i in range(3)]
    assert names == [f"decoder.up.{i}.block.0.conv1.bias" for i in (2, 1, 0)]


@pytest.mark.parametrize("rename", [original_name, taming_name])
def test_no_two_parameters_share_a_name(rename):
    with torch.device("meta"):
        state = ImageTokenizer(AutoencoderConfig(base_channels=32, codebook_size=8)).state_dict()
    keys = [k for k in state if not k.startswith("quantizer.vq.")]
    assert len({rename(k) for k in keys}) == len(keys) == 343


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["model", "state_dict", "ema", None])
def test_weights_are_found_wherever_a_checkpoint_holds_them(
    source: ImageTokenizer, weights: dict[str, Tensor], tmp_path: Path, inside: str | None
):
    path = saved(weights if inside is None else {inside: weights}, tmp_path)
    assert_same(load_llamagen(path, image_size=24), source)


def test_a_training_checkpoint_gives_its_average_and_its_command_line_does_no_harm(
    source: ImageTokenizer, weights: dict[str, Tensor], tmp_path: Path
):
    last = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    usage = {"quantize.codebook_used": torch.zeros(65536)}
    arguments = argparse.Namespace(vq_model="VQ-8", image_size=256)
    data = {"model": last | usage, "ema": weights | usage, "steps": 7, "args": arguments}
    assert_same(load_llamagen(str(saved(data, tmp_path)), image_size=24), source)


def test_safetensors_files_are_read_too(
    source: ImageTokenizer, weights: dict[str, Tensor], tmp_path: Path
):
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "vq8.safetensors")
    assert_same(load_llamagen(tmp_path / "vq8.safetensors", image_size=24), source)


def test_pictures_are_256_pixels_wide_unless_one_says_otherwise(
    hollow: dict[str, Tensor], tmp_path: Path
):
    path = saved({"model": hollow}, tmp_path)
    assert load_llamagen(path).config == AutoencoderConfig(**{**vars(VQ8), "image_size": 256})
    assert load_llamagen(path, image_size=40).config.grid == 5


def test_weights_come_in_the_type_asked_for_and_still_encode_and_decode(
    source: ImageTokenizer, weights: dict[str, Tensor], tmp_path: Path
):
    made = load_llamagen(saved(weights, tmp_path), dtype=torch.bfloat16, image_size=24)
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}
    assert made.quantizer.codebook.dtype == torch.bfloat16
    assert not made.training and not any(p.requires_grad for p in made.parameters())
    codes = torch.randint(40, (1, 3, 3))
    torch.testing.assert_close(made.decode(codes), source.decode(codes), atol=0.05, rtol=0)
    assert made.encode(torch.rand(1, 3, 24, 24)).shape == (1, 3, 3)


# --- what is refused -----------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"vq_ds16_c2i\.pt is missing"):
        load_llamagen(tmp_path / "vq_ds16_c2i.pt")


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "quantize.embedding.weight"])
def test_missing_keys_are_counted_and_named(hollow: dict[str, Tensor], tmp_path: Path, name: str):
    short = {k: v for k, v in hollow.items() if k not in (name, "quant_conv.bias")}
    if name == "encoder.conv_in.weight":  # the sizes then are the published ones
        message = rf"2 missing tensors, such as {name}, quant_conv\.bias$"
    else:
        message = rf"2 missing tensors, such as quant_conv\.bias, {name}$"
    with pytest.raises(ValueError, match=message):
        load_llamagen(saved({"model": short}, tmp_path))


def test_unknown_keys_are_counted_and_named(hollow: dict[str, Tensor], tmp_path: Path):
    extra = {f"head.{i}.weight": torch.zeros(1) for i in range(5)}
    message = r"5 unknown tensors, such as head\.0\.weight, head\.1\.weight, head\.2\.weight$"
    with pytest.raises(ValueError, match=message):
        load_llamagen(saved(hollow | extra, tmp_path))


def test_misshapen_tensors_are_counted_and_named(hollow: dict[str, Tensor], tmp_path: Path):
    wrong = {"decoder.conv_out.bias": torch.zeros(4), "quant_conv.weight": torch.zeros(6, 1)}
    message = r"2 misshapen tensors, such as decoder\.conv_out\.bias \(it is \[4\], not \[3\]\)"
    with pytest.raises(ValueError, match=message):
        load_llamagen(saved(hollow | wrong, tmp_path))


@pytest.mark.parametrize("name", ["quantize.embedding.weight", "decoder.conv_out.bias"])
def test_tensors_with_nan_are_named(hollow: dict[str, Tensor], tmp_path: Path, name: str):
    broken = hollow[name].clone()
    broken[-1] = float("nan")
    with pytest.raises(ValueError, match=rf"\.pt: {name} holds NaN or infinity"):
        load_llamagen(saved(hollow | {name: broken}, tmp_path))


def test_a_net_of_other_levels_is_refused(hollow: dict[str, Tensor], tmp_path: Path):
    fewer = {k: v for k, v in hollow.items() if not k.startswith("encoder.conv_blocks.3.")}
    with pytest.raises(ValueError, match=r"has 3 levels .* VQ-16 has 5 and VQ-8 has 4"):
        load_llamagen(saved(fewer, tmp_path))


def test_a_side_that_does_not_fit_is_refused(hollow: dict[str, Tensor], tmp_path: Path):
    with pytest.raises(ValueError, match="image_size 100 is no multiple of 8"):
        load_llamagen(saved(hollow, tmp_path), image_size=100)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, suffix: str, keep: float):
    path = tmp_path / f"vq{suffix}"
    save = torch.save if suffix == ".pt" else save_file
    save({f"quant_conv.{leaf}": torch.rand(999) for leaf in ("weight", "bias")}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        load_llamagen(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    for data in ([1, 2], {"model": {"a": 1}}, {"model": torch.zeros(2)}):
        with pytest.raises(ValueError, match="something else than tensors by name"):
            load_llamagen(saved(data, tmp_path))
    (tmp_path / "text.pt").write_text("no weights")
    with ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "no weights")
    for name in ("text.pt", "zip.pt"):
        with pytest.raises(ValueError, match="cannot be read as a file of weights"):
            load_llamagen(tmp_path / name)


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


def test_code_in_a_file_is_not_run(hollow: dict[str, Tensor], tmp_path: Path):
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        load_llamagen(saved({"model": hollow, "trap": Trap()}, tmp_path))
