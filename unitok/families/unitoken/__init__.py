"""UniToken, base and AnyRes: Chameleon that reads a picture twice, as ids and as embeddings.

Paper: https://arxiv.org/abs/2504.04423; code: https://github.com/SxJyJay/UniToken. The folder is
transformers' of Chameleon, with a SigLIP so400m (`vit`) and its aligner (`adapter`); the VQGAN is
Meta's vqgan.ckpt, which must be put beside it.
"""

from unitok.families.unitoken.family import UniToken, load, matches

__all__ = ["UniToken", "load", "matches"]
