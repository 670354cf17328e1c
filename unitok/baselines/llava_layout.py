"""LLaVA as its authors store it, and what builds on that, such as ShareGPT4V.

`config.json` is that of the language model, with further keys that begin with "mm_". Its
`model_type` is "llava", "llava_llama" or "share4v". The weights are the language model's and the
projector's. The encoder of pictures lies in a folder of its own, which "mm_vision_tower" names,
unless it was trained too and lies with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.baselines.captioners import BATCH_SIZE, LlavaCaptioner
from unitok.baselines.parts import (
    KERNELS,
    TOKENIZER,
    check_complete,
    errors_named,
    find_dtype,
    open_processor,
)
from unitok.checkpoints.folders import find_folder, read_json
from unitok.checkpoints.tensors import Tensors, open_tensors
from unitok.extras import need
from unitok.shown import shown

IMAGE = "<image>"
PROJECTOR = "mlp2x_gelu"
STRATEGIES = {"patch": "default", "cls_patch": "full"}  # the keys as the authors call them
TOWER = "model.vision_tower.vision_tower.vision_model."
MOVED = {  # where a weight lies -> where transformers has it; the first that fits
    TOWER: "model.vision_tower.",
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.": "model.language_model.",
    "lm_head.": "lm_head.",
}

# In the encoder's own folder, older versions of transformers wrote a start before each name.
PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")
BESIDE = {"vision_model.": "model.vision_tower."} | {p: f"model.vision_tower.{p}" for p in PARTS}


class OriginalLlavaCaptioner(LlavaCaptioner):
    """A folder of LLaVA 1.5 or ShareGPT4V in the layout of its authors."""

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        batch_size: int = BATCH_SIZE,
        dtype: str = "auto",
        vision_tower: str | os.PathLike[str] | None = None,
    ) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights as safetensors or .bin, and a tokenizer.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures are captioned at once.
            dtype: "auto" is the checkpoint's own on a GPU, and float32 on a CPU.
            vision_tower: The folder or hub id of the encoder of pictures. By default it is the
                folder beside this one that has the name that config.json says.

        Raises:
            ValueError: The folder cannot be opened, or weights are missing.
            FileNotFoundError: There is no folder of the encoder, or no tokenizer.
            ImportError: transformers is not installed.
        """
        self._config = read_json(folder / "config.json")
        self._tower = find_tower(folder, self._config, vision_tower)
        super().__init__(folder, device, batch_size, dtype)

    def _load(self, dtype: str) -> None:
        check_complete(self.folder, TOKENIZER)
        self._processor = self._llava_processor(need("transformers", "baselines"))
        model = self._llava_model(need("transformers", "baselines"), find_dtype(dtype, self.device))
        self._model = model.to(self.device)

    def _llava_processor(self, library: Any) -> Any:
        """LLaVA's processor, of the encoder's pictures and the language model's words."""
        converted = (self.folder / "tokenizer.json").is_file()
        kind = library.PreTrainedTokenizerFast if converted else library.LlamaTokenizer
        tokenizer = open_processor(kind, self.folder, padding_side="left")
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token
        square = self._config.get("image_aspect_ratio") == "pad"
        images = open_processor(library.LlavaImageProcessor, self._tower, do_pad=square)
        strategy = STRATEGIES.get(self._config.get("mm_vision_select_feature", "patch"))
        return library.LlavaProcessor(
            images,
            tokenizer,
            patch_size=self._vision_config().patch_size,
            vision_feature_select_strategy=strategy,
            num_additional_image_tokens=1,  # that of the whole picture
        )

    def _llava_model(self, library: Any, dtype: Any) -> Any:
        """The weights, under the names of transformers."""
        config = self._llava_config(library)
        # The place of the picture needs an embedding, which is never read, and is never written.
        weights = dict(self._weights())
        for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            if name in weights:
                weights[name] = padded(weights[name], config.text_config.vocab_size)
        with errors_named(self.folder, "transformers cannot open it"):
            model, info = library.LlavaForConditionalGeneration.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=dtype,
                output_loading_info=True,
                **KERNELS,
            )
        for kind in ("missing_keys", "unexpected_keys"):
            if names := sorted(info[kind]):
                what = kind.partition("_")[0]
                raise ValueError(f"{self.folder}: {len(names)} weights are {what}: {names[0]}")
        model.generation_config.suppress_tokens = [config.image_token_id]
        return model.eval()

    def _vision_config(self) -> Any:
        return open_processor(need("transformers", "baselines").CLIPVisionConfig, self._tower)

    def _llava_config(self, library: Any) -> Any:
        config, image = self._config, self._processor.tokenizer.convert_tokens_to_ids(IMAGE)
        if (projector := config.get("mm_projector_type")) != PROJECTOR:
            raise ValueError(
                f"{self.folder / 'config.json'}: mm_projector_type must be {PROJECTOR}, not "
                f"{shown(projector)}"
            )
        own = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
        text = library.LlamaConfig(**own | {"vocab_size": max(image + 1, config["vocab_size"])})
        return library.LlavaConfig(
            text_config=text,
            vision_config=self._vision_config(),
            image_token_index=image,
            vision_feature_layer=config.get("mm_vision_select_layer", -2),
            vision_feature_select_strategy=self._processor.vision_feature_select_strategy,
            tie_word_embeddings=False,
        )

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        found = open_tensors(self.folder)
        yield from renamed(found, MOVED)
        if not any(name.startswith(TOWER) for name in found.names):
            yield from renamed(open_tensors(self._tower), BESIDE)


def find_tower(
    folder: Path, config: Mapping[str, Any], given: str | os.PathLike[str] | None
) -> Path:
    """The folder of the encoder of pictures.

    Raises:
        FileNotFoundError: There is none.
    """
    if given is not None:
        return find_folder(given, what="an encoder of pictures")
    named = str(config.get("mm_vision_tower"))
    beside = folder.resolve().parent / Path(named).name
    if not beside.is_dir():
        raise FileNotFoundError(
            f"{folder} needs the encoder of pictures {shown(named)}: give its folder as the option "
            "vision_tower"
        )
    return beside


def renamed(found: Tensors, moved: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors under their names in transformers; those of no such place are left out."""
    for name in sorted(found.names):
        start = next((start for start in moved if name.startswith(start)), None)
        # Older checkpoints hold numbers that are computed anew.
        if start is not None and not name.endswith(("rotary_emb.inv_freq", "position_ids")):
            yield moved[start] + name.removeprefix(start), found.tensor(name)


def padded(weight: Tensor, rows: int) -> Tensor:
    """A matrix [n, d] with rows of zeros at its end."""
    return torch.cat([weight, weight.new_zeros(rows - len(weight), weight.shape[1])])
