"""Chameleon and Anole, in transformers' folders and in Meta's own.

Papers: https://arxiv.org/abs/2405.09818 and https://arxiv.org/abs/2407.06135; code:
https://github.com/facebookresearch/chameleon. Pictures are ids of the text vocabulary, encoded and
decoded by one VQGAN. transformers' folders hold its encoder alone; with Meta's vqgan.ckpt beside
them they generate pictures too.
"""

from unitok.families.chameleon.family import Chameleon, load, matches

__all__ = ["Chameleon", "load", "matches"]
