import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from biqa.errors import IncompatibleChoice
from biqa.evaluation.stability import level_measures, score_std, stability

LEVELS = np.array(
    [
        [2, 2, 2, 2],  # never changes its mind
        [0, 0, 1, 1],  # two against two
        [4, 4, 4, 3],  # one of four
        [0, 1, 2, 3],  # all different
    ]
)


def test_closed_form():
    found = level_measures(LEVELS)
    assert found["instability"] == pytest.approx([0, 50, 25, 75])
    assert found["flip_rate"] == pytest.approx([0, 100, 100, 100])
    assert found["pairwise_disagreement"] == pytest.approx([0, 100 * 4 / 6, 100 * 3 / 6, 100])
    assert found["level_entropy"] == pytest.approx([0, 1, 2 - 0.75 * np.log2(3), 2])


def test_means_over_images():
    found = stability(LEVELS, np.tile([0.2, 0.4, 0.4, 0.6], (4, 1)))
    assert found["instability"] == pytest.approx(37.5)
    assert found["flip_rate"] == pytest.approx(75)
    assert found["pairwise_disagreement"] == pytest.approx((200 / 3 + 50 + 100) / 4)
    assert found["score_std"] == pytest.approx(np.std([0.2, 0.4, 0.4, 0.6], ddof=1))
    assert found["unparsed"] == 0


def test_an_unparsed_answer_is_a_level_of_its_own():
    found = level_measures([[-1, -1, -1, 3], [-1, 2, 2, 2], [-1, -1, -1, -1]])
    assert found["instability"] == pytest.approx([25, 25, np.nan], nan_ok=True)
    assert stability([[-1, -1, 3, 3]], [[np.nan, np.nan, 0.75, 0.5]])["unparsed"] == 50


def test_score_std_leaves_out_what_has_no_score():
    assert score_std([[0.1, np.nan, 0.3], [np.nan, np.nan, 0.3]]) == pytest.approx([np.std([0.1, 0.3], ddof=1), np.nan], nan_ok=True)
    assert np.isnan(stability([[1, 1]], [[np.nan, np.nan]])["score_std"])


@pytest.mark.parametrize("measure", [level_measures, score_std])
def test_one_query_is_refused(measure):
    with pytest.raises(IncompatibleChoice, match=r"at least 2 sampled queries an image, found 1.*sampling\.repeats=2 or more"):
        measure([[1], [2]])


answers = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8), elements=st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(answers, st.randoms(use_true_random=False))
def test_the_order_of_queries_and_images_does_not_matter(levels, random):
    rows, columns = list(range(levels.shape[0])), list(range(levels.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    found, shuffled = level_measures(levels), level_measures(levels[rows][:, columns])
    for name, values in found.items():
        assert shuffled[name] == pytest.approx(values[rows])


@settings(max_examples=60, deadline=None)
@given(answers)
def test_ranges(levels):
    found = level_measures(levels)
    assert ((found["instability"] >= 0) & (found["instability"] <= 80)).all()
    assert (found["instability"] <= found["flip_rate"]).all()
    assert (found["instability"] <= found["pairwise_disagreement"] + 1e-9).all()
    assert ((found["level_entropy"] >= 0) & (found["level_entropy"] <= np.log2(5) + 1e-9)).all()
    assert ((found["flip_rate"] == 0) == (found["level_entropy"] == 0)).all()


@settings(max_examples=40, deadline=None)
@given(answers, st.permutations(range(5)))
def test_the_names_of_the_levels_do_not_matter(levels, names):
    found, renamed = level_measures(levels), level_measures(np.array(names)[levels])
    for name, values in found.items():
        assert renamed[name] == pytest.approx(values)
