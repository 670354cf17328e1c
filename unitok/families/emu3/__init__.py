"""Emu3, Gen and Chat, in transformers' folders and in BAAI's own.

Paper: https://arxiv.org/abs/2409.18869. Image ids are the last of the vocabulary, and a picture is
read as it is drawn: rows of image ids, each closed by an end of line.

transformers' folder (Emu3ForConditionalGeneration) holds config.json, model.safetensors,
tokenizer.json and processor_config.json or preprocessor_config.json. BAAI's
(github.com/baaivision/Emu3) holds config.json, the weights, emu3.tiktoken and
emu3_vision_tokens.txt, and in `vision_tokenizer/` the files of BAAI/Emu3-VisionTokenizer.
"""

from unitok.families.emu3.family import Emu3, load, matches

__all__ = ["Emu3", "load", "matches"]
