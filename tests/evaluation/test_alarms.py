"""Figures that would mislead are announced, those of a weak model are not."""

import numpy as np
import pytest

from biqa.evaluation.alarms import alarms, alarms_of_descriptions
from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.evaluate import evaluate
from biqa.language.levels import LEVELS, WEIGHTS

pytest_plugins = ["fabrication"]

CORRELATIONS = ("srcc", "krcc", "plcc", "plcc_logistic4")


def always(table, level="fair", rounding=0.0):
    """The answers of a model that says the same of every image, up to the rounding of its sums."""
    p = np.full((len(table), 5), 0.1) + 0.5 * np.eye(5)[LEVELS.index(level)]
    p += rounding * np.random.default_rng(0).uniform(-1, 1, (len(table), 1)) * (np.eye(5)[0] - np.eye(5)[4])
    return table.assign(level=level, score=p @ WEIGHTS, **{name: p[:, place] for place, name in enumerate(PROBABILITIES)})


@pytest.mark.parametrize("rounding", [0.0, 1e-7], ids=["exactly", "up to rounding"])
def test_a_collapsed_model_has_no_correlation_and_is_announced(answers, rounding):
    table = always(answers(), rounding=rounding)
    figures = evaluate(table, resamples=50)["synthetic"]
    assert all(np.isnan([*figures[name].values()]).all() for name in (*CORRELATIONS, "srcc_mean", "plcc_mean"))
    assert 0 < figures["rmse"]["value"] < 1  # which is known
    first, *others = alarms(table)
    assert first.startswith("COLLAPSED: all 60 images have the score 0.500, whatever they show")
    assert [text.split(":")[0] for text in others] == [
        "every one of the 240 sampled answers is fair, whatever the image", "every one of the 240 argmax answers is fair, whatever the image",
    ]  # fmt: skip


def test_scores_that_differ_are_ranked_however_little(answers):
    """A weak model is not a collapsed one: the smallest spread met in trained and untrained runs is 1e-4."""
    table = always(answers(), rounding=1e-4)
    assert not any(text.startswith("COLLAPSED") for text in alarms(table))
    assert not np.isnan(evaluate(table, resamples=20)["synthetic"]["srcc"]["value"])


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.5])
def test_sound_and_weak_answers_raise_no_alarm(answers, noise):
    assert alarms(answers(noise=noise)) == []
    assert alarms(answers(noise=noise, repeats=0)) == []


def test_answers_that_cannot_be_read_are_announced(answers):
    table = answers()
    for share, announced in ((0.4, False), (0.6, True), (1.0, True)):
        lost = table["image"] < f"image{int(60 * share):03d}.png"
        unread = table.assign(**{column: table[column].mask(lost) for column in ("level", "score", *PROBABILITIES)})
        found = alarms(unread)
        assert any(f"{100 * share:.1f} % of the answers have no level that can be read" in text for text in found) == announced
        assert any(f"{100 * share:.1f} % of the images have no score" in text for text in found) == announced


def test_a_few_images_prove_nothing(answers):
    assert alarms(always(answers(images=2))) == []


def test_one_level_is_no_wonder_where_all_images_have_it(answers):
    table = always(answers().assign(q=0.5))
    assert [text.split(":")[0] for text in alarms(table)] == ["COLLAPSED"]


def test_a_stage_one_that_writes_one_text_is_announced(answers):
    table = answers(images=30)
    assert 'COLLAPSED: stage 1 writes the same of all 30 images ("The image is sharp.")' in alarms_of_descriptions(table)[0]
    told = table.assign(description=[f"{text} {image}" for text, image in zip(table["description"], table["image"], strict=True)])
    assert alarms_of_descriptions(told) == []
    assert alarms_of_descriptions(table[table["image"] < "image002.png"]) == []
