"""From an answer to its score on the quality scale (METHOD.md section 4). All three read the answers table: one checkpoint has a score by each."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.evaluation.answers import PROBABILITIES
from biqa.language.levels import LEVELS, WEIGHTS, score_of

Floats = NDArray[np.float64]


def _levels(answers: pd.DataFrame) -> Floats:
    return score_of(answers.loc[:, list(PROBABILITIES)].to_numpy())


def _good_poor(answers: pd.DataFrame) -> Floats:
    good, poor = (answers[f"p_{level}"].to_numpy(dtype=np.float64) for level in ("good", "poor"))
    return good / (good + poor)


def _word(answers: pd.DataFrame) -> Floats:
    weights = dict(zip(LEVELS, WEIGHTS, strict=True))
    return np.array([weights.get(level, np.nan) for level in answers["level"]], dtype=np.float64)


SCORERS: dict[str, Callable[[pd.DataFrame], Floats]] = {"levels": _levels, "good_poor": _good_poor, "word": _word}
"""`levels`: mean of the level distribution. `good_poor`: the share of "good" between "good" and "poor", which is the softmax over the logits of these
two words (Q-Bench). `word`: the weight of the level word that was given; NaN where there is none."""


def scored(answers: pd.DataFrame, scorer: str) -> pd.DataFrame:
    """The answers with the score that a scorer gives them.

    Args:
        answers: with the columns of `biqa.evaluation.answers.COLUMNS`. Rows without a level distribution (stage=probe) keep the score that they have.
        scorer: a key of `SCORERS`.

    Returns:
        A table of the same rows; scores in [0, 1].
    """
    distributed = answers["p_good"].notna().to_numpy()
    return answers.assign(score=np.where(distributed, SCORERS[scorer](answers), answers["score"].to_numpy()))
