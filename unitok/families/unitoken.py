"""UniToken, base and AnyRes: Chameleon that reads a picture twice, as ids and as features.

Paper: https://arxiv.org/abs/2504.04423; code: https://github.com/SxJyJay/UniToken. The folder is
transformers' of Chameleon, with a SigLIP so400m (`vit`) and its aligner (`adapter`); the VQGAN is
Meta's vqgan.ckpt, which must be put beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import check_settings, read_pixels, real, section, whole
from unitok.checkpoints.weights import Dtype
from unitok.families.chameleon import (
    LANCZOS,
    TRANSFORMERS,
    Additions,
    Chameleon,
    architecture,
    centre_square,
    check_preprocessor,
    config_from_json,
    fill_transformers,
    is_unitoken,
    load_tokenizer,
    need_file,
    read_defaults,
    to_pixels,
)
from unitok.families.common.family import Defaults, GenerationSpec, ImageOptions
from unitok.families.common.guidance import guided
from unitok.nn.config import VisionConfig
from unitok.nn.model import UnifiedModel
from unitok.pictures import digest
from unitok.prompt import (
    IMAGES_PER_CALL,
    Branch,
    Embeddings,
    EncodedImage,
    ImageEncoderBatch,
    Message,
)
from unitok_engine import Allow, Force, IdRange, Plan, Stop
from unitok_tokenizers.autoencoder import to_tensor_range
from unitok_tokenizers.text import TextTokenizer

SEPARATOR = "<sentinel:0>"  # between the ids and the features of a picture
NEW_LINE = "<reserved08799>"  # closes each row of a picture
SIZE_TOKEN = "<reserved{:05d}>"  # of 8800 + n: a side is n times 32 pixels
FIRST_SIZE = 8800
BICUBIC = int(Image.Resampling.BICUBIC)
ANSWER = 16853  # begins an answer that paints; the reference gives the number alone
REQUEST = "Generate an image according to the following prompt:\n{}"
DEFAULTS = Defaults(
    temperature=1.0,
    top_k=4000,
    top_p=1.0,
    guidance=3.0,
    question="Please describe the details of the image as much as possible.",
    system="",
)

# AnyRes: columns and rows of tiles that a picture may be cut into, in the reference's order.
GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
ANYRES_POSITIONS = 8192  # 2 x 2 tiles and their ids take 4759; the reference sets no limit


# --- config and weights --------------------------------------------------------------------------

SIGLIP = VisionConfig(  # so400m-patch14-384; UniToken's config.json does not repeat its sizes
    image_size=384,
    patch_size=14,
    hidden_size=1152,
    intermediate_size=4304,
    layers=27,
    heads=16,
    activation="gelu_tanh",
)
VISION_READ = """image_size patch_size hidden_size intermediate_size num_hidden_layers
    num_attention_heads layer_norm_eps vision_use_head""".split()
VISION_NEUTRAL = {"hidden_act": ("gelu_pytorch_tanh",), "num_channels": (3,)}

LAYER = r"vit.encoder.layers.\1."
RENAMES = (
    *TRANSFORMERS,
    (r"^vision\.(patch|position)_embedding\.", r"vit.embeddings.\1_embedding."),
    (r"^vision\.blocks\.(\d+)\.norm(\d)\.", rf"{LAYER}layer_norm\2."),
    (r"^vision\.blocks\.(\d+)\.attention\.o\.", rf"{LAYER}self_attn.out_proj."),
    (r"^vision\.blocks\.(\d+)\.attention\.(\w)\.", rf"{LAYER}self_attn.\2_proj."),
    (r"^vision\.blocks\.(\d+)\.mlp\.", f"{LAYER}mlp."),
    (r"^vision\.norm\.", "vit.post_layernorm."),
    (r"^vision_aligner\.fc1\.", "adapter.0."),
    (r"^vision_aligner\.fc2\.", "adapter.2."),
)
DROPPED = (r"vit\.head\..*",)


def read_vision(config: Mapping[str, Any]) -> VisionConfig:
    """The sizes of SigLIP: so400m's, unless config.json has a vision_config.

    Raises:
        ValueError: a setting that would change the maths or that we do not know, a value of the
            wrong type.
    """
    vision, where = section(config, "vision_config", "config.json"), "vision_config of config.json"
    check_settings(vision, where, VISION_READ, VISION_NEUTRAL, "siglip_vision_model")
    return VisionConfig(
        image_size=whole(vision, "image_size", SIGLIP.image_size, where),
        patch_size=whole(vision, "patch_size", SIGLIP.patch_size, where),
        hidden_size=whole(vision, "hidden_size", SIGLIP.hidden_size, where),
        intermediate_size=whole(vision, "intermediate_size", SIGLIP.intermediate_size, where),
        layers=whole(vision, "num_hidden_layers", SIGLIP.layers, where),
        heads=whole(vision, "num_attention_heads", SIGLIP.heads, where),
        norm_eps=real(vision, "layer_norm_eps", SIGLIP.norm_eps, where),
        activation=SIGLIP.activation,
    )


# --- AnyRes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiling:
    """How AnyRes cuts a picture of a size (width, height) into tiles (unitoken/tools/mm_utils.py).

    side: of a tile, in pixels.
    """

    size: tuple[int, int]
    side: int

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows: those that keep most pixels, then those that waste the fewest."""
        width, height = self.size

        def worth(grid: tuple[int, int]) -> tuple[int, int]:
            canvas_width, canvas_height = (n * self.side for n in grid)
            scale = min(canvas_width / width, canvas_height / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - canvas_width * canvas_height

        return max(GRIDS, key=worth)  # of equals the first, as in the reference

    def tiles(self, image: Image.Image) -> list[Image.Image]:
        """The whole picture in one tile, out of shape; then its tiles, row by row."""
        columns, rows = self.grid
        canvas = self.padded(image, columns * self.side, rows * self.side)
        corners = ((x * self.side, y * self.side) for y in range(rows) for x in range(columns))
        parts = [canvas.crop((x, y, x + self.side, y + self.side)) for x, y in corners]
        return [image.resize((self.side, self.side), Image.Resampling.BICUBIC), *parts]

    def padded(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The picture in the middle of a black canvas, which it fills one way."""
        across, down = width / image.width, height / image.height
        size = (
            (width, min(math.ceil(image.height * across), height))
            if across < down
            else (min(math.ceil(image.width * down), width), height)
        )
        canvas = Image.new("RGB", (width, height))
        corner = (width - size[0]) // 2, (height - size[1]) // 2
        canvas.paste(image.resize(size, Image.Resampling.BICUBIC), corner)
        return canvas

    def unpadded(self, patches: int) -> tuple[slice, slice]:
        """Rows and columns of patches that show the picture and no border, of `patches` a tile."""
        width, height = self.size
        columns, rows = (n * patches for n in self.grid)
        if width / height > columns / rows:
            border = (rows - int(height * (columns / width))) // 2
            return slice(border, rows - border), slice(columns)
        border = (columns - int(width * (rows / height))) // 2
        return slice(rows), slice(border, columns - border)


@dataclass(frozen=True, eq=False)
class TiledPicture:
    """The pixels of the whole and of its tiles, [tiles + 1, 3, S, S] in [-1, 1]."""

    pixels: Tensor
    tiling: Tiling


# --- plans ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowsPlan:
    """Rows of image ids, each closed by `new_line`; after the last row `end`."""

    id_range: IdRange
    rows: int
    columns: int
    new_line: int
    end: int

    @property
    def max_length(self) -> int:
        return self.rows * (self.columns + 1) + 1

    @property
    def exact(self) -> bool:
        return True

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        if len(emitted) == self.max_length:
            return Stop("complete")
        if len(emitted) == self.max_length - 1:
            return Force(self.end)
        if len(emitted) % (self.columns + 1) == self.columns:
            return Force(self.new_line)
        return Allow(self.id_range)


# --- the family ----------------------------------------------------------------------------------


class UniToken(Chameleon):
    """Everything of a UniToken checkpoint that the API needs; see `unitok.families.Family`.

    anyres: whether the features are of tiles and of the whole, or of the whole alone.
    """

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        tokenizer: TextTokenizer,
        defaults: Defaults,
        anyres: bool,
    ) -> None:
        self.separator, self.new_line = map(tokenizer.id, (SEPARATOR, NEW_LINE))
        side = model.image_tokenizer.config.grid // 2  # in units of 32 pixels
        self.size_token = tokenizer.id(SIZE_TOKEN.format(FIRST_SIZE + side))
        self.anyres = anyres
        super().__init__(name, model, tokenizer, defaults)

    # -- reading

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Its size, rows of ids, the separator, its features; one square, cut from the middle.

        The reference cuts the square from a random place (unitoken/data/item_processor.py).
        """
        ids = self.image_ids(self.fit(image))
        rows = torch.nn.functional.pad(ids, (0, 1), value=self.new_line).flatten().tolist()
        before = (self.begin_image, self.size_token, self.size_token, *rows, self.separator)
        vectors = self.tiles(image) if self.anyres else self.whole(image)
        return EncodedImage((before, vectors, (self.end_image,)))

    def fit(self, image: Image.Image) -> Image.Image:
        side = self.picture_size[0]
        while min(image.size) >= 2 * side:
            half = image.width // 2, image.height // 2
            image = image.resize(half, Image.Resampling.BOX)
        return centre_square(image, side, Image.Resampling.BICUBIC)

    def whole(self, image: Image.Image) -> Embeddings:
        """The features of the base variant: of the whole picture, out of shape."""
        vision = self.model.config.vision
        square = image.resize((vision.image_size,) * 2, Image.Resampling.BICUBIC)
        pixels = to_tensor_range(to_pixels(square))
        key = digest(pixels, self.name)
        encoder = ImageEncoderBatch(self.features)
        return Embeddings(
            start=0,
            length=vision.patches,
            digest=key,
            compute=lambda: encoder([pixels])[0],
            payload=pixels,
            compute_many=encoder,
            placeholder=self.separator,
        )

    def tiles(self, image: Image.Image) -> Embeddings:
        """The features of AnyRes: the whole picture's, then the rows of the tiled picture's, each
        closed by the embedding of the new line."""
        vision = self.model.config.vision
        tiling = Tiling(image.size, vision.image_size)
        pixels = torch.stack([to_tensor_range(to_pixels(t)) for t in tiling.tiles(image)])
        side = vision.image_size // vision.patch_size
        rows, columns = tiling.unpadded(side)
        count = (rows.stop - (rows.start or 0)) * (columns.stop - (columns.start or 0) + 1)
        # Pictures of one colour and of two sizes may have the same tiles.
        key = digest(pixels, f"{self.name} {image.size}")
        seen = TiledPicture(pixels, tiling)
        return Embeddings(
            start=0,
            length=vision.patches + count,
            digest=key,
            compute=lambda: self.tiled_features([seen])[0],
            payload=seen,
            compute_many=self.tiled_features,
            placeholder=self.separator,
        )

    def tiled_features(self, pictures: Sequence[TiledPicture]) -> list[Tensor]:
        """Embeddings [n, d] of each picture; the tiles of all are read together."""
        tiles = torch.cat([picture.pixels for picture in pictures])
        read = torch.cat([self.features(part) for part in tiles.split(IMAGES_PER_CALL)])
        counts = [len(picture.pixels) for picture in pictures]
        split = zip(pictures, read.split(counts), strict=True)
        return [self.laid_out(picture.tiling, *features) for picture, features in split]

    def laid_out(self, tiling: Tiling, whole: Tensor, *parts: Tensor) -> Tensor:
        """Embeddings of the whole and of the tiles, [patches, d] each -> [n, d], as in `tiles`."""
        vision = self.model.config.vision
        side = vision.image_size // vision.patch_size
        grid = self.join(torch.stack(parts), tiling.grid, side)[tiling.unpadded(side)]
        end = self.model.text_embedding.weight[self.new_line].expand(len(grid), 1, -1)
        return torch.cat([whole, torch.cat([grid, end], dim=1).flatten(0, 1)])

    @staticmethod
    def join(parts: Tensor, grid: tuple[int, int], side: int) -> Tensor:
        """Embeddings of tiles, row by row [tiles, side * side, d] -> of all [height, width, d]."""
        columns, rows = grid
        parts = parts.reshape(rows, columns, side, side, -1).transpose(1, 2)
        return parts.reshape(rows * side, columns * side, -1)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] in [-1, 1] -> features [B, patches, d]."""
        with torch.inference_mode():
            return self.model.encode_images(pixels)

    # -- painting

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        *before, last = messages
        asked = Message(last.role, REQUEST.format(last.text), last.pictures)
        return super().generation_spec([*before, asked], options)

    def guided(self, messages: Sequence[Message], options: ImageOptions) -> tuple[Branch, ...]:
        """Guidance away from a line of no prompt, which begins at the picture, at position 0."""
        line = self.opened(messages)
        if options.guidance == 1.0:
            return (line,)
        against = Branch(self.opening)
        if options.negative is not None:
            against = self.opened([Message("user", REQUEST.format(options.negative))])
        return guided(line, against, options.guidance)

    @property
    def opening(self) -> tuple[int, ...]:
        """Begin of image, height, width."""
        return self.begin_image, self.size_token, self.size_token

    def opened(self, messages: Sequence[Message]) -> Branch:
        """A conversation up to the size of the picture, which the reference forces."""
        builder = self.conversation(messages).id(ANSWER)
        for id in self.opening:
            builder.id(id)
        return builder.branch()

    def painting_plan(self) -> Plan:
        grid = self.model.image_tokenizer.config.grid
        return RowsPlan(self.image_range, grid, grid, self.new_line, self.end_image)

    def decode_images(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """What the plan emitted, [B, rows * (columns + 1) + 1] -> pictures [B, 3, S, S]."""
        grid = self.model.image_tokenizer.config.grid
        rows = torch.tensor(ids)[:, :-1].unflatten(1, (grid, grid + 1))
        return super().decode_images(rows[:, :, :-1].flatten(1).tolist())


# --- folders -------------------------------------------------------------------------------------


def matches(config: Mapping[str, Any], names: frozenset[str]) -> bool:
    return config.get("model_type") == "chameleon" and is_unitoken(config)


def load(folder: Path, device: str, dtype: Dtype) -> UniToken:
    """Open a folder as the reference saves it; AnyRes if `architectures` of config.json says so.

    Raises:
        FileNotFoundError: a file is missing, such as Meta's vqgan.ckpt.
        ValueError: a file does not fit the others.
    """
    data = read_json(folder / "config.json")
    tokenizer = load_tokenizer(folder)
    if tokenizer.size <= ANSWER:
        raise ValueError(f"{folder}: the tokenizer has no id {ANSWER}, which begins a drawing")
    anyres = architecture(data).endswith("AnyRes")
    longest = ANYRES_POSITIONS if anyres else 0
    added = Additions(vision := read_vision(data), RENAMES, DROPPED, longest)
    vqgan = need_file(folder, "vqgan.ckpt")
    # A file may be of either encoder; Chameleon's names a filter that UniToken does not use.
    is_siglip = str(read_pixels(folder)[0].get("image_processor_type")).startswith("Siglip")
    side = vision.image_size if is_siglip else config_from_json(data)[1].image_size
    check_preprocessor(folder, side, resample=(LANCZOS, BICUBIC))
    defaults = read_defaults(folder, DEFAULTS)
    model = fill_transformers(folder, data, tokenizer, vqgan, device, dtype, added)
    return UniToken(folder.name, model, tokenizer, defaults, anyres)
