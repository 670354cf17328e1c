"""CLIPScore (https://arxiv.org/abs/2104.08718): how well pictures and captions match, by a CLIP."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unitok.baselines.protocols import ImageTextScorer
from unitok.pictures import PictureLike

SCALE = 2.5
PREFIX = "A photo depicts "  # stands before every caption, as in the paper


def clip_scores(
    scorer: ImageTextScorer,
    images: Sequence[PictureLike],
    captions: Sequence[str],
    prefix: str = PREFIX,
) -> Tensor:
    """The CLIPScore of each picture with its caption: 2.5 x the cosine, or 0 if that is negative.

    Args:
        scorer: A CLIP. The paper's numbers are of ViT-B/32 of OpenAI.
        images: Pictures.
        captions: One of each picture.
        prefix: Stands before every caption. The scores of drawings are often computed without it,
            and then times 100 instead of 2.5.

    Returns:
        [n], in [0, 2.5].

    Raises:
        ValueError: There are not as many captions as pictures.
    """
    if len(images) != len(captions):
        raise ValueError(f"there are {len(images)} pictures and {len(captions)} captions")
    seen = scorer.image_features(images)
    read = scorer.text_features([prefix + caption for caption in captions])
    return SCALE * (seen * read).sum(1).clamp_min(0)
