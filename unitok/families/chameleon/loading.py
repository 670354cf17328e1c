"""Opening the weights of Chameleon's folders: transformers', which UniToken keeps, and Meta's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import Settings
from unitok.checkpoints.tensors import Shards, Tensors, TorchFile, open_tensors
from unitok.checkpoints.weights import Dtype
from unitok.families.chameleon import original
from unitok.families.chameleon import weights as names
from unitok.families.chameleon.config import CHAMELEON, read_vqgan_yaml
from unitok.families.chameleon.files import check_names, check_words, need_file
from unitok.families.chameleon.image_ids import ImageIds, read_image_ids
from unitok.families.chameleon.weights import TRANSFORMERS, make_adapter
from unitok.families.common.loading import StoredWeights, build_model
from unitok.nn.config import DecoderConfig, ModelConfig, VisionConfig
from unitok.nn.model import UnifiedModel
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.taming import DROPPED as VQGAN_DROPPED
from unitok_tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class Additions:
    """What a family adds to Chameleon's folders in transformers' format.

    Attributes:
        vision: A vision encoder.
        renames: Our names of all its parameters to the checkpoint's.
        dropped: Names that it does not use.
    """

    vision: VisionConfig | None = None
    renames: Sequence[tuple[str, str]] = TRANSFORMERS
    dropped: tuple[str, ...] = ()


def load_transformers(
    folder: Path,
    config: Settings,
    sizes: tuple[DecoderConfig, AutoencoderConfig],
    tokenizer: TextTokenizer,
    vqgan: Path | None,
    device: str,
    dtype: Dtype,
    added: Additions,
) -> UnifiedModel:
    """The model of a folder in transformers' format.

    The image tokenizer stays in float32, as in Meta's code: in fewer bits it gives other ids.

    Args:
        folder: The checkpoint's.
        config: Its config.json.
        sizes: What `config_from_json` makes of it.
        tokenizer: Its own, to be checked against config.json.
        vqgan: Meta's file of the VQGAN, which takes the place of the folder's own.
        device: Where the weights are put.
        dtype: The type of the other weights.
        added: What the folder has beside Chameleon.
    """
    decoder, codes = sizes
    vocabulary = config.section("vocabulary_map").data
    ids = read_image_ids(vocabulary, f"{folder}: vocabulary_map of config.json")
    check_words(folder, tokenizer, decoder, ids)
    check_names(folder, tokenizer, vocabulary)
    tensors: Tensors = open_tensors(folder)
    # Conversions of Anole keep the decoder, though transformers' class has none.
    decoder_part = f"{names.TRANSFORMERS_VQGAN}decoder.conv_in.weight"
    decodes = vqgan is not None or decoder_part in tensors.names
    complete = model_config(folder, decoder, added.vision, replace(codes, decoder=decodes), ids)
    dropped, prefix = [*names.TRANSFORMERS_DROPPED, *added.dropped], names.TRANSFORMERS_VQGAN
    if vqgan is not None:
        tensors = Shards([tensors, TorchFile(vqgan, inside=("state_dict",))], str(folder))
        dropped, prefix = [*dropped, names.DOUBLE_VQGAN, *VQGAN_DROPPED], ""
    weights = StoredWeights(tensors, make_adapter(complete, ids, added.renames, prefix), dropped)
    return build_model(complete, weights, dtype, device, exact_codes=True)


def load_original(
    folder: Path, device: str, dtype: Dtype, strict: bool
) -> tuple[UnifiedModel, TextTokenizer]:
    """The model and the text tokenizer of a folder in Meta's format.

    It holds params.json and consolidated*.pth. text_tokenizer.json, vqgan.yaml and vqgan.ckpt lie
    beside them, in tokenizer/, or in ../../tokenizer, where Meta's download has them.
    """
    words, settings, vqgan = (
        need_file(folder, file) for file in ("text_tokenizer.json", "vqgan.yaml", "vqgan.ckpt")
    )
    params = original.read_params(folder, strict)
    vocabulary = Settings(read_json(words), str(words)).section("model").data.get("vocab")
    ids = read_image_ids(vocabulary, str(words))
    tokenizer = TextTokenizer.load(words)
    decoder = original.config_from_params(params, str(folder), CHAMELEON)
    check_words(folder, tokenizer, decoder, ids)
    codes = replace(read_vqgan_yaml(settings, strict), decoder=True)
    sizes = model_config(folder, decoder, None, codes, ids)
    stored = original.open_original(folder, params.get("model_parallel_size"))
    tensors = Shards([stored, TorchFile(vqgan, inside=("state_dict",))], str(folder))
    adapter = make_adapter(sizes, ids, original.NAMES, paired=True)
    weights = StoredWeights(tensors, adapter, (*original.DROPPED, *VQGAN_DROPPED))
    return build_model(sizes, weights, dtype, device, exact_codes=True), tokenizer


def model_config(
    folder: Path,
    decoder: DecoderConfig,
    vision: VisionConfig | None,
    codes: AutoencoderConfig,
    ids: ImageIds,
) -> ModelConfig:
    """The sizes of the model; ValueError if the image ids do not fit them."""
    if len(ids.codes) != codes.codebook_size or ids.start + len(ids.codes) > decoder.vocab_size:
        raise ValueError(
            f"{folder}: {len(ids.codes)} image tokens from id {ids.start} on do not fit "
            f"{codes.codebook_size} codes and a vocabulary of {decoder.vocab_size}"
        )
    return ModelConfig(decoder, vision, codes, image_start=ids.start)
