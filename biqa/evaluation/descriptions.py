"""How well descriptions name what is there: features parsed out of the text against the features of the target."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from biqa.evaluation.bootstrap import bootstrap_mean
from biqa.language.features import coverage, parse


def evaluate_descriptions(
    answers: pd.DataFrame, features: Mapping[str, Mapping[str, int]], *, resamples: int, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of stage 1 from its greedy descriptions (query 0).

    Args:
        answers: columns dataset, image, query, description.
        features: image -> features of its target (name -> strength).
        resamples: bootstrap resamples behind each 95 % interval; `seed` draws them.

    Returns:
        {dataset: {metric: {value, low, high}}}: `feature_f1` (mean over images of the F1 between named features), `strength_f1` (the same with the
        strength right too), `coverage` (mean share of the sentences understood). All in [0, 1], higher is better; METHOD.md choice.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for dataset, rows in answers[answers["query"] == 0].groupby("dataset", sort=True):
        said = [parse(text) for text in rows["description"]]
        wanted = [features[image] for image in rows["image"]]
        measures = {
            "feature_f1": [_f1(set(a), set(b)) for a, b in zip(said, wanted, strict=True)],
            "strength_f1": [_f1(set(a.items()), set(b.items())) for a, b in zip(said, wanted, strict=True)],
            "coverage": [coverage(text) for text in rows["description"]],
        }
        result[str(dataset)] = {name: bootstrap_mean(np.array(values), resamples=resamples, seed=seed).as_dict() for name, values in measures.items()}
    return result


def _f1(said: set[object], wanted: set[object]) -> float:
    """F1 of two sets; 1 when both are empty."""
    return 1.0 if not said and not wanted else 2 * len(said & wanted) / (len(said) + len(wanted))
