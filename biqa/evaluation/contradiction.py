"""Whether an answer's level fits its own description (METHOD.md section 5; the paper describes the contradiction, the formula is our choice).

What a description implies is learnt from the training images: the level that people gave, on the features that the target description names. An
answer contradicts itself when its level is two or more steps from what its own description implies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from biqa.errors import IncompatibleChoice
from biqa.evaluation.bootstrap import bootstrap_means
from biqa.evaluation.described import Features, LinearModel
from biqa.language.levels import LEVELS

STEPS = 2
"""Levels between what is given and what is implied that make a contradiction (METHOD.md section 5)."""
BEYOND = 10
"""Training images that are needed beyond one a column (our choice)."""
UNKNOWN = -1
"""Implied level of a text that was not understood."""


@dataclass(frozen=True)
class ImpliedLevel:
    """The level that a description implies: ordinary least squares of the level index on its features, rounded to the nearest level.

    A choice of this project. A line, and not the likeliest level of a classifier: that would seldom imply a level that few training images have, and
    would count contradictions by how common a level is. Halves are rounded up; what lies beyond 0..4 is the nearest end.
    """

    model: LinearModel
    images: int
    """Training images behind it."""

    @classmethod
    def fit(cls, features: Sequence[Features], levels: ArrayLike) -> "ImpliedLevel":
        """Learn from the training images.

        Args:
            features: what the target description of each image says.
            levels: index of the level of each image by human judgement, 0 = bad .. 4 = excellent, shape [images].

        Raises:
            IncompatibleChoice: no feature varies, or there are fewer than columns + `BEYOND` images.
        """
        model = LinearModel.fit(features, levels) if features else None
        columns = 0 if model is None else len(model.design.columns)
        if model is None or len(features) < columns + BEYOND:
            raise IncompatibleChoice(
                f"What a description implies cannot be learnt from {len(features)} training images: {columns} described features need "
                f"at least {columns + BEYOND}. Take a run that trained on more images with descriptions."
            )
        if not columns:
            reasons = "; ".join(f"{name}: {why}" for name, why in model.design.dropped.items()) or "they name none"
            raise IncompatibleChoice(
                f"The target descriptions of {len(features)} training images have no feature that varies ({reasons}), "
                f"so a description implies no level. Take a run whose descriptions name features."
            )
        return cls(model, len(features))

    def implied(self, features: Sequence[Features | None]) -> NDArray[np.int64]:
        """Index of the level that each text implies, shape [texts]; `UNKNOWN` (-1) for None, a text of which nothing was understood.

        {} is a text that says that there is nothing to see, and implies a level like any other.
        """
        figures = self.model.predict([text or {} for text in features])
        nearest = np.floor(np.round(figures, 9) + 0.5)  # without the rounding error that would send a half either way
        known = np.array([text is not None for text in features], dtype=bool)
        return np.where(known, np.clip(nearest, 0, len(LEVELS) - 1), UNKNOWN).astype(np.int64)


def contradictions(answers: pd.DataFrame, implied: ArrayLike) -> pd.DataFrame:
    """Each answer beside what its own description implies.

    Args:
        answers: columns dataset, image, query, description, level, as in the answers table.
        implied: `ImpliedLevel.implied` of each row's description, shape [rows].

    Returns:
        A row a row of `answers`, in their order: dataset, image, query, description; `level` and `implied` as words, missing where the answer has
        no level or the text was not understood; `difference`, level - implied in steps, -4..4 (above 0: better than described), NaN where one is
        missing.
    """
    position = np.asarray(implied, dtype=np.int64)
    level = np.array([np.nan if pd.isna(word) else LEVELS.index(word) for word in answers["level"]], dtype=np.float64)
    return pd.DataFrame(
        {
            **{name: answers[name].to_numpy() for name in ("dataset", "image", "query", "description", "level")},
            "implied": [None if index == UNKNOWN else LEVELS[index] for index in position],
            "difference": np.where(position == UNKNOWN, np.nan, level - position),
        }
    )


def by_image(frame: pd.DataFrame) -> pd.DataFrame:
    """What each image has by itself, an image a row, by its name; NaN where nothing counts.

    - `greedy`: whether its greedy answer (query 0) contradicts itself, 0 or 1; `better` and `worse` than described, which add up to it;
    - `sampled`: share of its sampled answers (queries 1..N) that do; no such column without any.
    """
    rows = frame.sort_values(["image", "query"], kind="stable", ignore_index=True)
    asked, steps = rows["query"].to_numpy() == 0, rows["difference"].to_numpy(dtype=np.float64)
    greedy, wrong = steps[asked], np.where(np.isnan(steps), np.nan, np.abs(steps) >= STEPS)
    known = ~np.isnan(greedy)
    figures = {"greedy": wrong[asked], "better": np.where(known, greedy >= STEPS, np.nan), "worse": np.where(known, greedy <= -STEPS, np.nan)}
    if not asked.all():
        figures["sampled"] = _means_by_image(rows["image"].to_numpy(dtype=str), np.where(asked, np.nan, wrong))
    return pd.DataFrame(figures, index=rows["image"].to_numpy()[asked])


def summary(frame: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Figures of `contradictions` on one data set, shares in 0..1 with 95 % bootstrap intervals over images. The order of the rows does not matter.

    - `images`: all of them; `left_out`: those of them whose greedy answer has no level or implies none, which have no part in what follows;
    - means over images of `by_image`; `sampled` is None without sampled answers. `left_out_sampled`: how many of these are not counted; an image
      without one that counts is left out;
    - `implied` and `given`: number of the counted greedy answers by level.
    """
    found = by_image(frame)
    figures = {str(name): column.to_numpy(dtype=np.float64) for name, column in found.items()}
    estimates = bootstrap_means(figures, resamples=resamples, seed=seed)
    known = ~np.isnan(figures["greedy"])
    unknown = frame["difference"].isna().to_numpy()
    greedy = frame.loc[(frame["query"] == 0) & ~unknown, :]
    words = {name: list(greedy[name]) for name in ("implied", "level")}
    return {
        "images": len(found),
        "left_out": int((~known).sum()),
        "sampled": None,
        **{name: estimate.as_dict() for name, estimate in estimates.items()},
        "left_out_sampled": int((unknown & (frame["query"].to_numpy() != 0)).sum()),
        "implied": {level: words["implied"].count(level) for level in LEVELS},
        "given": {level: words["level"].count(level) for level in LEVELS},
    }


def worst(frame: pd.DataFrame, number: int = 10) -> pd.DataFrame:
    """The rows of `contradictions` with the largest |difference| among greedy answers (query 0), so an image stands there once; ties by name."""
    size = frame["difference"].to_numpy(dtype=np.float64)
    counted = np.flatnonzero((frame["query"].to_numpy() == 0) & ~np.isnan(size))
    order = sorted(counted, key=lambda row: (-abs(size[row]), str(frame["dataset"].iloc[row]), str(frame["image"].iloc[row])))
    return frame.iloc[order[:number]].reset_index(drop=True)


def _means_by_image(images: NDArray[np.str_], figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the rows of each image that have a figure, NaN for an image without any; images in the order of their names."""
    names, row = np.unique(images, return_inverse=True)
    known = ~np.isnan(figures)
    total, number = (np.bincount(row[known], weights=of, minlength=len(names)) for of in (figures[known], np.ones(known.sum())))
    return np.divide(total, number, out=np.full(len(names), np.nan), where=number > 0)
