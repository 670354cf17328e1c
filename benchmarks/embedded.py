"""The embedded model's requests, from tokens to tokens."""

import time
from collections.abc import Iterator, Sequence

import torch

import unitok
from benchmarks.engines import arrivals
from benchmarks.requests import GUIDANCE
from unitok.driver import Driver
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.families import ImageOptions
from unitok.families.janus import Janus
from unitok.prompt import Message
from unitok_engine import (
    Branch,
    Embeddings,
    Engine,
    EngineConfig,
    Output,
    Request,
    Sampling,
)

CAPTION_LENGTH = 32  # tokens, at most


class EmbeddedModel:
    """The embedded model on a driver of its own, its pictures encoded beforehand.

    Attributes:
        pixels: 16 preprocessed pictures, [16, 3, S, S].
        embeddings: What the vision encoder makes of them, [16, n, d].
        question: A prompt that asks about a picture.
        drawing_spec: A guided drawing.
    """

    def __init__(self) -> None:
        family = unitok.load(device="cpu").family
        assert isinstance(family, Janus)
        self.family, self.model = family, family.model
        self.driver = Driver(Engine(family.model, EngineConfig(max_context=family.max_context)))
        scenes = [to_pil(pixels) for pixels in render(SceneSampler(0, "heldout").batch(16))]
        self.pixels = torch.stack([family.preprocess(scene) for scene in scenes])
        self.embeddings = family.features(self.pixels)
        picture = family.encode_image(scenes[0])  # any of them: it only marks where embeddings go
        message = Message("user", family.defaults.question, (picture,))
        self.question = family.chat_prompt([message], None)
        self.drawing_spec = family.generation_spec(
            [Message("user", "two apples on a table")], ImageOptions(GUIDANCE)
        )

    def drawing(self, seed: int) -> Request:
        """A guided drawing of always the same prompt."""
        branches = self.drawing_spec.branches
        return Request(branches, self.drawing_spec.plan, Sampling(seed=seed))

    def caption(self, seed: int) -> Request:
        """A greedy caption of one of the pictures."""
        embedding = self.embeddings[seed % len(self.embeddings)]
        # Each has a digest of its own: an answer of the prefix cache would be no work at all.
        features = tuple(
            Embeddings(
                place.start,
                len(embedding),
                f"{time.perf_counter_ns()} {seed}",
                lambda: embedding,
            )
            for place in self.question.embeddings
        )
        branch = Branch(self.question.token_ids, embeddings=features)
        plan = self.family.text_plan(CAPTION_LENGTH)
        return Request((branch,), plan, Sampling(temperature=0))

    def run(self, drawings: int, captions: int) -> list[Output]:
        """Complete so many requests that arrive together."""
        requests = [self.drawing(seed) for seed in range(drawings)]
        requests += [self.caption(seed) for seed in range(captions)]
        return self.driver.complete(requests)

    def latencies(self, drawings: Sequence[bool], at: Sequence[float]) -> Iterator[float]:
        """Latencies, in seconds, of requests that arrive one after another.

        Args:
            drawings: Whether each request is a drawing; else it is a caption.
            at: When each arrives, in seconds from now.
        """
        requests = [
            self.drawing(seed) if is_drawing else self.caption(seed)
            for seed, is_drawing in enumerate(drawings)
        ]
        return arrivals(self.driver, requests, at)
