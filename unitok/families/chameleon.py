"""Chameleon and Anole: Meta's own folders and transformers', prompts, plans.

Papers: https://arxiv.org/abs/2405.09818 and https://arxiv.org/abs/2407.06135; code:
https://github.com/facebookresearch/chameleon. Pictures are ids of the text vocabulary, read and
painted through one VQGAN. transformers' folders hold its encoder alone; with Meta's vqgan.ckpt
beside them they paint too.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import (
    check_pixels,
    check_settings,
    flag,
    read_colours,
    read_pixels,
    read_scale,
    read_side,
    section,
    whole,
    wholes,
)
from unitok.checkpoints.weights import (
    Dtype,
    Layout,
    Shards,
    Stored,
    Tensors,
    TorchFile,
    fill,
    open_tensors,
    ready,
    renaming,
    same,
)
from unitok.families.chameleon_original import (
    ORIGINAL,
    ORIGINAL_DROPPED,
    ORIGINAL_WEIGHTS,
    config_from_params,
    find_model,
    open_original,
    read_params,
)
from unitok.families.common.family import (
    Defaults,
    GenerationSpec,
    ImageOptions,
    check_ids,
    check_image_size,
    with_sampling,
)
from unitok.families.common.guidance import guided, weighted
from unitok.families.common.llama import llama_names, read_decoder
from unitok.nn.config import DecoderConfig, ModelConfig, VisionConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message, PromptBuilder
from unitok_engine import Branch, FixedPlan, FreePlan, Plan
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.taming import DROPPED as VQGAN_DROPPED
from unitok_tokenizers.taming import taming_name
from unitok_tokenizers.text import TextTokenizer

BOS, EOS = "<s>", "</s>"
BEGIN_IMAGE, END_IMAGE, END_TURN = "<racm3:break>", "<eoss>", "<reserved08706>"
MARKS = (BOS, EOS, BEGIN_IMAGE, END_IMAGE, END_TURN)
IMAGE_NAME = re.compile("IMGIMG([A-J]+)Z")  # the letters are the digits of the code

IMAGE_GUIDANCE = (
    1.2  # how far the pictures of the prompt steer; `ImageOptions.guidance` is for its text
)
DEFAULTS = Defaults(
    temperature=0.7, top_k=0, top_p=0.9, guidance=3.0, question="What do you see?", system=""
)

ARCHITECTURE = "ChameleonForConditionalGeneration"


# --- image ids -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageIds:
    """Which ids are image codes: a range from `start`, and the code of each, in the ids' order."""

    start: int
    codes: tuple[int, ...]

    def reorder(self, codebook: Tensor) -> Tensor:
        """The codebook [codes, d] in the order of the ids, so that code c is id start + c."""
        if self.codes == tuple(range(len(self.codes))):
            return codebook
        return codebook[torch.tensor(self.codes, device=codebook.device)]


def read_image_ids(vocabulary: object, where: str) -> ImageIds:
    """Find the image ids by their names, IMGIMG...Z.

    Raises:
        ValueError: there are none, or they are not one range with each code once.
    """
    if not isinstance(vocabulary, Mapping):
        raise ValueError(f"{where} has no vocabulary")
    names = ((id, IMAGE_NAME.fullmatch(name)) for name, id in vocabulary.items())
    found = sorted((id, code_of(name[1])) for id, name in names if name)
    if not found:
        raise ValueError(f"{where} names no image tokens (IMGIMG...Z)")
    ids, codes = zip(*found, strict=True)
    everything = list(range(len(found)))
    if [id - ids[0] for id in ids] != everything or sorted(codes) != everything:
        raise ValueError(f"{where}: its image tokens are not one range of ids with each code once")
    return ImageIds(ids[0], codes)


def code_of(letters: str) -> int:
    return int("".join(str(ord(letter) - ord("A")) for letter in letters))


# --- config --------------------------------------------------------------------------------------

CHAMELEON = DecoderConfig(  # what transformers takes for absent settings: the 7B model
    vocab_size=65536,
    hidden_size=4096,
    intermediate_size=11008,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    max_positions=4096,
    norm_eps=1e-5,
    qk_norm=True,
)
# Ids are found by name; the last two steer training alone, or transformers' mask of image ids.
ALSO = """swin_norm model_parallel_size vq_config vocabulary_map image_token_id boi_token_id
    eoi_token_id vision_config mask_image_logits z_loss_weight""".split()
# Meta's names come after transformers' own: converted folders repeat the settings under them.
VQ_READ = """embed_dim num_embeddings latent_channels resolution base_channels channel_multiplier
    num_res_blocks attn_resolutions n_embed z_channels ch ch_mult""".split()
VQ_NEUTRAL = {
    "double_latent": (False,),
    "double_z": (False,),
    "in_channels": (3,),
    "out_channels": (3,),
    "out_ch": (3,),
    "attn_type": ("vanilla",),
    "use_linear_attn": (False,),
    "resamp_with_conv": (True,),
    "give_pre_end": (False,),
    "tanh_out": (False,),
    "remap": (None,),
}
# Of vqgan.yaml, what is of use in training alone; converted folders repeat some of it.
VQ_TRAINING = """lossconfig ckpt_path monitor scheduler_config ignore_keys image_key
    colorize_nlabels lr_g_factor sane_index_shape""".split()


def config_from_json(data: Mapping[str, Any]) -> tuple[DecoderConfig, AutoencoderConfig]:
    """The dictionary of config.json -> the sizes of the decoder and of the VQGAN's encoder.

    Raises:
        ValueError: a setting that would change the maths or that we do not know, a value of the
            wrong type.
    """
    where = "config.json"
    decoder = read_decoder(data, where, CHAMELEON, "chameleon", also=ALSO)
    if flag(data, "tie_word_embeddings", False, where):
        raise ValueError(f"{where}: tie_word_embeddings = True is not supported")
    vq = read_autoencoder(section(data, "vq_config", where), f"vq_config of {where}")
    return replace(decoder, post_norm=flag(data, "swin_norm", False, where)), vq


def read_autoencoder(vq: Mapping[str, Any], where: str) -> AutoencoderConfig:
    """The settings of a VQGAN under transformers' names; it is taken to have no decoder.

    Raises:
        ValueError: a setting that would change the maths or that we do not know, a value of the
            wrong type.
    """
    check_settings(vq, where, [*VQ_READ, *VQ_TRAINING], VQ_NEUTRAL, "chameleon_vqgan")
    multiplier = wholes(vq, "channel_multiplier", (1, 1, 2, 2, 4), where)
    resolution = whole(vq, "resolution", 512, where)
    attention = vq.get("attn_resolutions") or []
    lowest = resolution // 2 ** (len(multiplier) - 1)
    if attention not in ([], [lowest]):
        raise ValueError(f"{where}: attn_resolutions {attention} is neither [] nor [{lowest}]")
    return AutoencoderConfig(
        image_size=resolution,
        codebook_size=whole(vq, "num_embeddings", 8192, where),
        code_dim=whole(vq, "embed_dim", 256, where),
        latent_channels=whole(vq, "latent_channels", 256, where),
        base_channels=whole(vq, "base_channels", 128, where),
        channel_multiplier=multiplier,
        res_blocks=whole(vq, "num_res_blocks", 2, where),
        quantizer="euclidean",
        attention=bool(attention),
        decoder=False,
    )


def read_vqgan_yaml(path: Path) -> AutoencoderConfig:
    """The settings of Meta's vqgan.yaml.

    Raises:
        ValueError: it cannot be read, or a setting would change the maths.
    """
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
        vq = {k: v for k, v in params.items() if k != "ddconfig"} | params["ddconfig"]
        renamed = {
            "num_embeddings": vq["n_embed"],
            "latent_channels": vq["z_channels"],
            "base_channels": vq["ch"],
            "channel_multiplier": vq["ch_mult"],
        }
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is no VQGAN's settings") from None
    return read_autoencoder(vq | renamed, str(path))


# --- weights -------------------------------------------------------------------------------------

# Our names -> transformers' names.
TRANSFORMERS = (
    *llama_names("model", "lm_head"),
    (r"^decoder\.blocks\.(\d+)\.attention\.(\w_norm)\.", r"model.layers.\1.self_attn.\2."),
)
TRANSFORMERS_VQGAN = "model.vqmodel."
# Whole names of transformers' folders that we do not use; the first if vqgan.ckpt is there.
DOUBLE_VQGAN = r"model\.vqmodel\..*"
TRANSFORMERS_DROPPED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)

QUERY_OR_KEY = re.compile(r"^decoder\.blocks\.\d+\.attention\.(?P<which>[qk])(?P<norm>_norm)?\.")


def make_layout(
    config: ModelConfig,
    ids: ImageIds,
    renames: Sequence[tuple[str, str]],
    vqgan: str = "",
    paired: bool = False,
) -> Layout:
    """Where our parameters lie.

    vqgan: what stands before the VQGAN's names. paired: whether neighbours are rotated together,
    as in Meta's files, and not the halves of a head, as here and in transformers.
    """
    names, decoder = renaming(renames), config.decoder
    size, turn = decoder.head_dim, partial(unpair, size=decoder.head_dim) if paired else same

    def stored(key: str) -> Stored:
        if key.startswith("image_tokenizer."):
            return stored_vqgan(key.removeprefix("image_tokenizer."), config, ids, vqgan)
        name, match = names(key).name, QUERY_OR_KEY.match(key)
        if match is None:
            return Stored(name)
        if match["norm"] is None:
            return Stored(name, load=turn)
        heads = decoder.heads if match["which"] == "q" else decoder.kv_heads
        return Stored(name, load=lambda tensor: spread(turn(tensor), heads, size))

    return stored


def stored_vqgan(key: str, config: ModelConfig, ids: ImageIds, prefix: str) -> Stored:
    codec: Any = config.image_tokenizer
    name = prefix + taming_name(key, len(codec.channel_multiplier))
    return Stored(name, load=ids.reorder) if key == "quantizer.codebook" else Stored(name)


def unpair(tensor: Tensor, size: int) -> Tensor:
    """Rows of heads of `size`, from pairs (0, 1), (2, 3), ... to pairs (0, size / 2), ...

    [heads * size, ...] -> the same; rope_padded of xformers turns the first kind.
    """
    pairs = tensor.reshape(-1, size // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def spread(tensor: Tensor, heads: int, size: int) -> Tensor:
    """Weights of the norm of queries or keys, of one head per file or of all -> [heads, size].

    Meta's files hold one for all heads in them, transformers' older ones too.
    """
    rows = tensor.reshape(-1, size)
    return rows.repeat_interleave(heads // len(rows), dim=0)


def build(
    config: ModelConfig,
    tensors: Tensors,
    layout: Layout,
    dropped: Sequence[str],
    dtype: Dtype,
    device: str,
) -> UnifiedModel:
    """Build the model and fill it, strictly; errors as in `unitok.checkpoints.weights.fill`.

    The image tokenizer stays in float32, as in Meta's code: in fewer bits it gives other ids.
    """
    with torch.device("meta"):
        model = UnifiedModel(config)
    fill(model, tensors, layout, dtype, device, dropped, exact="image_tokenizer.")
    return ready(model, device)


# --- pictures ------------------------------------------------------------------------------------

LONGEST = 64  # times as long as wide; of more, the ends are cut off before it grows, for memory


def centre_square(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Bring the shorter side to `size` pixels and cut out the middle."""
    shorter = min(image.size)
    image = middle(image, *(min(side, LONGEST * shorter) for side in image.size))
    scale = size / shorter
    fitted = round(scale * image.width), round(scale * image.height)
    return middle(image.resize(fitted, resample), size, size)


def middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a picture."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB picture -> [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


# transformers' ChameleonImageProcessor rounds 2/255 down; we do what Meta's code does.
SCALES = (2 / 255, 0.0078)
LANCZOS = int(Image.Resampling.LANCZOS)


def check_preprocessor(folder: Path, size: int, resample: Sequence[int] = (LANCZOS,)) -> None:
    """Raise ValueError if a folder asks for other pixels than the middle of `size` in [-1, 1].

    It may say nothing. resample: the filters it may name.
    """
    data, where = read_pixels(folder)
    if not data:
        return
    neutral = {"do_center_crop": (None, True), "resample": (None, *resample)}
    check_pixels(data, where, ("size", "crop_size"), neutral)
    shortest = data.get("size")
    if isinstance(shortest, Mapping) and "shortest_edge" in shortest:
        shortest = shortest["shortest_edge"]
    sides = [read_side(s, where) for s in (shortest, data.get("crop_size")) if s is not None]
    if any(side != size for side in sides):
        raise ValueError(f"{where} asks for pictures of {sides} pixels, not {size}")
    mean, std = read_colours(data, where)
    byte = read_scale(data, where)
    is_known = any(all(math.isclose(byte / s, scale) for s in std) for scale in SCALES)
    if not is_known or not all(math.isclose(m, s) for m, s in zip(mean, std, strict=True)):
        raise ValueError(f"{where}: its pixels do not lie in [-1, 1], as Chameleon's do")


# --- the family ----------------------------------------------------------------------------------


class Chameleon:
    """Everything of a Chameleon checkpoint that the API needs; see `unitok.families.Family`."""

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        tokenizer: TextTokenizer,
        defaults: Defaults = DEFAULTS,
    ) -> None:
        self.name, self.model, self.tokenizer, self.defaults = name, model, tokenizer, defaults
        self.bos, self.eos, self.begin_image, self.end_image, self.end_turn = map(
            tokenizer.id, MARKS
        )
        image, text = model.vocabulary.image_range, model.vocabulary.text_range
        self.image_range = image
        self.text_range = text
        self.text_mask = torch.ones(text.size, dtype=torch.bool, device=model.device)
        self.text_mask[image.start : image.stop] = False
        self.text_mask[self.begin_image] = False
        self.max_context = model.config.decoder.max_positions
        codec = model.image_tokenizer.config
        self.picture_size = codec.image_size, codec.image_size
        self.picture_tokens = self.painting_plan().max_length

    # -- reading

    def encode_image(self, image: Image.Image) -> EncodedImage:
        ids = self.image_ids(self.fit(image)).flatten()
        return EncodedImage(((self.begin_image, *ids.tolist(), self.end_image),))

    def fit(self, image: Image.Image) -> Image.Image:
        """An RGB picture -> what the VQGAN sees (chameleon/inference/image_tokenizer.py)."""
        return centre_square(image, self.picture_size[0], Image.Resampling.LANCZOS)

    def image_ids(self, square: Image.Image) -> Tensor:
        """A fitted picture -> its ids [grid, grid]."""
        codes = self.model.image_tokenizer.encode(to_pixels(square)[None])[0]
        return self.model.vocabulary.code_to_id(codes)

    # -- lines

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        if system:
            raise ValueError(f"{self.name} has no system prompt; say it in the message")
        return self.conversation(messages).branch()

    def conversation(self, messages: Sequence[Message]) -> PromptBuilder:
        """BOS, then each turn: its pictures, its text, end of turn."""
        builder = PromptBuilder(self.tokenizer).id(self.bos)
        for message in messages:
            check_text(message.text)
            for picture in message.pictures:
                builder.picture(picture)
            builder.text(message.text).id(self.end_turn)
        return builder

    def text_plan(self, max_tokens: int) -> Plan:
        """No image ids, nor what would begin a picture."""
        stops = frozenset([self.eos, self.end_turn])
        return FreePlan(self.text_range, stops, max_tokens, self.text_mask)

    # -- painting

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        check_image_size(options, self.picture_size)
        if not self.model.image_tokenizer.can_decode:
            raise ValueError(
                f"{self.name} has no VQ decoder, so it cannot paint; put Meta's vqgan.ckpt into "
                "its folder"
            )
        return GenerationSpec(
            self.guided(messages, options), self.painting_plan(), self.decode_images
        )

    def guided(self, messages: Sequence[Message], options: ImageOptions) -> tuple[Branch, ...]:
        """The lines and weights of guidance by text and by pictures.

        u + g_image (i - u) + g_text (f - i), of the full line f, its pictures alone i, and nothing
        u, or what to steer away from (InBatchInstructCFGLogitsProcessor of
        chameleon/inference/logits_processor.py; https://arxiv.org/abs/2211.09800).
        """
        full = self.conversation(messages).id(self.begin_image).branch()
        if options.guidance == 1.0:
            return (full,)
        nothing = Branch((self.bos, self.begin_image))
        against = nothing if options.negative is None else self.negative(options.negative)
        pictures = self.pictures_alone(full)
        if pictures == nothing:  # then i is u
            return guided(full, against, options.guidance)
        return weighted(
            (full, options.guidance),
            (pictures, IMAGE_GUIDANCE - options.guidance),
            (against, 1.0 - IMAGE_GUIDANCE),
        )

    def negative(self, text: str) -> Branch:
        return self.conversation([Message("user", text)]).id(self.begin_image).branch()

    def pictures_alone(self, line: Branch) -> Branch:
        """What is left of a line without its text."""
        kept = {self.bos, self.begin_image, self.end_image}
        return Branch(tuple(id for id in line.token_ids if id in self.image_range or id in kept))

    def painting_plan(self) -> Plan:
        return FixedPlan(self.image_range, self.model.image_tokenizer.config.grid**2)

    def decode_images(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Picture ids [B, grid * grid] -> pictures [B, 3, S, S] in [0, 1]."""
        codes = self.model.vocabulary.id_to_code(torch.tensor(ids))
        return self.model.image_tokenizer.decode(codes.to(self.model.device))

    def save(self, folder: Path, layout: str | None) -> None:
        raise ValueError(f"{self.name} cannot be written; unitok only reads this family")


def check_text(text: str) -> None:
    """Raise ValueError for a text that spells an image token: the tokenizer would make it one."""
    if found := IMAGE_NAME.search(text):
        raise ValueError(f"the text holds {found[0]}, the name of an image token: write it apart")


# --- folders -------------------------------------------------------------------------------------


def matches(config: Mapping[str, Any], names: frozenset[str]) -> bool:
    if config:
        return config.get("model_type") == "chameleon" and not is_unitoken(config)
    is_weights = any(ORIGINAL_WEIGHTS.fullmatch(name) for name in names)
    return (is_weights and "params.json" in names) or {"models", "tokenizer"} <= names


def architecture(config: Mapping[str, Any]) -> str:
    return next(iter(config.get("architectures") or []), ARCHITECTURE)


def is_unitoken(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of UniToken, which keeps Chameleon's model_type."""
    return bool(re.fullmatch(r"Chameleon(XLLMX|Gen)\w+(Base|AnyRes)", architecture(config)))


def load(folder: Path, device: str, dtype: Dtype) -> Chameleon:
    """Open a folder of transformers' format or of Meta's: the whole download, or one model of it.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not fit the others.
    """
    has_config = (folder / "config.json").is_file()
    return (load_transformers if has_config else load_original)(folder, device, dtype)


def load_transformers(folder: Path, device: str, dtype: Dtype) -> Chameleon:
    data = read_json(folder / "config.json")
    if architecture(data) != ARCHITECTURE:
        raise ValueError(
            f"{folder}: config.json is of {architecture(data)}, whose pictures are laid out "
            "otherwise; unitok reads Chameleon, Anole and UniToken"
        )
    tokenizer = load_tokenizer(folder)
    vqgan = find_file(folder, "vqgan.ckpt")
    check_preprocessor(folder, config_from_json(data)[1].image_size)
    defaults = read_defaults(folder, DEFAULTS)
    model = fill_transformers(folder, data, tokenizer, vqgan, device, dtype, Additions())
    return Chameleon(folder.name, model, tokenizer, defaults)


def read_defaults(folder: Path, defaults: Defaults) -> Defaults:
    """The defaults of a family, with what generation_config.json says, if it is there."""
    return with_sampling(defaults, read_json(folder / "generation_config.json", optional=True))


@dataclass(frozen=True)
class Additions:
    """What a family adds to Chameleon's folders in transformers' format.

    renames: of all its parameters. dropped: names that it does not use. min_positions: how long
    lines can be at least.
    """

    vision: VisionConfig | None = None
    renames: Sequence[tuple[str, str]] = TRANSFORMERS
    dropped: tuple[str, ...] = ()
    min_positions: int = 0


def fill_transformers(
    folder: Path,
    data: Mapping[str, Any],
    tokenizer: TextTokenizer,
    vqgan: Path | None,
    device: str,
    dtype: Dtype,
    added: Additions,
) -> UnifiedModel:
    """The model of a folder in transformers' format, whose config.json is `data`.

    tokenizer: to be checked against it. vqgan: Meta's file of it, which takes the place of
    the folder's own.
    """
    decoder, codec = config_from_json(data)
    decoder = replace(decoder, max_positions=max(decoder.max_positions, added.min_positions))
    names = section(data, "vocabulary_map", "config.json")
    ids = read_image_ids(names, f"{folder}: vocabulary_map of config.json")
    check_words(folder, tokenizer, decoder, ids)
    check_names(folder, tokenizer, names)
    tensors: Tensors = open_tensors(folder)
    # Conversions of Anole keep the decoder, though transformers' class has none.
    paints = vqgan is not None or f"{TRANSFORMERS_VQGAN}decoder.conv_in.weight" in tensors.names
    config = make_config(folder, decoder, added.vision, replace(codec, decoder=paints), ids)
    dropped, prefix = [*TRANSFORMERS_DROPPED, *added.dropped], TRANSFORMERS_VQGAN
    if vqgan is not None:
        tensors = Shards([tensors, TorchFile(vqgan, inside=("state_dict",))], str(folder))
        dropped, prefix = [*dropped, DOUBLE_VQGAN, *VQGAN_DROPPED], ""
    layout = make_layout(config, ids, added.renames, prefix)
    return build(config, tensors, layout, dropped, dtype, device)


def load_original(folder: Path, device: str, dtype: Dtype) -> Chameleon:
    """Meta's format: params.json and consolidated*.pth; text_tokenizer.json, vqgan.yaml and
    vqgan.ckpt beside them, in tokenizer/, or in ../../tokenizer, where Meta's download has it."""
    name, folder = folder.name, find_model(folder)
    words, settings, vqgan = (
        need_file(folder, file) for file in ("text_tokenizer.json", "vqgan.yaml", "vqgan.ckpt")
    )
    params = read_params(folder)
    ids = read_image_ids(section(read_json(words), "model", str(words)).get("vocab"), str(words))
    tokenizer, decoder = (
        TextTokenizer.load(words),
        config_from_params(params, str(folder), CHAMELEON),
    )
    check_words(folder, tokenizer, decoder, ids)
    codec = replace(read_vqgan_yaml(settings), decoder=True)
    config = make_config(folder, decoder, None, codec, ids)
    weights = open_original(folder, params.get("model_parallel_size"))
    tensors = Shards([weights, TorchFile(vqgan, inside=("state_dict",))], str(folder))
    layout = make_layout(config, ids, ORIGINAL, paired=True)
    dropped = (*ORIGINAL_DROPPED, *VQGAN_DROPPED)
    model = build(config, tensors, layout, dropped, dtype, device)
    return Chameleon(name, model, tokenizer)


def make_config(
    folder: Path,
    decoder: DecoderConfig,
    vision: VisionConfig | None,
    codec: AutoencoderConfig,
    ids: ImageIds,
) -> ModelConfig:
    if len(ids.codes) != codec.codebook_size or ids.start + len(ids.codes) > decoder.vocab_size:
        raise ValueError(
            f"{folder}: {len(ids.codes)} image tokens from id {ids.start} on do not fit "
            f"{codec.codebook_size} codes and a vocabulary of {decoder.vocab_size}"
        )
    return ModelConfig(decoder, vision, codec, image_start=ids.start)


def find_file(folder: Path, name: str) -> Path | None:
    """A file of the tokenizers, in one of the places where people keep it."""
    places, outer = [folder, folder / "tokenizer"], folder.absolute().parent
    if outer.name == "models":  # one model of Meta's download
        places.append(outer.parent / "tokenizer")
    return next((place / name for place in places if (place / name).is_file()), None)


def need_file(folder: Path, name: str) -> Path:
    """As `find_file`; FileNotFoundError if there is none."""
    found = find_file(folder, name)
    if found is None:
        raise FileNotFoundError(
            f"{folder} has no {name}; put Meta's file of Chameleon's tokenizer/ there, or into a "
            "folder tokenizer/ in it"
        )
    return found


def load_tokenizer(folder: Path) -> TextTokenizer:
    """tokenizer.json of a folder, else Meta's text_tokenizer.json."""
    if (folder / "tokenizer.json").is_file():
        return TextTokenizer.load(folder)
    words = find_file(folder, "text_tokenizer.json")
    if words is None:
        raise FileNotFoundError(f"{folder} has no tokenizer.json and no text_tokenizer.json")
    return TextTokenizer.load(words)


def check_words(
    folder: Path, tokenizer: TextTokenizer, decoder: DecoderConfig, ids: ImageIds
) -> None:
    """Raise ValueError if the text tokenizer has too many ids, or marks among the image ids."""
    check_ids(folder, tokenizer, decoder)
    image = range(ids.start, ids.start + len(ids.codes))
    strays = [mark for mark in MARKS if tokenizer.id(mark) in image]
    if strays:
        raise ValueError(f"{folder}: {strays[0]} of the tokenizer is an image id of the model")


def check_names(folder: Path, tokenizer: TextTokenizer, names: Mapping[str, Any]) -> None:
    """Raise ValueError if config.json gives a mark or an image token another id than the tokenizer.

    Image tokens may be unknown to the tokenizer: no text holds them.
    """
    for name, id in names.items():
        if name not in MARKS and not IMAGE_NAME.fullmatch(name):
            continue
        if (found := find_id(tokenizer, name)) not in (None, id):
            raise ValueError(
                f"{folder}: vocabulary_map of config.json gives {name} the id {id}, the tokenizer "
                f"{found}"
            )


def find_id(tokenizer: TextTokenizer, name: str) -> int | None:
    """Id of a token; None if there is none."""
    try:
        return tokenizer.id(name)
    except ValueError:
        return None
