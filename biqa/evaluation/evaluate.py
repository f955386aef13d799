"""From an answers table to figures with intervals, and from two of them to differences. A table gives the same digits in any order of its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.errors import BadRecord, IncompatibleChoice
from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.bootstrap import Statistic, difference, draws_of_each, estimate
from biqa.evaluation.correlation import krcc, plcc, plcc_logistic4, rmse, srcc
from biqa.evaluation.stability import LEVEL_MEASURES, UNPARSED, level_measures, score_std
from biqa.language.levels import LEVELS

Floats = NDArray[np.float64]
Figures = dict[str, dict[str, dict[str, float]]]
"""{data set: {metric: {"value", "low", "high"}}}"""

NEAR_ONE = 1e-3
"""By how much the sum of a level distribution may miss 1: the rounding of bfloat16."""

COMPARED = ("srcc", "plcc", "srcc_mean", "plcc_mean", "instability_sampled", "instability_argmax")
"""Metrics that `compare` takes the difference of, where both systems have them."""

SAME_SCORE = 1e-6
"""Scores of all images that lie so near each other are one score (our choice): they differ by the rounding of float32, whose ranks are chance."""

_ACCURACY = {"srcc": srcc, "krcc": krcc, "plcc": plcc, "plcc_logistic4": plcc_logistic4, "rmse": rmse}


@dataclass(frozen=True)
class Answers:
    """The answers of one data set as arrays, images in the order of their names."""

    images: tuple[str, ...]
    q: Floats
    """Human quality in [0, 1], shape [images]."""
    score: Floats
    """Score of query 0, in [0, 1] or NaN, shape [images]."""
    scores: Floats
    """Scores of queries 1..N, shape [images, N]."""
    sampled: NDArray[np.int64]
    """Level index of the word of queries 1..N (decision "sampled"), -1 where it could not be parsed, shape [images, N]."""
    argmax: NDArray[np.int64]
    """Index of the likeliest level of queries 1..N (decision "argmax"; of equals the worse), -1 where there is no distribution, shape [images, N]."""
    unparsed: Floats
    """Percent of the queries 0..N without a level word, shape [images]."""
    subset: NDArray[np.str_]
    """Source of each image within the data set, "" where there is none, shape [images]."""

    def select(self, rows: NDArray[np.int64]) -> "Answers":
        """The answers for some of the images, by position."""
        return Answers(
            images=tuple(self.images[row] for row in rows),
            q=self.q[rows],
            score=self.score[rows],
            scores=self.scores[rows],
            sampled=self.sampled[rows],
            argmax=self.argmax[rows],
            unparsed=self.unparsed[rows],
            subset=self.subset[rows],
        )


def evaluate(answers: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> Figures:
    """Every figure of METHOD.md section 5 that an answers table holds, each with its 95 % bootstrap interval over images.

    - from query 0: `srcc`, `krcc`, `plcc`, `plcc_logistic4` in -1..1 and `rmse` on the scale of q; where the images come from several subsets also
      `srcc_within`, the mean over subsets of the SRCC inside each, weighted by their images: what is left when the source cannot be told;
    - from queries 1..N, when there are any: `srcc_mean` and `plcc_mean` of the mean score, and for both decisions `instability_*`, `flip_rate_*`,
      `pairwise_disagreement_*` (percent) and `level_entropy_*` (bits), * = sampled or argmax; `score_std`;
    - from all queries: `unparsed`, the percent of answers without a level word; `unscored`, the percent of images whose query 0 has no score.

    An image without a score in query 0 (the word scorer met an answer that it could not parse) is left out of the figures from query 0, and an
    image without any sampled score out of `*_mean`; nothing is put in its place, and `unscored` says how many these are. A correlation of scores
    that are all the same is undefined, NaN; `biqa.evaluation.alarms` says so in words.

    Args:
        answers: A table with the columns of `biqa.evaluation.answers.COLUMNS`, for one data set or several.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.

    Raises:
        BadRecord: an image lacks a query or has one twice, has several q or none, a level is not one of the five words, or a score or a level
            distribution is none.
        IncompatibleChoice: N = 1.
    """
    return {name: _figures(name, arrays, resamples, seed) for name, arrays in answers_by_dataset(answers).items()}


def compare(answers: pd.DataFrame, other: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> Figures:
    """Differences `answers - other` of two systems in the metrics `COMPARED`, by the paired bootstrap over the images that both answered.

    Returns:
        {data set: {metric: {"value", "low", "high", "p"}}} for the data sets that both hold.

    Raises:
        IncompatibleChoice: no image is in both tables, or an image's q differs between them.
        BadRecord: as in `evaluate`.
    """
    first, second = answers_by_dataset(answers), answers_by_dataset(other)
    pairs = {name: common_images(first[name], second[name], name) for name in sorted(first.keys() & second.keys())}
    pairs = {name: pair for name, pair in pairs.items() if pair[0].images}
    if not pairs:
        raise IncompatibleChoice(
            f"The two tables have no image in common: one holds {_inventory(first)}, the other {_inventory(second)}. "
            f"Compare systems that answered the same test images."
        )
    return {name: _differences(name, *pair, resamples=resamples, seed=seed) for name, pair in pairs.items()}


def answers_by_dataset(frame: pd.DataFrame) -> dict[str, Answers]:
    """The table as arrays, by data set, names sorted. Raises BadRecord as `evaluate` says."""
    frame = frame.sort_values(["dataset", "image", "query"], kind="stable", ignore_index=True)
    return {str(name): _as_arrays(part, str(name)) for name, part in frame.groupby("dataset", sort=True)}


def statistics(answers: Answers) -> dict[str, Statistic]:
    """Each metric of `evaluate` as a function of the bootstrap counts.

    Raises:
        IncompatibleChoice: N = 1.
    """
    found: dict[str, Statistic] = {name: _of_scored(function, answers.score, answers.q) for name, function in _ACCURACY.items()}
    if len(set(answers.subset)) > 1:
        found["srcc_within"] = _within(answers.subset, found_in=lambda rows: _of_scored(srcc, answers.score[rows], answers.q[rows]))
    if answers.scores.shape[1]:
        known = ~np.isnan(answers.scores)
        total = np.where(known, answers.scores, 0.0).sum(axis=1)
        mean_score = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
        found |= {"srcc_mean": _of_scored(srcc, mean_score, answers.q), "plcc_mean": _of_scored(plcc, mean_score, answers.q)}
        by_decision = {"sampled": level_measures(answers.sampled), "argmax": level_measures(answers.argmax)}
        found |= {f"{measure}_{name}": _mean_of(values[measure]) for measure in LEVEL_MEASURES for name, values in by_decision.items()}
        found["score_std"] = _mean_of(score_std(answers.scores))
    return {**found, "unparsed": _mean_of(answers.unparsed), "unscored": _mean_of(100.0 * np.isnan(answers.score))}


def common_images(first: Answers, second: Answers, dataset: str) -> tuple[Answers, Answers]:
    """Both systems' answers for the images that both have.

    Raises:
        IncompatibleChoice: an image's q differs between the two; the message names it.
    """
    _, rows, other_rows = np.intersect1d(np.array(first.images, dtype=str), np.array(second.images, dtype=str), return_indices=True)
    first, second = first.select(rows), second.select(other_rows)
    differs = np.flatnonzero(first.q != second.q)
    if differs.size:
        row = differs[0]
        raise IncompatibleChoice(
            f"Image {first.images[row]} of {dataset} has quality {first.q[row]:g} in one table and {second.q[row]:g} in the other: "
            f"the two systems were measured against different labels. Answer again with the same data options."
        )
    return first, second


def _figures(dataset: str, answers: Answers, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    found = statistics(answers)
    draws = draws_of_each(found, dataset, answers.images, resamples, seed)
    return {name: estimate(statistic(None), draws[name]).as_dict() for name, statistic in found.items()}


def _differences(dataset: str, first: Answers, second: Answers, *, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    ours, theirs = statistics(first), statistics(second)
    shared = [name for name in COMPARED if name in ours and name in theirs]
    gaps = {name: _gap(ours[name], theirs[name]) for name in shared}
    draws = draws_of_each(gaps, dataset, first.images, resamples, seed)
    return {name: difference(gap(None), draws[name]).as_dict() for name, gap in gaps.items()}


def _gap(ours: Statistic, theirs: Statistic) -> Statistic:
    """What one system has more of than another, on the same images."""
    return lambda counts: ours(counts) - theirs(counts)


def _of_scored(function: Callable[..., Floats], score: Floats, q: Floats) -> Statistic:
    """A figure over the images that have a score."""
    known = ~np.isnan(score)
    if known.any() and np.ptp(score[known]) <= SAME_SCORE:
        score = np.where(known, score[known][0], np.nan)
    return lambda counts: function(score[known], q[known], None if counts is None else _columns(counts, known))


def _within(subset: NDArray[np.str_], found_in: Callable[[NDArray[np.bool_]], Statistic]) -> Statistic:
    """Mean of a figure over subsets, weighted by their numbers of images (not by those of a resample)."""
    members = [subset == name for name in np.unique(subset)]
    statistics = [(rows, rows.mean(), found_in(rows)) for rows in members]
    return lambda counts: np.asarray(
        sum(share * statistic(None if counts is None else _columns(counts, rows)) for rows, share, statistic in statistics)
    )


def _mean_of(values: Floats) -> Statistic:
    """The mean of a figure that each image has by itself, over the images that have it."""
    known = ~np.isnan(values)
    return partial(_weighted_mean, values[known], known)


def _columns(counts: Floats, images: NDArray[np.bool_]) -> Floats:
    """The counts of some images. A copy by resamples and not by images, as NumPy would make it: sums over images are several times as fast."""
    return counts if images.all() else np.ascontiguousarray(counts[:, images])


def _weighted_mean(values: Floats, known: NDArray[np.bool_], counts: Floats | None) -> Floats:
    weight = np.ones(len(values)) if counts is None else _columns(counts, known)
    number = weight.sum(axis=-1)
    return np.divide((weight * values).sum(axis=-1), number, out=np.full(np.shape(number), np.nan), where=number > 0)


def _as_arrays(part: pd.DataFrame, dataset: str) -> Answers:
    """One data set's rows, sorted by image and query, as arrays."""
    width = _checked_width(part, dataset)
    images = tuple(str(image) for image in part["image"].to_numpy()[::width])
    q = part["q"].to_numpy(dtype=np.float64).reshape(-1, width)
    _refuse_first(~((q >= 0) & (q <= 1) & (q == q[:, :1])).all(axis=1), images, dataset, "needs one quality q in 0..1, the same in all its rows")
    levels, likeliest = _level_indices(part, dataset).reshape(-1, width), _likeliest(part).reshape(-1, width)
    _check_distributions(part, dataset)
    scores = part["score"].to_numpy(dtype=np.float64).reshape(-1, width)
    return Answers(
        images=images,
        q=q[:, 0],
        score=scores[:, 0],
        scores=scores[:, 1:],
        sampled=levels[:, 1:],
        argmax=likeliest[:, 1:],
        unparsed=100.0 * (levels == UNPARSED).mean(axis=1),
        subset=np.array(["" if pd.isna(name) else str(name) for name in part["subset"].to_numpy()[::width]]),
    )


def _checked_width(part: pd.DataFrame, dataset: str) -> int:
    """N + 1, after a check that each image has the queries 0..N once each."""
    queries = part["query"].to_numpy(dtype=np.int64)
    wanted = list(range(min(max(int(queries.max()), 0), len(part)) + 1))  # a damaged one may say anything
    found = {str(image): list(rows["query"]) for image, rows in part.groupby("image", sort=True)}
    wrong = np.array([queries != wanted for queries in found.values()])
    _refuse_first(wrong, tuple(found), dataset, f"needs the queries 0..{wanted[-1]}, one row each; a row is missing or there twice")
    return len(wanted)


def _check_distributions(part: pd.DataFrame, dataset: str) -> None:
    """A level distribution is there whole or not at all, and sums to 1; a score lies in 0..1, or there is neither score nor level."""
    images = tuple(str(image) for image in part["image"])
    p, score = part[list(PROBABILITIES)].to_numpy(dtype=np.float64), part["score"].to_numpy(dtype=np.float64)
    missing = np.isnan(p)
    sound = ((p >= 0) & (p <= 1)).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= NEAR_ONE)
    _refuse_first(~sound & ~missing.all(axis=1), images, dataset, "has a level distribution that does not sum to 1")
    _refuse_first(~np.isnan(score) & ~((score >= 0) & (score <= 1)), images, dataset, "has a score outside 0..1")
    lost = np.isnan(score) & ~(missing.all(axis=1) & part["level"].isna().to_numpy())
    _refuse_first(lost, images, dataset, "has a level and no score, as of a model whose numbers are no numbers")


def _level_indices(part: pd.DataFrame, dataset: str) -> NDArray[np.int64]:
    known = {level: index for index, level in enumerate(LEVELS)}
    words = [None if pd.isna(word) else str(word) for word in part["level"]]
    images = tuple(str(image) for image in part["image"])
    unknown = np.array([word is not None and word not in known for word in words])
    _refuse_first(unknown, images, dataset, f"has a level that is not one of {', '.join(LEVELS)}")
    return np.array([UNPARSED if word is None else known[word] for word in words], dtype=np.int64)


def _likeliest(part: pd.DataFrame) -> NDArray[np.int64]:
    p = part[list(PROBABILITIES)].to_numpy(dtype=np.float64)
    missing = np.isnan(p)
    return np.where(missing.any(axis=1), UNPARSED, np.where(missing, 0.0, p).argmax(axis=1))


def _refuse_first(wrong: NDArray[np.bool_], images: tuple[str, ...], dataset: str, text: str) -> None:
    positions = np.flatnonzero(wrong)
    if positions.size:
        raise BadRecord(
            f"Answers of {dataset}: image {images[positions[0]]} {text} ({positions.size} in all are wrong). "
            f"Is the table cut off, or joined from two runs? Answer these images again."
        )


def _inventory(found: dict[str, Answers]) -> str:
    return ", ".join(f"{len(answers.images)} images of {name}" for name, answers in found.items()) or "nothing"
