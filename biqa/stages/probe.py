"""A yardstick for tuning: ridge regression from the frozen tower's features to quality. No language, no steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from biqa.data.module import Item
from biqa.errors import RunNotFound
from biqa.files import write_whole
from biqa.language.levels import soft_target
from biqa.language.prompts import JOINT
from biqa.models.vlm import VLM
from biqa.stages.base import Row
from biqa.stages.together import first
from biqa.stages.verdict import VerdictModule

PENALTIES: NDArray[np.float64] = np.logspace(0, 5, 11)
"""Of the ridge, on features of unit variance; leave-one-out on the training images chooses."""


@dataclass(frozen=True)
class Regression:
    """A linear function of features."""

    weights: NDArray[np.float64]
    """[D]"""
    offset: float

    @classmethod
    def fit(cls, features: NDArray[np.float32], q: Sequence[float]) -> "Regression":
        """Ridge regression on standardised features: [images, D] and [images]."""
        scaler = StandardScaler().fit(features)
        ridge = RidgeCV(PENALTIES).fit(scaler.transform(features), q)
        weights = np.asarray(ridge.coef_, np.float64) / np.asarray(scaler.scale_, np.float64)
        return cls(weights, float(ridge.intercept_) - float(np.asarray(scaler.mean_, np.float64) @ weights))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """[images, D] -> [images]."""
        return features.astype(np.float64) @ self.weights + self.offset

    def write(self, file: Path) -> None:
        """Whole or not at all."""
        write_whole(file, save({"weights": self.weights, "offset": np.array([self.offset])}))

    @classmethod
    def read(cls, file: Path) -> "Regression":
        """What `write` has written.

        Raises:
            RunNotFound: it is not there, or damaged.
        """
        again = "Run that run again with overwrite=true."
        if not file.is_file():
            raise RunNotFound(f"{file} is not there: the run is of a release that did not keep its regression. {again}")
        try:
            found = load_file(file)
            return cls(found["weights"], float(found["offset"][0]))
        except (SafetensorError, KeyError) as error:
            raise RunNotFound(f"{file}: damaged ({error}). {again}") from error


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
        self.kept: Path | None = None
        self.regression: Regression | None = None

    def learn_without_steps(self, train: Sequence[Item], kept: Path | None = None) -> None:
        """Keep the training items, and the name of the file, until the model lies where it answers."""
        self.train_items = train
        self.kept = kept

    def on_predict_start(self) -> None:
        """Fit; or read what was fitted before a kill."""
        if self.kept is not None and self.kept.is_file():
            self.regression = Regression.read(self.kept)
            return
        features = np.stack([self._features(item) for item in self.train_items])
        self.regression = Regression.fit(features, [item.record.q for item in self.train_items])
        if self.kept is not None and first():
            self.regression.write(self.kept)

    def answer(self, items: list[Item]) -> list[Row]:
        """One row of the answers table an image, without a description."""
        assert self.regression is not None, "fitted in on_predict_start"
        scores = self.regression(np.stack([self._features(item) for item in items])).clip(0, 1)
        probabilities = torch.tensor(np.stack([soft_target(float(score)) for score in scores]))
        return self.rows(items, [[""]] * len(items), probabilities[:, None])

    def _features(self, item: Item) -> NDArray[np.float32]:
        return self.vlm.tower_features(self.image_prompt(item, JOINT)).mean(0).float().cpu().numpy()
