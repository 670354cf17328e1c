"""Janus and Janus-Pro in transformers' folder format: config, weights, prompts, plans.

Paper: https://arxiv.org/abs/2410.13848 and https://arxiv.org/abs/2501.17811. The folder holds
config.json, model.safetensors, tokenizer.json, preprocessor_config.json, generation_config.json.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoint import (
    fill,
    open_tensors,
    ready,
    renaming,
    stored_tensors,
    write_json,
    write_tensors,
)
from unitok.config import DecoderConfig, JanusConfig, VisionConfig
from unitok.families.family import Defaults, Drawing, Wish, painted_size
from unitok.families.settings import check_settings, read_decoder
from unitok.files import read_json
from unitok.model import UnifiedModel
from unitok.pictures import digest
from unitok.prompt import Line, LineBuilder, Message, ReadPicture, Role, Vectors
from unitok_engine import FixedPlan, FreePlan, IdRange, Plan
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.text import TextTokenizer

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)

# Our names -> transformers' names, applied in order.
LAYERS = "model.language_model.layers."
VISION = "model.vision_model."
SEEING = rf"{VISION}encoder.layers.\1."
TRANSFORMERS = renaming([
    (r"^text_embedding\.", "model.language_model.embed_tokens."),
    (r"^text_head\.", "lm_head."),
    (r"^decoder\.norm\.", "model.language_model.norm."),
    (r"^decoder\.blocks\.(\d+)\.attention_norm\.", rf"{LAYERS}\1.input_layernorm."),
    (r"^decoder\.blocks\.(\d+)\.mlp_norm\.", rf"{LAYERS}\1.post_attention_layernorm."),
    (r"^decoder\.blocks\.(\d+)\.attention\.(\w)\.", rf"{LAYERS}\1.self_attn.\2_proj."),
    (r"^decoder\.blocks\.(\d+)\.mlp\.(\w+)\.", rf"{LAYERS}\1.mlp.\2_proj."),
    (r"^image_embedding\.", "model.generation_embeddings."),
    (r"^image_aligner\.fc1\.", "model.generation_aligner.fc1."),
    (r"^image_aligner\.fc2\.", "model.generation_aligner.hidden_layers.0."),
    (r"^image_head\.fc1\.", "model.generation_head.proj_out."),
    (r"^image_head\.fc2\.", "model.generation_head.vision_head."),
    (r"^vision\.(patch|position)_embedding\.", rf"{VISION}embeddings.\1_embedding."),
    (r"^vision\.blocks\.(\d+)\.norm(\d)\.", rf"{SEEING}layer_norm\2."),
    (r"^vision\.blocks\.(\d+)\.attention\.o\.", rf"{SEEING}self_attn.projection_layer."),
    (r"^vision\.blocks\.(\d+)\.attention\.(\w)\.", rf"{SEEING}self_attn.\2_proj."),
    (r"^vision\.blocks\.(\d+)\.mlp\.", f"{SEEING}mlp."),
    (r"^vision\.norm\.", f"{VISION}post_layernorm."),
    (r"^vision_aligner\.fc1\.", "model.aligner.fc1."),
    (r"^vision_aligner\.fc2\.", "model.aligner.hidden_layers.0."),
    (r"^image_tokenizer\.quantizer\.codebook$", "model.vqmodel.quantize.embedding.weight"),
    (r"^image_tokenizer\.", "model.vqmodel."),
    (r"^(model\.vqmodel\.encoder)\.levels\.(\d+)\.resample\.", r"\1.down.\2.downsample."),
    (r"^(model\.vqmodel\.decoder)\.levels\.(\d+)\.resample\.", r"\1.up.\2.upsample."),
    (r"^(model\.vqmodel\.encoder)\.levels\.", r"\1.down."),
    (r"^(model\.vqmodel\.decoder)\.levels\.", r"\1.up."),
    (r"^(model\.vqmodel\..*)\.blocks\.(\d+)\.(norm\d|conv\d|shortcut)\.", r"\1.block.\2.\3."),
    (r"^(model\.vqmodel\..*)\.shortcut\.", r"\1.nin_shortcut."),
    (r"^(model\.vqmodel\..*)\.attentions\.(\d+)\.proj\.", r"\1.attn.\2.proj_out."),
    (r"^(model\.vqmodel\..*)\.attentions\.", r"\1.attn."),
    (r"^(model\.vqmodel\..*)\.middle\.block(\d)\.", r"\1.mid.block_\2."),
    (r"^(model\.vqmodel\..*)\.middle\.attention\.proj\.", r"\1.mid.attn_1.proj_out."),
    (r"^(model\.vqmodel\..*)\.middle\.attention\.", r"\1.mid.attn_1."),
])  # fmt: skip


# --- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """The conversation format of Janus and Janus-Pro (deepseek-ai/Janus, janus/utils/conversation).

    A turn is "ROLE: text"; user turns end in a blank line, assistant turns in end of sentence.
    """

    tokenizer: TextTokenizer
    picture_length: int
    bos: str = "<｜begin▁of▁sentence｜>"
    eos: str = "<｜end▁of▁sentence｜>"
    pad: str = "<｜▁pad▁｜>"
    begin_of_image: str = "<begin_of_image>"
    end_of_image: str = "<end_of_image>"
    placeholder: str = "<image_placeholder>"
    user: str = "<|User|>"
    assistant: str = "<|Assistant|>"

    def start(self, system: str = "") -> LineBuilder:
        builder = LineBuilder(self.tokenizer).special(self.bos)
        return builder.text(system + "\n\n") if system else builder

    def turn(self, builder: LineBuilder, message: Message) -> LineBuilder:
        """Add a whole turn."""
        self.open_turn(builder, message.role)
        if message.role == "user":
            builder.text(" ")
            for picture in message.pictures:
                builder.picture(picture).text("\n")
            return builder.text(message.text + "\n\n")
        for picture in message.pictures:
            builder.picture(picture)
        if message.text:
            builder.text(" " + message.text)
        return builder.special(self.eos)

    def open_turn(self, builder: LineBuilder, role: Role) -> LineBuilder:
        """Add "ROLE:", after which the speaker goes on."""
        return builder.special(self.user if role == "user" else self.assistant).text(":")

    def picture(self, pixels: Tensor, digest: str, read: Callable[[Tensor], Tensor]) -> ReadPicture:
        """Pixels [3, S, S], read [B, 3, S, S] -> [B, n, d] when needed, between their marks."""
        begin, place, end = map(
            self.tokenizer.id, (self.begin_of_image, self.placeholder, self.end_of_image)
        )
        vectors = Vectors(place, self.picture_length, digest, lambda: read(pixels[None])[0])
        return ReadPicture(((begin,), vectors, (end,)))

    def answer(self, messages: Sequence[Message], system: str = "") -> Line:
        """The line after which the model writes its next message."""
        return self._open(messages, system).line()

    def draw(self, messages: Sequence[Message], system: str = "") -> Line:
        """The line after which the model paints: it ends in begin-of-image."""
        return self._open(messages, system).special(self.begin_of_image).line()

    def _open(self, messages: Sequence[Message], system: str) -> LineBuilder:
        builder = self.start(system)
        for message in messages:
            self.turn(builder, message)
        return self.open_turn(builder, "assistant")

    def negative(self, text: str) -> Line:
        """What guidance steers away from when the user says it in words."""
        return self.draw([Message("user", text)])

    def unconditional(self, prompt: Line) -> Line:
        """What guidance steers away from: the prompt with pads for all but its ends.

        The pads are attended to, as in the reference; so the line depends on its length alone.
        """
        pads = [self.tokenizer.id(self.pad)] * (len(prompt.ids) - 2)
        return Line((prompt.ids[0], *pads, prompt.ids[-1]))


# --- config.json ---------------------------------------------------------------------------------


def config_to_json(config: JanusConfig, image_token_id: int, dtype: str) -> dict[str, Any]:
    """JanusConfig -> the dictionary transformers' JanusConfig reads."""
    d, v, t = config.decoder, config.vision, config.image_tokenizer
    vq = {
        "model_type": "janus_vqgan",
        "embed_dim": t.code_dim,
        "num_embeddings": t.codebook_size,
        "latent_channels": t.latent_channels,
        "base_channels": t.base_channels,
        "channel_multiplier": list(t.channel_multiplier),
        "num_res_blocks": t.res_blocks,
        "num_patches": t.grid,
        "num_hidden_layers": 2,
        "projection_dim": d.hidden_size,
        "image_token_embed_dim": d.hidden_size,
    }
    if t.encoder != "conv":  # transformers knows the convolutional encoder only
        vq |= {"encoder": t.encoder, "patch_width": t.patch_width}
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "image_token_id": image_token_id,
        "tie_word_embeddings": False,
        "dtype": dtype,
        "text_config": {
            "model_type": "llama",
            "vocab_size": d.vocab_size,
            "hidden_size": d.hidden_size,
            "intermediate_size": d.intermediate_size,
            "num_hidden_layers": d.layers,
            "num_attention_heads": d.heads,
            "num_key_value_heads": d.kv_heads,
            "head_dim": d.head_dim,
            "max_position_embeddings": d.max_positions,
            "rms_norm_eps": d.norm_eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": d.rope_theta},
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "model_type": "janus_vision_model",
            "image_size": v.image_size,
            "patch_size": v.patch_size,
            "hidden_size": v.hidden_size,
            "mlp_ratio": v.intermediate_size / v.hidden_size,
            "num_hidden_layers": v.layers,
            "num_attention_heads": v.heads,
            "layer_norm_eps": v.norm_eps,
            "hidden_act": "gelu",
            "projection_dim": d.hidden_size,
            "depth": 2,
            "num_image_tokens": v.patches,
        },
        "vq_config": vq,
    }


LLAMA = DecoderConfig(  # what transformers takes for absent settings
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    max_positions=2048,
)
READ = {"text_config", "vision_config", "vq_config", "image_token_id", "tie_word_embeddings"}
VISION_READ = """image_size patch_size hidden_size mlp_ratio num_hidden_layers num_attention_heads
    layer_norm_eps projection_dim num_image_tokens""".split()
VISION_NEUTRAL = {
    "hidden_act": ("gelu",),
    "num_channels": (3,),
    "attention_bias": (True,),
    "use_qk_norm": (False,),
    "depth": (2,),
    "hidden_dropout_rate": (0.0,),
    "projection_dropout": (0.0,),
}
VQ_READ = """embed_dim num_embeddings latent_channels base_channels channel_multiplier
    num_res_blocks encoder patch_width num_patches projection_dim image_token_embed_dim""".split()
VQ_NEUTRAL = {
    "double_latent": (False,),
    "in_channels": (3,),
    "out_channels": (3,),
    "hidden_act": ("gelu",),
    "num_hidden_layers": (2,),
}


def config_from_json(data: Mapping[str, Any]) -> JanusConfig:
    """The dictionary of config.json -> JanusConfig; absent keys take transformers' defaults.

    Raises:
        ValueError: another model type, or a setting that would change the maths.
    """
    if data.get("model_type") != "janus":
        raise ValueError(f"model_type is {data.get('model_type')!r}; this loader reads 'janus'")
    text, vision, vq = (data.get(f"{part}_config") or {} for part in ("text", "vision", "vq"))
    check_settings(data, "config.json", READ)
    check_settings(vision, "vision_config", VISION_READ, VISION_NEUTRAL)
    check_settings(vq, "vq_config", VQ_READ, VQ_NEUTRAL)
    decoder = read_decoder(text, "text_config", LLAMA)
    width = vision.get("hidden_size", 1024)
    reading = VisionConfig(
        image_size=vision.get("image_size", 384),
        patch_size=vision.get("patch_size", 16),
        hidden_size=width,
        intermediate_size=int(width * vision.get("mlp_ratio", 4.0)),
        layers=vision.get("num_hidden_layers", 24),
        heads=vision.get("num_attention_heads", 16),
        norm_eps=vision.get("layer_norm_eps", 1e-6),
    )
    multiplier = tuple(vq.get("channel_multiplier", (1, 1, 2, 2, 4)))
    painting = AutoencoderConfig(
        # transformers sets the painted grid to that of the patches read.
        image_size=reading.image_size // reading.patch_size * 2 ** (len(multiplier) - 1),
        codebook_size=vq.get("num_embeddings", 16384),
        code_dim=vq.get("embed_dim", 8),
        latent_channels=vq.get("latent_channels", 256),
        base_channels=vq.get("base_channels", 128),
        channel_multiplier=multiplier,
        res_blocks=vq.get("num_res_blocks", 2),
        encoder=vq.get("encoder", "conv"),
        patch_width=vq.get("patch_width", 256),
    )
    return JanusConfig(decoder, reading, painting)


# --- weights -------------------------------------------------------------------------------------


def load_weights(
    folder: Path, config: JanusConfig, dtype: torch.dtype, device: str
) -> UnifiedModel:
    """Build the model and fill it from the folder's weights, strictly.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: an unreadable file; a missing, extra or misshapen key.
    """
    with torch.device("meta"):
        model = UnifiedModel(config)
    fill(model, open_tensors(folder), TRANSFORMERS, dtype, device)
    return ready(model, device)


def save_weights(model: UnifiedModel, folder: Path, dtype: torch.dtype) -> None:
    """Write `model.safetensors` under transformers' names."""
    write_tensors(stored_tensors(model, TRANSFORMERS, dtype), folder)


def save_config(config: JanusConfig, folder: Path, image_token_id: int, dtype: torch.dtype) -> None:
    """Write `config.json`."""
    data = config_to_json(config, image_token_id, str(dtype).removeprefix("torch."))
    write_json(folder / "config.json", data)


# --- pictures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocessor:
    """Janus's own rule: fit the longer side (sizes truncated, as the original does), pad with the
    mean colour, normalise (deepseek-ai/Janus, janus/models/image_processing_vlm.py)."""

    image_size: int = 384
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    min_size: int = 14

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size a picture is shrunk or enlarged to, before padding."""
        longer = max(width, height)
        shrink = [int(side / longer * self.image_size) for side in (width, height)]
        return max(shrink[0], self.min_size), max(shrink[1], self.min_size)

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> pixels [3, S, S], normalised."""
        size = self.resized(*image.size)
        small = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        colour = tuple(int(m * 255) for m in self.mean)
        square = Image.new("RGB", (self.image_size, self.image_size), colour)
        square.paste(small, ((self.image_size - size[0]) // 2, (self.image_size - size[1]) // 2))
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (pixels - mean) / std


# --- the family ----------------------------------------------------------------------------------


class Janus:
    """Everything of a Janus checkpoint that the API needs; see `unitok.families.Family`."""

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        template: Template,
        preprocess: Preprocessor,
        defaults: Defaults,
    ) -> None:
        self.name, self.model, self.template = name, model, template
        self.tokenizer, self.preprocess, self.defaults = template.tokenizer, preprocess, defaults
        self.max_context = model.config.decoder.max_positions
        side = model.image_tokenizer.config.image_size
        self.picture_size, self.picture_tokens = (side, side), template.picture_length

    def read(self, image: Image.Image) -> ReadPicture:
        pixels = self.preprocess(image)
        return self.template.picture(pixels, digest(pixels, self.name), self.features)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] -> features [B, patches, d]."""
        with torch.inference_mode():
            return self.model.read(pixels)

    def answer(self, messages: Sequence[Message], system: str | None) -> Line:
        system = self.defaults.system if system is None else system
        return self.template.answer(messages, system)

    def draw(self, messages: Sequence[Message], wish: Wish) -> Drawing:
        """What guidance steers away from sees the last request alone."""
        painted_size(wish, self.picture_size)
        image = self.model.vocabulary.image_range
        plan = FixedPlan(IdRange(image.start, image.stop), self.picture_tokens)
        line = self.template.draw(messages)
        if wish.guidance == 1.0:
            return Drawing(((line, 1.0),), plan, self.paint)
        last = self.template.draw(messages[-1:])
        against = (
            self.template.unconditional(last)
            if wish.negative is None
            else self.template.negative(wish.negative)
        )
        return Drawing(((line, wish.guidance), (against, 1.0 - wish.guidance)), plan, self.paint)

    def text_plan(self, max_tokens: int) -> Plan:
        text = self.model.vocabulary.text_range
        stop = frozenset([self.tokenizer.id(self.template.eos)])
        return FreePlan(IdRange(text.start, text.stop), stop, max_tokens)

    def paint(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Picture ids [B, patches] -> pictures [B, 3, S, S] in [0, 1]."""
        codes = self.model.vocabulary.id_to_code(torch.tensor(ids))
        return self.model.image_tokenizer.decode(codes.to(self.model.device))

    def save(self, folder: Path, layout: str | None) -> None:
        raise ValueError("not yet")


def recognises(config: Mapping[str, Any], names: frozenset[str]) -> bool:
    return config.get("model_type") == "janus"


def load(folder: Path, device: str, dtype: torch.dtype) -> Janus:
    """Open a folder in transformers' Janus format.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not fit the others.
    """
    config = config_from_json(read_json(folder / "config.json"))
    preprocess = preprocessor_from_json(read_json(folder / "preprocessor_config.json"))
    if preprocess.image_size != config.vision.image_size:
        raise ValueError(
            f"{folder}: preprocessor_config.json and config.json differ in picture size"
        )
    tokenizer = TextTokenizer.load(folder)
    if tokenizer.size > config.decoder.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, "
            f"the model {config.decoder.vocab_size}"
        )
    defaults = defaults_from_json(
        read_json(folder / "generation_config.json", optional=True),
        read_json(folder / "unitok.json", optional=True),
    )
    model = load_weights(folder, config, dtype, device)
    template = Template(tokenizer, config.vision.patches)
    return Janus(folder.name, model, template, preprocess, defaults)


def preprocessor_from_json(data: Mapping[str, Any]) -> Preprocessor:
    size = data.get("size", 384)
    size = size.get("height", 384) if isinstance(size, Mapping) else data.get("image_size", size)
    if missing := [key for key in ("image_mean", "image_std") if key not in data]:
        raise ValueError(f"preprocessor_config.json has no {' and no '.join(missing)}")
    return Preprocessor(
        image_size=size,
        mean=tuple(data["image_mean"]),
        std=tuple(data["image_std"]),
        min_size=data.get("min_size", 14),
    )


def preprocessor_to_json(size: int) -> dict[str, Any]:
    """preprocessor_config.json, as transformers' JanusImageProcessor reads it."""
    return {
        "image_processor_type": "JanusImageProcessor",
        "processor_class": "JanusProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_pad": True,
        "size": {"height": size, "width": size},
        "min_size": 14,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "background_color": [127, 127, 127],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def defaults_from_json(generation: Mapping[str, Any], extra: Mapping[str, Any]) -> Defaults:
    """Sampling from generation_config.json; what only we know from unitok.json."""
    return Defaults(
        temperature=generation.get("temperature", 1.0)
        if generation.get("do_sample", True)
        else 0.0,
        top_k=generation.get("top_k") or 0,
        top_p=generation.get("top_p") or 1.0,
        guidance=generation.get("guidance_scale") or 5.0,
        question=extra.get("question", "Describe the picture."),
        system=extra.get("system", SYSTEM),
        known_words=frozenset(extra["known_words"]) if "known_words" in extra else None,
    )
