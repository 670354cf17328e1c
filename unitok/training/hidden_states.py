"""A packed batch through the model, with gradients: the pictures first, then the decoder."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unitok.nn.model import UnifiedModel
from unitok.nn.packed_attention import PackedAttention
from unitok.prompt import IMAGES_PER_CALL
from unitok.training.packing import PackedBatch
from unitok.training.sequences import PaintedImage
from unitok_engine import Embeddings


def hidden_states(model: UnifiedModel, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Run the decoder over all sequences of a batch, each for itself.

    Returns:
        The ids [N] with those of painted pictures, and the hidden states [N, d]. That of a row
        predicts the id of the next one.

    Raises:
        ValueError: A painted picture has not as many codes as places.
    """
    ids = with_painted_ids(model, batch)
    hidden = with_embeddings(model.embed(ids), batch.embeddings)
    cache = PackedAttention(batch.lengths)
    return ids, model(hidden, batch.positions.to(model.device), cache)


def with_painted_ids(model: UnifiedModel, batch: PackedBatch) -> Tensor:
    """The ids [N] of a batch with those of its painted pictures, on the model's device."""
    ids = batch.ids.to(model.device, copy=True)
    for image, codes in zip(batch.painted, picture_codes(model, batch.painted), strict=True):
        if codes.numel() != len(image.places):
            row = image.places[0]
            raise ValueError(
                f"{batch.name_at(row)}: a painted picture has {codes.numel()} codes for "
                f"{len(image.places)} places"
            )
        places = torch.tensor(image.places, device=ids.device)
        ids[places] = model.vocabulary.code_to_id(codes.to(ids.device).flatten())
    return ids


def picture_codes(model: UnifiedModel, painted: Sequence[PaintedImage]) -> list[Tensor]:
    """The codes [h, w] of each picture; those that are not known are computed, by shape together.

    They are computed as the engine does: without gradients, and in the tokenizer's own precision.
    """
    codes = [image.codes for image in painted]
    by_shape: dict[torch.Size, list[tuple[int, Tensor]]] = defaultdict(list)
    for i, image in enumerate(painted):
        if image.codes is None:
            pixels = image.pixels()
            by_shape[pixels.shape].append((i, pixels))
    for group in by_shape.values():
        encoded = encode(model, torch.stack([pixels for _, pixels in group]))
        for (i, _), found in zip(group, encoded, strict=True):
            codes[i] = found
    return [found for found in codes if found is not None]


@torch.no_grad()
def encode(model: UnifiedModel, pixels: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] -> codes [B, h, w]."""
    with torch.autocast(model.device.type, enabled=False):
        parts = pixels.to(model.device).split(IMAGES_PER_CALL)
        return torch.cat([model.image_tokenizer.encode(part) for part in parts])


def with_embeddings(hidden: Tensor, embeddings: Sequence[Embeddings]) -> Tensor:
    """Rows [N, d] in which the embeddings of pictures to read take their places."""
    if not embeddings:
        return hidden
    rows = torch.cat([torch.arange(e.start, e.stop) for e in embeddings]).to(hidden.device)
    return hidden.index_copy(0, rows, torch.cat(compute(embeddings)).to(hidden))


def compute(embeddings: Sequence[Embeddings]) -> list[Tensor]:
    """The vectors [length, d] of each, with gradients; those of equal digests are computed once."""
    groups: dict[Callable[[Sequence[Any]], Sequence[Tensor]] | None, list[Embeddings]]
    groups = defaultdict(list)
    for each in {e.digest: e for e in embeddings}.values():
        groups[each.compute_many].append(each)
    made: dict[str, Tensor] = {}
    for compute_many, group in groups.items():
        if compute_many is None:
            vectors = [each.compute() for each in group]
        else:
            vectors = compute_many([each.payload for each in group])
        made |= {e.digest: v for e, v in zip(group, vectors, strict=True)}
    return [made[e.digest] for e in embeddings]
