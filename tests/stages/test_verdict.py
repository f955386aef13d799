"""The level at the end of an answer: where it is scored, what is learnt there, how it is drawn, and its rows."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from biqa.data.collate import IGNORED
from biqa.evaluation.answers import COLUMNS, PROBABILITIES, answers_frame
from biqa.language.levels import LEVELS, WEIGHTS
from biqa.stages.verdict import mean_score

STAGES = ["inference", "joint"]


def with_quality(item, q, q_std=None):
    return dataclasses.replace(item, record=dataclasses.replace(item.record, q=q, q_std=q_std))


# what is learnt


@pytest.mark.parametrize("name", STAGES)
def test_only_the_answer_is_learnt_and_its_level_apart(stage, items, batch_of, name):
    batch = batch_of(stage(name), items(3))
    for row, example in enumerate(batch.examples):
        start = len(example.prompt) - 1
        labels = batch.labels[row].tolist()
        answer = list(example.answer)
        answer[example.level_at] = IGNORED
        assert labels == [IGNORED] * start + answer + [IGNORED] * (len(labels) - start - len(answer))
        assert int(batch.level_position[row]) == start + example.level_at


@pytest.mark.parametrize("name", STAGES)
def test_the_level_position_is_the_one_that_predicts_the_level_word(stage, items, batch_of, name):
    module = stage(name)
    batch = batch_of(module, items(3))
    rows = torch.arange(3)
    following = batch.input_ids[rows, batch.level_position + 1]
    assert [module.vlm.text([token]) for token in following.tolist()] == ["excellent", "poor", "fair"]
    logits = module.loss(batch)[1]
    columns = torch.arange(batch.input_ids.shape[1])[None]
    # a causal decoder: nothing after the position reaches it, the token at the position does
    for changed, reaches in ((columns > batch.level_position[:, None], False), (columns == batch.level_position[:, None], True)):
        other = dataclasses.replace(batch, input_ids=torch.where(changed, module.vlm.continuation(" sharp")[0], batch.input_ids))
        assert torch.allclose(module.loss(other)[1], logits, atol=1e-6) == (not reaches)


def test_hard_targets_are_the_level_and_soft_ones_have_the_quality_as_mean(stage, items):
    item = items(1)[0]
    hard, soft = stage("inference", target="hard"), stage("inference", target="soft")
    for q, level in ((0.0, 0), (0.19, 0), (0.2, 1), (0.5, 2), (0.79, 3), (0.8, 4), (1.0, 4)):
        assert list(hard.encode(with_quality(item, q)).level_target) == [float(k == level) for k in range(5)]
        for q_std in (None, 0.1, 0.3):
            target = np.array(soft.encode(with_quality(item, q, q_std)).level_target)
            assert target.min() >= 0.0
            assert target.sum() == pytest.approx(1.0)
            assert target @ [0.0, 0.25, 0.5, 0.75, 1.0] == pytest.approx(q, abs=1e-9)


def test_the_deviation_of_the_opinions_spreads_the_soft_target(stage, items):
    module, item = stage("inference", target="soft"), items(1)[0]
    largest = [max(module.encode(with_quality(item, 0.5, q_std)).level_target) for q_std in (None, 0.1, 0.2, 0.4)]
    assert largest[0] == 1.0  # q lies on the centre of a level
    assert all(wider < narrower for narrower, wider in pairwise(largest))


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_the_level_word_of_the_answer_is_that_of_the_quality(stage, items, target):
    module = stage("inference", target=target)
    item = items(1)[0]
    words = [
        module.vlm.text([example.answer[example.level_at]]) for q in (0.1, 0.3, 0.5, 0.7, 0.9) if (example := module.encode(with_quality(item, q)))
    ]
    assert words == list(LEVELS)


@pytest.mark.parametrize("name", STAGES)
def test_the_level_loss_teaches_the_level(stage, items, batch_of, name):
    """The gradient of the level loss alone moves the level distribution towards its target."""
    module = stage(name, level_weight=1000.0)
    batch = batch_of(module, items(3))
    optimizer = module.configure_optimizers()["optimizer"]
    distances = []
    for _ in range(3):
        loss, logits = module.loss(batch)
        distances.append((logits.softmax(-1) - batch.level_target).abs().sum().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(after < before for before, after in pairwise(distances))


# rows


@pytest.mark.parametrize("name", STAGES)
def test_rows_make_an_answers_table(stage, items, name):
    asked = items(2, descriptions=4)
    frame = answers_frame({"dataset": "made", **row} for row in stage(name).predict_step(asked))
    assert list(frame.columns) == list(COLUMNS)
    assert frame.drop(columns="subset").notna().all().all()
    assert set(frame["level"]) <= set(LEVELS)
    probabilities = frame[list(PROBABILITIES)].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame["score"], probabilities @ [0.0, 0.25, 0.5, 0.75, 1.0], rtol=0, atol=1e-12)
    assert frame.groupby("image")["q"].unique().map(list).to_dict() == {item.record.image: [item.record.q] for item in asked}
    greedy = frame[frame["query"] == 0]
    assert list(greedy["level"]) == [LEVELS[k] for k in greedy[list(PROBABILITIES)].to_numpy().argmax(1)]


def test_probabilities_are_rescaled_to_one(stage, items):
    module = stage("inference", repeats=0)
    (row,) = module.rows(items(1), [["Sharp."]], torch.tensor([[[0.1, 0.2, 0.3, 0.2, 0.1]]]))
    assert [row[name] for name in PROBABILITIES] == pytest.approx([1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9], abs=1e-7)
    assert (row["score"], row["level"]) == (pytest.approx(0.5), "fair")


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [0.1, 0.4, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.01 / 0.285, 0.16 / 0.285, 0.09 / 0.285, 0.0225 / 0.285, 0.0025 / 0.285]),
        ({"top_p": 0.6}, [0.0, 4 / 7, 3 / 7, 0.0, 0.0]),
    ],
    ids=["plain", "temperature", "top_p"],
)
def test_sampled_levels_follow_the_distribution_and_the_greedy_one_is_its_largest(stage, items, options, shares):
    module = stage("inference", repeats=4000, **options)
    probabilities = torch.tensor([0.1, 0.4, 0.3, 0.15, 0.05], dtype=torch.float64).expand(1, 4001, 5)
    levels = module.levels(items(1), probabilities)[0]
    assert int(levels[0]) == 1
    np.testing.assert_allclose(torch.bincount(levels[1:], minlength=5) / 4000, shares, atol=0.03)


def test_levels_are_drawn_by_other_numbers_than_the_words_before(stage, items):
    """Had the level the random number of a token, the answers would not be independent draws."""
    module = stage("joint", repeats=50)
    numbers = module.random_numbers(items(1))[0].numpy()
    levels = module.levels(items(1), torch.full((1, 51, 5), 0.2))[0, 1:].numpy()
    np.testing.assert_array_equal(levels, np.floor(numbers[:, -1] * 5))
    assert module.random_numbers(items(1)).shape[-1] == module.max_new_tokens + 1  # sampling reads the first max_new_tokens


def test_mean_score_is_the_mean_level():
    eye = torch.eye(5)
    assert mean_score(eye).tolist() == list(WEIGHTS)
    assert mean_score(torch.full((2, 3, 5), 0.2)).tolist() == [[pytest.approx(0.5)] * 3] * 2
    assert mean_score(eye.bfloat16()).dtype == torch.float32


def test_validation_scores_are_the_mean_of_the_level_distribution(stage, items, batch_of):
    module = stage("inference", repeats=0)
    several = items(3)
    batch = batch_of(module, several)
    scores = module.validation_scores(batch, module.loss(batch)[1])
    assert scores.tolist() == pytest.approx([row["score"] for row in module.predict_step(several)], abs=1e-5)
