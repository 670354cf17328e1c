"""Chameleon and Anole, in transformers' folders and in Meta's own.

Papers: https://arxiv.org/abs/2405.09818 and https://arxiv.org/abs/2407.06135; code:
https://github.com/facebookresearch/chameleon. Pictures are ids of the text vocabulary, encoded and
decoded by one VQGAN. transformers' folders hold its encoder alone; with Meta's vqgan.ckpt beside
them they generate pictures too.
"""

from unitok.families.chameleon.config import CHAMELEON, config_from_json, read_autoencoder
from unitok.families.chameleon.family import Chameleon, load, matches
from unitok.families.chameleon.image_ids import ImageIds, code_of, read_image_ids
from unitok.families.chameleon.weights import TRANSFORMERS, TRANSFORMERS_VQGAN, make_adapter

__all__ = [
    "CHAMELEON",
    "TRANSFORMERS",
    "TRANSFORMERS_VQGAN",
    "Chameleon",
    "ImageIds",
    "code_of",
    "config_from_json",
    "load",
    "make_adapter",
    "matches",
    "read_autoencoder",
    "read_image_ids",
]
