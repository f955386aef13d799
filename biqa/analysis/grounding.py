"""How far a score follows from the features that its own description names (METHOD.md section 6.1).

The paper finds that "the predictions are not fully grounded in the features"; the figures are METHOD.md's, and what it leaves open is chosen and said
here. Nothing of this needs the model or its pictures: texts, scores and levels are enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biqa.analysis.regression import Effect, LinearEffect, NoFit, agreement, held_out, linear_effects, ordered_logit
from biqa.errors import IncompatibleChoice
from biqa.evaluation.bootstrap import Estimate, bootstrap_mean, bootstrap_means
from biqa.evaluation.described import Column, Design, Features, LinearModel
from biqa.language.features import FEATURES

Floats = NDArray[np.float64]

IMAGES_PER_COLUMN, IMAGES_BEYOND = 2, 20
"""Images that a regression needs: so many a column, and so many beyond (our choice: a tenth of them held out, there still are more than a column)."""


@dataclass(frozen=True)
class StrengthPoint:
    """The images that are described with one strength of a feature."""

    strength: int
    images: int
    score: Estimate
    """Mean score of these images; no interval where there is one image alone."""
    predicted: float
    """Partial dependence: mean prediction over all images, with the feature of each set to this strength; NaN for a kind without a column."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the summary."""
        return {"strength": self.strength, "images": self.images, "score": self.score.as_dict(), "predicted": self.predicted}


@dataclass(frozen=True)
class Grounding:
    """Figures of one system on one data set."""

    images: int
    """Behind the regressions."""
    left_out: int
    """Images without a score, or of whose description nothing was understood."""
    coverage: Estimate
    """Mean share of the sentences that were understood, over all images, those left out too."""
    named: dict[str, float]
    """Column -> share of descriptions that name its feature (of a kind: that name this kind)."""
    effects: dict[str, LinearEffect]
    """Column -> effect in the linear regression."""
    dropped: dict[str, str]
    """Column that has no part -> why."""
    r2: float
    """Share of the variance that the linear regression explains on the images it was fitted on."""
    r2_cv: Estimate
    """The same on images held out, relative to the mean of the others; below 0 where the regression is worse than that mean."""
    srcc_cv: Estimate
    """SRCC of the held-out predictions with the scores."""
    logit: dict[str, Effect] | str
    """Column -> effect in the ordered logit of the level; or why there is none."""
    dependence: dict[str, list[StrengthPoint]]
    """Feature -> its strengths that are named, weakest first."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the summary of analysis=grounding."""
        return {
            "images": self.images,
            "left_out": self.left_out,
            "coverage": self.coverage.as_dict(),
            "features": {column: {"named": self.named[column], **effect.as_dict()} for column, effect in self.effects.items()},
            "dropped": [{"feature": column, "why": why} for column, why in self.dropped.items()],
            "r2": self.r2,
            "r2_cv": self.r2_cv.as_dict(),
            "srcc_cv": self.srcc_cv.as_dict(),
            "logit": {"why_not": self.logit} if isinstance(self.logit, str) else {column: effect.as_dict() for column, effect in self.logit.items()},
            "partial_dependence": {feature: [point.as_dict() for point in points] for feature, points in self.dependence.items()},
        }


def ground(
    features: Sequence[Features | None],
    *,
    scores: ArrayLike,
    levels: ArrayLike,
    coverage: ArrayLike,
    folds: int = 10,
    seed: int = 0,
    resamples: int = 1000,
) -> Grounding:
    """Regress scores and levels on described features. The order of the images draws the folds: hand them in the order of their names.

    Args:
        features: what the description of each image says; {} says that there is nothing to see; None was not understood, and is left out.
        scores: the model's scores in [0, 1], shape [images]; NaN for an image without one, which is left out. Where all are one score, what is
            explained of them is undefined: NaN.
        levels: index of the model's level, 0 = bad .. 4 = excellent, -1 without one, shape [images].
        coverage: share of the sentences of each description that were understood, in [0, 1], shape [images].
        folds: of the cross-validation.
        seed: draws folds and resamples.
        resamples: of the bootstrap over images.

    Raises:
        IncompatibleChoice: fewer images than `IMAGES_PER_COLUMN` a column and `IMAGES_BEYOND`.
    """
    known = np.isfinite(np.asarray(scores, dtype=np.float64))
    kept = [position for position, text in enumerate(features) if text is not None and known[position]]
    said = [text for position in kept if (text := features[position]) is not None]
    score, level = np.asarray(scores, dtype=np.float64)[kept], np.asarray(levels, dtype=np.int64)[kept]
    design = Design.fit(said)
    _require(len(said), len(features), len(design.columns))
    effects, r2 = linear_effects(design, score)
    predicted, naive = held_out(said, score, folds=folds, seed=seed)
    r2_cv, srcc_cv = agreement(score, predicted, naive, resamples=resamples, seed=seed)
    return Grounding(
        images=len(said),
        left_out=len(features) - len(said),
        coverage=bootstrap_mean(coverage, resamples=resamples, seed=seed),
        named={column.name: _share_naming(column, said) for column in design.coded},
        effects=effects,
        dropped=design.dropped,
        r2=r2,
        r2_cv=r2_cv,
        srcc_cv=srcc_cv,
        logit=_logit(design, level),
        dependence=dependence(said, score, resamples=resamples, seed=seed),
    )


def dependence(features: Sequence[Features], score: Floats, *, resamples: int, seed: int) -> dict[str, list[StrengthPoint]]:
    """Mean score of the images by what their description says of a feature, and the partial dependence of the linear regression beside it.

    Returns:
        Feature -> a point for each strength that is named, weakest first. Features without a column in the regression are left out.
    """
    model = LinearModel.fit(features, score)
    predicted = model.predict(features).mean()
    found: dict[str, list[StrengthPoint]] = {}
    for feature in dict.fromkeys(column.feature for column in model.design.coded):
        said = np.array([text.get(feature, np.nan) for text in features], dtype=np.float64)
        strengths = [int(strength) for strength in np.unique(said[~np.isnan(said)])]
        figures = {str(strength): np.where(said == strength, score, np.nan) for strength in strengths}
        means = bootstrap_means(figures, resamples=resamples, seed=seed)
        found[feature] = []
        for strength in strengths:
            images, moved = int((said == strength).sum()), _moved(model, feature, strength, features)
            found[feature].append(StrengthPoint(strength, images, means[str(strength)], float(predicted + moved)))
    return found


def _require(images: int, of: int, columns: int) -> None:
    needed = IMAGES_PER_COLUMN * columns + IMAGES_BEYOND
    if images < needed:
        raise IncompatibleChoice(
            f"Grounding needs at least {needed} images with a score and a description that is understood ({columns} described features vary), "
            f"found {images} of {of}. Analyse more images, or a run whose descriptions name features."
        )


def _logit(design: Design, levels: NDArray[np.int64]) -> dict[str, Effect] | str:
    try:
        return ordered_logit(design, levels)
    except NoFit as error:
        return str(error)


def _moved(model: LinearModel, feature: str, strength: int, features: Sequence[Features]) -> float:
    """Mean change of the prediction when every text names this strength; NaN for a kind that the regression leaves out as too rare."""
    spec, columns = FEATURES[feature], [position for position, column in enumerate(model.design.coded) if column.feature == feature]
    if not spec.ordered and f"{feature}={spec.strengths[strength - spec.lowest]}" in model.design.dropped:
        return np.nan
    to = model.design.code([{feature: strength}])[0, columns]
    return float((to - model.design.values[:, columns].mean(axis=0)) @ model.slopes[columns])


def _share_naming(column: Column, features: Sequence[Features]) -> float:
    naming = [column.feature in text and column.kind in (None, text[column.feature]) for text in features]
    return float(np.mean(naming))
