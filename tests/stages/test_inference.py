"""Stage 2 answers from the text alone: what it learns, that it never sees an image, and how descriptions are scored."""

import dataclasses

import pytest
import torch

from biqa.errors import BadRecord
from biqa.language.levels import LEVELS
from biqa.language.prompts import INFER, STEM
from biqa.models.sampling import level_probabilities


def test_example_is_the_description_with_the_question_and_the_verdict(stage, items):
    module = stage("inference")
    example = module.encode(items(1, on_disk=False)[0])
    decode = module.vlm.tokenizer.decode
    asked = "If there is an image described as: The image is sharp. How would you rate the quality of this image?"
    assert decode(list(example.prompt)) == f"USER: {asked} ASSISTANT:"
    assert decode(list(example.answer)) == " The quality of the image is excellent.</s>"
    assert decode([example.answer[example.level_at]]) == " excellent"
    assert example.q == 0.93


def test_the_level_word_is_asked_for_as_in_answering(stage, items, batch_of):
    module = stage("inference", repeats=0)
    several = items(3, on_disk=False)
    learnt = module.loss(batch_of(module, several))[1].softmax(-1)
    rows = module.predict_step(several)
    answered = torch.tensor([[row[f"p_{level}"] for level in LEVELS] for row in rows])
    torch.testing.assert_close(answered, learnt, atol=1e-6, rtol=1e-4)


# no image: no module for one, no token of one, no look at one


def test_there_is_no_tower_and_no_projector(stage):
    blind, seeing = stage("inference").vlm, stage("joint").vlm
    family = seeing.family
    for path in (family.tower, *family.projector):
        assert seeing.model.get_submodule(path) is not None
        with pytest.raises(AttributeError):
            blind.model.get_submodule(path)
    kinds = {type(module) for path in (family.tower, *family.projector) for module in seeing.model.get_submodule(path).modules()}
    own = {kind for kind in kinds if "clip" in kind.__module__ or "llava" in kind.__module__}
    assert len(own) > 3
    assert not any(isinstance(module, tuple(own)) for module in blind.modules())
    assert not any(word in name for name, _ in blind.named_parameters() for word in ("vision", "projector", "patch"))
    tower = sum(p.numel() for path in (family.tower, *family.projector) for p in seeing.model.get_submodule(path).parameters())
    assert sum(p.numel() for p in blind.parameters()) == sum(p.numel() for p in seeing.parameters()) - tower


def test_an_image_that_is_handed_to_it_is_refused(stage, items):
    """Whichever way it comes: transformers' decoders would pass over pixels without a word."""
    with pytest.raises(AssertionError, match="stage 2 judges the text alone"):
        stage("inference", vision=True)
    module, seeing = stage("inference"), stage("joint")
    [item] = items(1)
    with pytest.raises(AssertionError, match="built without its vision tower"):
        module.image_prompt(item, "Is it sharp?")
    smuggled = seeing.image_prompt(item, "Is it sharp?")
    ids = torch.tensor([smuggled.ids])
    with pytest.raises(AssertionError, match="built without its vision tower"):
        module.vlm.hidden(ids, torch.ones_like(ids), image=smuggled.image)
    with pytest.raises(AssertionError, match="built without its vision tower"):
        level_probabilities(module.vlm, [smuggled], module.vlm.opening(STEM))


def test_the_input_holds_no_image_and_no_image_token(stage, items, batch_of):
    module = stage("inference")
    batch = batch_of(module, items(3, on_disk=False))
    image_token = module.vlm.tokenizer.convert_tokens_to_ids("<image>")
    assert image_token == stage("joint").vlm.model.config.image_token_id
    assert not (batch.input_ids == image_token).any()
    assert batch.image == {}
    assert all(example.image == {} for example in batch.examples)


PARTS = ["image file", "image processor", "tower", "projector"]


def forbid_images(monkeypatch, vlm, parts=PARTS):
    """Parts of the way from an image file to the decoder raise when they are called, in every model."""

    def refuse(*_, **__):
        raise RuntimeError("an image was looked at")

    tower, projector = (vlm.model.get_submodule(path) for path in (vlm.family.tower, *vlm.family.projector))
    places = {
        "image file": ("PIL.Image.open",),
        "image processor": (type(vlm.processor.image_processor), "preprocess"),
        "tower": (type(tower), "forward"),
        "projector": (type(projector), "forward"),
    }
    for part in parts:
        monkeypatch.setattr(*places[part], refuse)


@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_it_learns_validates_and_answers_where_no_image_can_be_looked_at(stage, items, data_of, trainer, monkeypatch):
    module = stage("inference").train()
    before = [parameter.clone() for parameter in module.parameters()]
    forbid_images(monkeypatch, stage("joint").vlm)
    learnt, asked = items(3, on_disk=False), items(3, descriptions=4, on_disk=False)
    assert not learnt[0].record.path.exists()
    data = data_of(module, learnt, asked)
    runner = trainer()
    runner.fit(module, data)
    assert runner.global_step == 2
    assert any(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    rows = [row for batch in runner.predict(module, data) for row in batch]
    assert len(rows) == 3 * 4


@pytest.mark.parametrize("part", PARTS)
def test_the_joint_stage_falls_into_each_part_of_that_trap(stage, items, batch_of, monkeypatch, part):
    module = stage("joint")
    several = items(2)
    batch = batch_of(module, several)
    forbid_images(monkeypatch, module.vlm, [part])
    with pytest.raises((RuntimeError, BadRecord), match="an image was looked at"):
        module.predict_step(several)
    with pytest.raises((RuntimeError, BadRecord), match="an image was looked at"):
        module.loss(batch) if part in ("tower", "projector") else module.encode(several[0])


def test_the_answer_does_not_depend_on_the_picture(stage, items, picture):
    module = stage("inference")
    asked = items(2, descriptions=4)
    rows = module.predict_step(asked)
    for item in asked:
        picture(99).save(item.record.path)
    assert module.predict_step(asked) == rows


# how descriptions are scored


def test_every_description_has_its_own_score(stage, items):
    module = stage("inference")
    asked = items(2, descriptions=4, on_disk=False)
    rows = module.predict_step(asked)
    assert [row["description"] for row in rows] == [text for item in asked for text in item.descriptions]
    for row in rows:
        prompt = module.vlm.prompt(INFER.format(description=row["description"]))
        expected = level_probabilities(module.vlm, [prompt], module.vlm.continuation(f" {STEM}"))[0].tolist()
        assert [row[f"p_{level}"] for level in LEVELS] == pytest.approx(expected, abs=1e-6)
    assert len({round(row["score"], 6) for row in rows}) == 4  # four texts between the two images


def test_equal_descriptions_are_scored_once(stage, items, monkeypatch):
    module = stage("inference")
    scored = []

    def counting(vlm, prompts, stem):
        scored.extend(prompts)
        return level_probabilities(vlm, prompts, stem)

    monkeypatch.setattr("biqa.stages.base.level_probabilities", counting)
    same = [dataclasses.replace(item, descriptions=("Sharp.",) * 4) for item in items(2, on_disk=False)]
    rows = module.predict_step(same)
    assert len(rows) == 8
    assert len(scored) == 1
    assert len({row["score"] for row in rows}) == 1


def counted(monkeypatch):
    """Ids of the prompts of each pass that scores."""
    passes = []

    def counting(vlm, prompts, stem):
        passes.append([prompt.ids for prompt in prompts])
        return level_probabilities(vlm, prompts, stem)

    monkeypatch.setattr("biqa.stages.base.level_probabilities", counting)
    return passes


def said_alike(items, count=6):
    """Items of which each says two of four texts, so that many say the same."""
    return items(count, descriptions=2, on_disk=False)


@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_equal_descriptions_of_other_batches_are_scored_once(stage, items, data_of, trainer, monkeypatch):
    module, asked = stage("inference", repeats=1), said_alike(items)
    apart = [row for at in range(0, 6, 2) for row in module.predict_step(asked[at : at + 2])]
    passes = counted(monkeypatch)
    rows = [row for batch in trainer().predict(module, data_of(module, asked[:1], asked)) for row in batch]
    assert len(rows) == 12
    assert len([ids for one in passes for ids in one]) == len({ids for one in passes for ids in one}) == 4
    for row, expected in zip(rows, apart, strict=True):
        assert row["score"] == pytest.approx(expected["score"], abs=1e-6)
        assert row["description"] == expected["description"]


def test_scores_are_forgotten_when_the_weights_may_change(stage, items, data_of, trainer, monkeypatch):
    module, asked = stage("inference", repeats=1), said_alike(items)
    before = trainer().predict(module, data_of(module, asked[:1], asked))
    torch.nn.init.normal_(module.vlm.model.lm_head.weight, generator=torch.Generator().manual_seed(1))
    passes = counted(monkeypatch)
    after = trainer().predict(module, data_of(module, asked[:1], asked))
    assert sum(map(len, passes)) == 4
    assert before != after
    assert module.predict_step(asked[:2]) == module.predict_step(asked[:2])
    assert len(passes[-1]) == len(passes[-2]) > 0, "nothing is kept outside a prediction"


@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_a_prediction_that_goes_on_ends_with_the_same_bits(stage, items, data_of, trainer):
    """What was scored before the kill is not scored again, in other company, where it would round differently."""
    module, asked = stage("inference", repeats=1), said_alike(items)
    whole = [row for batch in trainer().predict(module, data_of(module, asked[:1], asked)) for row in batch]
    again = stage("inference", repeats=1)
    again.recall(whole[:4])  # of the first batch
    rest = [row for batch in trainer().predict(again, data_of(again, asked[:1], asked[2:])) for row in batch]
    assert whole[:4] + rest == whole


def test_processes_that_hold_weights_together_take_as_many_passes(stage, items, data_of, trainer, monkeypatch):
    """One that knows all its texts goes with one that has to score some."""
    module, asked = stage("inference", repeats=1), said_alike(items)
    module.vlm.sharded = True
    monkeypatch.setattr("biqa.stages.inference.largest", lambda number: 2)
    passes = counted(monkeypatch)
    module.scores = {}
    for at in (0, 2, 4):
        module.answer(asked[at : at + 2])
    assert len(passes) == 3 * 2
    assert len(module.scores) == 4


def test_odd_descriptions_are_scored_too(stage, items):
    """Generated text may be empty, or hold the braces of a template."""
    module = stage("inference", repeats=1)
    item = dataclasses.replace(items(1, on_disk=False)[0], descriptions=("", "{description} {0} %s"))
    assert [row["description"] for row in module.predict_step([item])] == ["", "{description} {0} %s"]


def test_a_stage_that_knows_its_examples_by_heart_says_them(stage, items, learn_by_heart):
    module = stage("inference", repeats=0)
    learnt = items(4, on_disk=False)
    learn_by_heart(module, learnt)
    rows = module.predict_step(learnt)
    assert [row["level"] for row in rows] == ["excellent", "poor", "fair", "bad"]
    assert [row["score"] for row in rows] == pytest.approx([item.record.q for item in learnt], abs=0.03)
