"""transformers' Janus with peft's adapters, tuned in padded batches."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import peft
import torch
from torch import nn
from transformers import JanusConfig, JanusForConditionalGeneration

from unitok.families.janus.weights import adapter
from unitok.nn.config import DecoderConfig
from unitok.nn.model import UnifiedModel

IGNORED = -100  # transformers' label of what is not learned


class Talk(Protocol):
    """A question and its answer, as ids."""

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them."""
        ...

    @property
    def asked(self) -> int:
        """How many of them are the question."""
        ...


class PeftPeer:
    """Updates of a low-rank adapter of transformers' Janus.

    Conversations are sorted by length, so that little is padded, and a batch has a given number of
    them.
    """

    def __init__(self, model: UnifiedModel, talk: Sequence[Talk], rank: int, alpha: float) -> None:
        """Share the weights of a model of ours that has no adapter yet."""
        janus: Any = JanusForConditionalGeneration(janus_config(model.config.decoder))
        named = dict(janus.named_parameters())
        for name, weight in model.named_parameters():
            if name.startswith(("decoder.", "text_")):
                named[adapter(name).name].data = weight.data
        janus.to(model.dtype)
        options = peft.LoraConfig(
            r=rank,
            lora_alpha=int(alpha),
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        )
        self.model: Any = peft.get_peft_model(janus, options)
        self.checkpoint_activations(True)
        self.model.enable_input_require_grads()
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=1e-4)
        self.talk = sorted(talk, key=lambda each: len(each.ids))
        self.targets = sum(len(each.ids) - each.asked for each in talk)

    def checkpoint_activations(self, on: bool) -> None:
        """Whether layers are computed a second time for the gradients, as is the case at first."""
        janus = self.model.get_base_model()
        if on:
            janus.activation_checkpointing_enable({"use_reentrant": False})
        else:
            janus.activation_checkpointing_disable()

    def update(self, size: int) -> float:
        """Learn all conversations once, in batches of a size; the loss before."""
        losses = [self.learn(batch) for batch in self.batches(size)]
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return sum(losses)

    def batches(self, size: int) -> Iterator[Sequence[Talk]]:
        """Neighbours in length."""
        for first in range(0, len(self.talk), size):
            yield self.talk[first : first + size]

    def learn(self, batch: Sequence[Talk]) -> float:
        """Add the gradients of a batch."""
        longest = max(len(each.ids) for each in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for row, each in enumerate(batch):
            count = len(each.ids)
            ids[row, :count] = torch.tensor(each.ids)
            mask[row, :count] = 1
            labels[row, each.asked : count] = ids[row, each.asked : count]
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                labels=labels,
                num_items_in_batch=self.targets,
                use_cache=False,
            )
        out.loss.backward()
        return float(out.loss.detach())


def janus_config(c: DecoderConfig) -> JanusConfig:
    """transformers' Janus around a decoder of these sizes; its two vision paths are tiny."""
    text = {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.norm_eps,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
        "projection_dim": c.hidden_size,
    }
    codes = {
        "base_channels": 32,
        "channel_multiplier": [1],
        "num_res_blocks": 1,
        "num_embeddings": 64,
        "embed_dim": 4,
        "latent_channels": 32,
        "projection_dim": c.hidden_size,
        "image_token_embed_dim": c.hidden_size,
        "num_patches": 4,
    }
    options: dict[str, Any] = {"attn_implementation": "sdpa", "tie_word_embeddings": False}
    return JanusConfig(
        text_config={"model_type": "llama", **text},
        vision_config=vision,
        vq_config=codes,
        **options,
    )
