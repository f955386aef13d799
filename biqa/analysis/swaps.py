"""The causal side of grounding: what a text says of one feature is changed, and it is scored again (METHOD.md section 6.1, a choice of the project).

A verdict that follows from the text moves with it: sharper goes up, noisier goes down. Which way is right is fixed beforehand for each feature
(`biqa.language.features.FeatureSpec.better`); features without such a direction are measured and have no right way.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.evaluation.bootstrap import bootstrap_mean, bootstrap_means
from biqa.language.features import FEATURES
from biqa.language.lexicon import better, read, swapped

Floats = NDArray[np.float64]
Scorer = Callable[[Sequence[tuple[str, str]]], Floats]
"""(image, text) pairs -> a score in [0, 1] for each: the model's level distribution after that text, in the mean."""


@dataclass(frozen=True)
class Swap:
    """One text with one feature changed."""

    image: str
    feature: str
    strength: int
    """What the text said."""
    to: int
    """What it says now: the far end of the scale; from the middle, the upper end."""
    text: str
    """The changed text."""


def swaps_of(image: str, description: str) -> list[Swap]:
    """A swap for each scale that a description names in words that can be replaced. Kinds are no scale and are left out."""
    found = []
    for feature, strength in read(description).features.items():
        spec = FEATURES[feature]
        lowest, highest = spec.lowest, spec.lowest + len(spec.strengths) - 1
        to = lowest if strength - lowest > highest - strength else highest
        text = swapped(description, feature, to) if spec.ordered else None
        if text is not None:
            found.append(Swap(image, feature, strength, to, text))
    return found


def swap_rows(descriptions: Sequence[tuple[str, str, float]], scorer: Scorer) -> list[dict[str, Any]]:
    """Score the changed texts of some images.

    Args:
        descriptions: (image, description, score of that description).
        scorer: scores (image, text) pairs.

    Returns:
        A row a swap: the fields of `Swap`, `before` and `after` (scores in [0, 1]), `change` and `right`. `change` is the change of the score towards
        what is better (of a feature without a direction: towards more of it). `right` is 1 where the score moved the right way, 0 where it moved
        the other way, 0.5 where it did not move, so that a scorer that ignores the text has 50 %; None without a direction.
    """
    before = {image: score for image, _, score in descriptions}
    swaps = [swap for image, description, _ in descriptions for swap in swaps_of(image, description)]
    after = scorer([(swap.image, swap.text) for swap in swaps]) if swaps else np.empty(0)
    rows = []
    for swap, score in zip(swaps, after, strict=True):
        way = better(swap.feature)
        change = float(np.sign(swap.to - swap.strength) * (way or 1) * (score - before[swap.image]))
        right = None if way is None else 0.5 * (1 + np.sign(change))
        rows.append({**asdict(swap), "before": before[swap.image], "after": float(score), "change": change, "right": right})
    return rows


def swaps_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """`right_way` of each image with a swap that has a direction, an image a row, by its name: the share of them that moved the right way."""
    right = rows["right"].to_numpy(dtype=np.float64) if len(rows) else np.empty(0)
    known = ~np.isnan(right)
    images = rows["image"].to_numpy(dtype=str)[known] if len(rows) else np.empty(0, dtype=str)
    names, image = np.unique(images, return_inverse=True)
    return pd.DataFrame(
        {"right_way": np.bincount(image, weights=right[known], minlength=len(names)) / np.bincount(image, minlength=len(names))}, index=names
    )


def swaps_summary(rows: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Figures of `swap_rows`, each with its 95 % bootstrap interval over images.

    - `swaps`: by feature, `images` (how many name it), `change` (mean change of the score), `right_way` (share that moved the right way, ties half;
      None without a direction);
    - `right_way`: the share over all swaps with a direction, each image counting with the mean of its own; None where there are none.
    """
    features = rows["feature"].to_numpy(dtype=object) if len(rows) else np.empty(0, dtype=object)
    change, right = (rows[name].to_numpy(dtype=np.float64) if len(rows) else np.empty(0) for name in ("change", "right"))
    by_feature: dict[str, Any] = {}
    for feature in sorted(set(features)):
        of = features == feature
        columns = {"change": change[of], **({} if np.isnan(right[of]).any() else {"right_way": right[of]})}
        found = bootstrap_means(columns, resamples=resamples, seed=seed)
        by_feature[feature] = {"images": int(of.sum()), "right_way": None, **{name: figure.as_dict() for name, figure in found.items()}}
    of_image = swaps_by_image(rows)["right_way"].to_numpy(dtype=np.float64)
    return {"swaps": by_feature, "right_way": bootstrap_mean(of_image, resamples=resamples, seed=seed).as_dict() if len(of_image) else None}
