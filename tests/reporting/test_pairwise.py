"""Which of two runs is ahead: of correlations more is better, of instability less, and an interval that holds 0 tells nothing."""

import math
from pathlib import Path

import pytest

from biqa.evaluation.bootstrap import Difference
from biqa.reporting.pairwise import LABELS, LOWER_IS_BETTER, NO_DIFFERENCE, Pair, Tally, in_words, markdown_table, pairs_as_values
from biqa.reporting.result import FoundRun


def pair_of(**differences: tuple[float, float, float]) -> Pair:
    """A pair with these differences: metric=(value, low, high)."""
    return Pair("x", 9, {metric: Difference(*found, p=0.5) for metric, found in differences.items()}, Tally(3, 4, 2), {}, ())


@pytest.mark.parametrize("metric", LABELS)
def test_the_run_ahead_is_the_one_with_more_or_with_less(metric):
    first = -1 if metric in LOWER_IS_BETTER else 1
    assert pair_of(**{metric: (2.0, 1.0, 3.0)}).ahead(metric) == first
    assert pair_of(**{metric: (-2.0, -3.0, -1.0)}).ahead(metric) == -first
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (math.nan, math.nan)):
        assert pair_of(**{metric: (0.5, low, high)}).ahead(metric) == 0


def test_both_may_be_better_in_something():
    both = pair_of(srcc=(0.2, 0.1, 0.3), plcc=(0.0, -0.1, 0.1), instability_argmax=(5.0, 2.0, 8.0))
    assert in_words(both) == f"x, 9 images: A is better in SRCC; B is better in instability %, arg-max; in PLCC {NO_DIFFERENCE}."


def test_programs_are_told_who_is_better():
    pair = pair_of(srcc=(-0.2, -0.3, -0.1), instability_sampled=(-5.0, -8.0, -2.0), plcc=(0.0, -0.1, 0.1))
    run = FoundRun(Path("r"), {"metrics": {"x": {metric: {} for metric in LABELS}}})
    figures = pairs_as_values([pair], run, run)["x"]["figures"]
    assert {metric: figure["difference"]["better"] for metric, figure in figures.items()} == {
        "srcc": "second", "instability_sampled": "first", "plcc": None,
    }  # fmt: skip


def test_a_bar_in_a_cell_ends_no_cell():
    assert markdown_table(("a",), [["x|y"]]).splitlines()[-1] == r"| x\|y |"
