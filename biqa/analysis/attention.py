"""What the position that emits the level word attends to, by layer, averaged over heads (METHOD.md section 6.3, the paper's Fig. 5).

Its context is everything up to and including itself, so that the shares of the groups sum to 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from biqa.evaluation.bootstrap import bootstrap_means
from biqa.models.inside import GROUPS, IMAGE, Context, attention_rows, grid_of
from biqa.models.vlm import VLM

Floats = NDArray[np.float64]

MASSES = tuple(f"{group}_mass" for group in GROUPS)
"""Columns of the shares."""
COLUMNS = dict(zip((*GROUPS, "entropy", "effective"), (*MASSES, "entropy", "effective"), strict=True))
"""Figure -> its column."""
TOKENS = tuple(f"{group}_tokens" for group in GROUPS)
"""Columns of the numbers of tokens."""


def attention_table(vlm: VLM, contexts: Sequence[Context]) -> list[list[dict[str, Any]]]:
    """A row a layer for each context, layer 1 first.

    A row: `layer`; `image_mass`, `question_mass`, `description_mass`, `rest_mass`, the shares of attention on each group, which sum to 1; the number
    of tokens in each group; `entropy` of the attention over all tokens in bits; `effective`, 2 to that power: so many tokens would be attended to if
    all were attended to alike; `sum`, what the model's weights summed to before they were scaled to 1: a model in 16 bits rounds each of them.
    """
    return masses(attention_rows(vlm, [context.prompt for context in contexts]), contexts)


def masses(rows: Tensor, contexts: Sequence[Context]) -> list[list[dict[str, Any]]]:
    """The table of `attention_table` from attention rows [B, K, L] of contexts that are padded on the left."""
    weights = rows.double().cpu()
    sums = weights.sum(-1)
    weights = weights / sums[..., None]
    groups = torch.full((len(contexts), weights.shape[-1]), -1)
    for at, context in enumerate(contexts):
        groups[at, groups.shape[1] - len(context.groups) :] = torch.tensor(context.groups)
    member = torch.stack([groups == group for group in range(len(GROUPS))], -1).double()  # [B, L, groups]
    share, tokens = weights @ member, member.sum(1).long()
    entropy = -torch.xlogy(weights, weights).sum(-1) / np.log(2)
    return [
        [
            {
                "layer": layer + 1,
                **dict(zip(MASSES, share[at, layer].tolist(), strict=True)),
                **dict(zip(TOKENS, tokens[at].tolist(), strict=True)),
                "entropy": float(entropy[at, layer]),
                "effective": float(2 ** entropy[at, layer]),
                "sum": float(sums[at, layer]),
            }
            for layer in range(weights.shape[1])
        ]
        for at in range(len(contexts))
    ]


def attention_map(vlm: VLM, context: Context) -> Floats | None:
    """Attention on each cell of the picture: [layers, rows, columns], shares of all attention; None where visual tokens lie on no grid."""
    grid = grid_of(vlm, context.prompt)
    if grid is None:
        return None
    row = attention_rows(vlm, [context.prompt])[0].double().cpu()
    seen = row[:, torch.tensor(context.groups) == IMAGE][:, grid.first : grid.first + grid.rows * grid.columns]
    return seen.unflatten(-1, (grid.rows, grid.columns)).numpy()


def attention_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over layers of each image, an image a row, by its name: `mean/<group>`, `mean/entropy` (bits), `mean/effective` (tokens)."""
    names, image = np.unique(rows["image"].to_numpy(dtype=str), return_inverse=True)
    layers = np.bincount(image)
    means = {f"mean/{name}": np.bincount(image, weights=rows[column].to_numpy(dtype=np.float64)) / layers for name, column in COLUMNS.items()}
    return pd.DataFrame(means, index=names)


def attention_summary(rows: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Means over the images of one data set with 95 % bootstrap intervals over images.

    - `by_layer`: shares of the four groups, `entropy` (bits) and `effective` (tokens), a list with layer 1 first;
    - `mean`: the same, averaged over layers;
    - `tokens`: mean number of tokens of each group, and `context` of all; `row_sum_error`: how far the model's weights of a layer
      were from a sum of 1, at most: 1e-7 in float32, 1e-3 in bfloat16.

    Args:
        rows: `attention_table` with a column `image`, every image with all layers.
        resamples: of the bootstrap; `seed` draws them.
    """
    rows = rows.sort_values(["image", "layer"], kind="stable")
    layers = int(rows["layer"].to_numpy().max())
    columns = {name: rows[column].to_numpy(dtype=np.float64).reshape(-1, layers) for name, column in COLUMNS.items()}
    by_layer = {f"{name} {layer}": of[:, layer] for name, of in columns.items() for layer in range(layers)}
    mean = {name: of.mean(1) for name, of in columns.items()}
    found = {name: figure.as_dict() for name, figure in bootstrap_means({**mean, **by_layer}, resamples=resamples, seed=seed).items()}
    tokens = {group: float(rows[column].to_numpy().mean()) for group, column in zip(GROUPS, TOKENS, strict=True)}
    return {
        "images": len(columns["image"]),
        "layers": layers,
        "context": sum(tokens.values()),
        "tokens": tokens,
        "by_layer": {name: [found[f"{name} {layer}"] for layer in range(layers)] for name in columns},
        "mean": {name: found[name] for name in columns},
        "row_sum_error": float(np.abs(rows["sum"].to_numpy(dtype=np.float64) - 1).max()),
    }
