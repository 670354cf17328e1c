"""Names of Emu3's weights in both formats."""

from collections.abc import Callable, Collection

from unitok.checkpoints.adapter import StateDictAdapter, Stored, renaming
from unitok.families.common.llama import llama_names
from unitok_tokenizers import emu3_names as image_tokenizer


def make_adapter(
    trunk: str, head: str, image_tokenizer_key: Callable[[str], Stored]
) -> StateDictAdapter:
    """Our names -> a checkpoint's.

    Args:
        trunk: What the decoder is called there.
        head: What its head is called there.
        image_tokenizer_key: Where a parameter of the image tokenizer is stored.
    """
    decoder = renaming(llama_names(trunk, head))

    def stored(key: str) -> Stored:
        inner = key.removeprefix("image_tokenizer.")
        return decoder(key) if inner == key else image_tokenizer_key(inner)

    return stored


def transformers_adapter(names: Collection[str]) -> StateDictAdapter:
    """Where our parameters are stored in transformers' folders.

    Version 4 of transformers has other names in memory than it writes; either may be there.

    Args:
        names: Of the tensors in the folder.
    """
    is_new = any(name.startswith("model.vqmodel.") for name in names)
    vision = "model.vqmodel" if is_new else "vqmodel"

    def image_tokenizer_key(key: str) -> Stored:
        name = f"{vision}.{image_tokenizer.transformers_name(key)}"
        if image_tokenizer.linear_in_transformers(key):
            return Stored(name, load=lambda w: w[..., None, None], store=lambda w: w[..., 0, 0])
        return Stored(name)

    if is_new:
        return make_adapter("model.text_model", "lm_head", image_tokenizer_key)
    return make_adapter("text_model.model", "text_model.lm_head", image_tokenizer_key)


TRANSFORMERS_DROPPED = tuple(rf"(model\.)?vqmodel\.{name}" for name in image_tokenizer.DROPPED)
ORIGINAL = make_adapter("model", "lm_head", lambda key: Stored(image_tokenizer.original_name(key)))
# Of the decoder alone: in transformers, in its version 4, and in the original.
LINEAR_NAMES = tuple(
    renaming(llama_names(trunk, head))
    for trunk, head in (
        ("model.text_model", "lm_head"),
        ("text_model.model", "text_model.lm_head"),
        ("model", "lm_head"),
    )
)
