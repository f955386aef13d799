"""Logit lens: what every layer of the decoder would say, at the position that emits the level word (METHOD.md section 6.2, the paper's Fig. 3).

A layer's state goes through the model's own final norm and output head; nothing is trained (nostalgebraist's logit lens). One forward pass a context.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.bootstrap import bootstrap_means
from biqa.language.levels import LEVELS
from biqa.models.inside import Context, final_norm, layer_states
from biqa.models.vlm import VLM

SHOWN = 4
"""Likeliest tokens that are kept of a layer, as in the paper's figure."""
BY_LAYER = ("entropy", "level_entropy", "level_mass", *PROBABILITIES)
"""What the summary has a mean of for each layer."""


@torch.no_grad()
def lens_rows(vlm: VLM, contexts: Sequence[Context]) -> list[list[dict[str, Any]]]:
    """A row a layer for each context, layer 1 first.

    A row: `layer`; `level`, the likeliest of the five; `p_bad` .. `p_excellent`, the softmax over the first tokens of the five level words, in the
    last layer the model's own level distribution (METHOD.md section 4); `level_mass`, the probability of these five tokens within the vocabulary;
    `entropy` of the next token over the vocabulary and `level_entropy` of the five, in bits; `token_1` .. `token_4` with `prob_1` .. `prob_4`, the
    likeliest tokens.
    """
    states = layer_states(vlm, [context.prompt for context in contexts])
    rows: list[list[dict[str, Any]]] = [[] for _ in contexts]
    for layer in range(states.shape[1]):  # one at a time: a vocabulary has up to 150,000 tokens
        normed = final_norm(vlm, states[:, layer])
        levels = vlm.level_logits(normed).softmax(-1).double().cpu().numpy()
        logs = vlm.logits(normed).log_softmax(-1)
        probabilities = logs.exp()
        most = probabilities.topk(min(SHOWN, probabilities.shape[-1]))
        entropy = -(probabilities * logs).nan_to_num().sum(-1) / np.log(2)
        numbers = torch.stack([probabilities[:, vlm.level_ids].sum(-1), entropy], -1).double().cpu().numpy()
        shown, chances = most.indices.cpu().tolist(), most.values.double().cpu().tolist()
        for at, of_context in enumerate(rows):
            of_context.append(
                {
                    "layer": layer + 1,
                    "level": LEVELS[int(levels[at].argmax())],
                    **dict(zip(PROBABILITIES, map(float, levels[at]), strict=True)),
                    "level_mass": float(numbers[at, 0]),
                    "entropy": float(numbers[at, 1]),
                    "level_entropy": _bits(levels[at]),
                    **{f"token_{place}": vlm.tokenizer.decode([token]) for place, token in enumerate(shown[at], 1)},
                    **{f"prob_{place}": chance for place, chance in enumerate(chances[at], 1)},
                }
            )
    return rows


def lens_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Figures that each image has by itself, an image a row, by its name.

    - `commit_depth`: the layer (1 .. K) from which the final level stays on top; `commit_share` the same as a share of the layers;
    - `switches`: how many different levels are on top in the last quarter of the layers (rounded up), 1 .. 5;
    - `candidates`: how many different tokens are likeliest in one layer or another, over all layers;
    - `last/entropy`, `last/level_entropy`, `last/level_mass`: of the last layer.

    Args:
        rows: `lens_rows` with a column `image`, every image with all layers.
    """
    rows = rows.sort_values(["image", "layer"], kind="stable")
    layers = int(rows["layer"].to_numpy().max())
    levels, tokens = (rows[name].to_numpy().reshape(-1, layers) for name in ("level", "token_1"))
    depth = commit_depth(levels == levels[:, -1:])
    last = {f"last/{name}": rows[name].to_numpy(dtype=np.float64)[layers - 1 :: layers] for name in BY_LAYER[:3]}
    return pd.DataFrame(
        {
            "commit_depth": depth,
            "commit_share": depth / layers,
            "switches": [len(set(row)) for row in levels[:, layers - -(-layers // 4) :]],
            "candidates": [len(set(row)) for row in tokens],
            **last,
        },
        index=rows["image"].to_numpy()[::layers],
    )


def lens_summary(rows: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Figures over the images of one data set, each a mean with its 95 % bootstrap interval over images.

    Those of `lens_by_image`, `last/...` as a part `last`; and `by_layer`: the columns `BY_LAYER`, and `agrees`, the share of images whose likeliest
    level is the final one already, layer 1 first.

    Args:
        rows: `lens_rows` with a column `image`, every image with all layers.
        resamples: of the bootstrap; `seed` draws them.
    """
    rows = rows.sort_values(["image", "layer"], kind="stable")
    layers = int(rows["layer"].to_numpy().max())
    levels = rows["level"].to_numpy().reshape(-1, layers)
    agrees = levels == levels[:, -1:]
    values = {str(name): figures.to_numpy(dtype=np.float64) for name, figures in lens_by_image(rows).items()}
    columns = {name: rows[name].to_numpy(dtype=np.float64).reshape(-1, layers) for name in BY_LAYER} | {"agrees": agrees.astype(np.float64)}
    by_layer = {f"{name} {layer}": of[:, layer] for name, of in columns.items() for layer in range(layers)}
    found = {name: figure.as_dict() for name, figure in bootstrap_means({**values, **by_layer}, resamples=resamples, seed=seed).items()}
    return {
        "images": len(levels),
        "layers": layers,
        **{name: found[name] for name in values if "/" not in name},
        "last": {name.removeprefix("last/"): found[name] for name in values if "/" in name},
        "by_layer": {name: [found[f"{name} {layer}"] for layer in range(layers)] for name in columns},
    }


def commit_depth(agrees: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The layer from which on every layer agrees with the last one: [images, K] bool, the last column true -> [images], 1 .. K."""
    return agrees.shape[1] - np.logical_and.accumulate(agrees[:, ::-1], axis=1).sum(1) + 1


def _bits(p: np.ndarray[Any, Any]) -> float:
    return float(-(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum())
