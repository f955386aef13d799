"""Ridge regression from features of images: one way for all that is fitted at once instead of learnt in steps."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTIES: NDArray[np.float64] = np.logspace(0, 5, 11)
"""Of the ridge, on features of unit variance; leave-one-out on the images that it is fitted to chooses."""


def ridge() -> Pipeline:
    """Unit variance, then the regression, as scikit-learn has them; not fitted yet."""
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
