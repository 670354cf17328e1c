"""Image generators of diffusers: the pixels of its pipelines, from folders that need no trust."""

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.parity import tiny_pipelines
from unitok.baselines.opening import load
from unitok.baselines.protocols import ImageGenerator, VideoGenerator
from unitok.baselines.stable_diffusion import DiffusionEdit
from unitok.pictures import open_picture
from unitok.requests import Caption, Draw, Edit

diffusers: Any = import_module("diffusers")  # whose types take a checker minutes

NAMES = ("stable_diffusion", "sdxl", "dit", "ddpm", "unclip", "wan")
STEPS = 2
SIZE = {"width": 32, "height": 32}
SEEDS = (3, 2**63)


class Tiny:
    """Tiny pipelines, each made once, with the folders that they are saved in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pipelines: dict[str, Any] = {}

    def pipeline(self, name: str) -> Any:
        if name not in self.pipelines:
            made = self.pipelines[name] = getattr(tiny_pipelines, name)()
            for part in getattr(made, "components", {}).values():
                if isinstance(part, torch.nn.Module):
                    part.eval()  # as `from_pretrained` gives them
            made.save_pretrained(self.home / name)
            if name == "dit":  # as the published folders have it
                index = self.home / name / "model_index.json"
                known = json.loads(index.read_text())
                index.write_text(json.dumps({**known, "id2label": tiny_pipelines.CLASSES}))
        return self.pipelines[name]

    def folder(self, name: str) -> Path:
        self.pipeline(name)
        return self.home / name

    def copy(self, name: str, target: Path) -> Path:
        """A folder that a test may spoil."""
        return shutil.copytree(self.folder(name), target / name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture(scope="module")
def sd(tiny: Tiny) -> Iterator[Any]:
    made = open_tiny(tiny.folder("stable_diffusion"), controlnet=tiny.folder("controlnet"))
    yield made
    made.close()


def open_tiny(folder: Path, **options: Any) -> Any:
    known: dict[str, Any] = {"steps": STEPS} | options
    return load(folder, "generator", device="cpu", **known)


def fits(model: object, protocol: type) -> bool:
    return isinstance(model, protocol)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def pixels(images: Any) -> np.ndarray:
    """Images of one size as [n, H, W, 3]."""
    return np.stack([np.asarray(image.convert("RGB")).astype(int) for image in images])


def picture(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def left_half(width: int = 32, height: int = 32) -> Image.Image:
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (0, 0, width // 2, height))
    return mask


def prompts_for(name: str) -> list[str]:
    return {"dit": ["red cat", "7"], "ddpm": ["", ""]}.get(name, ["a cat", "dogs in a tree"])


def directly(tiny: Tiny, name: str, seeds: tuple[int, ...]) -> list[Image.Image]:
    """What the pipeline itself makes of a seed for each prompt, with guidance 3 if it has any."""
    pipeline, prompts, noise = tiny.pipeline(name), prompts_for(name), generators(*seeds)
    pipeline.set_progress_bar_config(disable=True)
    steps = {"num_inference_steps": STEPS}
    match name:
        case "stable_diffusion" | "sdxl":
            negative = ["blue"] * len(prompts)
            options = {"negative_prompt": negative, "guidance_scale": 3.0, **steps}
            return pipeline(prompts, generator=noise, **options).images
        case "dit":
            return pipeline([0, 7], guidance_scale=3.0, generator=noise, **steps).images
        case "ddpm":
            return pipeline(len(prompts), noise, **steps).images
        case "unclip":
            guidance = {"prior_guidance_scale": 3.0, "decoder_guidance_scale": 3.0}
            steps = {"prior_num_inference_steps": STEPS, "decoder_num_inference_steps": STEPS}
            return pipeline(prompts, generator=noise, **guidance, **steps).images
        case _:
            options = {"negative_prompt": ["blue"] * 2, "guidance_scale": 3.0, **SIZE, **steps}
            clips = pipeline(prompts, generator=noise, num_frames=1, output_type="pil", **options)
            return [clip[0] for clip in clips.frames]


def options_for(name: str) -> dict[str, Any]:
    options: dict[str, Any] = {} if name == "ddpm" else {"guidance": 3.0}
    options |= {"negative_prompt": "blue"} if name in ("stable_diffusion", "sdxl", "wan") else {}
    return options | (SIZE if name == "wan" else {})


# --- the same pixels -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_has_the_pixels_of_the_pipeline_alone_and_in_a_batch(tiny: Tiny, name: str):
    model, options = open_tiny(tiny.folder(name)), options_for(name)
    assert fits(model, ImageGenerator) and model.name == name
    asked = [
        Draw(prompt, seed=[seed], **options)
        for prompt, seed in zip(prompts_for(name), SEEDS, strict=True)
    ]
    together = sorted(model.run(asked), key=lambda result: result.index)
    assert [result.error for result in together] == [None, None]
    ours = pixels(result.image for result in together)
    assert np.array_equal(ours, pixels(directly(tiny, name, SEEDS)))
    assert abs(ours[0] - ours[1]).max() > 20
    for one, of_batch in zip(asked, ours, strict=True):
        alone = model.draw(one.prompt, seed=one.seed, **options)
        assert alone.seeds == one.seed
        assert abs(pixels(alone.images)[0] - of_batch).max() <= 1


def test_the_pictures_of_a_request_have_the_seeds_that_follow(sd: Any):
    several = sd.draw("a cat", seed=7, n=6)  # more than a batch
    assert several.seeds == (7, 8, 9, 10, 11, 12) and several.seed == 7
    assert several.images[5].info == {
        "prompt": "a cat",
        "model": "stable_diffusion",
        "seed": "12",
        "sample": "0",
    }
    again = sd.draw("a cat", seed=12)
    assert abs(pixels(again.images) - pixels(several.images[5:])).max() <= 1
    assert abs(pixels(several.images[:5]) - pixels(several.images[5:])).min() == 0
    assert len({image.tobytes() for image in several.images}) == 6
    other = sd.draw("dogs in a tree", seed=12)
    assert abs(pixels(again.images) - pixels(other.images)).max() > 1


def test_a_random_seed_is_reported(sd: Any):
    first, second = sd.draw("a cat"), sd.draw("a cat")
    assert first.seed != second.seed
    assert np.array_equal(pixels(sd.draw("a cat", seed=first.seed).images), pixels(first.images))


def test_unequal_requests_are_drawn_too(sd: Any):
    asked = [
        Draw("a cat", seed=1),
        Draw("a dog", seed=1, width=16, height=24),
        Draw("a cat", seed=2, guidance=1),
        Edit(picture(0), "a cat", seed=1),
        Draw("a tree", seed=2, negative_prompt="red"),
    ]
    results = sorted(sd.run(iter(asked)), key=lambda result: result.index)
    assert [result.request for result in results] == asked
    assert [result.image.size for result in results] == [(32, 32), (16, 24), *[(32, 32)] * 3]
    for one, result in zip(asked, results, strict=True):
        (alone,) = sd.run([one])
        assert abs(pixels(alone.images) - pixels(result.images)).max() <= 1


EDITS = {
    "Img2Img": {},
    "Inpaint": {"mask": left_half()},
    "ControlNetImg2Img": {"control": picture(5)},
    "ControlNetInpaint": {"control": picture(5), "mask": left_half()},
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_has_the_pixels_of_its_pipeline(tiny: Tiny, sd: Any, kind: str):
    images, seeds = [picture(1), picture(2)], (1, 2)
    asked = [
        DiffusionEdit(image, "a cat", seed=seed, freedom=0.6, guidance=2, **EDITS[kind])
        for image, seed in zip(images, seeds, strict=True)
    ]
    results = sorted(sd.run(asked), key=lambda result: result.index)
    shown = {}
    if "mask" in EDITS[kind]:
        shown["mask_image"] = [left_half()] * 2
    if "control" in EDITS[kind]:
        shown["control_image"] = [picture(5)] * 2
    if kind != "Img2Img":
        shown |= SIZE
    parts = tiny.pipeline("stable_diffusion").components
    if "ControlNet" in kind:
        parts = parts | {"controlnet": tiny.pipeline("controlnet")}
    pipeline = getattr(diffusers, f"StableDiffusion{kind}Pipeline")(
        **parts, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a cat"] * 2,
        image=images,
        generator=generators(*seeds),
        strength=0.6,
        guidance_scale=2,
        num_inference_steps=STEPS,
        **shown,
    )
    assert np.array_equal(pixels(r.image for r in results), pixels(theirs.images))
    alone = sd.edit(images[1], "a cat", seed=2, freedom=0.6, guidance=2, **EDITS[kind])
    assert abs(pixels(alone.images) - pixels(theirs.images)[1:]).max() <= 1


def test_a_controlnet_is_shown_a_picture(tiny: Tiny, sd: Any):
    control = picture(5)
    parts = tiny.pipeline("stable_diffusion").components
    pipeline = diffusers.StableDiffusionControlNetPipeline(
        **parts, controlnet=tiny.pipeline("controlnet"), requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a cat"], [control], generator=generators(4), num_inference_steps=STEPS
    ).images
    ours = sd.draw("a cat", seed=4, images=control)
    assert np.array_equal(pixels(ours.images), pixels(theirs))
    assert abs(pixels(ours.images) - pixels(sd.draw("a cat", seed=4).images)).max() > 5


def test_sdxl_edits(tiny: Tiny):
    model, image = open_tiny(tiny.folder("sdxl"), strength=0.5), picture(1)
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(**tiny.pipeline("sdxl").components)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a cat"], image=[image], generator=generators(1), strength=0.5, num_inference_steps=STEPS
    )
    ours = model.edit(image, "a cat", seed=1)
    assert np.array_equal(pixels(ours.images), pixels(theirs.images))
    inpainted = pixels(model.edit(image, "a cat", seed=1, freedom=1, mask=left_half()).images)
    assert inpainted.shape == (1, 32, 32, 3)


def test_an_edit_is_of_the_nearest_size_below(sd: Any):
    image, mask = picture(1, 35, 21), left_half(35, 21)
    edits = [{}, {"mask": mask}, {"control": picture(2, 50, 50)}]
    for edit in edits:
        assert sd.edit(image, "a cat", seed=1, freedom=1, **edit).image.size == (34, 20)


def test_what_a_mask_keeps_changes_less(sd: Any, tiny: Tiny):
    image = sd.draw("a tree", seed=1).image
    painted = pixels(sd.edit(image, "a cat", seed=2, freedom=1, mask=left_half()).images)[0]
    change = abs(painted - pixels([image])[0]).mean(axis=(0, 2))
    assert change[:12].mean() > change[20:].mean()


def test_a_clip_has_the_pixels_of_the_pipeline(tiny: Tiny):
    model, pipeline = open_tiny(tiny.folder("wan")), tiny.pipeline("wan")
    assert fits(model, VideoGenerator)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a cat"], generator=generators(3), num_frames=5, output_type="pil",
        num_inference_steps=STEPS, **SIZE,
    ).frames[0]  # fmt: skip
    clip = model.film("a cat", frames=5, seed=3, **SIZE)
    assert len(clip.frames) == 5 and clip.rate == 16
    assert np.array_equal(pixels(clip.frames), pixels(theirs))


@pytest.mark.parametrize("name", ["euler-ancestral", "dpm", "heun"])
def test_a_scheduler_may_be_chosen(tiny: Tiny, name: str):
    model = open_tiny(tiny.folder("stable_diffusion"), scheduler=name, steps=3)
    pair = model.draw(["a cat", "a dog"], seed=4)
    alone = model.draw("a dog", seed=4)
    assert abs(pixels(alone.images) - pixels(pair[1].images)).max() <= 1
    usual = open_tiny(tiny.folder("stable_diffusion"), steps=3).draw("a dog", seed=4)
    assert abs(pixels(alone.images) - pixels(usual.images)).max() > 1


def test_a_class_has_a_name_and_a_number(tiny: Tiny):
    model = open_tiny(tiny.folder("dit"))
    named, other, numbered = model.draw(["red cat", " scarlet cat ", "0"], seed=1)
    assert np.array_equal(pixels(named.images), pixels(numbered.images))
    assert np.array_equal(pixels(named.images), pixels(other.images))
    with pytest.raises(ValueError, match=r"a number below 1000, not 'red cats'; did you mean 'red"):
        model.draw("red cats")


# --- folders of other forms ----------------------------------------------------------------------


def test_an_inpainting_model_only_inpaints(tmp_path: Path):
    made = tiny_pipelines.stable_diffusion(in_channels=9)
    made.save_pretrained(tmp_path)
    model = open_tiny(tmp_path)
    image = picture(1)
    ours = model.edit(image, "a cat", seed=1, mask=left_half())
    made.set_progress_bar_config(disable=True)
    theirs = made(
        ["a cat"], image=[image], mask_image=[left_half()], generator=generators(1),
        num_inference_steps=STEPS, **SIZE,
    )  # fmt: skip
    assert np.array_equal(pixels(ours.images), pixels(theirs.images))
    with pytest.raises(ValueError, match="only inpaints: edit"):
        model.draw("a cat")
    with pytest.raises(ValueError, match="only inpaints: edit"):
        model.edit(image, "a cat")


def test_a_safety_checker_is_used_if_it_is_there(tmp_path: Path):
    made = tiny_pipelines.stable_diffusion(checker=True)
    made.save_pretrained(tmp_path / "lenient")
    assert open_tiny(tmp_path / "lenient").draw("a cat", seed=1).error is None
    made.safety_checker.concept_embeds_weights.data.fill_(-2)
    made.save_pretrained(tmp_path / "strict")
    (result,) = open_tiny(tmp_path / "strict").run([Draw("a cat", seed=1)])
    assert result.finish_reason == "error" and result.images == ()
    assert result.error == "the safety checker refuses a picture"


def test_weights_of_half_precision_are_read_if_there_are_no_others(tiny: Tiny, tmp_path: Path):
    folder = tiny.copy("stable_diffusion", tmp_path)
    usual = open_tiny(folder).draw("a cat", seed=1)
    for path in [*folder.glob("*/*.safetensors")]:
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert np.array_equal(
        pixels(open_tiny(folder).draw("a cat", seed=1).images), pixels(usual.images)
    )


def test_parts_may_lie_beside_the_index(tiny: Tiny, tmp_path: Path):
    folder = tiny.copy("ddpm", tmp_path)
    usual = open_tiny(folder, scheduler="ddim").draw("", seed=1)
    for part in ("unet", "scheduler"):
        for path in [*(folder / part).iterdir()]:
            path.rename(folder / path.name)
        (folder / part).rmdir()
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "DDIMPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    assert np.array_equal(pixels(open_tiny(folder).draw("", seed=1).images), pixels(usual.images))


def test_a_folder_may_have_its_controlnet(tiny: Tiny, tmp_path: Path, sd: Any):
    parts = tiny.pipeline("stable_diffusion").components
    net = tiny.pipeline("controlnet")
    diffusers.StableDiffusionControlNetPipeline(
        **parts, controlnet=net, requires_safety_checker=False
    ).save_pretrained(tmp_path)
    ours = open_tiny(tmp_path).draw("a cat", seed=4, images=picture(5))
    assert np.array_equal(
        pixels(ours.images), pixels(sd.draw("a cat", seed=4, images=picture(5)).images)
    )


# --- folders that are refused --------------------------------------------------------------------


def write_index(folder: Path, **changes: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | changes))


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("unet", ["os", "system"]),
        ("unet", ["evil", "Model"]),
        ("unet", ["transformers", "pipeline"]),
        ("unet", ["transformers", "AutoModel"]),
        ("unet", ["diffusers", "DiffusionPipeline"]),
        ("unet", ["diffusers", "StableDiffusionPipeline"]),
        ("unet", ["diffusers", "Path"]),
        ("unet", ["stable_diffusion", "torch"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("scheduler", ["../scheduler", "DDIMScheduler"]),
    ],
)
def test_no_foreign_class_is_a_part(tiny: Tiny, tmp_path: Path, part: str, named: list[str]):
    folder = tiny.copy("stable_diffusion", tmp_path)
    mark = tmp_path / "ran"
    (folder / part / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: ...")
    write_index(folder, **{part: named})
    with pytest.raises(ValueError, match=r"is no part of StableDiffusionPipeline.*is never run"):
        open_tiny(folder)
    assert not mark.exists() and "evil" not in sys.modules


def test_code_beside_the_weights_is_not_run(tiny: Tiny, tmp_path: Path):
    folder, mark = tiny.copy("stable_diffusion", tmp_path), tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')"
    for place in ("pipeline.py", "unet/diffusers.py", "text_encoder/modeling.py"):
        (folder / place).write_text(code)
    config = json.loads((folder / "text_encoder/config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling.Model"}, "attn_implementation": "evil/kernel"}
    (folder / "text_encoder/config.json").write_text(json.dumps(config))
    assert open_tiny(folder).draw("a cat", seed=1).error is None
    assert not mark.exists()


def without_folder(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def without_name(folder: Path) -> None:
    write_index(folder, vae=[None, None])


def without_weights(folder: Path) -> None:
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()


def pickled(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def without_a_weight(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path, {"format": "pt"})


def damaged(folder: Path) -> None:
    (folder / "text_encoder/model.safetensors").write_bytes(b"nothing")


def escaping(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.rename(folder / "weights.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.bias": "../weights.safetensors"}}
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def no_list(folder: Path) -> None:
    write_index(folder, vae="AutoencoderKL")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_folder, r"vae is missing, in which model_index\.json has a AutoencoderKL"),
        (without_name, r"model_index\.json names no vae, which StableDiffusionPipeline needs"),
        (without_weights, r"unet: UNet2DConditionModel cannot be opened: .*safetensors"),
        (pickled, r"unet: UNet2DConditionModel cannot be opened: .*safetensors"),
        (without_a_weight, r"unet: 1 weights are missing, such as conv_in\.bias"),
        (damaged, r"text_encoder: CLIPTextModel cannot be opened: "),
        (escaping, r"names '\.\./weights\.safetensors', which is no file beside it"),
        (no_list, r"a part is a library and a class, not 'AutoencoderKL'"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(
    tiny: Tiny, tmp_path: Path, spoil: Any, message: str
):
    folder = tiny.copy("stable_diffusion", tmp_path)
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        open_tiny(folder)
    assert "\n" not in str(caught.value)


def test_a_setting_of_another_form_is_one_line(tiny: Tiny, tmp_path: Path):
    folder = tiny.copy("dit", tmp_path)
    write_index(folder, id2label=5)
    with pytest.raises(ValueError, match=r"dit: DiTPipeline cannot be made: .*'int'"):
        open_tiny(folder)


def test_a_folder_without_a_controlnet_is_refused(tiny: Tiny):
    folder = tiny.folder("stable_diffusion")
    with pytest.raises(ValueError, match="holds 'UNet2DConditionModel', which is no ControlNetM"):
        open_tiny(folder, controlnet=folder / "unet")


def test_a_missing_library_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    folder = tiny.folder("ddpm")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'unitok-engine\[baselines\]'"):
        open_tiny(folder)


# --- requests that are refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stable_diffusion", {"temperature": 0.5}, "stable_diffusion has no option temperature"),
        ("stable_diffusion", {"top_k": 5}, "stable_diffusion has no option top_k"),
        ("stable_diffusion", {"timeout": 5}, "stable_diffusion has no option timeout"),
        ("stable_diffusion", {"logprobs": True}, "stable_diffusion has no option logprobs"),
        ("stable_diffusion", {"adapter": "a"}, "stable_diffusion has no option adapter"),
        ("stable_diffusion", {"guidance": 0.5}, "guidance must be 1 or more, not 0.5"),
        (
            "stable_diffusion",
            {"guidance": 1, "negative_prompt": "red"},
            "negative_prompt does nothing at guidance 1",
        ),
        ("stable_diffusion", {"width": 33, "height": 32}, "must be multiples of 2: 33 x 32"),
        ("stable_diffusion", {"width": 4096, "height": 4096}, "4096 x 4096 pixels are more than"),
        ("stable_diffusion", {"images": picture(1)}, "needs a ControlNet: load with controlnet"),
        ("stable_diffusion", {"seed": 2**64}, "seed must fit in 64 bits"),
        ("dit", {"negative_prompt": "red"}, "dit has no option negative_prompt"),
        ("dit", SIZE, "dit has no option width"),
        ("dit", {"images": [picture(1)]}, "dit is shown no pictures"),
        ("ddpm", {"guidance": 2}, "ddpm has no option guidance"),
        ("unclip", {"negative_prompt": "red"}, "unclip has no option negative_prompt"),
        ("wan", {"width": 33, "height": 32}, "must be multiples of 16: 33 x 32"),
    ],
)
def test_what_a_pipeline_cannot_honour_is_refused_by_name(
    opened: Any, name: str, options: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        opened(name).draw(prompts_for(name)[0], **options)


@pytest.fixture(scope="module")
def opened(tiny: Tiny) -> Any:
    models: dict[str, Any] = {}

    def one(name: str) -> Any:
        if name not in models:
            models[name] = open_tiny(tiny.folder(name))
        return models[name]

    return one


def test_a_prompt_that_is_too_long_to_read_is_told(sd: Any):
    with pytest.warns(UserWarning, match=r"has \d{3} tokens; .* reads the first 77"):
        sd.draw("cat " * 150, seed=1)


def test_prompts_that_a_pipeline_cannot_draw_are_refused(opened: Any):
    with pytest.raises(ValueError, match="the prompt is empty"):
        opened("stable_diffusion").draw(" ")
    with pytest.raises(ValueError, match="draws without a prompt: give an empty one"):
        opened("ddpm").draw("a cat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freedom": 0}, "freedom must be above 0 and at most 1, not 0"),
        ({"freedom": 1.5}, "freedom must be above 0 and at most 1, not 1.5"),
        ({"freedom": 0.2}, "freedom 0.2 of 2 steps leaves none"),
        ({"mask": left_half(16, 16)}, "the mask has 16 x 16 pixels, and its picture 32 x 32"),
        ({"control": picture(1)}, "needs a ControlNet: load with controlnet"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(opened: Any, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        opened("stable_diffusion").edit(picture(1), "a cat", **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stable_diffusion", {"steps": 0}, "steps must be from 1 to 1000, not 0"),
        ("stable_diffusion", {"steps": 5000}, "steps must be from 1 to 1000, not 5000"),
        ("stable_diffusion", {"batch_size": 0}, "batch_size must be at least 1"),
        (
            "stable_diffusion",
            {"scheduler": "magic"},
            "scheduler of \\w+ must be one of ddim, ddpm, dpm",
        ),
        ("stable_diffusion", {"strength": 2}, "freedom must be above 0 and at most 1, not 2"),
        ("stable_diffusion", {"dtype": "int3"}, "dtype must be one of auto, float32"),
        ("dit", {"scheduler": "ddpm"}, "scheduler of \\w+ must be one of ddim, dpm, euler"),
        ("unclip", {"scheduler": "ddim"}, "scheduler of unclip must be left out"),
    ],
)
def test_options_of_an_adapter_are_checked(
    tiny: Tiny, name: str, options: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        open_tiny(tiny.folder(name), **options)


def test_an_option_that_no_adapter_has_is_named(tiny: Tiny):
    for name, kind in (("stable_diffusion", "StableDiffusion"), ("ddpm", "DDPM")):
        with pytest.raises(TypeError, match=f"{kind} has no option 'step'; did you mean 'steps'"):
            open_tiny(tiny.folder(name), step=3)
    with pytest.raises(TypeError, match="DDPM has no option 'strength'"):
        open_tiny(tiny.folder("ddpm"), strength=0.5)


def test_noise_without_a_seed_is_refused(tiny: Tiny, tmp_path: Path):
    folder = tiny.copy("dit", tmp_path)
    diffusers.DDPMScheduler().save_pretrained(folder / "scheduler")
    write_index(folder, scheduler=["diffusers", "DDPMScheduler"])
    with pytest.raises(
        ValueError, match="DiT gives its DDPMScheduler no seed: give scheduler='ddim'"
    ):
        open_tiny(folder)
    assert open_tiny(folder, scheduler="ddim").draw("7", seed=1).error is None


def test_clips_that_cannot_be_made_are_refused(opened: Any):
    wan = opened("wan")
    for frames in (0, 4, 1001):
        with pytest.raises(
            ValueError, match=f"one more than a multiple of 4, up to 257, not {frames}"
        ):
            wan.film("a cat", frames=frames, **SIZE)
    with pytest.raises(ValueError, match="film makes one clip, not 2: leave out n"):
        wan.film("a cat", frames=1, n=2, **SIZE)


def test_a_request_that_fails_stops_no_other(opened: Any):
    asked = [
        Draw("red cat", seed=1),
        Draw("no such class", seed=2),
        Edit(picture(1), "red cat", seed=3),
        Caption(picture(1), seed=4),
        "red cat",
        Draw("7", seed=5),
    ]
    results = sorted(opened("dit").run(asked), key=lambda result: result.index)
    assert [result.index for result in results] == list(range(6))
    assert [result.finish_reason for result in results] == ["complete", *["error"] * 4, "complete"]
    assert "a number below 1000" in results[1].error
    assert results[2].error == "dit takes Draw requests, not Edit"
    assert results[3].error == "dit takes Draw requests, not Caption"
    assert results[4].error == "dit takes Draw requests, not str"
    assert results[1].request is asked[1] and results[1].seed == 2


def test_an_error_of_the_library_is_a_result(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    model, unet = open_tiny(tiny.folder("ddpm")), diffusers.UNet2DModel
    usual = unet.forward

    def forward(self: Any, sample: torch.Tensor, *args: Any, **options: Any) -> Any:
        if len(sample) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return usual(self, sample, *args, **options)

    monkeypatch.setattr(unet, "forward", forward)
    results = sorted(
        model.run([Draw("", seed=1), Draw("", seed=2, n=2), Draw("", seed=3)]),
        key=lambda result: result.index,
    )
    assert [result.error for result in results] == [None, "out of memory", None]
    assert [len(result.images) for result in results] == [1, 0, 1]
    with pytest.raises(RuntimeError, match="out of memory"):
        model.draw("", n=2)


def test_a_closed_model_draws_no_more(tiny: Tiny):
    model = open_tiny(tiny.folder("ddpm"))
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="ddpm is closed"):
        model.draw("")
    (result,) = model.run([Draw("")])
    assert result.error == "ddpm is closed"


def test_a_picture_may_be_a_file(opened: Any, tmp_path: Path):
    picture(1).save(tmp_path / "a.png")
    edited = opened("stable_diffusion").edit(tmp_path / "a.png", "a cat", seed=1, freedom=1)
    same = opened("stable_diffusion").edit(open_picture(picture(1)), "a cat", seed=1, freedom=1)
    assert np.array_equal(pixels(edited.images), pixels(same.images))


def test_a_silent_load_logs_nothing(tiny: Tiny, tmp_path: Path):
    folder, logged = tiny.copy("stable_diffusion", tmp_path), list[str]()
    without_weights(folder)
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("diffusers").addHandler(handler)
    with pytest.raises(ValueError, match="UNet2DConditionModel cannot be opened"):
        load(folder, "generator", device="cpu", silent=True)
    logging.getLogger("diffusers").removeHandler(handler)
    assert logged == []


def test_pixels_that_are_not_numbers_are_an_error(tiny: Tiny, tmp_path: Path):
    folder = tiny.copy("stable_diffusion", tmp_path)
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.weight"].fill_(float("nan"))
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match="computes pixels that are not numbers"):
        open_tiny(folder).draw("a cat", seed=1)
