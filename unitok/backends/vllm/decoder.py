# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""vLLM's Llama over one or two streams: the second one is a second set of heads and of rows."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaModel


class StreamedAttention(nn.Module):
    """Attention in which the streams are sets of heads, so that one request caches both.

    Rows are [streams * n, hidden_size], the streams of a token beside each other.
    """

    def __init__(
        self,
        *,
        config: Any,
        cache_config: Any,
        quant_config: Any,
        prefix: str,
        streams: int,
        **others: object,
    ) -> None:
        """Build the layer.

        Args:
            config: Of the decoder, with the sizes of one stream.
            cache_config: vLLM's.
            quant_config: vLLM's.
            prefix: The layer's name.
            streams: How many streams there are.
            others: What vLLM's layers pass on that `config` says too.
        """
        super().__init__()
        ranks, size = get_tensor_model_parallel_world_size(), config.head_dim
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        own, own_kv = heads // ranks, kv_heads // ranks
        self.streams, self.widths = streams, (own * size, own_kv * size, own_kv * size)
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size, size, heads, kv_heads, bias=False,
            quant_config=quant_config, prefix=f"{prefix}.qkv_proj",
        )  # fmt: skip
        self.o_proj = RowParallelLinear(
            heads * size, config.hidden_size, bias=False,
            quant_config=quant_config, prefix=f"{prefix}.o_proj",
        )  # fmt: skip
        self.rotary_emb = get_rope(
            size, config.max_position_embeddings, rope_parameters=config.rope_parameters
        )
        self.attn = Attention(
            streams * own, size, size**-0.5, num_kv_heads=streams * own_kv,
            cache_config=cache_config, quant_config=quant_config, prefix=f"{prefix}.attn",
        )  # fmt: skip

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """Attend.

        Args:
            positions: Of the tokens, [n].
            hidden_states: [streams * n, hidden_size].

        Returns:
            [streams * n, hidden_size].
        """
        qkv, _ = self.qkv_proj(hidden_states)
        parts = qkv.split(self.widths, dim=-1)
        q, k, v = (part.reshape(-1, self.streams * part.shape[-1]) for part in parts)
        q, k = self.rotary_emb(positions, q, k)
        attended = self.attn(q, k, v).reshape(-1, self.widths[0])
        output, _ = self.o_proj(attended)
        return output


@support_torch_compile(dynamic_arg_dims={"positions": 0, "embeddings": 0})
class StreamedLlama(LlamaModel):
    """The decoder."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", streams: int = 2) -> None:
        """Build the layers.

        Args:
            vllm_config: Whose `hf_config` is that of the decoder, with the sizes of one stream.
            prefix: The decoder's name.
            streams: How many streams there are.
        """
        attention: Any = partial(StreamedAttention, streams=streams)
        layer: Any = partial(LlamaDecoderLayer, attn_layer_type=attention)
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=layer)

    def forward(self, positions: Tensor, embeddings: Tensor) -> Tensor:
        """Map embeddings to normed hidden states.

        Args:
            positions: Of the tokens, [n].
            embeddings: [n, streams * hidden_size].

        Returns:
            [n, streams * hidden_size].
        """
        hidden, residual = embeddings.reshape(-1, self.config.hidden_size), None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual)
        hidden, _ = self.norm(hidden, residual)
        return hidden.reshape(embeddings.shape)
