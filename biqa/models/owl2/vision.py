"""What sees in mPLUG-Owl2: the vision tower and the visual abstractor. Module names are those of the original checkpoints.

Shapes: N images, P patches, Q queries, C width of tower and abstractor, D width of the decoder.
"""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from biqa.models.owl2.configuration import AbstractorConfig, Owl2Config, TowerConfig
from biqa.models.owl2.decoder import attention_of

NORM_EPS = 1e-5
"""Of the abstractor's outer norms, whatever its config says."""


class _Attention(nn.Module):
    """Full attention of several heads, by whichever implementation the model runs with."""

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: Owl2Config, width: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        self.scaling = (width // heads) ** -0.5

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[N, heads, L, C / heads] each -> [N, L, C]."""
        mixed, _ = attention_of(self.config)(self, query, key, value, None, scaling=self.scaling, dropout=0.0)
        return mixed.flatten(2)


class TowerEmbeddings(nn.Module):
    """Patches and a class token with learned positions, normed: [N, 3, H, W] -> [N, 1 + P, C]."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.empty(1, config.grid_size**2 + 1, config.hidden_size))
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size, bias=False)
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See class."""
        patches = self.patch_embed(pixel_values.to(self.patch_embed.weight.dtype)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.pre_layernorm(tokens + self.position_embedding)


class TowerAttention(_Attention):
    """Self-attention with one fused projection, whose rows lie head by head: query, key and value of a head side by side."""

    def __init__(self, config: Owl2Config) -> None:
        tower = config.tower
        super().__init__(config, tower.hidden_size, tower.num_attention_heads)
        self.query_key_value = nn.Linear(tower.hidden_size, 3 * tower.hidden_size)
        self.dense = nn.Linear(tower.hidden_size, tower.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 1 + P, C] -> [N, 1 + P, C]"""
        fused = self.query_key_value(tokens).unflatten(-1, (self.heads, 3, -1))
        query, key, value = (part.transpose(1, 2) for part in fused.unbind(-2))
        return self.dense(self.attend(query, key, value))


class TowerMLP(nn.Module):
    """Two linear layers with the sigmoid approximation of GELU between them (CLIP's quick_gelu)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 1 + P, C] -> [N, 1 + P, C]"""
        inner = self.fc1(tokens)
        return self.fc2(inner * torch.sigmoid(1.702 * inner))


class TowerLayer(GradientCheckpointingLayer):
    """One pre-norm layer of the tower."""

    def __init__(self, config: Owl2Config) -> None:
        super().__init__()
        tower = config.tower
        self.self_attn = TowerAttention(config)
        self.input_layernorm = nn.LayerNorm(tower.hidden_size, tower.layer_norm_eps)
        self.mlp = TowerMLP(tower)
        self.post_attention_layernorm = nn.LayerNorm(tower.hidden_size, tower.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 1 + P, C] -> [N, 1 + P, C]"""
        tokens = tokens + self.self_attn(self.input_layernorm(tokens))
        return tokens + self.mlp(self.post_attention_layernorm(tokens))


class Layers(nn.Module):
    """A stack under the name `layers`."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Tower(nn.Module):
    """The vision tower: [N, 3, H, W] -> [N, 1 + P, C]. All tokens are normed and kept, the class token too."""

    def __init__(self, config: Owl2Config) -> None:
        super().__init__()
        tower = config.tower
        self.embeddings = TowerEmbeddings(tower)
        self.encoder = Layers([TowerLayer(config) for _ in range(tower.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(tower.hidden_size, tower.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See class."""
        tokens = self.embeddings(pixel_values)
        for layer in self.encoder.layers:
            tokens = layer(tokens)
        return self.post_layernorm(tokens)


def sines(positions: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of positions at falling frequencies: [L] -> [L, width], float64."""
    frequencies = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def query_positions(config: AbstractorConfig) -> Tensor:
    """Positions of the queries in a row: [Q, C]."""
    return sines(torch.arange(config.num_learnable_queries), config.hidden_size)


def patch_positions(config: AbstractorConfig) -> Tensor:
    """Positions of the patches in the grid, half the channels for the column and half for the row; the class token has none: [1 + P, C]."""
    row, column = torch.meshgrid(torch.arange(config.grid_size), torch.arange(config.grid_size), indexing="ij")
    half = config.hidden_size // 2
    grid = torch.cat([sines(column.flatten(), half), sines(row.flatten(), half)], dim=1)
    return torch.cat([torch.zeros(1, config.hidden_size, dtype=grid.dtype), grid])


class AbstractorAttention(_Attention):
    """Queries look at themselves and at the image. Positions are added to what is compared, not to what is passed on."""

    q_pos_embed: Tensor
    k_pos_embed: Tensor

    def __init__(self, config: Owl2Config) -> None:
        abstractor = config.abstractor
        width = abstractor.hidden_size
        super().__init__(config, width, abstractor.num_attention_heads)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        # checkpoints may hold them, rounded, or not at all: then `Owl2PreTrainedModel._init_weights` computes them
        self.register_buffer("q_pos_embed", torch.empty(abstractor.num_learnable_queries, width))
        self.register_buffer("k_pos_embed", torch.empty(abstractor.grid_size**2 + 1, width))

    def forward(self, queries: Tensor, image: Tensor) -> Tensor:
        """[N, Q, C] and [N, 1 + P, C] -> [N, Q, C]"""
        seen = torch.cat([queries, image], dim=1)
        here = self.q_pos_embed.to(queries.dtype)
        there = torch.cat([here, self.k_pos_embed.to(queries.dtype)])
        projected = self.query(queries + here), self.key(seen + there), self.value(seen)
        return self.attend(*(part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected))


class AbstractorMLP(nn.Module):
    """A gated feed-forward part with a norm before its last layer."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_ln = nn.LayerNorm(config.intermediate_size, config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, Q, C] -> [N, Q, C]"""
        return self.w2(self.ffn_ln(nn.functional.silu(self.w1(tokens)) * self.w3(tokens)))


class AbstractorOutput(nn.Module):
    """What follows the attention."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm2 = nn.LayerNorm(config.hidden_size, NORM_EPS)
        self.mlp = AbstractorMLP(config)

    def forward(self, attended: Tensor, residual: Tensor) -> Tensor:
        """[N, Q, C] each -> [N, Q, C]"""
        tokens = residual + self.out_proj(attended)
        return tokens + self.mlp(self.norm2(tokens))


class CrossAttention(nn.Module):
    """One step of the abstractor. Its residual starts at the normed queries: what they were before is dropped."""

    def __init__(self, config: Owl2Config) -> None:
        super().__init__()
        width = config.abstractor.hidden_size
        self.attention = AbstractorAttention(config)
        self.output = AbstractorOutput(config.abstractor)
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.normk = nn.LayerNorm(width, NORM_EPS)

    def forward(self, queries: Tensor, image: Tensor) -> Tensor:
        """[N, Q, C] and [N, 1 + P, C] -> [N, Q, C]"""
        queries = self.norm1(queries)
        return self.output(self.attention(queries, self.normk(image)), residual=queries)


class AbstractorLayer(GradientCheckpointingLayer):
    """A step under the name that checkpoints have for it."""

    def __init__(self, config: Owl2Config) -> None:
        super().__init__()
        self.crossattention = CrossAttention(config)

    def forward(self, queries: Tensor, image: Tensor) -> Tensor:
        """[N, Q, C] and [N, 1 + P, C] -> [N, Q, C]"""
        return self.crossattention(queries, image)


class Abstractor(nn.Module):
    """An image in Q + 1 tokens of the decoder: learned queries that looked at it, and a closing token. [N, 1 + P, C] -> [N, Q + 1, D]"""

    def __init__(self, config: Owl2Config) -> None:
        super().__init__()
        abstractor = config.abstractor
        self.query_embeds = nn.Parameter(torch.empty(1, abstractor.num_learnable_queries, abstractor.hidden_size))
        self.vit_eos = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.encoder = Layers([AbstractorLayer(config) for _ in range(abstractor.num_hidden_layers)])
        self.visual_fc = nn.Linear(abstractor.hidden_size, config.hidden_size)

    def forward(self, image: Tensor) -> Tensor:
        """See class."""
        queries = self.query_embeds.expand(len(image), -1, -1)
        for layer in self.encoder.layers:
            queries = layer(queries, image)
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(len(image), -1, -1)], dim=1)
