"""How well descriptions name what is there: features parsed out of the text against the features of the target."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.evaluation.bootstrap import bootstrap_means
from biqa.language.features import FEATURES, coverage, parse

Floats = NDArray[np.float64]
Features = Mapping[str, int]
"""Name -> strength."""
Strengths = NDArray[np.int64]
"""What texts say of one feature: a strength, or ABSENT; shape [images]."""
Right = Callable[[Strengths, Strengths], NDArray[np.bool_]]
"""(said, wanted) -> whether that counts as right; shapes as NumPy broadcasts them."""

ABSENT = -1
"""The answer of a text that does not name a feature; lower than every strength."""


def evaluate_descriptions(
    answers: pd.DataFrame, features: Mapping[str, Features] | None, *, training: Sequence[Features], resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Figures of stage 1 on one data set from its greedy descriptions (query 0), all of them our choice. The order of the rows does not matter.

    Of the text as a whole, in [0, 1], higher is better: `feature_f1` (mean over images of the F1 between named features), `strength_f1` (the same
    with the strength right too), `coverage` (mean share of the sentences understood).

    By feature, as `<metric>/<feature>`, for each feature that the targets of both a training and a test image name, and as `<metric>` alone for the
    mean over these features (none of these where there is no such feature, as with free text). Over the test images whose target names the feature:

    - `accuracy`: share of the images whose description gives it the strength of the target; not to name it is wrong;
    - `majority`: the same of a text that always gives it the commonest strength of the training targets (of equals the lowest);
    - `over_majority`: accuracy - majority, in [-1, 1], with the interval of the paired bootstrap; above 0, stage 1 tells more than a habit;
    - `within_one`: share of the images whose description is at most one step off, and `within_one_constant`, the same of the strength for which that
      holds most often among the training targets (where five are equally common: for 3 images in 5). Not of features whose words are no scale.

    These do not see false alarms. So where some targets leave a feature out, as with distortions, there are also `accuracy_all`, `majority_all` and
    `over_majority_all` for it, and their means over such features: over all test images, with absence as one more answer, for the majority too.
    Of a rare feature absence is the majority answer, and a text that never names it is as good: one needs both.

    Args:
        answers: columns image, query, description; of one data set.
        features: image -> features of its target, at least for the images in `answers`; None: there are no targets, which leaves `coverage`.
        training: features of the training targets.
        resamples: bootstrap resamples behind each 95 % interval; `seed` draws them.

    Returns:
        {metric: {value, low, high}}.
    """
    rows = answers.sort_values("image", kind="stable")
    rows = rows[rows["query"] == 0]
    said = [parse(text) for text in rows["description"]]
    measures: dict[str, Any] = {"coverage": [coverage(text) for text in rows["description"]]}
    if features is not None:
        wanted = [features[image] for image in rows["image"]]
        measures = {
            "feature_f1": [_f1(set(a), set(b)) for a, b in zip(said, wanted, strict=True)],
            "strength_f1": [_f1(set(a.items()), set(b.items())) for a, b in zip(said, wanted, strict=True)],
            **measures,
            **_by_feature(said, wanted, training),
        }
    return {name: estimate.as_dict() for name, estimate in bootstrap_means(measures, resamples=resamples, seed=seed).items()}


def _f1(said: set[object], wanted: set[object]) -> float:
    """F1 of two sets; 1 when both are empty."""
    return 1.0 if not said and not wanted else 2 * len(said & wanted) / (len(said) + len(wanted))


def _by_feature(said: Sequence[Features], wanted: Sequence[Features], training: Sequence[Features]) -> dict[str, Floats]:
    """`<metric>`: the images' figures for all features, shape [images, features]; `<metric>/<feature>`, shape [images], in the registry's order."""
    shared = set().union(*training) & set().union(*wanted)
    found: dict[str, dict[str, Floats]] = {}
    for name in (name for name in FEATURES if name in shared):
        for metric, figures in _judge(name, *(_strengths(texts, name) for texts in (said, wanted, training))).items():
            found.setdefault(metric, {})[name] = figures
    means = {metric: np.stack(list(figures.values()), axis=1) for metric, figures in found.items()}
    return means | {f"{metric}/{name}": figures for metric, by_name in found.items() for name, figures in by_name.items()}


def _strengths(texts: Sequence[Features], name: str) -> Strengths:
    return np.array([text.get(name, ABSENT) for text in texts], dtype=np.int64)


def _judge(name: str, said: Strengths, wanted: Strengths, training: Strengths) -> dict[str, Floats]:
    """The metrics of one feature as figures of each image: 1 where right, 0 where not, the difference of two of these; NaN where not counted."""
    spec = FEATURES[name]
    strengths = np.arange(spec.lowest, spec.lowest + len(spec.strengths))
    named, taught = wanted != ABSENT, training[training != ABSENT]
    right, habit = _same(said, wanted), _same(_best_constant(strengths, _same, taught), wanted)
    figures = _against(right, habit, "")
    if spec.ordered:
        near, near_habit = _near(said, wanted), _near(_best_constant(strengths, _near, taught), wanted)
        figures |= {"within_one": near.astype(float), "within_one_constant": near_habit.astype(float)}
    figures = {metric: np.where(named, values, np.nan) for metric, values in figures.items()}
    if named.all() and len(taught) == len(training):
        return figures
    answers = np.array([ABSENT, *strengths])
    return figures | _against(right, _same(_best_constant(answers, _same, training), wanted), "_all")


def _against(right: NDArray[np.bool_], habit: NDArray[np.bool_], over: str) -> dict[str, Floats]:
    """Accuracy, that of the majority answer, and the difference."""
    accuracy, majority = right.astype(float), habit.astype(float)
    return {f"accuracy{over}": accuracy, f"majority{over}": majority, f"over_majority{over}": accuracy - majority}


def _best_constant(choices: Strengths, right: Right, training: Strengths) -> Strengths:
    """The choice that is right most often on the training targets, of equals the first; shape [1]."""
    best = right(choices[:, None], training).sum(axis=1).argmax()
    return choices[best : best + 1]


def _same(said: Strengths, wanted: Strengths) -> NDArray[np.bool_]:
    return said == wanted


def _near(said: Strengths, wanted: Strengths) -> NDArray[np.bool_]:
    """At most one step apart, and both named."""
    return (said != ABSENT) & (wanted != ABSENT) & (np.abs(said - wanted) <= 1)
