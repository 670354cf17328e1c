"""UniToken behind the API: pictures that are read twice, plans, and its folder opened."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.adapter import renaming
from unitok.checkpoints.saving import copy_files, stored_tensors, write_tensors
from unitok.checkpoints.settings import read_config
from unitok.checkpoints.weights import Dtype
from unitok.families.chameleon.config import config_from_json
from unitok.families.chameleon.family import Chameleon
from unitok.families.chameleon.files import architecture, is_unitoken, load_tokenizer, need_file
from unitok.families.chameleon.loading import Additions, load_transformers
from unitok.families.chameleon.preprocessing import check_preprocessor
from unitok.families.common.family import Defaults, read_defaults
from unitok.families.common.preprocessing import (
    BICUBIC,
    LANCZOS,
    centre_square,
    read_pixels,
    to_pixels,
)
from unitok.families.common.siglip import vision_embeddings
from unitok.families.unitoken.config import read_vision
from unitok.families.unitoken.prompts import ANSWER, Template
from unitok.families.unitoken.tiling import TiledPicture, Tiling
from unitok.families.unitoken.weights import DROPPED, RENAMES
from unitok.nn.model import UnifiedModel
from unitok.pictures import digest
from unitok.prompt import IMAGES_PER_CALL, EncodedImage
from unitok_engine import Embeddings
from unitok_tokenizers.autoencoder import to_tensor_range

DEFAULTS = Defaults(
    temperature=1.0,
    top_k=4000,
    top_p=1.0,
    guidance=3.0,
    question="Please describe the details of the image as much as possible.",
    system="",
)
ANYRES_POSITIONS = 8192  # 2 x 2 tiles and their ids take 4759; the reference sets no limit


class UniToken(Chameleon):
    """A loaded UniToken; see `unitok.families.Family`.

    Args:
        name: For people.
        model: The weights.
        template: The prompts.
        defaults: How the checkpoint samples and is asked.
        anyres: Whether the embeddings are of tiles and of the whole, or of the whole alone.
        source: The folder of its files, which `save` copies.
    """

    weight_names = (renaming(RENAMES),)
    can_be_saved = True

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        template: Template,
        defaults: Defaults,
        anyres: bool,
        source: Path | None = None,
    ) -> None:
        super().__init__(name, model, template, defaults)
        self.source = source
        self.separator = self.tokenizer.id(template.separator)
        self.new_line = self.tokenizer.id(template.new_line)
        self.anyres = anyres
        vision = model.config.vision
        self.patches, self.side = vision.patches, vision.image_size // vision.patch_size

    def make_text_mask(self) -> Tensor:
        """Which ids an answer may hold: all but image ids and what would begin a picture."""
        mask = torch.ones(self.model.vocabulary.text_range.size, dtype=torch.bool)
        mask[self.image_range.start : self.image_range.stop] = False
        mask[self.tokenizer.id(self.template.begin_of_image)] = False
        return mask.to(self.model.device)

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Its size, rows of ids, the separator, its embeddings.

        The ids are of one square, cut from the middle; the reference cuts it from a random place
        (unitoken/data/item_processor.py).
        """
        opened = self.template.opened_picture(self.image_ids(image))
        embeddings = self.tiles(image) if self.anyres else self.whole(image)
        end = self.tokenizer.id(self.template.end_of_image)
        return EncodedImage((opened, embeddings, (end,)))

    def fit(self, image: Image.Image) -> Image.Image:
        """An RGB picture -> what the VQGAN sees; it is halved while it is far too large."""
        side = self.picture_size[0]
        while min(image.size) >= 2 * side:
            half = image.width // 2, image.height // 2
            image = image.resize(half, Image.Resampling.BOX)
        return centre_square(image, side, Image.Resampling.BICUBIC)

    def whole(self, image: Image.Image) -> Embeddings:
        """The embeddings of the base variant: of the whole picture, out of shape."""
        side = self.model.config.vision.image_size
        square = image.resize((side, side), Image.Resampling.BICUBIC)
        pixels = to_tensor_range(to_pixels(square))
        key = digest(pixels, self.name)
        return vision_embeddings(pixels, key, self.features, self.patches, self.separator)

    def tiles(self, image: Image.Image) -> Embeddings:
        """The embeddings of AnyRes.

        They are the whole picture's, then the rows of the tiled picture's, each closed by the
        embedding of the new line.
        """
        tiling = Tiling(image.size, self.model.config.vision.image_size)
        pixels = torch.stack([to_tensor_range(to_pixels(t)) for t in tiling.tiles(image)])
        rows, columns = tiling.unpadded(self.side)
        count = (rows.stop - (rows.start or 0)) * (columns.stop - (columns.start or 0) + 1)
        seen = TiledPicture(pixels, tiling)
        return Embeddings(
            start=0,
            length=self.patches + count,
            # Pictures of one colour and of two sizes may have the same tiles.
            digest=digest(pixels, f"{self.name} {image.size}"),
            compute=lambda: self.tiled_features([seen])[0],
            payload=seen,
            compute_many=self.tiled_features,
            placeholder=self.separator,
        )

    def tiled_features(self, pictures: Sequence[TiledPicture]) -> list[Tensor]:
        """Embeddings [n, d] of each picture; the tiles of all are encoded together."""
        tiles = torch.cat([picture.pixels for picture in pictures])
        encoded = torch.cat([self.features(part) for part in tiles.split(IMAGES_PER_CALL)])
        counts = [len(picture.pixels) for picture in pictures]
        split = zip(pictures, encoded.split(counts), strict=True)
        return [self.laid_out(picture.tiling, *features) for picture, features in split]

    def laid_out(self, tiling: Tiling, whole: Tensor, *parts: Tensor) -> Tensor:
        """Embeddings of the whole and of the tiles, [patches, d] each -> [n, d], as in `tiles`."""
        joined = self.join(torch.stack(parts), tiling.grid, self.side)
        grid = joined[tiling.unpadded(self.side)]
        end = self.model.text_embedding.weight[self.new_line].expand(len(grid), 1, -1)
        return torch.cat([whole, torch.cat([grid, end], dim=1).flatten(0, 1)])

    @staticmethod
    def join(parts: Tensor, grid: tuple[int, int], side: int) -> Tensor:
        """Embeddings of tiles, row by row [tiles, side * side, d] -> of all [height, width, d]."""
        columns, rows = grid
        parts = parts.reshape(rows, columns, side, side, -1).transpose(1, 2)
        return parts.reshape(rows * side, columns * side, -1)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] in [-1, 1] -> embeddings [B, patches, d]."""
        return self.model.encode_images(pixels)

    def save(self, folder: Path, layout: str | None) -> None:
        """Write a folder as the reference saves it; what is no weight is copied.

        The VQGAN stays the file that it came from, since it is never trained here.

        Raises:
            ValueError: A layout is asked for, or the model came from no folder.
        """
        if layout not in (None, "original"):
            raise ValueError(f"layout must be original, not {layout!r}")
        if self.source is None:
            raise ValueError("this model came from no folder: there are no files to go with it")
        tensors = stored_tensors(self.model, self.weight_names[0], self.model.dtype)
        kept = {name: t for name, t in tensors.items() if not name.startswith("image_tokenizer.")}
        if self.source.resolve() != folder.resolve():
            copy_files(self.source, folder)
            shutil.copyfile(need_file(self.source, "vqgan.ckpt"), folder / "vqgan.ckpt")
        write_tensors(kept, folder)


def matches(config: Mapping[str, Any], names: frozenset[str], folder: Path) -> bool:
    """Whether config.json is of Chameleon's type, but of a class of UniToken's."""
    return config.get("model_type") == "chameleon" and is_unitoken(config)


def load(folder: Path, device: str, dtype: Dtype, strict: bool = False) -> UniToken:
    """Open a folder as the reference saves it; see `open_folder`.

    It is of AnyRes if `architectures` of config.json says so.
    """
    config = read_config(folder, strict)
    tokenizer = load_tokenizer(folder)
    if tokenizer.size <= ANSWER:
        raise ValueError(f"{folder}: the tokenizer has no id {ANSWER}, which begins a drawing")
    anyres = architecture(config.data).endswith("AnyRes")
    vqgan = need_file(folder, "vqgan.ckpt")
    added = Additions(vision := read_vision(config), RENAMES, DROPPED)
    decoder, codes = config_from_json(config)
    # A file may be of either encoder; Chameleon's names a filter that UniToken does not use.
    pixels = read_pixels(folder, strict, optional=True)
    is_siglip = str(pixels.data.get("image_processor_type")).startswith("Siglip")
    side = vision.image_size if is_siglip else codes.image_size
    check_preprocessor(folder, side, strict, resample=(LANCZOS, BICUBIC))
    if anyres:
        longest = max(decoder.max_positions, ANYRES_POSITIONS)
        decoder = replace(decoder, max_positions=longest)
    sizes = decoder, codes
    model = load_transformers(folder, config, sizes, tokenizer, vqgan, device, dtype, added)
    template = Template(tokenizer, model.vocabulary.image_range, grid=codes.grid)
    template.check()
    defaults = read_defaults(folder, DEFAULTS)
    return UniToken(folder.name, model, template, defaults, anyres, source=folder)
