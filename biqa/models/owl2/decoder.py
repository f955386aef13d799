"""mPLUG-Owl2's decoder layers: LLaMA's with two ways for keys, values and norms, one for text and one for what is seen (Ye et al., arXiv 2311.04257).

Shapes: B rows, L positions, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb, eager_attention_forward

from biqa.models.owl2.configuration import Owl2Config


def attention_of(config: Owl2Config) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The implementation that the model runs with."""
    return ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager_attention_forward)  # pyright: ignore[reportArgumentType] (set by now)


class Multiway(nn.Module):
    """One module for text and one for visual tokens: each position takes the way of its kind.

    Both run on all positions and one result is taken: no indexing that autocast or torch.compile stumble over, and both always get a gradient.

    Args:
        ways: way 0 for text, way 1 for visual tokens; a decoder without eyes has way 0 alone.
    """

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.multiway = nn.ModuleList(ways)

    def forward(self, hidden: Tensor, visual: Tensor | None) -> Tensor:
        """[B, L, D], and [B, L] bool or None for text alone -> [B, L, D']"""
        text = self.multiway[0](hidden)
        return text if visual is None else torch.where(visual[..., None], self.multiway[1](hidden), text)


def ways(config: Owl2Config) -> range:
    """Indices of the ways of every `Multiway`."""
    return range(2 if config.has_vision else 1)


class Owl2Attention(nn.Module):
    """LLaMA's attention with keys and values by two ways."""

    is_causal = True

    def __init__(self, config: Owl2Config, layer_idx: int) -> None:
        super().__init__()
        assert config.head_dim is not None, "LlamaConfig fills it in"
        assert config.num_key_value_heads is not None, "LlamaConfig fills it in"
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout or 0.0
        width, narrow = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.k_proj = Multiway(*(nn.Linear(config.hidden_size, narrow, bias=config.attention_bias) for _ in ways(config)))
        self.v_proj = Multiway(*(nn.Linear(config.hidden_size, narrow, bias=config.attention_bias) for _ in ways(config)))
        self.o_proj = nn.Linear(width, config.hidden_size, bias=config.attention_bias)

    def forward(  # noqa: PLR0917 (transformers' own signature)
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        visual: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,  # noqa: ANN401 (what attention implementations take)
    ) -> tuple[Tensor, Tensor | None]:
        """[B, L, D] -> [B, L, D] and, where the implementation has them, attention weights. Since transformers 5.24 `cache` is past_key_values."""
        memory = past_key_values if cache is None else cache
        projected = self.q_proj(hidden_states), self.k_proj(hidden_states, visual), self.v_proj(hidden_states, visual)
        query, key, value = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in projected)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if memory is not None:
            key, value = memory.update(key, value, self.layer_idx)
        attention = attention_of(self.config)
        dropout = self.attention_dropout if self.training else 0.0
        mixed, weights = attention(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs)
        return self.o_proj(mixed.flatten(2).contiguous()), weights


class Owl2DecoderLayer(GradientCheckpointingLayer):
    """LLaMA's layer with norms by two ways."""

    def __init__(self, config: Owl2Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = Owl2Attention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = Multiway(*(LlamaRMSNorm(config.hidden_size, config.rms_norm_eps) for _ in ways(config)))
        self.post_attention_layernorm = Multiway(*(LlamaRMSNorm(config.hidden_size, config.rms_norm_eps) for _ in ways(config)))

    def forward(self, hidden_states: Tensor, visual: Tensor | None = None, **kwargs: Any) -> Tensor:  # noqa: ANN401 (what LlamaModel hands on)
        """[B, L, D] -> [B, L, D]"""
        mixed, _ = self.self_attn(self.input_layernorm(hidden_states, visual), visual=visual, **kwargs)
        hidden_states = hidden_states + mixed
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states, visual))
