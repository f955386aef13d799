import numpy as np
import pytest

from biqa.evaluation.described import Design, LinearModel, starts_at_none
from biqa.language.features import AMOUNTS, FEATURES


def naming(feature, *strengths):
    """A text a strength; None does not name the feature."""
    return [{} if strength is None else {feature: strength} for strength in strengths]


def beside(*texts):
    """Texts that say what each of these says."""
    return [{name: strength for text in together for name, strength in text.items()} for together in zip(*texts, strict=True)]


def test_a_strength_is_its_number():
    design = Design.fit(naming("sharpness", *[0, 1, 2, 3, 4] * 2))
    assert design.columns == ("sharpness",)
    assert design.values[:, 0].tolist() == [0, 1, 2, 3, 4] * 2
    assert not design.dropped


@pytest.mark.parametrize("feature", ["noise", "blockiness", "visible_blur", "jpeg", "white_noise"])
def test_an_amount_that_is_not_named_is_none(feature):
    design = Design.fit(naming(feature, *[None] * 5, 1, 2, 3, 4, 4))
    assert design.values[:, 0].tolist() == [0] * 5 + [1, 2, 3, 4, 4]


@pytest.mark.parametrize("feature", ["brightness", "contrast", "colourfulness", "sharpness", "mean_shift", "contrast_change"])
def test_a_scale_without_a_zero_takes_the_mean_where_it_is_not_named(feature):
    design = Design.fit(naming(feature, None, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4))
    assert design.values[:, 0].tolist() == [2.5] + [1] * 5 + [4] * 5


def test_such_silence_has_no_say():
    """The slope is that of the texts that name the feature, and the mean prediction of the silent ones is theirs."""
    rng = np.random.default_rng(0)
    strengths = rng.integers(5, size=40)
    figures = rng.random(60)
    model = LinearModel.fit(naming("brightness", *strengths.tolist(), *[None] * 20), figures)
    assert model.slopes[0] == pytest.approx(np.polyfit(strengths, figures[:40], 1)[0])
    assert model.predict([{}])[0] == pytest.approx(figures.mean())


def test_every_amount_and_distortion_but_two_starts_at_none():
    without = {name for name, spec in FEATURES.items() if not starts_at_none(spec)}
    assert without == {"brightness", "contrast", "colourfulness", "sharpness", "main_defect", "mean_shift", "contrast_change"}
    assert all(starts_at_none(spec) for spec in FEATURES.values() if spec.strengths == AMOUNTS)


def test_kinds_are_compared_with_the_commonest():
    """Blur (0) nine times, noise (1) six times, underexposure (2) five times; two texts say nothing of it."""
    design = Design.fit(naming("main_defect", *[0] * 9, *[1] * 6, *[2] * 5, None, None))
    assert design.columns == ("main_defect=noise", "main_defect=underexposure")
    assert np.unique(design.values[:9], axis=0).tolist() == [[0, 0]]
    assert np.unique(design.values[9:15], axis=0).tolist() == [[1, 0]]
    assert np.unique(design.values[15:20], axis=0).tolist() == [[0, 1]]
    assert design.values[20:].tolist() == [[6 / 20, 5 / 20]] * 2


def test_of_equally_common_kinds_the_first_is_left_out():
    assert Design.fit(naming("main_defect", *[3] * 5, *[1] * 5)).columns == ("main_defect=overexposure",)


def test_columns_come_in_the_order_of_the_registry():
    rng = np.random.default_rng(1)
    columns = ["jpeg", "noise", "brightness", "main_defect"]
    texts = [{name: int(rng.integers(1, 3)) for name in columns} for _ in range(50)]
    assert [name.partition("=")[0] for name in Design.fit(texts).columns] == ["brightness", "noise", "main_defect", "jpeg"]


@pytest.mark.parametrize(
    ("texts", "dropped"),
    [
        (naming("sharpness", *[2] * 20), {"sharpness": "never varies"}),
        (naming("noise", *[0] * 20), {"noise": "never varies"}),
        (naming("sharpness", *[2] * 10, *[None] * 10), {"sharpness": "never varies"}),
        (naming("main_defect", *[1] * 10, *[None] * 10), {"main_defect": "never varies: one kind alone is named"}),
        (naming("jpeg", *[None] * 16, 1, 2, 3, 4), {"jpeg": "too rare: it sets 4 of 20 texts apart, at least 5 are needed"}),
        (naming("sharpness", *[1] * 8, 2, 2, *[None] * 10), {"sharpness": "too rare: it sets 2 of 10 texts apart, at least 5 are needed"}),
    ],
)
def test_what_hardly_varies_is_dropped_and_listed(texts, dropped):
    design = Design.fit(texts)
    assert design.columns == ()
    assert design.values.shape == (20, 0)
    assert design.dropped == dropped


def test_a_scale_that_every_text_names_may_start_anywhere():
    """All texts name this distortion, at one level: it says nothing, however high that level is."""
    assert Design.fit(naming("jpeg", *[4] * 20)).dropped == {"jpeg": "never varies"}


def test_what_follows_from_earlier_columns_is_dropped_and_listed():
    """Contrast is brightness turned round; noise is the sum of jpeg and white noise: one of the three goes, the last in the registry."""
    rng = np.random.default_rng(2)
    bright, jpeg, white = rng.integers(5, size=60), rng.integers(0, 3, size=60), rng.integers(0, 3, size=60)
    texts = [
        {"brightness": int(b), "contrast": 4 - int(b), "noise": int(j + w), "jpeg": int(j), "white_noise": int(w)}
        for b, j, w in zip(bright, jpeg, white, strict=True)
    ]
    design = Design.fit(texts)
    assert design.columns == ("brightness", "noise", "jpeg")
    assert design.dropped == dict.fromkeys(("contrast", "white_noise"), "follows from the columns before it")
    assert np.linalg.matrix_rank(np.column_stack([np.ones(60), design.values])) == 4


def test_a_column_that_one_text_would_decide_is_dropped_and_listed():
    """Two distortions that go together but in one text: without it they are one column."""
    strengths = [1, 2, 3, 4, 5] * 4
    texts = beside(naming("jpeg", *strengths), naming("white_noise", *strengths[:-1], 1))
    assert Design.fit(texts).dropped == {"white_noise": "would rest on one text alone"}
    texts = beside(naming("jpeg", *strengths), naming("white_noise", *strengths[:-2], 1, 1))
    assert Design.fit(texts).columns == ("jpeg", "white_noise")


def test_other_texts_are_coded_alike():
    """The mean of those that name a scale is that of the first texts; what has no column has no say."""
    first = beside(naming("brightness", *[1] * 5, *[2] * 5, *[None] * 5), naming("noise", *[0] * 9, *[3] * 6))
    design = Design.fit(first)
    assert design.code(first).tolist() == design.values.tolist()
    assert design.code([{}, {"brightness": 4}, {"noise": 2, "jpeg": 5}]).tolist() == [[1.5, 0], [4, 0], [1.5, 2]]


def test_no_texts_and_texts_that_name_nothing_have_no_columns():
    assert Design.fit([]).values.shape == (0, 0)
    assert Design.fit([{}, {}]).values.shape == (2, 0)


def test_a_feature_beyond_the_registry_is_refused():
    with pytest.raises(ValueError, match="smell"):
        Design.fit([{"smell": 1}])


def test_least_squares_is_that_of_numpy():
    rng = np.random.default_rng(3)
    texts = [{name: int(rng.integers(5)) for name in ("brightness", "sharpness", "noise")} for _ in range(50)]
    figures = rng.random(50)
    model = LinearModel.fit(texts, figures)
    expected = np.linalg.lstsq(np.column_stack([np.ones(50), model.design.values]), figures)[0]
    assert [model.constant, *model.slopes] == pytest.approx(expected)
    assert model.predict(texts[:3]) == pytest.approx(expected[0] + model.design.values[:3] @ expected[1:])


def test_without_a_column_the_mean_is_predicted():
    model = LinearModel.fit([{}] * 4, [0.0, 1.0, 1.0, 0.0])
    assert model.predict([{}, {"jpeg": 5}]).tolist() == [0.5, 0.5]
