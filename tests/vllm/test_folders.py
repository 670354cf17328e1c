# pyright: reportMissingImports=false
"""What vLLM serves: either format, a tied head, text alone; and folders that it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from vllm.exceptions import VLLMValidationError

import unitok
from tests.vllm.engines import counted, ids_of, layout_of, serving
from tests.vllm.tiny import save_tiny
from tests.vllm.work import own_ids, work
from unitok.backends.vllm.layout import STREAMS

ASKED = work(16, 6, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with grouped heads, in transformers' format."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "janus")


def copied(folder: Path, to: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(folder, to))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_either_format_with_grouped_heads(layout: str, tmp_path: Path):
    folder = save_tiny(tmp_path / "janus", layout)
    model = unitok.load(folder, device="cpu", dtype="float32")
    with serving(folder) as llm:
        assert ids_of(llm, model, ASKED) == own_ids(model, ASKED)


@pytest.mark.timeout(300)
def test_a_head_tied_to_the_embedding(folder: Path, tmp_path: Path):
    tied = copied(folder, tmp_path / "tied")
    change(tied / "config.json", tie_word_embeddings=True)
    tensors = load_file(tied / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tied / "model.safetensors", {"format": "pt"})
    model = unitok.load(tied, device="cpu", dtype="float32")
    asked = work(2, 2, 6)
    with serving(tied) as llm:
        assert ids_of(llm, model, asked) == own_ids(model, asked)


@pytest.mark.timeout(300)
def test_a_replica_for_text_alone_has_one_stream_and_half_the_cache(folder: Path):
    model = unitok.load(folder, device="cpu", dtype="float32")
    asked = work(0, 6, 6)
    blocks: dict[int, int] = {}
    for streams in (1, 2):
        with serving(folder, hf_overrides={STREAMS: streams}) as llm:
            assert ids_of(llm, model, asked) == own_ids(model, asked)
            blocks[streams] = llm.llm_engine.vllm_config.cache_config.num_gpu_blocks
            if streams == 1:
                layout = layout_of(llm)
                assert layout.size == 640
                with pytest.raises(ValueError, match="serves text alone"):
                    layout.drawing_prompt([1, 3])
                with pytest.raises(VLLMValidationError, match="out of vocabulary"):
                    llm.generate({"prompt_token_ids": [1, layout.paint]}, use_tqdm=False)
    assert abs(blocks[1] - 2 * blocks[2]) <= 1


@pytest.mark.timeout(300)
def test_pictures_are_encoded_once_for_equal_prompts(folder: Path):
    model = unitok.load(folder, device="cpu", dtype="float32")
    asked = work(0, 3, 0)
    with serving(folder, enable_prefix_caching=True) as llm:
        first = ids_of(llm, model, asked)
        assert ids_of(llm, model, asked) == first == own_ids(model, asked)
        assert counted(llm, "mm_cache_hits") >= 3


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"hf_overrides": {STREAMS: 3}}, "unitok_streams must be 2, or 1"),
        ({"tensor_parallel_size": 4}, "a tensor parallel size of 4 does not divide the model's 2"),
        ({"tensor_parallel_size": 3}, "tensor parallel size"),
        ({"pipeline_parallel_size": 2}, "Pipeline parallelism is not supported"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
            "with speculative decoding vLLM runs no logits processors",
        ),
    ],
    ids=["streams", "kv heads", "heads", "pipeline", "speculation"],
)
def test_what_would_go_wrong_is_refused_at_the_start(folder: Path, option: dict, told: str):
    with pytest.raises((ValueError, NotImplementedError), match=told), serving(folder, **option):
        pass


def test_a_folder_of_deepseeks_that_is_no_janus_is_refused(tmp_path: Path):
    other = save_tiny(tmp_path / "other", "original")
    change(other / "config.json", gen_vision_config=None)
    told = r"has no gen_vision_config: .* not of Janus"
    with pytest.raises(ValueError, match=told), serving(other):
        pass


def test_a_setting_that_we_do_not_do_is_named(folder: Path, tmp_path: Path):
    other = copied(folder, tmp_path / "other")
    stated = json.loads((other / "config.json").read_text())["vision_config"]
    change(other / "config.json", vision_config={**stated, "hidden_act": "relu"})
    with pytest.raises(ValueError, match="hidden_act = 'relu' is not supported"), serving(other):
        pass


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lm_head.weight", r"1 missing tensors, such as lm_head\.weight"),
        ("model.vqmodel.decoder.conv_out.weight", "1 missing tensors, such as model.vqmodel"),
        ("+model.extra", r"unknown tensor model\.extra"),
        ("!model.generation_embeddings.weight", r"of a wrong shape: \[47, 8\], not \[48, 8\]"),
    ],
)
def test_damaged_weights_are_named(folder: Path, tmp_path: Path, name: str, told: str):
    spoilt = copied(folder, tmp_path / "spoilt")
    tensors = load_file(spoilt / "model.safetensors")
    key = name.lstrip("+!")
    if name.startswith("+"):
        tensors[key] = tensors["lm_head.weight"].clone()
    elif name.startswith("!"):
        tensors[key] = tensors[key][:-1].clone()
    else:
        del tensors[key]
    save_file(tensors, spoilt / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=told), serving(spoilt):
        pass


def change(path: Path, **values: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
