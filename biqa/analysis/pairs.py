"""What is different between two runs: paired, over the images that both have, where an image has a figure by itself."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from biqa.analysis.attention import attention_by_image
from biqa.analysis.lens import lens_by_image
from biqa.analysis.swaps import swaps_by_image
from biqa.evaluation.bootstrap import bootstrap_means
from biqa.evaluation.contradiction import by_image

BY_IMAGE: Mapping[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "grounding": ("grounding-swaps", swaps_by_image),
    "logit_lens": ("logit_lens", lens_by_image),
    "attention": ("attention", attention_by_image),
    "contradiction": ("contradiction", by_image),
}
"""Analysis -> its table whose rows give figures of each image, and what makes them: images by places of figures in the summary."""


def differences(analysis: str, rows: pd.DataFrame, others: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Figures of one run minus those of another on one data set, with 95 % intervals of the paired bootstrap over images.

    Args:
        analysis: of `BY_IMAGE`.
        rows: of the run's table there; `others` those of the other run.
        resamples: of the bootstrap; `seed` draws them.

    Returns:
        Place of the figure in the summary, parts joined by "/" -> value, low, high. Figures that no image has in both are left out.
    """
    figures = BY_IMAGE[analysis][1]
    ours, theirs = figures(rows), figures(others)
    images = ours.index.intersection(theirs.index)
    values = {
        str(place): ours.loc[images, place].to_numpy(dtype=np.float64) - theirs.loc[images, place].to_numpy(dtype=np.float64)
        for place in ours.columns.intersection(theirs.columns)
    }
    known = {place: value for place, value in values.items() if np.isfinite(value).any()}
    return {place: figure.as_dict() for place, figure in bootstrap_means(known, resamples=resamples, seed=seed).items()} if known else {}
