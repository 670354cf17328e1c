"""Emu3, Gen and Chat: config, weights, prompts, plan, pictures.

Paper: https://arxiv.org/abs/2409.18869. Image ids are the last of the vocabulary, and a picture is
read as it is painted: rows of image ids, each closed by an end of line.

Two formats are read. transformers' folder (Emu3ForConditionalGeneration) holds config.json,
model.safetensors, tokenizer.json and processor_config.json or preprocessor_config.json. BAAI's
(github.com/baaivision/Emu3) holds config.json, the weights, emu3.tiktoken and
emu3_vision_tokens.txt, and in `vision_tokenizer/` the files of BAAI/Emu3-VisionTokenizer.
"""

import base64
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import (
    Colour,
    check_pixels,
    check_scale,
    check_settings,
    flag,
    need_pixels,
    read_colours,
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
    fill,
    open_tensors,
    ready,
    renaming,
)
from unitok.families.common.family import (
    Defaults,
    GenerationSpec,
    ImageOptions,
    check_ids,
    with_sampling,
)
from unitok.families.common.guidance import guided
from unitok.families.common.llama import llama_names, read_decoder
from unitok.nn.config import DecoderConfig, ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message, PromptBuilder
from unitok_engine import Allow, Branch, Force, FreePlan, IdRange, Plan, Stop
from unitok_tokenizers import emu3_names as codec
from unitok_tokenizers.emu3 import Emu3TokenizerConfig
from unitok_tokenizers.text import TextTokenizer

SYSTEM = "You are a helpful assistant."
# What the reference steers away from (baaivision/Emu3, image_generation.py).
NEGATIVE = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, "
    "cropped, worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, "
    "username, blurry."
)
VISUAL = "<|visual token {:06d}|>"
AREA = 720 * 720  # of a drawing, in pixels
TIED = "a head tied to the embedding is not Emu3's"


# --- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """Emu3's prompts (baaivision/Emu3, emu3/mllm/processing_emu3.py).

    full_stop: what follows each thing a user says. The original's template has "." there; that of
    transformers' checkpoints has nothing.
    """

    tokenizer: TextTokenizer
    full_stop: str
    bos: str = "<|extra_203|>"
    eos: str = "<|extra_204|>"
    begin_of_image: str = "<|image start|>"
    begin_of_ids: str = "<|image token|>"
    end_of_line: str = "<|extra_200|>"
    end_of_frame: str = "<|extra_201|>"
    end_of_image: str = "<|image end|>"

    @property
    def specials(self) -> tuple[str, ...]:
        begin = self.bos, self.begin_of_image, self.begin_of_ids
        return *begin, self.end_of_line, self.end_of_frame, self.end_of_image, self.eos

    def open_grid(self, builder: PromptBuilder, height: int, width: int) -> PromptBuilder:
        """Add what stands before a picture's ids: its rows and columns, in words."""
        builder.special(self.begin_of_image).text(f"{height}*{width}")
        return builder.special(self.begin_of_ids)

    def picture(self, ids: Tensor) -> EncodedImage:
        """Image ids [h, w] -> how they enter a line."""
        builder = self.open_grid(PromptBuilder(self.tokenizer), *ids.shape)
        for row in ids.tolist():
            builder.token_ids += row
            builder.special(self.end_of_line)
        builder.special(self.end_of_frame).special(self.end_of_image)
        return EncodedImage((builder.branch().token_ids,))

    def draw(self, text: str, height: int, width: int) -> Branch:
        """The line after which the model paints."""
        builder = PromptBuilder(self.tokenizer).special(self.bos).text(text)
        return self.open_grid(builder, height, width).branch()

    def answer(self, messages: Sequence[Message], system: str) -> Branch:
        """The line after which the model writes its next message."""
        builder = PromptBuilder(self.tokenizer).special(self.bos)
        if system:
            builder.text(system + " ")
        for message in messages:
            self.turn(builder, message)
        return builder.text("ASSISTANT:").branch()

    def turn(self, builder: PromptBuilder, message: Message) -> PromptBuilder:
        """Add a whole turn."""
        builder.text(message.role.upper() + ": ")
        for picture in message.pictures:
            builder.picture(picture)
        if message.text:
            stop = self.full_stop if message.role == "user" else ""
            builder.text(message.text + stop + " ")
        return builder


@dataclass(frozen=True)
class Emu3Plan:
    """`height` rows of `width` image ids, each closed by `row_end`; then the ids of `closing`."""

    image: IdRange
    height: int
    width: int
    row_end: int
    closing: tuple[int, ...]

    @property
    def max_length(self) -> int:
        return self.grid_length + len(self.closing)

    @property
    def exact(self) -> bool:
        return True

    @property
    def grid_length(self) -> int:
        """Ids of all rows and their ends."""
        return self.height * (self.width + 1)

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        behind = len(emitted) - self.grid_length
        if behind >= len(self.closing):
            return Stop("complete")
        if behind >= 0:
            return Force(self.closing[behind])
        is_row_full = len(emitted) % (self.width + 1) == self.width
        return Force(self.row_end) if is_row_full else Allow(self.image)

    def grid(self, emitted: Sequence[int]) -> Tensor:
        """What the plan emitted -> image ids [height, width]."""
        rows = torch.tensor(emitted[: self.grid_length]).view(self.height, self.width + 1)
        return rows[:, :-1]


@dataclass(frozen=True)
class Painting:
    """What a plan emitted for n pictures -> pictures [n, 3, H, W] in [0, 1].

    Equal for drawings of one size, so that they are painted together.
    """

    model: UnifiedModel
    plan: Emu3Plan

    def __call__(self, ids: Sequence[Sequence[int]]) -> Tensor:
        grids = torch.stack([self.plan.grid(one) for one in ids])
        codes = self.model.vocabulary.id_to_code(grids)
        return self.model.image_tokenizer.decode(codes.to(self.model.device))


# --- config.json ---------------------------------------------------------------------------------

EMU3 = DecoderConfig(  # what both references take for absent settings
    vocab_size=184622,
    hidden_size=4096,
    intermediate_size=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    max_positions=9216,
    rope_theta=1e6,
    norm_eps=1e-5,
)
READ = {"text_config", "vq_config", "vocabulary_map", "image_token_id", "tie_word_embeddings"}
VQ_READ = """codebook_size embed_dim latent_channels temporal_downsample_factor base_channels
    channel_multiplier num_res_blocks attn_resolutions hidden_size""".split()
VQ_NEUTRAL = {
    "double_latent": (False,),
    "in_channels": (3,),
    "out_channels": (3,),
    "num_attention_heads": (1,),
}
# The original's name -> transformers'.
VQ_ORIGINAL = {
    "z_channels": "latent_channels",
    "double_z": "double_latent",
    "ch": "base_channels",
    "ch_mult": "channel_multiplier",
}
# The original's config.json gives these tokens' ids: by what, and which field of `Template`.
ORIGINAL_IDS = {
    "bos_token_id": "bos",
    "eos_token_id": "eos",
    "boi_token_id": "begin_of_image",
    "img_token_id": "begin_of_ids",
    "eol_token_id": "end_of_line",
    "eof_token_id": "end_of_frame",
    "eoi_token_id": "end_of_image",
}


def image_tokenizer_config(
    settings: Mapping[str, Any], where: str, model_type: str, colours: tuple[Colour, Colour]
) -> Emu3TokenizerConfig:
    """vq_config, by transformers' names, and the preprocessor's colours -> the codec's config.

    Raises:
        ValueError: a setting that would change the maths or that we do not know, a value of the
            wrong type, or sizes that do not fit.
    """
    check_settings(settings, where, VQ_READ, VQ_NEUTRAL, model_type)
    return Emu3TokenizerConfig(
        codebook_size=whole(settings, "codebook_size", 32768, where),
        code_dim=whole(settings, "embed_dim", 4, where),
        latent_channels=whole(settings, "latent_channels", 4, where),
        base_channels=whole(settings, "base_channels", 256, where),
        channel_multiplier=wholes(settings, "channel_multiplier", (1, 2, 2, 4), where),
        res_blocks=whole(settings, "num_res_blocks", 2, where),
        attention_stages=wholes(settings, "attn_resolutions", (3,), where, least=0),
        temporal_downsample=whole(settings, "temporal_downsample_factor", 4, where),
        mean=colours[0],
        std=colours[1],
    )


# --- the tokenizer of the original ---------------------------------------------------------------

# Facts of baaivision/Emu3, emu3/mllm/tokenization_emu3.py.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RESERVED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def read_tiktoken(folder: Path) -> TextTokenizer:
    """emu3.tiktoken and emu3_vision_tokens.txt as a tokenizer of the `tokenizers` library.

    Ids are those of tiktoken: it merges the pair of lowest rank first, as byte-level BPE does with
    its merges in the order of ranks.

    Raises:
        FileNotFoundError: there are no such files.
        ValueError: they cannot be read.
    """
    files = folder / "emu3.tiktoken", folder / "emu3_vision_tokens.txt"
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; the folder is not complete")
    ranks = read_ranks(files[0])
    try:
        visual = [line.strip() for line in files[1].read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{files[1]} is not text in UTF-8: {error}") from None
    tokenizer = Tokenizer(byte_bpe(ranks))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    specials = [*RESERVED, *(name for name in visual if name)]
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "tokenizer.json"
        tokenizer.save(str(file), pretty=False)
        return TextTokenizer.load(file)


def read_ranks(file: Path) -> dict[bytes, int]:
    """Tokens and their ranks, which are their ids; all bytes are among them."""
    try:
        pairs = [line.split() for line in file.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as error:
        raise ValueError(f"{file} is not a file of tiktoken: {error}") from None
    whole = sorted(ranks.values()) == list(range(len(ranks)))
    if not whole or not all(bytes([b]) in ranks for b in range(256)):
        raise ValueError(f"{file} is cut off: ranks or single bytes are missing")
    return ranks


def byte_bpe(ranks: Mapping[bytes, int]) -> models.BPE:
    """Ranks -> the vocabulary and merges that give the same tokens."""
    letters = byte_letters()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    by_rank = sorted(ranks, key=ranks.__getitem__)
    pairs = (pair for token in by_rank if (pair := split_token(token, ranks)))
    merges = [(spelt[left], spelt[right]) for left, right in pairs]
    # tiktoken takes a whole word that is a token as it is, however its parts would merge.
    vocabulary = {spelt[token]: rank for token, rank in ranks.items()}
    return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True)


def split_token(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that are merged into this one; None for a byte, or if none ever are."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, math.inf) for left, right in pairwise(parts)]
        at = joined.index(min(joined))
        if joined[at] == math.inf:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def byte_letters() -> list[str]:
    """What byte-level BPE writes for each byte: itself if it shows in Latin-1, else one above."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte if byte in shown else 256 + hidden.index(byte)) for byte in range(256)]


# --- weights -------------------------------------------------------------------------------------


def make_layout(trunk: str, head: str, codec_key: Callable[[str], Stored]) -> Layout:
    """Our names -> a checkpoint's. trunk and head: its names of the decoder and the head.

    codec_key: where a parameter of the image tokenizer lies.
    """
    decoder = renaming(llama_names(trunk, head))

    def stored(key: str) -> Stored:
        inner = key.removeprefix("image_tokenizer.")
        return decoder(key) if inner == key else codec_key(inner)

    return stored


def transformers_layout(names: Collection[str]) -> Layout:
    """transformers writes its names of version 4, and has others in memory: whichever are there."""
    is_new = any(name.startswith("model.vqmodel.") for name in names)
    vision = "model.vqmodel" if is_new else "vqmodel"

    def codec_key(key: str) -> Stored:
        name = f"{vision}.{codec.transformers_name(key)}"
        if codec.linear_in_transformers(key):
            return Stored(name, load=lambda w: w[..., None, None], store=lambda w: w[..., 0, 0])
        return Stored(name)

    if is_new:
        return make_layout("model.text_model", "lm_head", codec_key)
    return make_layout("text_model.model", "text_model.lm_head", codec_key)


TRANSFORMERS_DROPPED = tuple(rf"(model\.)?vqmodel\.{name}" for name in codec.DROPPED)
ORIGINAL = make_layout("model", "lm_head", lambda key: Stored(codec.original_name(key)))


# --- pictures ------------------------------------------------------------------------------------

# do_pad is of pictures in a batch; here each is read alone.
PIXELS_READ = "min_pixels max_pixels spatial_factor size do_pad".split()
PIXELS_NEUTRAL = {"resample": (None, int(Image.Resampling.BICUBIC))}


@dataclass(frozen=True)
class Preprocessor:
    """Sides in multiples of `factor`, the area within bounds, the shape kept as nearly as can be
    (transformers, models/emu3/image_processing_emu3.py)."""

    factor: int = 8
    min_pixels: int = 512 * 512
    max_pixels: int = 1024 * 1024

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size a picture is shrunk or enlarged to.

        Raises:
            ValueError: one side is more than 200 times the other.
        """
        if max(width, height) > 200 * min(width, height):
            raise ValueError(
                f"a picture of {width} x {height} is too thin to read: one side may be at most 200 "
                "times the other"
            )
        fitted = [round(side / self.factor) * self.factor for side in (width, height)]
        if math.prod(fitted) > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            steps = [math.floor(side / shrink / self.factor) for side in (width, height)]
            fitted = [max(1, n) * self.factor for n in steps]
        elif math.prod(fitted) < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            fitted = [
                math.ceil(side * grow / self.factor) * self.factor for side in (width, height)
            ]
        return fitted[0], fitted[1]

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> pixels [3, H, W] in [0, 1]."""
        image = image.resize(self.resized(*image.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def preprocessor_from_json(data: Mapping[str, Any], where: str) -> Preprocessor:
    """The settings of Emu3ImageProcessor but for its normalisation, which is the codec's.

    Raises:
        ValueError: a setting that this preprocessor does not have.
    """
    check_pixels(data, where, PIXELS_READ, PIXELS_NEUTRAL)
    check_scale(data, where)
    bounds, repeated = Preprocessor(), section(data, "size", where)
    least = whole(data, "min_pixels", bounds.min_pixels, where)
    most = whole(data, "max_pixels", bounds.max_pixels, where)
    for key, value in {"min_pixels": least, "max_pixels": most}.items():
        if repeated.get(key, value) != value:
            raise ValueError(f"{where}: size says {key} {repeated[key]}, not {value}")
    if least > most:
        raise ValueError(f"{where}: min_pixels {least} is more than max_pixels {most}")
    return Preprocessor(whole(data, "spatial_factor", bounds.factor, where), least, most)


# --- folders -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What a folder says, whichever its format; nothing large is read yet.

    ids: what config.json itself says of tokens' ids. area: of a drawing, in pixels.
    """

    decoder: DecoderConfig
    image_tokenizer: Emu3TokenizerConfig
    preprocess: Preprocessor
    template: Template
    ids: Mapping[str, int]
    area: int
    tensors: Tensors
    layout: Layout
    dropped: Sequence[str]


def read_transformers(folder: Path, config: Mapping[str, Any]) -> Contents:
    """A folder of Emu3ForConditionalGeneration."""
    file = "config.json"
    check_settings(config, file, READ, model_type="emu3")
    text, vq = (section(config, f"{part}_config", file) for part in ("text", "vq"))
    if flag(text, "tie_word_embeddings", False, f"text_config of {file}"):
        raise ValueError(f"{folder}: {TIED}")
    pixels, where = need_pixels(folder)
    preprocess, colours = preprocessor_from_json(pixels, where), read_colours(pixels, where)
    tensors = open_tensors(folder)
    return Contents(
        decoder=read_decoder(text, f"text_config of {file}", EMU3, "emu3_text_model"),
        image_tokenizer=image_tokenizer_config(vq, f"vq_config of {file}", "emu3_vqgan", colours),
        preprocess=preprocess,
        template=Template(TextTokenizer.load(folder), full_stop=""),
        ids=section(config, "vocabulary_map", file),
        area=AREA,
        tensors=tensors,
        layout=transformers_layout(tensors.names),
        dropped=TRANSFORMERS_DROPPED,
    )


def read_original(folder: Path, config: Mapping[str, Any]) -> Contents:
    """A folder of BAAI/Emu3-Gen or -Chat, with its vision tokenizer inside."""
    inner = find_vision_folder(folder)
    pixels, where = need_pixels(inner)
    preprocess, colours = preprocessor_from_json(pixels, where), read_colours(pixels, where)
    settings, file = read_json(inner / "config.json"), f"{inner / 'config.json'}"
    settings = {VQ_ORIGINAL.get(key, key): value for key, value in settings.items()}
    template = Template(read_tiktoken(folder), full_stop=".")
    ids = {getattr(template, at): config[key] for key, at in ORIGINAL_IDS.items() if key in config}
    return Contents(
        decoder=read_decoder(config, "config.json", EMU3, "Emu3", (*ORIGINAL_IDS, "image_area")),
        image_tokenizer=image_tokenizer_config(settings, file, "Emu3VisionVQ", colours),
        preprocess=preprocess,
        template=template,
        ids=ids,
        area=whole(config, "image_area", AREA, "config.json"),
        tensors=Shards([open_tensors(folder), open_tensors(inner)], str(folder)),
        layout=ORIGINAL,
        dropped=codec.DROPPED,
    )


def find_vision_folder(folder: Path) -> Path:
    for name in ("vision_tokenizer", "Emu3-VisionTokenizer"):
        if (folder / name).is_dir():
            return folder / name
    raise FileNotFoundError(
        f"{folder} has no vision tokenizer; put the files of BAAI/Emu3-VisionTokenizer into "
        f"{folder / 'vision_tokenizer'}"
    )


def find_image_start(contents: Contents) -> int:
    """The id of the first code, once all ids are seen to be where the model wants them.

    Raises:
        ValueError: tokens and config disagree, or the visual tokens are not the last ids in order.
    """
    tokenizer, codes = contents.template.tokenizer, contents.image_tokenizer.codebook_size
    visual = [VISUAL.format(code) for code in range(codes)]
    found = {name: tokenizer.id(name) for name in (*contents.template.specials, *visual)}
    for name, i in found.items():
        if contents.ids.get(name, i) != i:
            raise ValueError(
                f"config.json gives {name!r} the id {contents.ids[name]}, the tokenizer {i}"
            )
    start = tokenizer.size - codes
    if wrong := [name for code, name in enumerate(visual) if found[name] != start + code]:
        raise ValueError(
            f"the {codes} visual tokens must be the tokenizer's last ids, in order; "
            f"{wrong[0]!r} is {found[wrong[0]]} of {tokenizer.size}"
        )
    return start


# --- the family ----------------------------------------------------------------------------------


class Emu3:
    """Everything of an Emu3 checkpoint that the API needs; see `unitok.families.Family`."""

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        template: Template,
        preprocess: Preprocessor,
        defaults: Defaults,
        area: int,
    ) -> None:
        self.name, self.model, self.template = name, model, template
        self.tokenizer, self.preprocess, self.defaults = template.tokenizer, preprocess, defaults
        self.max_context = model.config.decoder.max_positions
        self.step = model.config.image_tokenizer.downsample
        side = round(math.sqrt(area) / self.step) * self.step
        self.picture_size = (side, side)
        self.picture_tokens = self.plan(*self.grid(None)).max_length

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """A picture is read as ids, so all of the work is done here."""
        with torch.inference_mode():
            codes = self.model.image_tokenizer.encode(self.preprocess(image)[None])[0]
        return self.template.picture(self.model.vocabulary.code_to_id(codes))

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        return self.template.answer(messages, self.defaults.system if system is None else system)

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """Only the last message counts: Emu3 paints from one text."""
        grid = self.grid(options.size)
        plan = self.plan(*grid)
        line = self.template.draw(messages[-1].text, *grid)
        decode = Painting(self.model, plan)
        if options.guidance == 1.0:
            return GenerationSpec((line,), plan, decode)
        negative = NEGATIVE if options.negative is None else options.negative
        against = self.template.draw(negative, *grid)
        return GenerationSpec(guided(line, against, options.guidance), plan, decode)

    def grid(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Rows and columns of a drawing of a width and height in pixels.

        Raises:
            ValueError: the sides are no multiples of a code's.
        """
        sides = self.picture_size if size is None else size
        columns, rows = (max(1, round(side / self.step)) for side in sides)
        nearest = columns * self.step, rows * self.step
        if nearest != tuple(sides):
            raise ValueError(
                f"this model paints sides in multiples of {self.step} pixels, not {sides[0]} x "
                f"{sides[1]}; {nearest[0]} x {nearest[1]} is the nearest"
            )
        return rows, columns

    def plan(self, height: int, width: int) -> Emu3Plan:
        image, t = self.model.vocabulary.image_range, self.template
        row_end, *closing = map(
            self.tokenizer.id, (t.end_of_line, t.end_of_frame, t.end_of_image, t.eos)
        )
        return Emu3Plan(image, height, width, row_end, tuple(closing))

    def text_plan(self, max_tokens: int) -> Plan:
        """Ids below those of codes: an answer holds no picture."""
        stop = frozenset([self.tokenizer.id(self.template.eos)])
        return FreePlan(IdRange(0, self.model.vocabulary.image_start), stop, max_tokens)

    def save(self, folder: Path, layout: str | None) -> None:
        raise ValueError("Emu3 checkpoints are read but not written; copy their folder instead")


def matches(config: Mapping[str, Any], names: frozenset[str]) -> bool:
    return config.get("model_type") in ("emu3", "Emu3")


def load(folder: Path, device: str, dtype: Dtype) -> Emu3:
    """Open a folder of either format.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not fit the others.
    """
    config = read_json(folder / "config.json")
    if flag(config, "tie_word_embeddings", False, f"{folder / 'config.json'}"):
        raise ValueError(f"{folder}: {TIED}")
    is_original = config.get("model_type") == "Emu3"
    contents = (read_original if is_original else read_transformers)(folder, config)
    step, factor = contents.image_tokenizer.downsample, contents.preprocess.factor
    if factor != step:
        raise ValueError(f"{folder}: the preprocessor has spatial_factor {factor}, not {step}")
    generation = read_json(folder / "generation_config.json", optional=True)
    defaults = defaults_from_json(generation, contents.template.full_stop)
    start = find_image_start(contents)
    check_ids(folder, contents.template.tokenizer, contents.decoder)
    with torch.device("meta"):
        model = UnifiedModel(
            ModelConfig(contents.decoder, None, contents.image_tokenizer, image_start=start)
        )
    # The image tokenizer stays in float32, as in BAAI's script: in fewer bits it gives other ids.
    exact = "image_tokenizer."
    fill(model, contents.tensors, contents.layout, dtype, device, contents.dropped, exact)
    return Emu3(
        name=folder.name,
        model=ready(model, device),
        template=contents.template,
        preprocess=contents.preprocess,
        defaults=defaults,
        area=contents.area,
    )


def defaults_from_json(generation: Mapping[str, Any], full_stop: str) -> Defaults:
    """generation_config.json; for what it leaves open, the original's image_generation.py."""
    question = "Please describe the image" + ("" if full_stop else ".")
    own = Defaults(
        temperature=1.0, top_k=2048, top_p=1.0, guidance=3.0, question=question, system=SYSTEM
    )
    return with_sampling(own, generation)
