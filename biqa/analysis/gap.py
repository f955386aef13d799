"""Image-text gap (METHOD.md section 5, after arXiv 2601.02441): how much of a one-stage model's accuracy is lost when it sees its own text alone."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.evaluation.bootstrap import bootstrap, draw_counts, paired_difference
from biqa.evaluation.correlation import plcc, srcc
from biqa.language.prompts import INFER, JOINT

TEXTS = {"text": (INFER, "its text in stage 2's question"), "answer": (JOINT, "its answer with the picture taken away")}
"""Two ways to show a model its own text alone, (question, in words): the question of the follow-up paper, "If there is an image described as ...",
which a one-stage model was never taught; and its own question and answer without the image, which it was."""


def gap_summary(dataset: str, rows: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Figures with 95 % intervals over images: for both correlations `<c>_image`, and for each of `TEXTS` `<c>_<text>` and `<c>_gap_<text>`, the
    paired difference of image minus text, with its p.

    Args:
        dataset: its name; with the images' names it draws the resamples.
        rows: `image`, `q`, `score_image`, and `score_<text>` for each of `TEXTS`: an image a row.
        resamples: of the bootstrap; `seed` draws them.
    """
    rows = rows.sort_values("image", kind="stable")
    q = rows["q"].to_numpy(dtype=np.float64)
    counts = draw_counts(dataset, [str(image) for image in rows["image"]], resamples, seed)
    found: dict[str, Any] = {"images": len(rows)}
    for name, correlation in (("srcc", srcc), ("plcc", plcc)):

        def of(column: str, correlation: Any = correlation) -> Any:  # noqa: ANN401 (a statistic)
            score: NDArray[np.float64] = rows[column].to_numpy(dtype=np.float64)
            return lambda drawn: correlation(score, q, drawn)

        found[f"{name}_image"] = bootstrap(of("score_image"), counts).as_dict()
        for text in TEXTS:
            found[f"{name}_{text}"] = bootstrap(of(f"score_{text}"), counts).as_dict()
            found[f"{name}_gap_{text}"] = paired_difference(of("score_image"), of(f"score_{text}"), counts).as_dict()
    return found


def worst_gaps(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """The images whose score from the picture and from the answer alone differ most, largest first; of equals by name."""
    gap = (rows["score_image"] - rows["score_answer"]).abs()
    return rows.assign(gap=gap).sort_values(["gap", "image"], ascending=[False, True], kind="stable").head(number)
