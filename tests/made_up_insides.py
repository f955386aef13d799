"""Summaries and tables of the analyses as a run of any number of layers might give them: what figures and pages are tried on."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from biqa.language.levels import LEVELS

FEATURES = ("sharpness", "noise", "non_eccentricity_patch", "main_defect=underexposure", "colourfulness")
TOKENS = (
    " good",
    " excellent",
    " fair",
    " poor",
    "\n",
    " ",
    "$x_1$",
    "中文",
    "<script>",
    "internationalisation",
    "",
    "WWWWWWWWWWWWWW",
    "\u200b",
    "é",
)


def estimate(value: float, width: float = 0.05) -> dict[str, float | None]:
    """A figure with an interval, null where it is NaN: as it stands in a JSON file."""
    return {"value": None, "low": None, "high": None} if math.isnan(value) else {"value": value, "low": value - width, "high": value + 0.8 * width}


def by_layer(values: Any, width: float = 0.05) -> list[dict[str, float | None]]:
    return [estimate(float(value), width) for value in values]


def lens_summary(layers: int = 3, shift: float = 0.0) -> dict[str, Any]:
    depth = np.linspace(0, 1, layers) if layers > 1 else np.ones(1)
    decided = 1 / (1 + np.exp(-10 * (depth - 0.6 - shift)))
    targets = np.array([0.05, 0.15, 0.3, 0.4, 0.1])
    levels = 0.2 + decided[:, None] * (targets - 0.2)
    figures = {
        "entropy": by_layer(11 - 9 * decided, 0.4),
        "level_entropy": by_layer(2.3 - 1.2 * decided, 0.1),
        "level_mass": by_layer(0.9 * decided),
        "agrees": by_layer(0.2 + 0.8 * decided),
    } | {f"p_{level}": by_layer(levels[:, k], 0.03) for k, level in enumerate(LEVELS)}
    return {
        "images": 100, "layers": layers, "vocabulary": 2048, "commit_depth": estimate(1 + (0.6 + shift) * (layers - 1), 0.4), "commit_share": estimate(0.7),
        "switches": estimate(1.4), "candidates": estimate(2.6), "by_layer": figures, "last_layer_error": 3e-7,
        "last": {name: figures[name][-1] for name in ("entropy", "level_entropy", "level_mass")},
    }  # fmt: skip


def lens_frame(layers: int = 3, seed: int = 0) -> pd.DataFrame:
    """Rows of one image of logit_lens.parquet, a layer each, with tokens of every awkward kind."""
    rng = np.random.default_rng(seed)
    rows = []
    for layer in range(1, layers + 1):
        tokens = ["good", " fair", " excellent", " poor"] if layer == layers else list(rng.choice(TOKENS, 4, replace=False))
        likely = np.sort(rng.dirichlet(np.full(5, 0.6)))[::-1][:4]
        p = rng.dirichlet(np.ones(5))
        rows.append(
            {
                "dataset": "synthetic",
                "image": "a.png",
                "layer": layer,
                "level": LEVELS[int(p.argmax())],
                "level_mass": 0.5,
                "entropy": 3.0,
                "level_entropy": 1.0,
            }
            | {f"p_{level}": p[k] for k, level in enumerate(LEVELS)}
            | {f"token_{k + 1}": tokens[k] for k in range(4)}
            | {f"prob_{k + 1}": likely[k] for k in range(4)}
        )
    return pd.DataFrame(rows)


def attention_summary(layers: int = 3, image: float = 0.3, breadth: float = 40.0) -> dict[str, Any]:
    depth = np.linspace(0, 1, layers)
    on_image, question = image * (1 - 0.5 * depth), 0.2 + 0.1 * depth
    description = 0.2 + 0.2 * depth
    rest = 1 - on_image - question - description
    effective = breadth - 25 * depth
    return {
        "images": 100, "layers": layers, "context": 140.0, "tokens": {"image": 65.0 if image else 0.0, "question": 12.0, "description": 48.0, "rest": 15.0},
        "by_layer": {
            "image": by_layer(on_image), "question": by_layer(question), "description": by_layer(description), "rest": by_layer(rest),
            "entropy": by_layer(np.log2(effective), 0.2), "effective": by_layer(effective, 3),
        },
        "mean": {"image": estimate(image * 0.75), "question": estimate(0.25), "description": estimate(0.3), "rest": estimate(0.45 - image * 0.75),
            "entropy": estimate(4.8), "effective": estimate(27.0, 2.0),
        },
        "row_sum_error": 2e-7,
    }  # fmt: skip


def grounding_summary(strength: float = 0.5, features: tuple[str, ...] = FEATURES) -> dict[str, Any]:
    sizes = strength * np.linspace(1, -0.6, len(features))
    known = {
        name: {"named": 0.4, "coefficient": estimate(float(size), 0.08) if position != 4 else estimate(math.nan), "p": 0.01}
        for position, (name, size) in enumerate(zip(features, sizes, strict=True))
    }
    points = [{"strength": s, "images": 10 + 7 * s, "score": estimate(0.2 + 0.15 * s) if s else estimate(math.nan)} for s in range(5)]
    kinds = [{"strength": s, "images": 4, "score": estimate(0.3 + 0.1 * s)} for s in range(1, 4)]
    return {
        "images": 100, "coverage": estimate(0.93, 0.02), "features": known, "dropped": [{"feature": "moire", "why": "named in no description"}],
        "r2_cv": estimate(0.4), "srcc_cv": estimate(0.62), "r2": 0.47, "logit": {name: {"coefficient": estimate(0.5), "p": 0.02} for name in features},
        "swaps": {
            "sharpness": {"images": 80, "change": estimate(strength / 3, 0.03), "right_way": estimate(0.85)},
            "noise": {"images": 42, "change": estimate(0.02, 0.03), "right_way": estimate(0.55)},
            "main_defect": {"images": 9, "change": estimate(-0.01), "right_way": None},
        },
        "right_way": estimate(0.74), "partial_dependence": {"sharpness": points, "noise": points[::-1], "main_defect": kinds},
    }  # fmt: skip


def contradiction_summary(share: float = 0.1) -> dict[str, Any]:
    counts = dict(zip(LEVELS, (3, 20, 40, 30, 7), strict=True))
    return {
        "images": 100, "left_out": 2, "trained_on": 300, "greedy": estimate(share, 0.04), "better": estimate(share * 0.7, 0.03), "worse": estimate(share * 0.3, 0.02),
        "sampled": None, "implied": counts, "given": counts,
    }  # fmt: skip


def contradiction_frame(images: int = 100, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    implied = rng.integers(0, 5, images)
    given = np.clip(implied + rng.integers(-2, 3, images), 0, 4)
    return pd.DataFrame(
        {
            "dataset": "synthetic", "image": [f"{number:03d}.png" for number in range(images)], "query": 0,
            "description": "Details are very blurred. There is heavy noise.", "level": [LEVELS[k] for k in given],
            "implied": [LEVELS[k] for k in implied], "difference": given - implied,
        }
    )  # fmt: skip


def gap_summary(text: float = 0.5) -> dict[str, Any]:
    parts = {"image": 0.72, "answer": text, "text": text - 0.1, "gap_answer": 0.72 - text, "gap_text": 0.82 - text}
    return {"images": 100} | {f"{metric}_{part}": estimate(value, 0.06) for metric in ("srcc", "plcc") for part, value in parts.items()}


def gap_frame(images: int = 30, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {name: rng.random(images) for name in ("q", "score_image", "score_answer", "score_text")}
    names = [f"{number:03d}.png" for number in range(images)]
    return pd.DataFrame({"dataset": "synthetic", "image": names, "description": "Details are sharp."} | columns)


def as_file(summary: Any) -> Any:
    """What comes back from a JSON file."""
    return json.loads(json.dumps(summary))
