import numpy as np
import pandas as pd
import pytest

from biqa.errors import IncompatibleChoice
from biqa.evaluation.contradiction import ImpliedLevel, contradictions, summary, worst
from biqa.language.levels import LEVELS

RESAMPLES = 300


def sharpness(*strengths):
    return [{"sharpness": strength} for strength in strengths]


@pytest.fixture
def as_sharp():
    """People judged the training images by sharpness alone: its strength is the level."""
    return ImpliedLevel.fit(sharpness(*[0, 1, 2, 3, 4] * 4), [0, 1, 2, 3, 4] * 4)


def table(*answers):
    """An answers table from (image, query, level word or None)."""
    rows = [{"dataset": "koniq", "image": image, "query": query, "description": "", "level": level} for image, query, level in answers]
    return pd.DataFrame(rows)


def value_of(figure):
    return figure["value"]


def test_the_level_of_people_is_learnt(as_sharp):
    assert as_sharp.implied(sharpness(0, 1, 2, 3, 4)).tolist() == [0, 1, 2, 3, 4]
    assert as_sharp.images == 20


def test_the_nearest_level_halves_upward_and_no_further_than_the_ends():
    """Level 4 - 1.5 x noise, exactly: 4, 2.5, 1, -0.5, -2 for its strengths 0..4 (the training images show 0, 1, 2, of which 1 has 2 and 3)."""
    texts = [{"noise": strength} for strength in (0, 1, 1, 2) * 5]
    implied = ImpliedLevel.fit(texts, [4, 2, 3, 1] * 5).implied([{"noise": strength} for strength in range(5)])
    assert implied.tolist() == [4, 3, 1, 0, 0]


def test_nothing_to_see_implies_a_level_and_a_text_that_was_not_understood_does_not():
    """Not naming noise is having none of it."""
    implied = ImpliedLevel.fit([{"noise": strength} for strength in (1, 2, 3, 4) * 5], [3, 2, 1, 0] * 5)
    assert implied.implied([{}, None, {"noise": 4}]).tolist() == [4, -1, 0]


def test_a_rare_level_is_implied_by_its_description():
    """One of 40 training images is bad and one excellent: enough for a line."""
    texts = sharpness(*[2] * 32, *[1] * 3, *[3] * 3, 0, 4)
    implied = ImpliedLevel.fit(texts, [2] * 32 + [1] * 3 + [3] * 3 + [0, 4])
    assert implied.implied(sharpness(0, 4)).tolist() == [0, 4]


def test_too_few_training_images_are_refused_with_the_number():
    texts = sharpness(*[1] * 5, *[3] * 5)
    with pytest.raises(IncompatibleChoice, match="cannot be learnt from 10 training images: 1 described features need at least 11"):
        ImpliedLevel.fit(texts, [1, 3] * 5)
    assert ImpliedLevel.fit([*texts, {"sharpness": 2}], [1] * 5 + [3] * 5 + [2]).images == 11
    with pytest.raises(IncompatibleChoice, match="cannot be learnt from 0 training images"):
        ImpliedLevel.fit([], [])


@pytest.mark.parametrize(("texts", "reason"), [(sharpness(*[2] * 20), "sharpness: never varies"), ([{}] * 20, "they name none")])
def test_descriptions_that_do_not_vary_imply_nothing(texts, reason):
    with pytest.raises(IncompatibleChoice, match=rf"20 training images have no feature that varies \({reason}\)"):
        ImpliedLevel.fit(texts, [0, 1, 2, 3, 4] * 4)


def test_each_answer_beside_what_it_implies():
    answers = table(("a", 0, "good"), ("b", 0, "bad"), ("c", 0, None), ("d", 0, "fair"))
    found = contradictions(answers, [1, 2, 3, -1])
    assert list(found.columns) == ["dataset", "image", "query", "description", "level", "implied", "difference"]
    assert found["implied"].tolist()[:3] == ["poor", "fair", "good"]
    assert found["implied"].isna().tolist() == [False, False, False, True]
    assert found["difference"].tolist()[:2] == [2, -2]
    assert found["difference"].isna().tolist() == [False, False, True, True]


def test_counts_of_planted_answers(as_sharp):
    """Ten images described as sharp as their level, but for three that are answered two or more steps better, and one worse; one is a step off."""
    described = [0, 1, 2, 0, 1, 2, 3, 4, 3, 2]
    given = [2, 4, 4, 0, 1, 2, 3, 4, 1, 3]
    answers = table(*((f"{image}.png", 0, LEVELS[level]) for image, level in enumerate(given)))
    found = summary(contradictions(answers, as_sharp.implied(sharpness(*described))), resamples=RESAMPLES, seed=0)
    assert (found["images"], found["left_out"], found["left_out_sampled"], found["sampled"]) == (10, 0, 0, None)
    assert [value_of(found[name]) for name in ("greedy", "better", "worse")] == [0.4, 0.3, 0.1]
    assert found["implied"] == {"bad": 2, "poor": 2, "fair": 3, "good": 2, "excellent": 1}
    assert found["given"] == {"bad": 1, "poor": 2, "fair": 2, "good": 2, "excellent": 3}


def test_sampled_answers_count_by_image():
    """Of image a two of three sampled answers contradict themselves, of b none of two that count: (2/3 + 0) / 2. Query 0 has no part in it."""
    answers = table(
        ("a", 0, "excellent"), ("a", 1, "bad"), ("a", 2, "fair"), ("a", 3, "excellent"),
        ("b", 0, "bad"), ("b", 1, "poor"), ("b", 2, None), ("b", 3, "bad"),
    )  # fmt: skip
    found = summary(contradictions(answers, [4, 4, 4, 4, 0, 0, 0, 0]), resamples=RESAMPLES, seed=0)
    assert value_of(found["greedy"]) == 0
    assert value_of(found["sampled"]) == pytest.approx(1 / 3)
    assert found["left_out_sampled"] == 1


def test_answers_without_a_level_or_a_meaning_are_left_out_and_counted():
    """Of four images two count, one of which contradicts itself. The sampled answers of c are not understood: a and b make the mean."""
    answers = table(*((image, query, level) for image in "abcd" for query, level in ((0, "good" if image != "d" else None), (1, "good"))))
    implied = [0, 0, 3, 3, -1, -1, 3, 3]
    found = summary(contradictions(answers, implied), resamples=RESAMPLES, seed=0)
    assert (found["images"], found["left_out"], found["left_out_sampled"]) == (4, 2, 1)
    assert value_of(found["greedy"]) == 1 / 2
    assert value_of(found["sampled"]) == pytest.approx(1 / 3)
    assert sum(found["given"].values()) == sum(found["implied"].values()) == 2


def test_intervals_are_those_of_a_share():
    rng = np.random.default_rng(0)
    given = np.where(rng.random(400) < 0.2, 4, 2)
    answers = table(*((f"{image:03d}", 0, LEVELS[level]) for image, level in enumerate(given)))
    found = summary(contradictions(answers, [2] * 400), resamples=2000, seed=0)["greedy"]
    share = (given == 4).mean()
    half = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((share, share - half, share + half), abs=0.005)


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(1)
    answers = table(*((f"{image}", query, LEVELS[rng.integers(5)]) for image in range(30) for query in range(4)))
    found = contradictions(answers, rng.integers(-1, 5, size=120))
    options = {"resamples": RESAMPLES, "seed": 0}
    assert summary(found.sample(frac=1, random_state=0), **options) == summary(found, **options)


def test_the_worst_are_the_greedy_answers_that_are_furthest_off():
    answers = table(
        ("d", 0, "excellent"), ("c", 0, "bad"), ("b", 0, "good"), ("a", 0, "excellent"), ("a", 1, "bad"), ("e", 0, None), ("f", 0, "fair"),
    )  # fmt: skip
    found = contradictions(answers, [0, 4, 0, 1, 4, 4, 2])
    assert worst(found)["image"].tolist() == ["c", "d", "a", "b", "f"]
    assert worst(found, 3)["difference"].tolist() == [-4, 4, 3]
