import json

import numpy as np
import pytest

from biqa.analysis.grounding import dependence, ground
from biqa.errors import IncompatibleChoice
from biqa.evaluation.described import LinearModel

RESAMPLES = 200


def one_run(seed=0, images=120):
    """Texts of sharpness, main defect and, in four of ten, jpeg; scores that follow them; levels of the scores."""
    rng = np.random.default_rng(seed)
    texts = [
        {"sharpness": int(rng.integers(5)), "main_defect": int(rng.integers(3)), **({"jpeg": int(rng.integers(1, 6))} if rng.random() < 0.4 else {})}
        for _ in range(images)
    ]
    clean = [0.4 + 0.08 * text["sharpness"] - 0.05 * text.get("jpeg", 0) + 0.1 * (text["main_defect"] == 1) for text in texts]
    score = np.clip(clean + 0.08 * rng.normal(size=images), 0, 1)
    return texts, score, np.minimum((score * 5).astype(np.int64), 4)


def grounded(texts, score, levels, **options):
    return ground(texts, scores=score, levels=levels, coverage=np.ones(len(texts)), **({"resamples": RESAMPLES} | options))


def test_a_score_that_follows_its_description():
    texts, score, levels = one_run()
    found = grounded(texts, score, levels)
    assert (found.images, found.left_out, found.dropped) == (120, 0, {})
    assert set(found.effects) == set(found.named) == set(found.logit) == {"sharpness", "jpeg", *(set(found.effects) & KINDS)}
    assert found.effects["sharpness"].coefficient.low > 0 > found.effects["jpeg"].coefficient.high
    assert found.logit["sharpness"].coefficient.low > 0 > found.logit["jpeg"].coefficient.high
    assert found.r2 > found.r2_cv.value > 0.5
    assert found.srcc_cv.low > 0.6
    assert found.named["sharpness"] == 1
    assert found.named["jpeg"] == np.mean(["jpeg" in text for text in texts])


KINDS = {f"main_defect={kind}" for kind in ("blur", "noise", "underexposure")}


def test_a_kind_is_named_where_it_is_the_one():
    texts, score, levels = one_run()
    found = grounded(texts, score, levels)
    kinds = KINDS & set(found.named)
    assert len(kinds) == 2  # the commonest is what they are compared with
    for number, kind in enumerate(("blur", "noise", "underexposure")):
        if f"main_defect={kind}" in kinds:
            assert found.named[f"main_defect={kind}"] == np.mean([text["main_defect"] == number for text in texts])


def test_the_summary_has_the_agreed_form():
    texts, score, levels = one_run()
    found = grounded([{**text, "noise": 0} for text in texts], score, levels).as_dict()
    assert list(found) == [
        "images", "left_out", "coverage", "features", "dropped", "r2", "r2_cv", "srcc_cv", "logit", "partial_dependence",
    ]  # fmt: skip
    assert found["coverage"] == {"value": 1, "low": 1, "high": 1}
    assert found["dropped"] == [{"feature": "noise", "why": "never varies"}]
    assert found["features"]["sharpness"].keys() == {"named", "coefficient", "p", "slope"}
    assert found["logit"]["sharpness"].keys() == {"coefficient", "p"}
    for figure in (found["r2_cv"], found["srcc_cv"], found["features"]["jpeg"]["coefficient"], found["logit"]["jpeg"]["coefficient"]):
        assert figure["low"] < figure["value"] < figure["high"]
    assert [point["strength"] for point in found["partial_dependence"]["jpeg"]] == [1, 2, 3, 4, 5]
    assert json.loads(json.dumps(found)) == found


def test_a_seed_gives_the_same_figures_again():
    run = one_run()
    assert grounded(*run).as_dict() == grounded(*run).as_dict()
    assert grounded(*run).r2_cv != grounded(*run, seed=1).r2_cv
    assert grounded(*run).r2_cv != grounded(*run, folds=5).r2_cv


def test_images_without_a_score_or_a_meaning_are_left_out_and_counted():
    """The regressions are those of the others alone; the coverage is that of all."""
    texts, score, levels = one_run()
    more_score, more_levels = np.append(score, [0.5, np.nan]), np.append(levels, [2, -1])
    coverage = np.append(np.ones(120), [0.0, 0.5])
    found = ground([*texts, None, {"sharpness": 4}], scores=more_score, levels=more_levels, coverage=coverage, resamples=RESAMPLES)
    assert (found.images, found.left_out) == (120, 2)
    assert found.coverage.value == pytest.approx(120.5 / 122)
    assert {**found.as_dict(), "left_out": 0, "coverage": None} == {**grounded(texts, score, levels).as_dict(), "coverage": None}


def test_too_few_images_are_refused_with_the_number():
    texts, score, levels = one_run(images=40)
    columns = len(grounded(texts, score, levels).effects)
    assert columns == 4
    with pytest.raises(IncompatibleChoice, match=r"at least 28 images .* \(4 described features vary\), found 27 of 28"):
        grounded([*texts[:27], None], score[:28], levels[:28])
    assert grounded(texts[:28], score[:28], levels[:28], folds=4).images == 28


def test_descriptions_that_never_vary_explain_nothing():
    _, score, levels = one_run()
    found = grounded([{"sharpness": 2}] * 120, score, levels)
    assert found.dropped == {"sharpness": "never varies"}
    assert (found.effects, found.r2, found.dependence) == ({}, 0, {})
    assert found.r2_cv.value == 0
    assert found.logit == "no described feature varies"
    assert found.as_dict()["logit"] == {"why_not": "no described feature varies"}


def test_one_score_for_all_leaves_what_is_explained_undefined():
    texts, _, _ = one_run()
    found = grounded(texts, np.full(120, 0.5), np.full(120, 2))
    assert np.isnan([found.r2, found.r2_cv.value, found.srcc_cv.value, found.effects["jpeg"].p]).all()
    assert found.logit == "1 of the five levels are given, at least 2 are needed"


def test_levels_that_follow_from_the_text_whole_have_no_logit():
    texts, score, _ = one_run()
    found = grounded(texts, score, np.array([text["sharpness"] for text in texts]))
    assert "separate levels" in found.as_dict()["logit"]["why_not"]
    assert found.effects["sharpness"].p < 0.001


# What a strength goes with


def test_points_are_the_mean_scores_of_the_images_that_name_a_strength():
    texts, score, _ = one_run(images=600)
    found = dependence(texts, score, resamples=RESAMPLES, seed=0)
    assert list(found) == ["sharpness", "main_defect", "jpeg"]
    for feature, points in found.items():
        assert sum(point.images for point in points) == sum(feature in text for text in texts)
        for point in points:
            of = score[[text.get(feature) == point.strength for text in texts]]
            assert point.images == len(of)
            assert point.score.value == pytest.approx(of.mean())
            half = 1.96 * of.std() / np.sqrt(len(of))
            assert (point.score.low, point.score.high) == pytest.approx((of.mean() - half, of.mean() + half), abs=half / 3)


def test_partial_dependence_is_the_mean_prediction_with_the_feature_set():
    texts, score, _ = one_run()
    model = LinearModel.fit(texts, score)
    for feature, points in dependence(texts, score, resamples=10, seed=0).items():
        for point in points:
            expected = model.predict([{**text, feature: point.strength} for text in texts]).mean()
            assert point.predicted == pytest.approx(expected)


def test_of_one_image_there_is_no_interval():
    texts, score, _ = one_run()
    texts[0] = {**texts[0], "jpeg": 3}
    texts = [{**text, "jpeg": 2} if text.get("jpeg") == 3 and position else text for position, text in enumerate(texts)]
    (point,) = [point for point in dependence(texts, score, resamples=50, seed=0)["jpeg"] if point.strength == 3]
    assert (point.images, point.score.value) == (1, score[0])
    assert np.isnan([point.score.low, point.score.high]).all()


def test_a_kind_that_is_too_rare_for_the_regression_has_no_prediction():
    texts, score, _ = one_run()
    texts[:2] = [{**text, "main_defect": 4} for text in texts[:2]]
    by_kind = {point.strength: point for point in dependence(texts, score, resamples=50, seed=0)["main_defect"]}
    assert by_kind[4].images == 2
    assert np.isnan(by_kind[4].predicted)
    assert np.isfinite([by_kind[kind].predicted for kind in (0, 1, 2)]).all()
