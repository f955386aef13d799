"""The losses against their closed forms."""

import math

import torch

from biqa.stages.losses import answer_loss, level_loss


def test_answer_loss_is_the_mean_negative_log_likelihood():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    assert math.isclose(answer_loss(logits, torch.tensor([1, 0])).item(), expected, rel_tol=1e-6)


def test_level_loss_of_a_word_is_cross_entropy_on_it():
    torch.manual_seed(0)
    logits, ids = torch.randn(4, 20), [3, 7, 11, 13, 17]
    target = torch.eye(5)[torch.tensor([0, 4, 2, 2])]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([3, 17, 11, 11]))
    torch.testing.assert_close(level_loss(logits, ids, target), expected)


def test_soft_level_loss_is_least_at_its_target():
    target = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]])
    ids = [0, 1, 2, 3, 4]
    at_target = level_loss(target.log(), ids, target)
    entropy = -(target * target.log()).sum()
    torch.testing.assert_close(at_target, entropy)  # KL = 0
    assert level_loss(torch.zeros(1, 5), ids, target) > at_target


def test_mass_on_other_words_costs():
    ids, target = [0, 1, 2, 3, 4], torch.full((1, 5), 0.2)
    inside = torch.zeros(1, 6)
    inside[0, 5] = -20.0
    outside = torch.zeros(1, 6)
    assert level_loss(outside, ids, target) > level_loss(inside, ids, target)
