"""UniToken, base and AnyRes: Chameleon that reads a picture twice, as ids and as embeddings.

Paper: https://arxiv.org/abs/2504.04423; code: https://github.com/SxJyJay/UniToken. The folder is
transformers' of Chameleon, with a SigLIP so400m (`vit`) and its aligner (`adapter`); the VQGAN is
Meta's vqgan.ckpt, which must be put beside it.
"""

from unitok.families.unitoken.config import read_vision
from unitok.families.unitoken.family import UniToken, load, matches
from unitok.families.unitoken.tiling import Tiling
from unitok.families.unitoken.weights import RENAMES

__all__ = ["RENAMES", "Tiling", "UniToken", "load", "matches", "read_vision"]
