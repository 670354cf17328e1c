"""DeepSeek's own folders: the same model under the original's names, in and out, bit for bit.

The test renames transformers' tensors itself, by the table of names as published in transformers'
conversion script (src/transformers/models/janus/convert_janus_weights_to_hf.py).
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import JanusForConditionalGeneration

import unitok
from tests.parity.janus_reference import (
    SHAPES,
    generation,
    make_tokenizer,
    reference,
    write_folder,
    write_preprocessor,
    write_words,
)
from tests.parity.test_image_tokenizers import LLAMAGEN, Reference, scattered
from unitok.checkpoints.weights import parameters

WORDS = make_tokenizer()
# transformers' name -> the original's, the first rule that fits.
TOWER, LAYER = "vision_model.vision_tower", r"model\.vision_model\.encoder\.layers"
DOWN, UP = "gen_vision_model.encoder.conv_blocks", "gen_vision_model.decoder.conv_blocks"
TABLE = [
    (r"lm_head\.weight", "language_model.lm_head.weight"),
    (r"model\.language_model\.(.*)", r"language_model.model.\1"),
    (r"model\.vision_model\.embeddings\.patch_embedding\.(.*)", rf"{TOWER}.patch_embed.proj.\1"),
    (r"model\.vision_model\.embeddings\.position_embedding\.weight", f"{TOWER}.pos_embed"),
    (rf"{LAYER}\.(\d+)\.layer_norm(\d)\.(.*)", rf"{TOWER}.blocks.\1.norm\2.\3"),
    (rf"{LAYER}\.(\d+)\.self_attn\.projection_layer\.(.*)", rf"{TOWER}.blocks.\1.attn.proj.\2"),
    (rf"{LAYER}\.(\d+)\.(self_attn\.[qkv]_proj|mlp\.fc\d)\.(.*)", rf"{TOWER}.blocks.\1.\2.\3"),
    (r"model\.vision_model\.post_layernorm\.(.*)", rf"{TOWER}.norm.\1"),
    (r"model\.aligner\.fc1\.(.*)", r"aligner.layers.0.\1"),
    (r"model\.aligner\.hidden_layers\.0\.(.*)", r"aligner.layers.2.\1"),
    (r"model\.generation_aligner\.fc1\.(.*)", r"gen_aligner.layers.0.\1"),
    (r"model\.generation_aligner\.hidden_layers\.0\.(.*)", r"gen_aligner.layers.2.\1"),
    (r"model\.generation_embeddings\.weight", "gen_embed.weight"),
    (r"model\.generation_head\.proj_out\.(.*)", r"gen_head.output_mlp_projector.\1"),
    (r"model\.generation_head\.vision_head\.(.*)", r"gen_head.vision_head.\1"),
    (r"model\.vqmodel\.(encoder|decoder)\.mid\.block_1\.(.*)", r"gen_vision_model.\1.mid.0.\2"),
    (r"model\.vqmodel\.(encoder|decoder)\.mid\.attn_1\.(.*)", r"gen_vision_model.\1.mid.1.\2"),
    (r"model\.vqmodel\.(encoder|decoder)\.mid\.block_2\.(.*)", r"gen_vision_model.\1.mid.2.\2"),
    (r"model\.vqmodel\.encoder\.down\.(\d+)\.block\.(.*)", rf"{DOWN}.\1.res.\2"),
    (r"model\.vqmodel\.encoder\.down\.(\d+)\.(attn|downsample)\.(.*)", rf"{DOWN}.\1.\2.\3"),
    (r"model\.vqmodel\.decoder\.up\.(\d+)\.block\.(.*)", rf"{UP}.\1.res.\2"),
    (r"model\.vqmodel\.decoder\.up\.(\d+)\.(attn|upsample)\.(.*)", rf"{UP}.\1.\2.\3"),
    (r"model\.vqmodel\.(.*)", r"gen_vision_model.\1"),
]  # fmt: skip


def original_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under the original's names, q, k and v in one; nothing to drop."""
    renamed = {}
    for name, tensor in tensors.items():
        rule = next(r for r in TABLE if re.fullmatch(r[0], name))
        renamed[re.sub(*rule, name)] = tensor
    renamed[f"{TOWER}.pos_embed"] = renamed[f"{TOWER}.pos_embed"][None]
    for name in [n for n in renamed if ".self_attn.q_proj." in n and n.startswith("vision")]:
        parts = [renamed.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[name.replace("self_attn.q_proj", "attn.qkv")] = torch.cat(parts)
    return renamed


def extras(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What else lies in a published checkpoint, of the pooling head and of the codebook's use."""
    width = tensors[f"{TOWER}.pos_embed"].shape[-1]
    return {
        "gen_vision_model.quantize.codebook_used": torch.zeros(65536),
        f"{TOWER}.attn_pool.latent": torch.zeros(1, 1, width),
        f"{TOWER}.attn_pool.q.weight": torch.zeros(width, width),
        f"{TOWER}.attn_pool.mlp.fc1.bias": torch.zeros(7),
    }


def original_config(theirs: Any) -> dict[str, Any]:
    """config.json as DeepSeek's, where the sizes are not those fixed in the original's code."""
    text, vision, vq = (getattr(theirs.config, f"{c}_config") for c in ("text", "vision", "vq"))
    size = text.hidden_size
    projector = {"projector_type": "mlp_gelu", "depth": 2, "n_embed": size}
    tower = {
        "image_size": vision.image_size,
        "model_name": "siglip_large_patch16_384",
        "select_feature": "same",
        "select_layer": -1,
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "patch_size": vision.patch_size,
        "mlp_ratio": vision.mlp_ratio,
    }
    painting = {
        "image_token_size": vq.num_embeddings,
        "n_embed": vq.embed_dim,
        "ch": vq.base_channels,
        "encoder_ch_mult": vq.channel_multiplier,
        "decoder_ch_mult": vq.channel_multiplier,
        "num_res_blocks": vq.num_res_blocks,
        "z_channels": vq.latent_channels,
    }
    head = {"n_embed": size, "image_token_embed": size, "image_token_size": vq.num_embeddings}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": "bfloat16",
        "vision_config": {"cls": "CLIPVisionTower", "model_type": "vision", "params": tower},
        "aligner_config": {
            "cls": "MlpProjector",
            "model_type": "aligner",
            "params": projector | {"input_dim": vision.hidden_size},
        },
        "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": painting},
        "gen_aligner_config": {
            "cls": "MlpProjector",
            "model_type": "gen_aligner",
            "params": projector | {"input_dim": vq.embed_dim},
        },
        "gen_head_config": {"cls": "vision_head", "model_type": "gen_head", "params": head},
        "language_config": {
            "model_type": "llama",
            "vocab_size": text.vocab_size,
            "hidden_size": size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "head_dim": text.head_dim,
            "max_position_embeddings": text.max_position_embeddings,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_parameters["rope_theta"],
        },
    }


def write_bins(folder: Path, tensors: dict[str, Tensor], count: int) -> None:
    """pytorch_model.bin, or so many shards of it with their index."""
    if count == 1:
        return torch.save(tensors, folder / "pytorch_model.bin")
    index = {}
    for i in range(count):
        name = f"pytorch_model-{i + 1:05}-of-{count:05}.bin"
        part = {key: tensors[key] for key in sorted(tensors)[i::count]}
        torch.save(part, folder / name)
        index |= dict.fromkeys(part, name)
    document = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "pytorch_model.bin.index.json").write_text(document)


class Both:
    """One random model in two folders: as transformers wrote it, and as DeepSeek would have."""

    def __init__(self, shape: str, folder: Path) -> None:
        self.theirs = reference(SHAPES[shape], WORDS)
        self.transformers, self.original = folder / "transformers", folder / "original"
        self.transformers.mkdir()
        self.original.mkdir()
        write_folder(self.transformers, self.theirs, WORDS)
        self.tensors = original_tensors(load_file(self.transformers / "model.safetensors"))
        write_words(self.original, WORDS)
        write_preprocessor(
            self.original, self.theirs.config.vision_config.image_size, original=True
        )
        config = json.dumps(original_config(self.theirs))
        (self.original / "config.json").write_text(config)


@pytest.fixture(scope="module", params=SHAPES)
def both(request, tmp_path_factory: pytest.TempPathFactory) -> Both:
    made = Both(request.param, tmp_path_factory.mktemp("janus"))
    write_bins(made.original, made.tensors | extras(made.tensors), count=1)
    return made


def load(folder: Path, dtype: str = "float32") -> unitok.Model:
    return unitok.load(folder, device="cpu", dtype=dtype)


def assert_same(one: unitok.Model, other: unitok.Model) -> None:
    """The same sizes and the same bits."""
    assert one.family.model.config == other.family.model.config
    ours, expected = (parameters(m.family.model) for m in (one, other))
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


# --- reading -------------------------------------------------------------------------------------


def test_both_folders_hold_one_model(both: Both):
    assert_same(load(both.original), load(both.transformers))


@pytest.mark.parametrize("kind", ["three shards", "safetensors"])
def test_weights_are_found_in_any_file(kind: str, tmp_path: Path):
    made = Both("wide heads", tmp_path)
    tensors = made.tensors | extras(made.tensors)
    if kind == "safetensors":
        save_file(tensors, made.original / "model.safetensors")
    else:
        write_bins(made.original, tensors, count=3)
    assert_same(load(made.original), load(made.transformers))


def test_both_folders_say_and_paint_the_same(both: Both):
    one, other = load(both.original), load(both.transformers)
    picture = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    said = [m.caption(picture, "How many cats?", max_tokens=12) for m in (one, other)]
    assert said[0].text == said[1].text and said[0].prompt_tokens == said[1].prompt_tokens
    drawn = [m.draw("a cat", seed=1, temperature=1.0) for m in (one, other)]
    assert drawn[0].image.tobytes() == drawn[1].image.tobytes()


@torch.no_grad()
def test_pictures_are_coded_as_the_original_does(tmp_path: Path):
    """l2-normalised, with codebook rows of any length; transformers compares them as they are."""
    made = Both("one key head", tmp_path)
    vq, prefix = SHAPES["one key head"].vq, "gen_vision_model."
    plain = Reference(LLAMAGEN, vq["channel_multiplier"], dim=8, cosine=True, width=32, latent=32)
    plain.tensors = {
        k.removeprefix(prefix): v for k, v in made.tensors.items() if k.startswith(prefix)
    }
    side = 7 * 16
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1
    book = scattered(plain.latents(x), vq["num_embeddings"])
    plain.tensors["quantize.embedding.weight"] = book
    made.tensors[f"{prefix}quantize.embedding.weight"] = book
    write_bins(made.original, made.tensors, count=1)
    tokenizer: Any = load(made.original).family.model.image_tokenizer
    codes = plain.encode(x)
    assert torch.equal(tokenizer.encode((x + 1) / 2), codes)
    assert len(codes.unique()) > codes.numel() // 4, "the codes must tell pictures apart"
    torch.testing.assert_close(tokenizer.decode_raw(codes), plain.decode(codes), atol=1e-5, rtol=0)


def test_a_key_that_is_neither_used_nor_dropped_is_an_error(tmp_path: Path):
    made = Both("wide heads", tmp_path)
    write_bins(made.original, made.tensors | {"gen_vision_model.loss.weight": torch.ones(1)}, 1)
    with pytest.raises(ValueError, match=r"1 unknown keys, such as gen_vision_model\.loss"):
        load(made.original)
    short = {k: v for k, v in made.tensors.items() if "blocks.0.attn.qkv" not in k}
    write_bins(made.original, short, 1)
    with pytest.raises(ValueError, match=r"2 missing keys, such as .*blocks\.0\.attn\.qkv\.bias"):
        load(made.original)
    name = f"{TOWER}.blocks.0.attn.qkv.bias"
    write_bins(made.original, made.tensors | {name: torch.ones(36 * 2)}, 1)
    with pytest.raises(ValueError, match=r"1 tensors .*qkv\.bias is \[72\], not 3 x \[36\]"):
        load(made.original)


# --- writing -------------------------------------------------------------------------------------


def assert_written(folder: Path, tensors: dict[str, Tensor]) -> None:
    written = load_file(folder / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert written[name].dtype == tensor.dtype and torch.equal(written[name], tensor), name


def rounded(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_again_bit_for_bit(both: Both, tmp_path: Path, dtype: torch.dtype):
    """The original's names from transformers' folder, and transformers' names from that."""
    there, back = tmp_path / "there", tmp_path / "back"
    load(both.transformers, str(dtype)[6:]).save(there, "original")
    assert_written(there, rounded(both.tensors, dtype))
    load(there, str(dtype)[6:]).save(back)
    stored = load_file(both.transformers / "model.safetensors")
    assert_written(back, rounded(stored, dtype))


def test_the_original_config_makes_the_round_trip(both: Both, tmp_path: Path):
    load(both.original).save(tmp_path, "original")
    written = json.loads((tmp_path / "config.json").read_text())
    stated = json.loads((both.original / "config.json").read_text())
    for part in ("aligner_config", "gen_aligner_config", "gen_head_config"):
        assert written[part] == stated[part]
    assert_same(load(tmp_path), load(both.original))


@torch.no_grad()
def test_transformers_opens_what_was_saved_and_draws_and_says_the_same(both: Both, tmp_path: Path):
    load(both.original).save(tmp_path, "transformers")
    opened: Any = JanusForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    model, report = opened
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.tensor([WORDS.encode("<|User|>: a cat").ids])
    for mode in ("text", "image"):
        config = generation(WORDS, guidance_scale=5, max_new_tokens=20)
        one, other = (
            m.eval().generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_mode=mode,
                generation_config=config,
            )
            for m in (model, both.theirs)
        )
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_tied_embeddings_stay_tied(layout: str, tmp_path: Path):
    tied = reference(SHAPES["grouped heads"], WORDS, tied=True)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    first = load(write_folder(source, tied, WORDS))
    first.save(target, layout)
    written = load_file(target / "model.safetensors")
    assert not any("lm_head" in name for name in written)
    assert_same(load(target), first)
    model: Any = load(target).family.model
    assert model.text_head.weight is model.text_embedding.weight


def test_a_folder_can_be_written_over_by_the_model_that_lies_in_it(both: Both, tmp_path: Path):
    load(both.transformers).save(tmp_path)
    load(tmp_path).save(tmp_path, "original")
    assert_same(load(tmp_path), load(both.original))


def test_an_unknown_layout_is_refused(both: Both, tmp_path: Path):
    with pytest.raises(
        ValueError, match="layout must be one of transformers, original, not 'gguf'"
    ):
        load(both.original).save(tmp_path, "gguf")
    assert not list(tmp_path.iterdir())
