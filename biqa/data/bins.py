"""Numbers to five strengths, by what the training images have."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from biqa.language.features import VOTED_DEFECTS

VOTED_NAMES = tuple(spec.name for spec in VOTED_DEFECTS)


class QuantileBins:
    """Values to five strengths 0..4, by the quintiles of the training images (METHOD.md choice).

    A feature that has one value on all training images tells them nothing and is left out. Of equal values at a quintile all go to the lower bin.

    Votes for a defect (`VOTED_DEFECTS`, 0 or more) are told apart differently (our choice): strength 0, "no", is said of the images that nobody voted
    for and of no other; those with votes get 1..4, by the quartiles of the training images that have some. By quintiles of all images "no" would be
    said of some that have votes where few have none; and where more than three in five have none, a single vote would be "heavy".
    """

    def __init__(self, training: Mapping[str, Sequence[float]]) -> None:
        self.edges: dict[str, NDArray[np.float64]] = {
            name: _edges(np.array(values), from_zero=name in VOTED_NAMES) for name, values in training.items() if min(values) < max(values)
        }

    def strengths(self, values: Mapping[str, float]) -> dict[str, int]:
        """Name -> strength."""
        return {name: int(np.searchsorted(edges, values[name], side="left")) for name, edges in self.edges.items()}


def _edges(values: NDArray[np.float64], *, from_zero: bool) -> NDArray[np.float64]:
    """Upper ends of the first four bins, shape [4]; `from_zero`: the first holds 0 alone, where no value is below (one at least is above)."""
    if from_zero and values.min() >= 0:
        return np.array([0.0, *np.quantile(values[values > 0], (0.25, 0.5, 0.75))])
    return np.quantile(values, (0.2, 0.4, 0.6, 0.8))
