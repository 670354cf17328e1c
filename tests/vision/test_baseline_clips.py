"""What needs torchvision of encoders and segmenters: V-JEPA 2, DINOv3 and SAM 2."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    VJEPA2Config,
    VJEPA2Model,
    VJEPA2VideoProcessor,
)

from tests.parity.tiny_perception import SIDE, SIZES, random_pictures, save_model
from unitok.baselines.opening import load
from unitok.baselines.protocols import ImageEncoder, Segmenter, Video

POINTS, BOXES = [(5, 30), (44.5, 8)], [(3, 4, 20, 35), (25, 1, 50, 40)]


def test_v_jepa_2_gives_the_mean_of_what_the_library_gives(tmp_path: Path):
    config = VJEPA2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        frames_per_clip=4,
        crop_size=SIDE,
        patch_size=8,
        tubelet_size=2,
        pred_hidden_size=16,
        pred_num_hidden_layers=1,
        pred_num_attention_heads=2,
    )
    folder = save_model(tmp_path, VJEPA2Model, config, VJEPA2VideoProcessor(crop_size=SIDE))
    clip, short = Video(tuple(random_pictures(10)), 5.0), Video(tuple(random_pictures(2)), 5.0)
    encoder = load(folder, "encoder", device="cpu")
    found = encoder.features([clip, short])
    assert found.shape == (2, encoder.width) == (2, 16)

    seen = [[clip.frames[i] for i in (0, 3, 6, 9)], [short.frames[i] for i in (0, 0, 1, 1)]]
    processor: Any = VJEPA2VideoProcessor.from_pretrained(folder)
    inputs = processor(seen, return_tensors="pt")
    assert inputs["pixel_values_videos"].shape == (2, 4, 3, SIDE, SIDE)
    with torch.no_grad():
        out = VJEPA2Model.from_pretrained(folder).eval()(**inputs)
    torch.testing.assert_close(found, out.last_hidden_state.mean(1), rtol=1e-5, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_dinov3_gives_the_features_of_the_library(tmp_path: Path):
    config = DINOv3ViTConfig(**SIZES, image_size=SIDE, patch_size=8, num_register_tokens=3)
    processor = DINOv3ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    folder, pictures = save_model(tmp_path, DINOv3ViTModel, config, processor), random_pictures(3)
    inputs = AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        out = DINOv3ViTModel.from_pretrained(folder).eval()(**inputs)
    wanted = {"cls": out.pooler_output, "mean": out.last_hidden_state[:, 4:].mean(1)}
    for pooling, features in wanted.items():
        encoder = load(folder, "encoder", device="cpu", pooling=pooling, batch_size=2)
        assert isinstance(encoder, ImageEncoder)
        found = encoder.features(pictures)
        torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)
        assert (found[0] - found[1]).abs().max() > 1e-3
    assert load(folder, "encoder", device="cpu").pooling == "cls"


def test_sam_2_gives_the_masks_of_the_library(tmp_path: Path):
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 12,
                "image_size": 128,
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [12, 24, 48, 96],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [96, 48, 24, 12],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    side = {"height": 128, "width": 128}
    folder = save_model(tmp_path, Sam2Model, config, Sam2Processor(Sam2ImageProcessor(size=side)))
    (picture,) = random_pictures(1)
    segmenter = load(folder, "segmenter", device="cpu")
    assert isinstance(segmenter, Segmenter)
    found = segmenter.segment(picture, points=POINTS, boxes=BOXES)
    assert found.masks.shape == (4, 40, 50) and found.masks.dtype == torch.bool

    model, processor = (
        Sam2Model.from_pretrained(folder).eval(),
        Sam2Processor.from_pretrained(folder),
    )
    wanted: list[tuple[torch.Tensor, float]] = []
    for several in (True, False):
        inputs = processor(
            images=picture,
            input_points=[[[list(p)] for p in POINTS]] if several else None,
            input_boxes=None if several else [[list(b) for b in BOXES]],
            return_tensors="pt",
        )
        with torch.no_grad():
            out = model(**inputs, multimask_output=several)
        (masks,) = processor.post_process_masks(out.pred_masks, inputs["original_sizes"])
        for thing in range(2):
            scores = out.iou_scores[0, thing].tolist()
            wanted.append((masks[thing, scores.index(max(scores))], max(scores)))
    for mask, score, (their_mask, their_score) in zip(
        found.masks, found.scores, wanted, strict=True
    ):
        assert torch.equal(mask, their_mask) and abs(score - their_score) < 1e-5
    assert found.masks.any() and not found.masks.all()
    # The published folders are said to be of a model of clips.
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "sam2_video"}
    (folder / "config.json").write_text(json.dumps(config))
    again = load(folder, "segmenter", device="cpu").segment(picture, points=POINTS, boxes=BOXES)
    assert torch.equal(again.masks, found.masks)
