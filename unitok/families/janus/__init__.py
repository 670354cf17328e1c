"""Janus and Janus-Pro, in transformers' folders and in DeepSeek's own.

Papers: https://arxiv.org/abs/2410.13848 and https://arxiv.org/abs/2501.17811. Pictures that are
read are embeddings of a SigLIP tower; pictures that are generated are a grid of VQ codes, with an
embedding and a head of their own. A folder holds config.json, the weights, tokenizer.json,
preprocessor_config.json and perhaps generation_config.json. What differs in DeepSeek's own folders
is in `original`.
"""

from unitok.families.janus.config import config_from_json, config_to_json
from unitok.families.janus.family import Janus, load, matches
from unitok.families.janus.files import QUESTION, SYSTEM, defaults_from_json, extra_to_json
from unitok.families.janus.preprocessing import Preprocessor, preprocessor_from_json
from unitok.families.janus.prompts import PRO_ROLES, Template, read_roles
from unitok.families.janus.weights import adapter, load_weights, save_config, save_weights

__all__ = [
    "PRO_ROLES",
    "QUESTION",
    "SYSTEM",
    "Janus",
    "Preprocessor",
    "Template",
    "adapter",
    "config_from_json",
    "config_to_json",
    "defaults_from_json",
    "extra_to_json",
    "load",
    "load_weights",
    "matches",
    "preprocessor_from_json",
    "read_roles",
    "save_config",
    "save_weights",
]
