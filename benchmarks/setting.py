"""What the comparisons share: models, made when they are first needed."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

import unitok
from benchmarks.embedded import EmbeddedModel
from benchmarks.measure import paired
from benchmarks.models import TOY, random_model
from benchmarks.peers.transformers_peer import JanusBatches, LlamaLoop
from unitok.api import Model
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.nn.config import JANUS_PRO_1B
from unitok.nn.model import UnifiedModel

CODEBOOK = 16384  # Janus-Pro's


@dataclass(frozen=True)
class Setting:
    """The models of the comparisons, each made once.

    Attributes:
        vllm: The Python of the environment that has vLLM.
        rehearse: Whether sizes are those of toys.
    """

    vllm: Path
    rehearse: bool = False

    def either(self, full: int, toy: int) -> int:
        """The size at hand: the full one, or that of a rehearsal."""
        return toy if self.rehearse else full

    def either_of(self, full: tuple[int, ...], toy: tuple[int, ...]) -> tuple[int, ...]:
        """As `either`, of several sizes."""
        return toy if self.rehearse else full

    def rounds(self, full: int) -> int:
        """How often contenders run: once in a rehearsal."""
        return self.either(full, 1)

    @cached_property
    def big(self) -> UnifiedModel:
        """Random weights in Janus-Pro-1B's shape, bf16, ready for inference."""
        model = self.random()
        model.prepare(at_once=True)
        return model

    @cached_property
    def llama(self) -> LlamaLoop:
        """transformers with the same weights, before they are packed for the engine."""
        return LlamaLoop(self.random())

    def random(self) -> UnifiedModel:
        """Random weights in the same shape, as plain layers."""
        decoder = TOY if self.rehearse else JANUS_PRO_1B.decoder
        return random_model(decoder, self.either(CODEBOOK, 64), torch.bfloat16)

    @cached_property
    def api(self) -> Model:
        """The embedded model as users open it, in fp32."""
        return unitok.load(device="cpu", dtype="float32")

    @cached_property
    def scene(self) -> Image.Image:
        """A picture of the embedded model's world that it never saw."""
        return to_pil(render(SceneSampler(1, "heldout").batch(1))[0])

    @cached_property
    def embedded(self) -> EmbeddedModel:
        """The embedded model's requests, from tokens to tokens."""
        return EmbeddedModel()

    @cached_property
    def janus(self) -> JanusBatches:
        """The same folder, opened by transformers."""
        return JanusBatches(self.embedded)

    @property
    def crowd(self) -> int:
        """How many drawings, and how many captions, arrive together."""
        return self.either(64, 2)

    @cached_property
    def best_batches(self) -> JanusBatches:
        """transformers with the batch sizes that complete a crowd first, for each kind."""
        drawings = self._best_size(self.crowd, 0)
        captions = self._best_size(0, self.crowd)
        self.janus.sizes = (drawings, captions)
        return self.janus

    def _best_size(self, drawings: int, captions: int) -> int:
        """The batch size with which transformers completes a crowd first."""
        sizes = [size for size in (16, 32, 64) if size <= self.crowd] or [self.crowd]

        def run(size: int) -> None:
            self.janus.sizes = (size, size)
            self.janus.run(drawings, captions)

        contenders = {str(size): lambda size=size: run(size) for size in sizes}
        seconds = paired(contenders, self.rounds(2), warm_up=0)
        return min(sizes, key=lambda size: min(seconds[str(size)]))
