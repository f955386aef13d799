"""mPLUG-Owl2's forward pass written down once more: numpy in float64, one row and one head at a time, from the description of the architecture alone.

It shares no line with the port, so that a mistake would have to be made twice.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def logits(values: dict[str, Any], weights: dict[str, Array], ids: list[int], images: Array) -> Array:
    """[L, V] of one row without padding. `values`: config.json; `weights`: by original names; images [N, 3, H, W] in the order of their places."""
    where = np.array(ids) == -200
    hidden = weights["model.embed_tokens.weight"][np.where(where, 0, ids)]
    if where.any():
        hidden[where] = np.concatenate([abstractor(values, weights, tower(values, weights, image)) for image in images])
    for index in range(values["num_hidden_layers"]):
        hidden = decoder_layer(values, weights, f"model.layers.{index}", hidden, where)
    return rms_norm(hidden, weights["model.norm.weight"], values["rms_norm_eps"]) @ weights["lm_head.weight"].T


def decoder_layer(values: dict[str, Any], weights: dict[str, Array], at: str, hidden: Array, where: NDArray[np.bool_]) -> Array:
    """[L, D] -> [L, D]; `where` is True on visual tokens."""
    heads, groups = values["num_attention_heads"], values["num_key_value_heads"]
    width = values["hidden_size"] // heads

    def norm(name: str, x: Array) -> Array:
        return np.stack(
            [rms_norm(row, weights[f"{at}.{name}.multiway.{int(seen)}.weight"], values["rms_norm_eps"]) for row, seen in zip(x, where, strict=True)]
        )

    def by_way(name: str, x: Array) -> Array:
        return np.stack([weights[f"{at}.self_attn.{name}.multiway.{int(seen)}.weight"] @ row for row, seen in zip(x, where, strict=True)])

    x = norm("input_layernorm", hidden)
    query, key, value = x @ weights[f"{at}.self_attn.q_proj.weight"].T, by_way("k_proj", x), by_way("v_proj", x)
    mixed = []
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        group = head // (heads // groups)
        its = slice(group * width, (group + 1) * width)
        scores = rotate(query[:, mine], values["rope_theta"]) @ rotate(key[:, its], values["rope_theta"]).T / np.sqrt(width)
        scores[np.triu_indices(len(scores), 1)] = -np.inf  # visual tokens see no further than words do
        mixed.append(softmax(scores) @ value[:, its])
    hidden = hidden + np.concatenate(mixed, 1) @ weights[f"{at}.self_attn.o_proj.weight"].T
    x = norm("post_attention_layernorm", hidden)
    gate, up = (x @ weights[f"{at}.mlp.{name}.weight"].T for name in ("gate_proj", "up_proj"))
    return hidden + (silu(gate) * up) @ weights[f"{at}.mlp.down_proj.weight"].T


def rotate(x: Array, theta: float) -> Array:
    """Rotary positions 0, 1, ...: channel i is paired with channel i + half."""
    half = x.shape[1] // 2
    angle = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], 1)


def tower(values: dict[str, Any], weights: dict[str, Array], image: Array) -> Array:
    """[3, H, W] -> [1 + P, C]"""
    options, at = values["visual_config"]["visual_model"], "model.vision_model"
    patch, heads, eps = options["patch_size"], options["num_attention_heads"], options["layer_norm_eps"]
    grid = options["image_size"] // patch
    kernel = weights[f"{at}.embeddings.patch_embed.weight"]
    cells = [image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] for r in range(grid) for c in range(grid)]
    x = np.stack([weights[f"{at}.embeddings.cls_token"][0, 0], *(np.einsum("oihw,ihw->o", kernel, cell) for cell in cells)])
    x = layer_norm(x + weights[f"{at}.embeddings.position_embedding"][0], weights, f"{at}.embeddings.pre_layernorm", eps)
    width = x.shape[1] // heads
    for index in range(options["num_hidden_layers"]):
        layer = f"{at}.encoder.layers.{index}"
        fused = linear(layer_norm(x, weights, f"{layer}.input_layernorm", eps), weights, f"{layer}.self_attn.query_key_value")
        mixed = []
        for head in range(heads):  # a head's query, key and value lie side by side
            query, key, value = (fused[:, (3 * head + part) * width : (3 * head + part + 1) * width] for part in range(3))
            mixed.append(softmax(query @ key.T / np.sqrt(width)) @ value)
        x = x + linear(np.concatenate(mixed, 1), weights, f"{layer}.self_attn.dense")
        inner = linear(layer_norm(x, weights, f"{layer}.post_attention_layernorm", eps), weights, f"{layer}.mlp.fc1")
        x = x + linear(inner / (1 + np.exp(-1.702 * inner)), weights, f"{layer}.mlp.fc2")
    return layer_norm(x, weights, f"{at}.post_layernorm", eps)


def abstractor(values: dict[str, Any], weights: dict[str, Array], image: Array) -> Array:
    """[1 + P, C] -> [Q + 1, D]"""
    options, at = values["visual_config"]["visual_abstractor"], "model.visual_abstractor"
    heads, grid, channels = options["num_attention_heads"], options["grid_size"], options["hidden_size"]
    here = sines(np.arange(options["num_learnable_queries"]), channels)
    columns, rows = np.tile(np.arange(grid), grid), np.repeat(np.arange(grid), grid)
    patches = np.concatenate([sines(columns, channels // 2), sines(rows, channels // 2)], 1)
    there = np.concatenate([here, np.zeros((1, channels)), patches])
    width = channels // heads
    x = weights[f"{at}.query_embeds"][0]
    for index in range(options["num_hidden_layers"]):
        layer = f"{at}.encoder.layers.{index}.crossattention"
        x = layer_norm(x, weights, f"{layer}.norm1", 1e-5)
        seen = np.concatenate([x, layer_norm(image, weights, f"{layer}.normk", 1e-5)])
        query, key = (linear(part, weights, f"{layer}.attention.{name}") for name, part in (("query", x + here), ("key", seen + there)))
        value = linear(seen, weights, f"{layer}.attention.value")
        cut = [slice(head * width, (head + 1) * width) for head in range(heads)]
        mixed = np.concatenate([softmax(query[:, c] @ key[:, c].T / np.sqrt(width)) @ value[:, c] for c in cut], 1)
        x = x + linear(mixed, weights, f"{layer}.output.out_proj")
        n = layer_norm(x, weights, f"{layer}.output.norm2", 1e-5)
        inner = silu(linear(n, weights, f"{layer}.output.mlp.w1")) * linear(n, weights, f"{layer}.output.mlp.w3")
        inner = layer_norm(inner, weights, f"{layer}.output.mlp.ffn_ln", options["layer_norm_eps"])
        x = x + linear(inner, weights, f"{layer}.output.mlp.w2")
    return np.concatenate([linear(x, weights, f"{at}.visual_fc"), weights[f"{at}.vit_eos"][0]])


def sines(positions: NDArray[Any], width: int) -> Array:
    """[L] -> [L, width]: sines, then cosines."""
    angle = positions[:, None] / 10000 ** (np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], 1)


def linear(x: Array, weights: dict[str, Array], at: str) -> Array:
    """x W^T + b"""
    return x @ weights[f"{at}.weight"].T + weights[f"{at}.bias"]


def layer_norm(x: Array, weights: dict[str, Array], at: str, eps: float) -> Array:
    """Over the last axis."""
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return normed * weights[f"{at}.weight"] + weights[f"{at}.bias"]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Over the last axis."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x: Array) -> Array:
    """x times its sigmoid."""
    return x / (1 + np.exp(-x))
