"""Janus and Janus-Pro, in transformers' folders and DeepSeek's own: weights, prompts, plans.

Paper: https://arxiv.org/abs/2410.13848 and https://arxiv.org/abs/2501.17811. A folder holds
config.json, weights, tokenizer.json, preprocessor_config.json and perhaps generation_config.json.
What differs in DeepSeek's own folders is in `janus_original`.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import (
    check_pixels,
    check_scale,
    check_settings,
    flag,
    need_pixels,
    read_colours,
    read_side,
    real,
    section,
    whole,
    wholes,
)
from unitok.checkpoints.weights import (
    Dtype,
    Layout,
    Stored,
    fill,
    open_tensors,
    ready,
    renaming,
    stored_tensors,
    write_json,
    write_tensors,
)
from unitok.families import janus_original
from unitok.families.common.family import (
    Defaults,
    GenerationSpec,
    ImageOptions,
    check_ids,
    check_image_size,
    with_sampling,
)
from unitok.families.common.guidance import guided
from unitok.families.common.llama import LLAMA, llama_names, read_decoder
from unitok.nn.config import JanusConfig, VisionConfig
from unitok.nn.model import UnifiedModel
from unitok.pictures import digest
from unitok.precision import name_of, read_cpu_dtype
from unitok.prompt import (
    Branch,
    Embeddings,
    EncodedImage,
    ImageEncoderBatch,
    Message,
    PromptBuilder,
    Role,
)
from unitok_engine import FixedPlan, FreePlan, Plan
from unitok_tokenizers import taming
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.taming import rename
from unitok_tokenizers.text import TextTokenizer

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
QUESTION = "Describe the picture."  # of ours: the papers name none
BICUBIC = int(Image.Resampling.BICUBIC)

# Our names -> transformers' names, but for the image tokenizer's, applied in order.
PAINTING = "model.vqmodel."
VISION = "model.vision_model."
SEEING = rf"{VISION}encoder.layers.\1."
names = renaming([
    *llama_names("model.language_model", "lm_head"),
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
])  # fmt: skip


def layout(key: str) -> Stored:
    """Where a parameter of ours lies in transformers' folder."""
    if key.startswith("image_tokenizer."):
        # Its decoder counts levels as ours does, not as the image tokenizer it comes from.
        return Stored(PAINTING + rename(key.removeprefix("image_tokenizer."), taming.RENAMES))
    return names(key)


# --- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """The conversation format of Janus and Janus-Pro (deepseek-ai/Janus, janus/utils/conversation).

    A turn is "ROLE: text"; user turns end in a blank line, assistant turns in end of sentence. As
    there, space around what is said is dropped. A role is a special token if the tokenizer has it
    as one, else text.
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

    def start(self, system: str = "") -> PromptBuilder:
        builder = PromptBuilder(self.tokenizer).special(self.bos)
        return builder.text(system.lstrip() + "\n\n") if system.strip() else builder

    def turn(self, builder: PromptBuilder, message: Message) -> PromptBuilder:
        """Add a whole turn."""
        self.open_turn(builder, message.role)
        if message.role == "user":
            text = message.text.rstrip() if message.pictures else message.text.strip()
            builder.text(" ")
            for i, picture in enumerate(message.pictures):
                builder.text("\n" if i else "").picture(picture)
            return builder.text("\n" if text and message.pictures else "").text(text + "\n\n")
        for picture in message.pictures:
            builder.picture(picture)
        if text := message.text.strip():
            builder.text(" " + text)
        return builder.special(self.eos)

    def open_turn(self, builder: PromptBuilder, role: Role) -> PromptBuilder:
        """Add "ROLE:", after which the speaker goes on."""
        name = self.user if role == "user" else self.assistant
        named = builder.special(name) if is_special(self.tokenizer, name) else builder.text(name)
        return named.text(":")

    def picture(
        self, pixels: Tensor, digest: str, encode: Callable[[Tensor], Tensor]
    ) -> EncodedImage:
        """Pixels [3, S, S], read [B, 3, S, S] -> [B, n, d] when needed, between their marks."""
        begin, place, end = map(
            self.tokenizer.id, (self.begin_of_image, self.placeholder, self.end_of_image)
        )
        encoder = ImageEncoderBatch(encode)
        embeddings = Embeddings(
            start=0,
            length=self.picture_length,
            digest=digest,
            compute=lambda: encoder([pixels])[0],
            payload=pixels,
            compute_many=encoder,
            placeholder=place,
        )
        return EncodedImage(((begin,), embeddings, (end,)))

    def answer(self, messages: Sequence[Message], system: str = "") -> Branch:
        """The line after which the model writes its next message."""
        return self._open(messages, system).branch()

    def draw(self, messages: Sequence[Message], system: str = "") -> Branch:
        """The line after which the model paints: it ends in begin-of-image."""
        return self._open(messages, system).special(self.begin_of_image).branch()

    def _open(self, messages: Sequence[Message], system: str) -> PromptBuilder:
        builder = self.start(system)
        for message in messages:
            self.turn(builder, message)
        return self.open_turn(builder, "assistant")

    def negative(self, text: str) -> Branch:
        """What guidance steers away from when the user says it in words."""
        return self.draw([Message("user", text)])

    def unconditional(self, prompt: Branch) -> Branch:
        """What guidance steers away from: the prompt with pads for all but its ends.

        The pads are attended to, as in the reference; so the line depends on its length alone.
        """
        pads = [self.tokenizer.id(self.pad)] * (len(prompt.token_ids) - 2)
        return Branch((prompt.token_ids[0], *pads, prompt.token_ids[-1]))

    def check(self) -> None:
        """Raise ValueError if the tokenizer lacks a token that prompts need."""
        pictures = (self.begin_of_image, self.placeholder, self.end_of_image)
        for token in (self.bos, self.eos, self.pad, *pictures):
            self.tokenizer.id(token)


PRO_ROLES, PLAIN_ROLES = ("<|User|>", "<|Assistant|>"), ("User", "Assistant")


def is_special(tokenizer: TextTokenizer, token: str) -> bool:
    """Whether trusted text makes one id of it, which a user's text does not."""
    return tokenizer.encode(token, add_special=False) != tokenizer.encode_plain(token)


def read_roles(folder: Path, tokenizer: TextTokenizer) -> tuple[str, str]:
    """Whether the speakers are those of Janus-Pro or, of Janus-1.3B, plain words.

    A chat template says so if there is one. If not, processor_config.json may: "deepseek_old" is
    DeepSeek's name for the plain ones. Else Janus-Pro's hold if the tokenizer has such tokens.
    """
    pro = "<|User|>"
    if template := read_chat_template(folder):
        return PRO_ROLES if pro in template else PLAIN_ROLES
    processor = read_json(folder / "processor_config.json", optional=True)
    if processor.get("sft_format") == "deepseek_old":
        return PLAIN_ROLES
    return PRO_ROLES if is_special(tokenizer, pro) else PLAIN_ROLES


def read_chat_template(folder: Path) -> str:
    """The text of a folder's chat template, wherever it stands; "" if there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    documents = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
    found = (read_json(folder / d, optional=True).get("chat_template") for d in documents)
    template = next((t for t in found if t), "")
    return template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)


# --- config.json ---------------------------------------------------------------------------------


def config_to_json(
    config: JanusConfig, image_token_id: int, dtype: str, tied: bool = False
) -> dict[str, Any]:
    """JanusConfig -> the dictionary transformers' JanusConfig reads.

    tied: whether the text head is the text embedding, and so not written.
    """
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
        "tie_word_embeddings": tied,
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
            "tie_word_embeddings": tied,
        },
        "vision_config": {
            "model_type": "janus_vision_model",
            "image_size": v.image_size,
            "patch_size": v.patch_size,
            "hidden_size": v.hidden_size,
            "mlp_ratio": janus_original.ratio(v.intermediate_size, v.hidden_size),
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


READ = {"text_config", "vision_config", "vq_config", "image_token_id", "tie_word_embeddings"}
VISION_READ = """image_size patch_size hidden_size mlp_ratio num_hidden_layers num_attention_heads
    layer_norm_eps projection_dim num_image_tokens vision_use_head""".split()
VISION_NEUTRAL = {
    "hidden_act": ("gelu",),
    "num_channels": (3,),
    "attention_bias": (True,),
    "use_qk_norm": (None, False),
    "depth": (2,),
    "hidden_dropout_rate": (0.0,),
    "projection_dropout": (0.0,),
}
# What follows from other sizes is seen in the shapes of the weights.
VQ_READ = """embed_dim num_embeddings latent_channels base_channels channel_multiplier
    num_res_blocks encoder patch_width num_patches projection_dim image_token_embed_dim""".split()
VQ_NEUTRAL = {
    "attn_resolutions": (None,),
    "attn_type": ("vanilla",),
    "double_latent": (False,),
    "in_channels": (3,),
    "out_channels": (3,),
    "hidden_act": ("gelu",),
    "num_hidden_layers": (2,),
}


def config_from_json(data: Mapping[str, Any]) -> JanusConfig:
    """The dictionary of config.json -> JanusConfig; absent keys take transformers' defaults.

    Raises:
        ValueError: another model type, a setting that would change the maths or that we do not
            know, a value of the wrong type.
    """
    where = "config.json"
    if data.get("model_type") != "janus":
        raise ValueError(f"model_type is {data.get('model_type')!r}; this loader reads 'janus'")
    check_settings(data, where, READ, model_type="janus")
    text = section(data, "text_config", where)
    decoder = read_decoder(text, f"text_config of {where}", LLAMA, "llama")
    reading = read_vision(section(data, "vision_config", where), f"vision_config of {where}")
    vq = section(data, "vq_config", where)
    return JanusConfig(decoder, reading, read_painting(vq, f"vq_config of {where}", reading))


def read_vision(vision: Mapping[str, Any], where: str) -> VisionConfig:
    check_settings(vision, where, VISION_READ, VISION_NEUTRAL, "janus_vision_model")
    width = whole(vision, "hidden_size", 1024, where)
    reading = VisionConfig(
        image_size=whole(vision, "image_size", 384, where),
        patch_size=whole(vision, "patch_size", 16, where),
        hidden_size=width,
        intermediate_size=int(width * real(vision, "mlp_ratio", 4.0, where)),
        layers=whole(vision, "num_hidden_layers", 24, where),
        heads=whole(vision, "num_attention_heads", 16, where),
        norm_eps=real(vision, "layer_norm_eps", 1e-6, where),
    )
    if vision.get("num_image_tokens", reading.patches) != reading.patches:
        raise ValueError(
            f"{where}: num_image_tokens is {vision['num_image_tokens']}, but a picture has "
            f"{reading.patches} patches"
        )
    return reading


def read_painting(vq: Mapping[str, Any], where: str, reading: VisionConfig) -> AutoencoderConfig:
    check_settings(vq, where, VQ_READ, VQ_NEUTRAL, "janus_vqgan")
    multiplier = wholes(vq, "channel_multiplier", (1, 1, 2, 2, 4), where)
    return AutoencoderConfig(
        # transformers sets the painted grid to that of the patches read.
        image_size=reading.image_size // reading.patch_size * 2 ** (len(multiplier) - 1),
        codebook_size=whole(vq, "num_embeddings", 16384, where),
        code_dim=whole(vq, "embed_dim", 8, where),
        latent_channels=whole(vq, "latent_channels", 256, where),
        base_channels=whole(vq, "base_channels", 128, where),
        channel_multiplier=multiplier,
        res_blocks=whole(vq, "num_res_blocks", 2, where),
        encoder=vq.get("encoder", "conv"),
        patch_width=whole(vq, "patch_width", 256, where),
    )


# --- weights -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """How a folder holds a Janus.

    layout: names of the weights. dropped: what else may lie there. read: config.json -> sizes.
    ties: whether, after config.json, the text embedding serves as a text head that is not there.
    """

    layout: Layout
    dropped: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], JanusConfig]
    ties: Callable[[Mapping[str, Any]], bool]


FORMATS = {
    "transformers": Format(
        layout,
        (),
        config_from_json,
        lambda data: flag(data, "tie_word_embeddings", True, "config.json"),
    ),
    "original": Format(
        janus_original.layout,
        janus_original.DROPPED,
        janus_original.config_from_json,
        lambda data: flag(
            section(data, "language_config", "config.json"),
            "tie_word_embeddings",
            False,
            "language_config of config.json",
        ),
    ),
}
MODEL_TYPES = {"janus": FORMATS["transformers"], "multi_modality": FORMATS["original"]}
HEAD = "text_head.weight"


def load_weights(
    folder: Path,
    config: JanusConfig,
    dtype: Dtype,
    device: str,
    format: Format = FORMATS["transformers"],
    tied: bool = False,
) -> UnifiedModel:
    """Build the model and fill it from the folder's weights, strictly.

    tied: whether the text embedding serves as the text head if the folder has none.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: an unreadable file; a missing, extra or misshapen key.
    """
    with torch.device("meta"):
        model = UnifiedModel(config)
    tensors = open_tensors(folder)
    tied = tied and format.layout(HEAD).name not in tensors.names
    if tied:
        model.text_head.register_parameter("weight", None)
    fill(model, tensors, format.layout, dtype, device, format.dropped)
    if tied:
        model.text_head.weight = model.text_embedding.weight
    return ready(model, device)


def save_weights(
    model: UnifiedModel, folder: Path, dtype: torch.dtype, layout: Layout = layout
) -> None:
    """Write `model.safetensors` under a layout's names, by default transformers'."""
    tensors = stored_tensors(model, layout, dtype)
    if is_tied(model):
        del tensors[layout(HEAD).name]
    write_tensors(tensors, folder)


def is_tied(model: UnifiedModel) -> bool:
    return getattr(model.text_head, "weight", None) is model.text_embedding.weight


def save_config(config: JanusConfig, folder: Path, image_token_id: int, dtype: torch.dtype) -> None:
    """Write `config.json` for transformers."""
    data = config_to_json(config, image_token_id, name_of(dtype))
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

    @property
    def background(self) -> tuple[int, int, int]:
        """The mean colour in bytes, whatever a file says, as in both references."""
        red, green, blue = (int(m * 255) for m in self.mean)
        return red, green, blue

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size a picture is shrunk or enlarged to, before padding."""
        longer = max(width, height)
        shrink = [int(side / longer * self.image_size) for side in (width, height)]
        return max(shrink[0], self.min_size), max(shrink[1], self.min_size)

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> pixels [3, S, S], normalised."""
        size = self.resized(*image.size)
        small = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        square = Image.new("RGB", (self.image_size, self.image_size), self.background)
        square.paste(small, ((self.image_size - size[0]) // 2, (self.image_size - size[1]) // 2))
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (pixels - mean) / std

    def to_json(self, layout: str) -> dict[str, Any]:
        """preprocessor_config.json for transformers' JanusImageProcessor or the original's."""
        square = {"height": self.image_size, "width": self.image_size}
        own: dict[str, Any] = {
            "image_processor_type": "JanusImageProcessor",
            "processor_class": "JanusProcessor",
            "do_resize": True,
            "do_rescale": True,
            "do_pad": True,
            "resample": BICUBIC,
            "size": square,
        }
        if layout == "original":
            own = {
                "image_processor_type": "VLMImageProcessor",
                "processor_class": "VLChatProcessor",
                "image_size": self.image_size,
            }
        return own | {
            "do_normalize": True,
            "min_size": self.min_size,
            "rescale_factor": 1 / 255,
            "background_color": list(self.background),
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


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
        source: Path | None = None,  # the folder of its tokenizer
    ) -> None:
        self.name, self.model, self.template, self.source = name, model, template, source
        self.tokenizer, self.preprocess, self.defaults = template.tokenizer, preprocess, defaults
        self.max_context = model.config.decoder.max_positions
        side = model.image_tokenizer.config.image_size
        self.picture_size, self.picture_tokens = (side, side), template.picture_length

    def encode_image(self, image: Image.Image) -> EncodedImage:
        pixels = self.preprocess(image)
        return self.template.picture(pixels, digest(pixels, self.name), self.features)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] -> features [B, patches, d]."""
        with torch.inference_mode():
            return self.model.encode_images(pixels)

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        system = self.defaults.system if system is None else system
        return self.template.answer(messages, system)

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """What guidance steers away from sees the last request alone."""
        check_image_size(options, self.picture_size)
        image = self.model.vocabulary.image_range
        plan = FixedPlan(image, self.picture_tokens)
        line = self.template.draw(messages)
        if options.guidance == 1.0:
            return GenerationSpec((line,), plan, self.decode_images)
        last = self.template.draw(messages[-1:])
        against = (
            self.template.unconditional(last)
            if options.negative is None
            else self.template.negative(options.negative)
        )
        branches = guided(line, against, options.guidance)
        return GenerationSpec(branches, plan, self.decode_images)

    def text_plan(self, max_tokens: int) -> Plan:
        text = self.model.vocabulary.text_range
        stop = frozenset([self.tokenizer.id(self.template.eos)])
        return FreePlan(text, stop, max_tokens)

    def decode_images(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Picture ids [B, patches] -> pictures [B, 3, S, S] in [0, 1]."""
        codes = self.model.vocabulary.id_to_code(torch.tensor(ids))
        return self.model.image_tokenizer.decode(codes.to(self.model.device))

    def save(
        self, folder: Path, layout: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Write a folder in the layout "transformers", the usual one, or "original", DeepSeek's.

        dtype: of the weights, by default the model's own.

        Raises:
            ValueError: no such layout, or one that cannot hold this model; or the model came from
                no folder, so that its tokenizer's files are not known.
        """
        layout = layout or "transformers"
        if layout not in FORMATS:
            raise ValueError(f"layout must be one of {', '.join(FORMATS)}, not {layout!r}")
        if self.source is None:
            raise ValueError("this model came from no folder: there is no tokenizer to go with it")
        dtype, original = dtype or self.model.dtype, layout == "original"
        config, tied, name = self.model.config, is_tied(self.model), name_of(dtype)
        place = self.tokenizer.id(self.template.placeholder)
        files = {
            "config.json": janus_original.config_to_json(config, name, tied)
            if original
            else config_to_json(config, place, name, tied),
            "preprocessor_config.json": self.preprocess.to_json(layout),
            "processor_config.json": processor_to_json(self.template, self.defaults, layout),
            "generation_config.json": generation_to_json(self.template, self.defaults),
        }
        if extra := extra_to_json(self.defaults):
            files["unitok.json"] = extra
        save_weights(self.model, folder, dtype, FORMATS[layout].layout)
        copy_tokenizer(self.source, folder)
        if layout == "transformers":
            name_tokens(folder / "tokenizer_config.json", self.template)
        for file, data in files.items():
            write_json(folder / file, data)


# --- the folder ----------------------------------------------------------------------------------


def matches(config: Mapping[str, Any], names: frozenset[str]) -> bool:
    return config.get("model_type") in MODEL_TYPES


def load(folder: Path, device: str, dtype: Dtype) -> Janus:
    """Open a folder in transformers' Janus format, or one of DeepSeek's own.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not fit the others.
    """
    data = read_json(folder / "config.json")
    format = MODEL_TYPES[data["model_type"]]
    config = format.read(data)
    preprocess = read_preprocessor(folder)
    if preprocess.image_size != config.vision.image_size:
        raise ValueError(
            f"{folder}: preprocessor_config.json and config.json differ in picture size"
        )
    tokenizer = TextTokenizer.load(folder)
    check_ids(folder, tokenizer, config.decoder)
    user, assistant = read_roles(folder, tokenizer)
    template = Template(tokenizer, config.vision.patches, user=user, assistant=assistant)
    template.check()
    defaults = defaults_from_json(
        read_json(folder / "generation_config.json", optional=True),
        read_json(folder / "unitok.json", optional=True),
    )
    model = load_weights(folder, config, dtype, device, format, format.ties(data))
    return Janus(folder.name, model, template, preprocess, defaults, source=folder)


def read_preprocessor(folder: Path) -> Preprocessor:
    """From preprocessor_config.json or, as transformers 5 writes it, inside processor_config.json.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: a setting that this preprocessor does not have.
    """
    return preprocessor_from_json(*need_pixels(folder))


PIXELS_NEUTRAL = {"do_pad": (None, True), "resample": (None, BICUBIC)}


def preprocessor_from_json(data: Mapping[str, Any], where: str) -> Preprocessor:
    """The settings of transformers' JanusImageProcessor or of DeepSeek's VLMImageProcessor."""
    check_pixels(data, where, ("size", "image_size", "min_size"), PIXELS_NEUTRAL)
    check_scale(data, where)
    sides = {read_side(data[key], where) for key in ("size", "image_size") if key in data}
    if len(sides) > 1:
        raise ValueError(f"{where}: size and image_size differ")
    mean, std = read_colours(data, where)
    return Preprocessor(
        image_size=next(iter(sides), 384),
        mean=mean,
        std=std,
        min_size=whole(data, "min_size", 14, where),
    )


def processor_to_json(template: Template, defaults: Defaults, layout: str) -> dict[str, Any]:
    """processor_config.json: what JanusProcessor, or DeepSeek's VLChatProcessor, asks for."""
    if layout == "original":
        plain = (template.user, template.assistant) == PLAIN_ROLES
        return {
            "processor_class": "VLChatProcessor",
            "image_tag": template.placeholder,
            "num_image_tokens": template.picture_length,
            "sft_format": "deepseek_old" if plain else "deepseek",
        }
    return {
        "processor_class": "JanusProcessor",
        "num_image_tokens": template.picture_length,
        "use_default_system_prompt": defaults.system == SYSTEM,
    }


TOKENIZER_FILES = """tokenizer.json tokenizer.model tokenizer_config.json special_tokens_map.json
    added_tokens.json chat_template.jinja chat_template.json""".split()


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files that make text ids and prompts, those that are there."""
    if source.resolve() == folder.resolve():
        return
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def name_tokens(path: Path, template: Template) -> None:
    """Say in tokenizer_config.json which tokens are which, for JanusProcessor, if nothing does."""
    config = dict(read_json(path, optional=True))
    if "image_token" not in config and not config.get("extra_special_tokens"):
        config["extra_special_tokens"] = {
            "image_token": template.placeholder,
            "boi_token": template.begin_of_image,
            "eoi_token": template.end_of_image,
        }
        write_json(path, config)


def defaults_from_json(generation: Mapping[str, Any], extra: Mapping[str, Any]) -> Defaults:
    """Sampling from generation_config.json; what only we know from unitok.json."""
    own = Defaults(
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        guidance=5.0,
        question=extra.get("question", QUESTION),
        system=extra.get("system", SYSTEM),
        known_words=frozenset(extra["known_words"]) if "known_words" in extra else None,
        cpu_dtype=read_cpu_dtype(extra),
    )
    return with_sampling(own, generation)


def generation_to_json(template: Template, defaults: Defaults) -> dict[str, Any]:
    """generation_config.json, as transformers reads it."""
    ids, samples = template.tokenizer.id, defaults.temperature > 0
    sampling = {"top_k": defaults.top_k, "top_p": defaults.top_p} if samples else {}
    return {
        "bos_token_id": ids(template.bos),
        "eos_token_id": ids(template.eos),
        "pad_token_id": ids(template.pad),
        "do_sample": samples,
        "temperature": defaults.temperature or 1.0,
        **sampling,
        "guidance_scale": defaults.guidance,
        "generation_kwargs": {"boi_token_id": ids(template.begin_of_image)},
    }


def extra_to_json(defaults: Defaults) -> dict[str, Any]:
    """unitok.json: what differs from any Janus's ways and has no place in the other files."""
    extra: dict[str, Any] = {}
    if defaults.question != QUESTION:
        extra["question"] = defaults.question
    if defaults.system != SYSTEM:
        extra["system"] = defaults.system
    if defaults.cpu_dtype is not None:
        extra["cpu_dtype"] = name_of(defaults.cpu_dtype)
    if defaults.known_words is not None:
        extra["known_words"] = sorted(defaults.known_words)
    return extra
