"""Tiny Chameleons: text tokenizers with image names, and folders that the tests fill."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from unitok.checkpoints.adapter import StateDictAdapter, renaming
from unitok.checkpoints.saving import stored_tensors, write_tensors
from unitok.checkpoints.settings import Settings
from unitok.families import open_folder
from unitok.families.chameleon import Chameleon
from unitok.families.chameleon.config import read_autoencoder
from unitok.families.chameleon.image_ids import ImageIds
from unitok.families.chameleon.weights import TRANSFORMERS, TRANSFORMERS_VQGAN, make_adapter
from unitok.families.unitoken.config import read_vision
from unitok.families.unitoken.weights import RENAMES
from unitok.nn.config import DecoderConfig, ModelConfig
from unitok.nn.model import UnifiedModel
from unitok_tokenizers.taming import taming_name

CODES = 24
# Other ids than the published ones, so that only their names can find them.
SPECIAL = {
    "<pad>": 0,
    "<s>": 3,
    "</s>": 5,
    "<eoss>": 40,
    "<racm3:break>": 37,
    "<reserved08706>": 39,
    "<reserved08707>": 41,
}
BOS, EOS, EOI, BOI, EOT = 3, 5, 40, 37, 39
IMAGE_START, TEXT_START = 10, 50
VOCAB_SIZE = 320

VQ_CONFIG: dict[str, Any] = {
    "embed_dim": 4,
    "num_embeddings": CODES,
    "latent_channels": 8,
    "resolution": 16,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 2],
    "num_res_blocks": 1,
}
GRID, PATCHES = 4, 16
DECODER = DecoderConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=64,
    intermediate_size=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    max_positions=256,
    norm_eps=1e-5,
    qk_norm=True,
)


def image_name(code: int) -> str:
    return "IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(code)) + "Z"


def vocabulary(order: Sequence[int] = range(CODES)) -> dict[str, int]:
    """Names to ids: special tokens, image tokens in an order of codes, bytes."""
    images = {image_name(code): IMAGE_START + i for i, code in enumerate(order)}
    letters = {letter: TEXT_START + i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    return SPECIAL | images | letters


def tokenizer_json(vocabulary: Mapping[str, int]) -> dict[str, Any]:
    """A byte-level tokenizer without merges: a character is a token, or a few."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": vocabulary[name], "content": name, "special": True} | flags
            for name in sorted(SPECIAL.keys() & vocabulary.keys(), key=lambda n: vocabulary[n])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": dict(vocabulary), "merges": []},
    }


def words(text: str) -> list[int]:
    """Ids of ASCII text."""
    alphabet, ids = sorted(ByteLevel.alphabet()), []
    for character in text:
        ids.append(TEXT_START + alphabet.index({" ": "Ġ", "\n": "Ċ"}.get(character, character)))
    return ids


def write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def config_json(decoder: DecoderConfig = DECODER, **changes: Any) -> dict[str, Any]:
    """config.json as transformers writes it; None takes a setting out."""
    data = {
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "max_position_embeddings": decoder.max_positions,
        "rms_norm_eps": decoder.norm_eps,
        "swin_norm": decoder.post_norm,
        "vq_config": VQ_CONFIG,
        "vocabulary_map": vocabulary(),
    } | changes
    return {key: value for key, value in data.items() if value is not None}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights, large enough that inputs matter."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 2 else 0.2
            p.copy_(torch.randn_like(p) * scale + (p if p.ndim == 1 and "norm" in name else 0))


def tiny_model(decoder: DecoderConfig = DECODER, start: int = IMAGE_START) -> UnifiedModel:
    """With the VQGAN's decoder."""
    codec = read_autoencoder(Settings(VQ_CONFIG))
    codec = type(codec)(**{**vars(codec), "decoder": True})
    model = UnifiedModel(ModelConfig(decoder, None, codec, image_start=start)).eval()
    model.requires_grad_(False)
    randomise(model)
    model.image_tokenizer.quantizer.codebook.normal_()
    return model


def vqgan_tensors(model: UnifiedModel) -> dict[str, Tensor]:
    """The whole VQGAN under Meta's names."""
    state = model.image_tokenizer.state_dict()
    levels = len(model.image_tokenizer.config.channel_multiplier)
    return {taming_name(name, levels): tensor.clone() for name, tensor in state.items()}


def save_vqgan(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"loss.discriminator.weight": torch.zeros(2)}
    torch.save({"state_dict": {**tensors, **extra}}, path)


def transformers_adapter(model: UnifiedModel) -> StateDictAdapter:
    ids = ImageIds(model.config.image_start, tuple(range(CODES)))
    names, vqgan = TRANSFORMERS, TRANSFORMERS_VQGAN
    return make_adapter(model.config, ids, names, vqgan)


def save_tiny(folder: Path, model: UnifiedModel | None = None, **changes: Any) -> Path:
    """A folder in transformers' format: without the decoder, as theirs."""
    model = model or tiny_model()
    config = model.config
    tensors = stored_tensors(model, transformers_adapter(model), torch.float32)
    write_tensors({k: v for k, v in tensors.items() if "vqmodel.decoder" not in k}, folder)
    write(folder / "config.json", config_json(config.decoder, **changes))
    write(folder / "tokenizer.json", tokenizer_json(vocabulary()))
    return folder


# --- Meta's format -------------------------------------------------------------------------------


def save_meta(
    root: Path,
    files: Sequence[Mapping[str, Tensor]],
    params: Mapping[str, Any],
    names: Mapping[str, int],
    vqgan: Mapping[str, Tensor],
) -> Path:
    """Lay a model out as Meta's download has it, and return the model's own folder in it.

    files: the weights, one mapping for each file of a model-parallel checkpoint. names: the text
    tokenizer's vocabulary.
    """
    model, tokenizer = root / "models" / "7b", root / "tokenizer"
    write(model / "params.json", {"model": dict(params), "seed": 1})
    write(model / "consolidate_params.json", {"model_parallel_size": len(files)})
    for i, tensors in enumerate(files):
        name = "consolidated.pth" if len(files) == 1 else f"consolidated.{i:02}.pth"
        torch.save(dict(tensors), model / name)
    write(tokenizer / "text_tokenizer.json", tokenizer_json(names))
    save_vqgan(vqgan, tokenizer / "vqgan.ckpt")
    (tokenizer / "vqgan.yaml").write_text(vqgan_yaml())
    return model


def meta_tensors(
    state: Mapping[str, Tensor], heads: int, kv_heads: int, shards: int
) -> list[dict[str, Tensor]]:
    """transformers' tensors of Chameleon -> those of each of Meta's files, by hand.

    The norms of queries and of keys must be equal for all heads of a file.
    """
    size = state["model.layers.0.self_attn.q_norm.weight"].shape[-1]
    turned = [i // 2 + (i % 2) * size // 2 for i in range(size)]  # where row i of a head lies there

    def pairs(tensor: Tensor, count: int) -> Tensor:
        return tensor[[head * size + row for head in range(count) for row in turned]]

    files: list[dict[str, Tensor]] = [{"rope.freqs": torch.ones(size // 2)} for _ in range(shards)]

    def put(name: str, tensor: Tensor, dim: int | None) -> None:
        parts = [tensor] * shards if dim is None else tensor.chunk(shards, dim)
        for file, part in zip(files, parts, strict=True):
            file[name] = part.clone()

    put("tok_embeddings.weight", state["model.embed_tokens.weight"], 1)
    put("output.weight", state["lm_head.weight"], 0)
    put("norm.weight", state["model.norm.weight"], None)
    layers = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("model.layers."))
    for i in range(layers):
        old, new = f"model.layers.{i}.", f"layers.{i}."
        put(f"{new}attention_norm.weight", state[f"{old}input_layernorm.weight"], None)
        put(f"{new}ffn_norm.weight", state[f"{old}post_attention_layernorm.weight"], None)
        for which, count in (("q", heads), ("k", kv_heads)):
            weight = state[f"{old}self_attn.{which}_proj.weight"]
            put(f"{new}attention.w{which}.weight", pairs(weight, count), 0)
            for leaf in ("weight", "bias"):
                rows = state[f"{old}self_attn.{which}_norm.{leaf}"].chunk(shards)
                for file, part in zip(files, rows, strict=True):
                    assert part.eq(part[0]).all(), "one norm in a file"
                    file[f"{new}attention.{which}_normalization.{leaf}"] = part[0][turned].clone()
        put(f"{new}attention.wv.weight", state[f"{old}self_attn.v_proj.weight"], 0)
        put(f"{new}attention.wo.weight", state[f"{old}self_attn.o_proj.weight"], 1)
        put(f"{new}feed_forward.w1.weight", state[f"{old}mlp.gate_proj.weight"], 0)
        put(f"{new}feed_forward.w3.weight", state[f"{old}mlp.up_proj.weight"], 0)
        put(f"{new}feed_forward.w2.weight", state[f"{old}mlp.down_proj.weight"], 1)
    return files


def vqgan_yaml() -> str:
    """Write `VQ_CONFIG` in Meta's words."""
    settings = {
        "ch": VQ_CONFIG["base_channels"],
        "ch_mult": VQ_CONFIG["channel_multiplier"],
        "num_res_blocks": VQ_CONFIG["num_res_blocks"],
        "z_channels": VQ_CONFIG["latent_channels"],
        "resolution": VQ_CONFIG["resolution"],
        "attn_resolutions": [],
        "double_z": False,
        "in_channels": 3,
        "out_ch": 3,
        "dropout": 0.0,
    }
    vq = {"embed_dim": VQ_CONFIG["embed_dim"], "n_embed": CODES, "ddconfig": settings}
    params = vq | {"lossconfig": {"target": "x"}}
    return yaml.safe_dump({"model": {"target": "vqgan.VQModel", "params": params}})


def save_tiny_meta(root: Path) -> Path:
    """A whole download in Meta's format, its weights in two files; it paints."""
    model, shards = tiny_model(), 2
    randomise(model, seed=1)  # other weights than those of `save_tiny`
    share_norms(model, shards)
    state = stored_tensors(model, transformers_adapter(model), torch.float32)
    files = meta_tensors(state, DECODER.heads, DECODER.kv_heads, shards)
    # Meta's rule for the MLP: half of 2 * 4 * 64 / 3 is 85, and up to a multiple of 32 it is 96.
    params = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": VOCAB_SIZE}
    params |= {"ffn_dim_multiplier": 0.5, "multiple_of": 32, "qk_normalization": True}
    return save_meta(root, files, params, vocabulary(), vqgan_tensors(model))


def share_norms(model: UnifiedModel, shards: int) -> None:
    """Give the heads of each of Meta's files one norm, as its format has it."""
    for name, parameter in model.named_parameters():
        if "q_norm" in name or "k_norm" in name:
            rows = parameter.chunk(shards)
            parameter.copy_(torch.cat([part[:1].expand_as(part) for part in rows]))


# --- UniToken, with the published ids ------------------------------------------------------------

REAL_SIZE = 16864
REAL_SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "<eoss>": 8196, "<racm3:break>": 8197}


def real_vocabulary() -> dict[str, int]:
    """Special tokens and image tokens at their published ids; bytes from 16600 on."""
    images = {image_name(code): 4 + code for code in range(8192)}
    reserved = {f"<reserved{id - 4:05d}>": id for id in range(8199, 16600)}
    letters = {letter: 16600 + i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    rest = {f"<rest{id}>": id for id in range(16856, REAL_SIZE)}
    return REAL_SPECIAL | images | {"<sentinel:0>": 8198} | reserved | letters | rest


def real_words(text: str) -> list[int]:
    return [id - TEXT_START + 16600 for id in words(text)]


REAL_VQ = VQ_CONFIG | {"num_embeddings": 8192}
VISION_CONFIG: dict[str, Any] = {  # 30 = 4 * 7 + 2: a border that no patch sees
    "image_size": 30,
    "patch_size": 7,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
REAL_DECODER = DecoderConfig(
    vocab_size=REAL_SIZE,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    kv_heads=2,
    head_dim=16,
    max_positions=256,
    norm_eps=1e-5,
    qk_norm=True,
)


def unitoken_json(variant: str = "Base", **changes: Any) -> dict[str, Any]:
    """config.json as UniToken's training writes it, with sizes of SigLIP that theirs leaves out."""
    settings = {
        "architectures": [f"ChameleonXLLMXForConditionalGeneration{variant}"],
        "vq_config": REAL_VQ,
        "vocabulary_map": real_vocabulary(),
        "vision_config": VISION_CONFIG,
        "mask_image_logits": False,
        "z_loss_weight": 1e-5,
        "dropout": 0.05,
    }
    return config_json(REAL_DECODER, **(settings | changes))


def save_unitoken(folder: Path, variant: str = "Base", **changes: Any) -> Path:
    """A folder as UniToken's training writes it, with Meta's VQGAN put beside it."""
    data = unitoken_json(variant, **changes)
    codec = read_autoencoder(Settings(data["vq_config"]))
    codec = type(codec)(**{**vars(codec), "decoder": True})
    vision = read_vision(Settings(data))
    model = UnifiedModel(ModelConfig(REAL_DECODER, vision, codec, image_start=4)).eval()
    model.requires_grad_(False)
    randomise(model)
    model.text_embedding.weight.mul_(5)
    model.image_tokenizer.quantizer.codebook.normal_()
    names = renaming(RENAMES)
    tensors = stored_tensors(model, names, torch.float32)
    tensors = {k: v for k, v in tensors.items() if not k.startswith("image_tokenizer.")}
    tensors |= {"vit.head.probe": torch.zeros(1, 1, 32)}
    write_tensors(tensors, folder)
    save_vqgan(vqgan_tensors(model), folder / "tokenizer" / "vqgan.ckpt")
    write(folder / "config.json", data)
    write(folder / "tokenizer.json", tokenizer_json(real_vocabulary()))
    return folder


def opened(folder: Path) -> Chameleon:
    family = open_folder(folder, "cpu", torch.float32, strict=True)
    assert isinstance(family, Chameleon)
    return family


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
