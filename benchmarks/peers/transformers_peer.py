"""transformers on our weights: its Llama with Janus's loop around it, and its Janus in batches.

It computes in static batches: a batch runs until its longest sequence ends.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    JanusForConditionalGeneration,
    LlamaConfig,
    LlamaModel,
)

from benchmarks.embedded import CAPTION_LENGTH, EmbeddedModel
from benchmarks.requests import GUIDANCE
from unitok.families import ImageOptions
from unitok.loading import DEFAULT_FOLDER
from unitok.nn.config import DecoderConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import Message
from unitok_engine import Request


class LlamaLoop:
    """transformers' Llama with our weights, and the loop that its Janus runs around it."""

    def __init__(self, model: UnifiedModel) -> None:
        """model: Whose weights, embeddings and heads are used.

        It must not be prepared, hence has plain layers.
        """
        self.model = model
        # Our model embeds the ids, so the Llama's own table is as small as may be.
        self.llama = LlamaModel(llama_config(model.config.decoder, vocab_size=8)).eval()
        self.llama.load_state_dict(llama_weights(model), assign=True)
        self.llama.requires_grad_(False)

    def filled_cache(self, rows: int, context: int) -> DynamicCache:
        """A cache of constant K/V, which costs the same to read as any other."""
        c = self.model.config.decoder
        cache = DynamicCache(config=self.llama.config)
        shape = (rows, c.kv_heads, context, c.head_dim)
        for layer in range(c.layers):
            constant = torch.full(shape, 0.01, dtype=self.model.dtype)
            cache.update(constant, constant.clone(), layer)
        return cache

    def hidden(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """Token ids [rows, n] -> the hidden state of the last one [rows, d]."""
        embedded = self.model.embed(ids)
        out = self.llama(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
        return out.last_hidden_state[:, -1]

    def guided_steps(self, drawings: int, context: int) -> Callable[[], None]:
        """One step of drawings with two branches each, conditional ones first."""
        cache = self.filled_cache(2 * drawings, context)
        start = self.model.vocabulary.image_start
        ids = torch.full((2 * drawings, 1), start)

        def step() -> None:
            scores = self.model.image_head(self.hidden(ids, cache)).float()
            conditional, unconditional = scores.chunk(2)
            guided = unconditional + GUIDANCE * (conditional - unconditional)
            chosen = guided.softmax(-1).multinomial(1)
            ids.copy_(chosen.repeat(2, 1) + start)

        return step

    def text_batches(self, requests: Sequence[Request], size: int) -> None:
        """Complete texts with prompts of one length, in static batches of a size."""
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            ids = torch.tensor([request.branches[0].token_ids for request in batch])
            cache = DynamicCache(config=self.llama.config)
            for _ in range(max(request.plan.max_length for request in batch)):
                logits = self.model.text_head(self.hidden(ids, cache))
                ids = logits.argmax(-1, keepdim=True)


def llama_config(c: DecoderConfig, vocab_size: int) -> LlamaConfig:
    """The sizes of a decoder of ours, as transformers' Llama reads them."""
    options: dict[str, Any] = {"attn_implementation": "sdpa", "rope_theta": c.rope_theta}
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.max_positions,
        rms_norm_eps=c.norm_eps,
        **options,
    )


def llama_weights(model: UnifiedModel) -> dict[str, Tensor]:
    """Our decoder's tensors under transformers' names; nothing is copied."""
    names = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    weights: dict[str, Tensor] = {"norm.weight": model.decoder.norm.weight}
    weights["embed_tokens.weight"] = torch.zeros(8, model.config.decoder.hidden_size)
    for key, tensor in model.decoder.state_dict().items():
        if not key.startswith("blocks."):
            continue
        _, layer, part, *rest = key.split(".")
        if part in names:
            name = f"{names[part]}.weight"
        else:
            name = f"{'self_attn' if part == 'attention' else 'mlp'}.{rest[0]}_proj.weight"
        weights[f"layers.{layer}.{name}"] = tensor
    return {name: tensor.to(model.dtype) for name, tensor in weights.items()}


class JanusBatches:
    """The embedded model as transformers opens its folder, on the same requests.

    Attributes:
        sizes: The most drawings and the most captions of a batch.
    """

    def __init__(self, embedded: EmbeddedModel) -> None:
        self.embedded = embedded
        opened: Any = JanusForConditionalGeneration.from_pretrained(
            DEFAULT_FOLDER, dtype=torch.float32
        )
        self.model = opened.eval()
        self.sizes: tuple[int, int] = (64, 64)

    def drawings(self, count: int) -> Tensor:
        """A static batch of drawings: their codes [count, n]."""
        prompt = self.embedded.drawing_spec.branches[0]
        return self.generated(torch.tensor([prompt.token_ids]).repeat(count, 1), GUIDANCE)

    def draw(self, prompt: str) -> Tensor:
        """One drawing from a prompt to pixels [1, S, S, 3], with the folder's own settings."""
        family = self.embedded.family
        guidance = family.defaults.guidance
        spec = family.generation_spec([Message("user", prompt)], ImageOptions(guidance))
        ids = torch.tensor([spec.branches[0].token_ids])
        return self.decode(self.generated(ids, guidance))

    def padded_drawings(self, prompts: Sequence[Sequence[int]], guidance: float) -> Tensor:
        """A static batch of drawings of prompts of several lengths: pictures [B, S, S, 3].

        Shorter prompts are padded on the left. Tokens are sampled at a temperature of 1.
        """
        longest, pad = max(map(len, prompts)), self.model.generation_config.pad_token_id
        missing = [longest - len(prompt) for prompt in prompts]
        ids = [[pad] * n + list(prompt) for n, prompt in zip(missing, prompts, strict=True)]
        seen = [[0] * n + [1] * (longest - n) for n in missing]
        made = self.generated(torch.tensor(ids), guidance, torch.tensor(seen), temperature=1.0)
        return self.decode(made)

    def generated(
        self,
        ids: Tensor,
        guidance: float,
        mask: Tensor | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """Prompts of token ids [B, m] -> codes [B, n].

        Args:
            ids: The prompts.
            guidance: The guidance scale.
            mask: 1 for tokens of prompts, 0 for padding [B, m]; None for no padding.
            temperature: None for the folder's own.
        """
        settings = self.model.generation_config
        config: Any = GenerationConfig(
            do_sample=True,
            guidance_scale=guidance,
            pad_token_id=settings.pad_token_id,
            bos_token_id=settings.bos_token_id,
            eos_token_id=settings.eos_token_id,
        )
        config.generation_kwargs = settings.generation_kwargs
        if temperature is not None:
            config.temperature = temperature
        return self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids) if mask is None else mask,
            generation_mode="image",
            generation_config=config,
        )

    def captions(self, count: int) -> Tensor:
        """A static batch of captions of pictures that are encoded already: token ids [count, n]."""
        question = self.embedded.question
        ids = torch.tensor([question.token_ids]).repeat(count, 1)
        embedded = self.embedded.model.embed(ids)
        pictures = self.embedded.embeddings
        for row in range(count):
            for place in question.embeddings:
                embedded[row, place.start : place.stop] = pictures[row % len(pictures)]
        return self.model.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=CAPTION_LENGTH,
            do_sample=False,
        )

    def run(self, drawings: int, captions: int) -> None:
        """Complete all of both kinds, in batches of `sizes`."""
        for count, size, batch in zip(
            (drawings, captions), self.sizes, (self.drawings, self.captions), strict=True
        ):
            for first in range(0, count, size):
                batch(min(size, count - first))

    def latencies(self, drawings: Sequence[bool], at: Sequence[float]) -> Iterator[float]:
        """Latencies, in seconds, of requests that arrive one after another.

        Whatever waits and is of the oldest request's kind runs next.

        Args:
            drawings: Whether each request is a drawing; else it is a caption.
            at: When each arrives, in seconds from now.
        """
        start, waiting = time.perf_counter(), list(range(len(at)))
        while waiting:
            now = time.perf_counter() - start
            oldest = waiting[0]
            if at[oldest] > now:
                time.sleep(at[oldest] - now)
                continue
            batch = self.drawings if drawings[oldest] else self.captions
            size = self.sizes[0] if drawings[oldest] else self.sizes[1]
            here = [i for i in waiting if at[i] <= now and drawings[i] == drawings[oldest]][:size]
            batch(len(here))
            ended = time.perf_counter() - start
            waiting = [i for i in waiting if i not in here]
            yield from (ended - at[i] for i in here)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] -> embeddings [B, n, d]."""
        return self.model.model.get_image_features(pixels).pooler_output

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, n] -> pictures [B, S, S, 3]."""
        return self.model.decode_image_tokens(codes)
