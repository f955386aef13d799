"""Stage 1: what it learns from an image, and that it says what it has learnt."""

import torch

from biqa.data.collate import IGNORED
from biqa.language.prompts import DESCRIBE
from biqa.models.sampling import sample


def test_example_is_the_question_about_the_image_and_the_description(stage, items):
    module = stage("perception")
    item = items(1)[0]
    example = module.encode(item)
    decode = module.vlm.tokenizer.decode
    assert decode(list(example.prompt)) == f"USER: {'<image>' * 9}{DESCRIBE} ASSISTANT:"
    assert decode(list(example.answer)) == " The image is sharp.</s>"
    assert example.image["pixel_values"].shape == (1, 304, 3, 3)
    assert example.level_at is None


def test_only_the_description_and_its_end_are_learnt(stage, items, batch_of):
    module = stage("perception")
    batch = batch_of(module, items(3))
    for example, labels, ids in zip(batch.examples, batch.labels, batch.input_ids, strict=True):
        learnt = labels != IGNORED
        assert labels[learnt].tolist() == list(example.answer)
        assert torch.equal(ids[1:][learnt[:-1]], labels[learnt])  # each is the token that follows its position
        assert int(learnt.nonzero()[0]) == len(example.prompt) - 1
    assert batch.level_position.tolist() == [-1] * 3


def test_the_picture_is_the_one_of_the_item(stage, items):
    module = stage("perception")
    first, second = items(2)
    pixels = [module.encode(item).image["pixel_values"] for item in (first, second, first)]
    assert torch.equal(pixels[0], pixels[2])
    assert not torch.equal(pixels[0], pixels[1])
    assert torch.equal(module.image_prompt(first, DESCRIBE).image["pixel_values"], pixels[0])


def test_a_stage_that_knows_its_examples_by_heart_says_them(stage, items, learn_by_heart):
    module = stage("perception", repeats=0, max_new_tokens=30)
    learnt = items(3)
    learn_by_heart(module, learnt)
    assert [row["description"] for row in module.predict_step(learnt)] == [item.descriptions[0] for item in learnt]


def test_rows_are_the_sampled_texts(stage, items):
    module = stage("perception", repeats=2, temperature=0.7, top_p=0.9)
    asked = items(2)
    prompts = [module.image_prompt(item, DESCRIBE) for item in asked]
    expected = sample(module.vlm, prompts, module.random_numbers(asked), temperature=0.7, top_p=0.9, max_new_tokens=12).texts
    assert [row["description"] for row in module.predict_step(asked)] == [text for texts in expected for text in texts]


def test_a_description_is_cut_at_the_longest_length(stage, items):
    short, long = (stage("perception", repeats=0, max_new_tokens=length).predict_step(items(1))[0]["description"] for length in (2, 12))
    assert long.startswith(short)
    assert len(short) < len(long)
