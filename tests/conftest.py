"""What tests of the model, the API and the command line share."""

import dataclasses
import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from unitok.emoji.export import save_folder
from unitok.families.janus import Template
from unitok.nn.config import DEFAULT
from unitok.nn.model import UnifiedModel
from unitok_tokenizers.text import TextTokenizer

# What a shell runs beside itself ignores Ctrl-C, and so do its children; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEXT_TOKENIZER = Path(__file__).parents[1] / "unitok" / "assets" / "default"
TINY = dataclasses.replace(
    DEFAULT,
    decoder=dataclasses.replace(
        DEFAULT.decoder,
        hidden_size=32,
        intermediate_size=64,
        layers=1,
        heads=2,
        kv_heads=2,
        head_dim=16,
    ),
    vision=dataclasses.replace(
        DEFAULT.vision, hidden_size=32, intermediate_size=64, layers=1, heads=2
    ),
    image_tokenizer=dataclasses.replace(
        DEFAULT.image_tokenizer,
        codebook_size=64,
        latent_channels=32,
        channel_multiplier=(1, 1, 1, 1),
        patch_width=32,
    ),
)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of all models that tests load, in this process and in others."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITOK_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_command_line() -> Iterator[None]:
    """Typer's runner makes the commands once, as a process of `unitok` does, not at each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(get_command))
        yield


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `unitok.load` opens: the default model's shape, but tiny and untrained."""
    torch.manual_seed(0)
    model = UnifiedModel(TINY).eval()
    folder = tmp_path_factory.mktemp("models") / "untrained"
    template = Template(TextTokenizer.load(TEXT_TOKENIZER), TINY.vision.patches)
    save_folder(model, template, TEXT_TOKENIZER, folder, dtype=torch.float32)
    return folder
