"""Janus and Janus-Pro, in transformers' folders and in DeepSeek's own.

Papers: https://arxiv.org/abs/2410.13848 and https://arxiv.org/abs/2501.17811. Pictures that are
read are embeddings of a SigLIP tower; pictures that are generated are a grid of VQ codes, with an
embedding and a head of their own. A folder holds config.json, the weights, tokenizer.json,
preprocessor_config.json and perhaps generation_config.json. What differs in DeepSeek's own folders
is in `original`.
"""

from unitok.families.janus.family import Janus, load, matches
from unitok.families.janus.folder import JanusFolder, read_folder
from unitok.families.janus.preprocessing import Preprocessor
from unitok.families.janus.prompts import Template

__all__ = [
    "Janus",
    "JanusFolder",
    "Preprocessor",
    "Template",
    "load",
    "matches",
    "read_folder",
]
