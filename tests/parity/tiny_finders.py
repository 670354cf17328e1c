"""Tiny random checkpoints of SAM and Grounding DINO."""

from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
    SwinConfig,
)

from tests.parity.tiny_perception import save_model

WORDS = ["cat", "red", "ball", "##s", "dog"]
OUT: Any = {"out_features": ["stage2", "stage3", "stage4"], "out_indices": [2, 3, 4]}
# The model takes these ids for what parts phrases, as in the vocabulary of BERT.
PARTING = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


def save_sam(folder: Path) -> Path:
    """A random SAM for pictures of 64 pixels."""
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "mlp_dim": 24,
            "window_size": 4,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 8,
            "mask_input_channels": 8,
        },
        mask_decoder_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_dim": 24,
            "iou_head_hidden_dim": 16,
        },
    )
    pictures = SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return save_model(folder, SamModel, config, SamProcessor(pictures))


def save_grounding_dino(folder: Path) -> Path:
    """A random Grounding DINO that knows a few words."""
    names = {i: f"[unused{i}]" for i in range(1100)} | {0: "[PAD]", 100: "[UNK]", 103: "[MASK]"}
    names |= {i: token for token, i in PARTING.items()}
    names |= {1050 + i: word for i, word in enumerate(WORDS)}
    tokenizer = BertTokenizer(vocab={token: i for i, token in names.items()})
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            window_size=7,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            image_size=64,
            **OUT,
        ),
        text_config=BertConfig(
            vocab_size=1100,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=20,
        max_text_len=24,
    )
    pictures = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    processor = GroundingDinoProcessor(pictures, tokenizer)
    return save_model(folder, GroundingDinoForObjectDetection, config, processor)
