"""What a model says of one picture that has no label: its rows, which are those of the answers table, in one result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biqa.evaluation.stability import level_measures, score_std
from biqa.language.levels import LEVELS


@dataclass(frozen=True)
class Prediction:
    """What a run says of one picture."""

    image: str
    """The picture, as it was named."""
    description: str | None
    """What is seen in it, in words; None of a run without language (stage=probe)."""
    level: str
    """The likeliest of bad, poor, fair, good, excellent after that description."""
    score: float
    """In [0, 1], 1 = best: the mean of the level distribution, unless the run has another scorer."""
    probabilities: dict[str, float] | None
    """Level -> its probability, worst first; they sum to 1. None of a run without language."""
    levels: tuple[str, ...] = ()
    """Level words of the sampled answers; empty where the picture was asked about once."""
    instability: float | None = None
    """Percent of them that are not the commonest one, 0 .. 80; None where the picture was asked about once."""
    score_std: float | None = None
    """Standard deviation of their scores, on the scale of the score; likewise."""


@dataclass(frozen=True)
class Unreadable:
    """A picture that no score can be given."""

    image: str
    """The picture, as it was named."""
    reason: str
    """In words."""


def prediction_of(image: str, rows: Sequence[Mapping[str, Any]], *, described: bool) -> Prediction:
    """The result from the rows of one picture: query 0 is the greedy answer, the others are sampled ones.

    Args:
        image: as it was named.
        rows: 1 + N of them (columns of the answers table); N is 0, or 2 and more.
        described: whether the answers have words.
    """
    greedy, *sampled = rows
    again: dict[str, Any] = {}
    if sampled:
        words = tuple(str(row["level"]) for row in sampled)
        spread = level_measures([[LEVELS.index(word) for word in words]])  # pyright: ignore[reportArgumentType] (the words of rows are levels)
        again = {"levels": words, "instability": float(spread["instability"][0])}
        again["score_std"] = float(score_std([[row["score"] for row in sampled]])[0])
    return Prediction(
        image=image,
        description=str(greedy["description"]) if described else None,
        level=str(greedy["level"]),
        score=float(greedy["score"]),
        probabilities={level: float(greedy[f"p_{level}"]) for level in LEVELS} if described else None,
        **again,
    )
