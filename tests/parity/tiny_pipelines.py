"""Tiny pipelines of diffusers with random weights, and tokenizers that are made here."""

from importlib import import_module
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

diffusers: Any = import_module("diffusers")  # whose types take a checker minutes
WIDTH = 16
CHANNELS = (8, 16)
OF_SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
}
CLASSES = {"0": "red cat, scarlet cat", "1": "blue dog", "7": "green tree"}


def stable_diffusion(in_channels: int = 4, checker: bool = False, seed: int = 0) -> Any:
    """Stable Diffusion for pictures of 32 pixels."""
    torch.manual_seed(seed)
    kind = "StableDiffusionInpaintPipeline" if in_channels > 4 else "StableDiffusionPipeline"
    return getattr(diffusers, kind)(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=clip_tokenizer(),
        unet=unet(WIDTH, in_channels),
        scheduler=scheduler(),
        safety_checker=safety_checker() if checker else None,
        feature_extractor=image_processor() if checker else None,
        requires_safety_checker=checker,
    )


def sdxl() -> Any:
    """SDXL for pictures of 32 pixels."""
    torch.manual_seed(1)
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(2 * WIDTH, **OF_SDXL),
        scheduler=scheduler(),
    )


def controlnet(width: int = WIDTH, **others: Any) -> Any:
    """A ControlNet for `stable_diffusion` whose result is not zero, as a fresh one's is."""
    torch.manual_seed(2)
    made = diffusers.ControlNetModel(
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 8),
        **others,
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def dit() -> Any:
    """DiT for pictures of 16 pixels."""
    torch.manual_seed(3)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        norm_type="ada_norm_zero",
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_elementwise_affine=False,
        attention_bias=True,
        norm_eps=1e-6,
    )
    for parameter in transformer.parameters():  # the last layer of a fresh one is zero
        torch.nn.init.normal_(parameter, std=0.2)
    return diffusers.DiTPipeline(transformer, vae(), scheduler(), id2label=CLASSES)


def ddpm() -> Any:
    """DDPM for pictures of 16 pixels."""
    torch.manual_seed(4)
    return diffusers.DDPMPipeline(pixel_unet(3, 3), diffusers.DDPMScheduler())


def unclip() -> Any:
    """unCLIP: embeddings of 16 numbers, pictures of 8 pixels and then of 16."""
    torch.manual_seed(5)
    decoder = unet(
        WIDTH,
        3,
        6,
        sample_size=8,
        class_embed_type="identity",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift",
    )
    return diffusers.UnCLIPPipeline(
        prior=diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH
        ),
        decoder=decoder,
        text_encoder=CLIPTextModelWithProjection(text_config()),
        tokenizer=clip_tokenizer(),
        text_proj=text_projection(),
        super_res_first=pixel_unet(6, 3),
        super_res_last=pixel_unet(6, 3),
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample"
        ),
        decoder_scheduler=diffusers.UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=diffusers.UnCLIPScheduler(variance_type="fixed_small_log"),
    )


def wan() -> Any:
    """Wan for clips whose sides are multiples of 16 pixels."""
    torch.manual_seed(6)
    encoder = UMT5Config(
        vocab_size=80,
        d_model=WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
    )
    video = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1
    )
    for parameter in [*transformer.parameters(), *video.decoder.conv_out.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)  # fresh ones make pictures of grey alone
    return diffusers.WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=UMT5EncoderModel(encoder),
        vae=video,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer,
    )


# --- parts ---------------------------------------------------------------------------------------


def scheduler() -> Any:
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=4,
    )


def unet(width: int, in_channels: int = 4, out_channels: int = 4, **options: Any) -> Any:
    known: dict[str, Any] = {
        "sample_size": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DConditionModel(
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **(known | options),
    )


def pixel_unet(in_channels: int, out_channels: int) -> Any:
    return diffusers.UNet2DModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=out_channels,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        add_attention=False,
    )


def text_projection() -> Any:
    return import_module(diffusers.UnCLIPPipeline.__module__).UnCLIPTextProjModel(
        clip_extra_context_tokens=2,
        clip_embeddings_dim=WIDTH,
        time_embed_dim=4 * CHANNELS[0],
        cross_attention_dim=WIDTH,
    )


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def safety_checker() -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 16}
    config = CLIPConfig(
        text_config=text_config().to_dict(), vision_config=vision, projection_dim=16
    )
    place = import_module(diffusers.StableDiffusionPipeline.__module__)
    made = place.StableDiffusionSafetyChecker(config)
    torch.nn.init.normal_(made.visual_projection.weight)
    made.concept_embeds.data.normal_()
    made.concept_embeds_weights.data.fill_(2)  # no cosine is as large, so nothing is refused
    return made


def image_processor() -> Any:
    sides = {"height": 32, "width": 32}
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=sides)


def clip_tokenizer() -> CLIPTokenizer:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    vocab = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(ord("a"), ord("z") + 1))]
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)
