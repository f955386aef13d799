"""A yardstick for tuning: ridge regression from the frozen tower's features to quality. No language, no steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from biqa.data.module import Item
from biqa.language.levels import soft_target
from biqa.language.prompts import JOINT
from biqa.models.vlm import VLM
from biqa.stages.base import Row
from biqa.stages.verdict import VerdictModule

PENALTIES: NDArray[np.float64] = np.logspace(0, 5, 11)
"""Of the ridge, on features of unit variance; leave-one-out on the training images chooses."""


class Probe(VerdictModule):
    """What is linearly there before anything is tuned: the mean over an image's positions of what the projector is given, regressed on `q`.

    Its score is the prediction, cut to [0, 1]; its level distribution is the one on the two nearest levels with that mean. Asked again it says the
    same, so it is asked once and has no instability.

    Args:
        vlm: the model, as it is; `options`: see StageModule.
    """

    learns_without_steps = True
    looks_up = False  # what it asks for is what the projector is given

    def __init__(self, vlm: VLM, **options: Any) -> None:  # noqa: ANN401 (StageModule's own)
        super().__init__(vlm, **{**options, "repeats": 0})
        self.train_items: Sequence[Item] = ()
        self.regression: Pipeline | None = None

    def learn_without_steps(self, train: Sequence[Item]) -> None:
        """Keep the training items until the model lies where it answers."""
        self.train_items = train

    def on_predict_start(self) -> None:
        """Fit."""
        features = np.stack([self._features(item) for item in self.train_items])
        self.regression = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(features, [item.record.q for item in self.train_items])

    def answer(self, items: list[Item]) -> list[Row]:
        """One row of the answers table an image, without a description."""
        assert self.regression is not None, "fitted in on_predict_start"
        scores = self.regression.predict(np.stack([self._features(item) for item in items])).clip(0, 1)
        probabilities = torch.tensor(np.stack([soft_target(float(score)) for score in scores]))
        return self.rows(items, [[""]] * len(items), probabilities[:, None])

    def _features(self, item: Item) -> NDArray[np.float32]:
        return self.vlm.tower_features(self.image_prompt(item, JOINT)).mean(0).float().cpu().numpy()
