"""One-stage tuning: description and level in one answer, from the image."""

import pytest
import torch

from biqa.language.prompts import JOINT, STEM
from biqa.models.sampling import level_probabilities
from biqa.models.vlm import Prompt
from biqa.stages.joint import Joint, ZeroShot


def test_example_is_the_question_about_the_image_the_description_and_the_verdict(stage, items):
    module = stage("joint")
    example = module.encode(items(1)[0])
    decode = module.vlm.tokenizer.decode
    assert decode(list(example.prompt)) == f"USER: {'<image>' * 9}{JOINT} ASSISTANT:"
    assert decode(list(example.answer)) == " The image is sharp. The quality of the image is excellent.</s>"
    assert decode([example.answer[example.level_at]]) == " excellent"
    assert example.image["pixel_values"].shape == (1, 304, 3, 3)
    assert example.q == 0.93


def test_the_level_word_is_asked_for_as_in_answering(stage, items, batch_of):
    """What training scores is what answering reads: prompt, description and stem, tokenized in the same pieces."""
    module = stage("joint")
    several = items(3)
    logits = module.loss(batch_of(module, several))[1]
    asked = []
    for item in several:
        prompt = module.image_prompt(item, JOINT)
        asked.append(Prompt((*prompt.ids, *module.vlm.continuation(f" {item.descriptions[0]}")), prompt.image))
    torch.testing.assert_close(logits.softmax(-1), level_probabilities(module.vlm, asked, module.vlm.continuation(f" {STEM}")), atol=1e-6, rtol=1e-4)


def test_validation_scores_are_those_of_answering(stage, items, batch_of):
    """After the model's own greedy description: the annotated one, which the step reads, is not there at test time."""
    module = stage("joint")
    several = items(3)
    batch = batch_of(module, several)
    logits = module.loss(batch)[1]
    scores = module.validation_scores(batch, logits)
    assert scores.tolist() == pytest.approx([row["score"] for row in module.predict_step(several) if row["query"] == 0], abs=1e-5)
    assert not torch.allclose(scores, logits.softmax(-1) @ torch.linspace(0, 1, 5), atol=1e-4)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_a_stage_that_knows_its_examples_by_heart_says_them(stage, items, learn_by_heart, target):
    module = stage("joint", target=target, repeats=0, max_new_tokens=30)
    learnt = items(2)
    learn_by_heart(module, learnt, steps=150)
    rows = module.predict_step(learnt)
    assert [row["description"] for row in rows] == [item.descriptions[0] for item in learnt]
    assert [row["level"] for row in rows] == ["excellent", "poor"]
    means = [0.93, 0.31] if target == "soft" else [1.0, 0.25]
    assert [row["score"] for row in rows] == pytest.approx(means, abs=0.03)


def test_zero_shot_asks_the_same(stage, items):
    joint = stage("joint")
    options = {name: getattr(joint, name) for name in ("lr", "weight_decay", "warmup", "total_steps", "repeats", "temperature", "top_p")}
    zero_shot = ZeroShot(joint.vlm, target="soft", level_weight=1.0, max_new_tokens=12, seed=0, **options).eval()
    assert isinstance(zero_shot, Joint)
    assert zero_shot.predict_step(items(2)) == joint.predict_step(items(2))
