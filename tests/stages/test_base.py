"""What all stages share: the loss, its independence of the batch, the optimiser and its schedule, Lightning's hooks."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from biqa.data.collate import IGNORED, collate
from biqa.data.module import DataModule
from biqa.evaluation.answers import COLUMNS
from biqa.models.adapters import adapt

ALL = ["perception", "inference", "joint"]
# on a machine with a GPU Lightning says that a trainer on the CPU leaves it alone
pytestmark = pytest.mark.filterwarnings("ignore:GPU available but not used")


def losses_from_full_logits(vlm, examples):
    """Answer loss and level loss from the whole model's logits at every position, one example at a time and without padding."""
    logits, labels, level_logits, level_targets = [], [], [], []
    for example in examples:
        sequence = torch.tensor([[*example.prompt, *example.answer]])
        output = vlm.backbone(input_ids=sequence, attention_mask=torch.ones_like(sequence), **example.image).logits[0]
        for place, token in enumerate(example.answer):
            at = output[len(example.prompt) + place - 1]
            if place == example.level_at:
                over_words = torch.zeros(len(at))
                over_words[vlm.level_ids] = torch.tensor(example.level_target, dtype=torch.float32)
                level_logits.append(at)
                level_targets.append(over_words)
            else:
                logits.append(at)
                labels.append(token)
    answer = F.cross_entropy(torch.stack(logits), torch.tensor(labels))
    level = F.cross_entropy(torch.stack(level_logits), torch.stack(level_targets)) if level_logits else None
    return answer, level


@pytest.mark.parametrize("name", ALL)
def test_gathered_loss_is_the_loss_from_full_logits(stage, items, batch_of, name):
    module = stage(name)
    batch = batch_of(module, items())
    answer, level = losses_from_full_logits(module.vlm, batch.examples)
    loss, level_logits = module.loss(batch)
    torch.testing.assert_close(loss, answer + (0.0 if level is None else level), atol=1e-6, rtol=1e-6)
    assert (level_logits is None) == (name == "perception")


@pytest.mark.parametrize("name", ALL)
def test_answer_loss_is_the_mean_over_tokens(stage, items, batch_of, name):
    options = {} if name == "perception" else {"level_weight": 0.0}
    module = stage(name, **options)
    batch = batch_of(module, items())
    logits = module.vlm.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **batch.image).logits
    expected = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(module.loss(batch)[0], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["inference", "joint"])
@pytest.mark.parametrize("target", ["hard", "soft"])
def test_level_weight_scales_the_level_loss_alone(stage, items, batch_of, name, target):
    module = stage(name, target=target)
    batch = batch_of(module, items())
    answer, level = losses_from_full_logits(module.vlm, batch.examples)
    for weight in (0.0, 1.0, 2.5):
        module.level_weight = weight
        torch.testing.assert_close(module.loss(batch)[0], answer + weight * level, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_an_example_costs_the_same_alone_and_in_a_batch(stage, items, batch_of, name):
    module = stage(name)
    several = items(4)
    together = batch_of(module, several)
    alone = [batch_of(module, [item]) for item in several]
    assert len({batch.input_ids.shape[1] for batch in alone}) > 1  # so that the batch is padded
    tokens = torch.tensor([float((batch.labels != IGNORED).sum()) for batch in alone])
    weights = [0.0] if name == "perception" else [0.0, 1.0]
    terms = []
    for weight in weights:
        module.level_weight = weight
        terms.append((module.loss(together)[0], torch.stack([module.loss(batch)[0] for batch in alone])))
    answer, each = terms[0]
    torch.testing.assert_close(answer, (each * tokens).sum() / tokens.sum(), atol=1e-5, rtol=1e-5)
    if name != "perception":
        torch.testing.assert_close(terms[1][0] - answer, (terms[1][1] - each).mean(), atol=1e-5, rtol=1e-5)
        logits = torch.cat([module.loss(batch)[1] for batch in alone])
        torch.testing.assert_close(module.loss(together)[1], logits, atol=1e-5, rtol=1e-4)


# texts that share a row


def packed_and_not(stage, items):
    """A batch of stage 2 in two ways, and it is one that packs."""
    encoded = [stage.encode(item) for item in items]
    packed, plain = (collate(encoded, stage.vlm.pad_id, pack=pack) for pack in (True, False))
    assert packed.packed
    return packed, plain


def of_many_lengths(items, count=7):
    """Texts of which two or three take as many tokens as the longest, with the question."""
    made = items(count, on_disk=False)
    return [
        dataclasses.replace(item, descriptions=(" ".join(["Block edges show."] * (16 if place % 4 == 1 else 1 + place)),))
        for place, item in enumerate(made)
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_packed_step_is_the_step(stage, items, tiny, attention, tuning):
    module = stage("inference")
    module.vlm = tiny(vision=False, attention=attention)
    adapt(module.vlm, kind=tuning, rank=4, alpha=8, dropout=0.0, targets=None, freeze=None)
    found = []
    for batch in packed_and_not(module, of_many_lengths(items)):
        loss, logits = module.loss(batch)
        module.zero_grad()
        loss.backward()
        found.append([loss, logits, *(weight.grad for weight in module.parameters() if weight.requires_grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_processes_that_pack_differently_have_the_mean_of_the_whole(stage, items, monkeypatch):
    """Two shares of a batch: each process scales its means by how many tokens and examples it has, however many rows these take."""
    module = stage("inference")
    several = of_many_lengths(items)
    encoded = [module.encode(item) for item in several]
    shares = [collate(part, module.vlm.pad_id, pack=True) for part in (encoded[:3], encoded[3:])]
    assert any(batch.packed for batch in shares)
    counts = torch.tensor([[float((batch.labels != IGNORED).sum()), float(len(batch.examples))] for batch in shares])
    monkeypatch.setattr("biqa.stages.base.world", lambda: 2)
    monkeypatch.setattr("biqa.stages.base.weight_of_means", lambda own: own * 2 / counts.sum(0))
    parts = [module.loss(batch)[0] for batch in shares]
    monkeypatch.undo()
    whole = module.loss(collate(encoded, module.vlm.pad_id, pack=True))[0]
    torch.testing.assert_close(sum(parts) / 2, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_examples_are_as_long_as_their_descriptions_and_the_same_for_all(stage, items, name):
    module = stage(name)
    several = items(4)
    encoded = [module.encode(item) for item in several]
    assert (
        len({len(example.prompt) + len(example.answer) - module.described_length(item) for example, item in zip(encoded, several, strict=True)}) == 1
    )


def test_packed_or_not_it_trains_and_validates_the_same(stage, items, trainer):
    figures = []
    several = of_many_lengths(items)
    for pack in (True, False):
        module = stage("inference", total_steps=4).train()
        data = DataModule(
            train=several, val=several, predict=[], encode=module.encode, pad_id=module.vlm.pad_id, batch_size=4, predict_batch_size=1,
            seed=0, workers=0, cache_mb=1, pack=pack,
        )  # fmt: skip
        assert any(batch.packed for batch in data.val_dataloader()) == pack
        runner = trainer()
        runner.fit(module, data)
        figures.append({"train/loss": float(module.step_loss)} | {name: float(value) for name, value in runner.callback_metrics.items()})
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)
    assert {"val/loss", "val/srcc"} <= figures[0].keys()


def test_learning_rate_rises_linearly_falls_along_a_cosine_and_ends_at_zero(stage):
    module = stage("inference", warmup=0.1, total_steps=100)
    factors = [module.learning_rate_factor(step) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * step / 90) for step in range(91)])
    assert (factors[10], factors[55], factors[100]) == pytest.approx((1.0, 0.5, 0.0))
    assert module.learning_rate_factor(1000) == 0.0


def test_without_warm_up_the_first_step_has_the_peak_rate(stage):
    assert stage("inference", warmup=0.0, total_steps=100).learning_rate_factor(0) == 1.0


def test_the_schedule_goes_by_optimiser_steps(stage):
    module = stage("inference", lr=0.2, warmup=0.5, total_steps=8)
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert schedule["interval"] == "step"
    rates = []
    for _ in range(9):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule["scheduler"].step()
    wanted = [0.05, 0.1, 0.15, 0.2, 0.2, *(0.1 + 0.1 * math.cos(math.pi * step / 4) for step in (1, 2, 3, 4))]
    for group in range(2):
        assert [rate[group] for rate in rates] == pytest.approx(wanted)


def test_weight_decay_acts_on_matrices_only(stage):
    module = stage("joint", weight_decay=0.3)
    groups = module.configure_optimizers()["optimizer"].param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    by_name = {name: decays[id(parameter)] for name, parameter in module.vlm.named_parameters()}
    assert all(decay == 0.0 for name, decay in by_name.items() if "norm" in name or name.endswith("bias"))
    assert all(decay == 0.3 for name, decay in by_name.items() if "proj" in name and name.endswith("weight"))
    assert by_name["backbone.lm_head.weight"] == 0.3


@pytest.mark.parametrize("tuning", ["full", "frozen tower", "lora"])
def test_only_learning_parameters_are_in_the_optimiser(stage, items, batch_of, tuning):
    module = stage("joint")
    kind, freeze = ("lora", None) if tuning == "lora" else ("full", "vision_tower" if tuning == "frozen tower" else None)
    adapt(module.vlm, kind=kind, rank=4, alpha=8, dropout=0.0, targets=None, freeze=freeze)
    module.eval()
    optimizer = module.configure_optimizers()["optimizer"]
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    learning = {id(parameter) for parameter in module.vlm.parameters() if parameter.requires_grad}
    assert len(held) == len(set(held))
    assert set(held) == learning
    before = copy.deepcopy(module.vlm.state_dict())
    module.loss(batch_of(module, items()))[0].backward()
    optimizer.step()
    moved = {name for name, value in module.vlm.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved) or tuning != "lora"
    assert any("vision_tower" in name for name in moved) == (tuning == "full")


@pytest.mark.parametrize("name", ALL)
def test_one_step_lowers_the_loss_on_the_same_batch(stage, items, batch_of, name):
    module = stage(name)
    batch = batch_of(module, items())
    optimizer = module.configure_optimizers()["optimizer"]
    before = module.loss(batch)[0]
    before.backward()
    optimizer.step()
    assert module.loss(batch)[0].item() < before.item() - 0.01


@pytest.mark.parametrize("name", ALL)
def test_random_numbers_are_one_a_token_and_one_for_the_level(stage, items, name):
    module = stage(name, repeats=3, max_new_tokens=12)
    assert module.random_numbers(items(2)).shape == (2, 3, 13)


@pytest.mark.parametrize("name", ALL)
def test_lightning_fits_validates_and_answers(stage, items, data_of, trainer, name):
    module = stage(name)
    data = data_of(module, items(3), items(3, descriptions=4))
    runner = trainer()
    runner.fit(module.train(), data)
    assert runner.global_step == 2  # batches of 2 and 1
    figures = {key: value.item() for key, value in runner.callback_metrics.items()}
    assert math.isfinite(module.step_loss)
    assert math.isfinite(figures["val/loss"])
    assert {"val/srcc", "val/plcc"} <= figures.keys() or name == "perception"
    rows = [row for batch in runner.predict(module, data) for row in batch]
    assert [(row["image"], row["query"]) for row in rows] == [(f"image{i}.png", query) for i in range(3) for query in range(4)]


def with_other_quality(item):
    return dataclasses.replace(item, record=dataclasses.replace(item.record, q=item.record.q**2 / 2))


def test_validation_correlations_are_those_of_the_whole_split(stage, items, data_of, trainer):
    from scipy.stats import pearsonr, spearmanr

    module = stage("inference", repeats=0)
    several = items(4)
    data = data_of(module, several)
    runner = trainer()
    runner.validate(module, data_of(module, [with_other_quality(item) for item in several]), verbose=False)  # the next must not remember it
    runner.validate(module, data, verbose=False)
    scores = [row["score"] for item in several for row in module.predict_step([item])]
    quality = [item.record.q for item in several]
    figures = {key: value.item() for key, value in runner.callback_metrics.items()}
    assert figures["val/srcc"] == pytest.approx(spearmanr(scores, quality).statistic, abs=1e-6)
    assert figures["val/plcc"] == pytest.approx(pearsonr(scores, quality).statistic, abs=1e-3)


# how images are answered


def answer(module, items):
    return module.predict_step(list(items))


def said(rows, queries=None):
    """What was drawn: description and level word of each row, of all queries or of some."""
    return [(row["description"], row.get("level")) for row in rows if queries is None or row["query"] in queries]


def renamed(item, name):
    return dataclasses.replace(item, record=dataclasses.replace(item.record, image=name))


@pytest.mark.parametrize("name", ALL)
def test_every_image_has_one_greedy_row_and_n_sampled_ones(stage, items, name):
    rows = answer(stage(name, repeats=3), items(2, descriptions=4))
    assert [(row["image"], row["query"]) for row in rows] == [(f"image{i}.png", query) for i in range(2) for query in range(4)]
    columns = {"image", "query", "description"} if name == "perception" else {*COLUMNS} - {"dataset"}
    assert all(set(row) == columns for row in rows)


@pytest.mark.parametrize("name", ALL)
def test_zero_repeats_give_the_greedy_row_only(stage, items, name):
    rows = answer(stage(name, repeats=0), items(2))
    assert [row["query"] for row in rows] == [0, 0]
    assert said(rows) == said(answer(stage(name, repeats=3), items(2, descriptions=4)), queries={0})


@pytest.mark.parametrize("name", ALL)
def test_answers_are_drawn_by_seed_and_the_greedy_one_by_none(stage, items, name):
    asked = items(2, descriptions=9)
    first, again, other = (answer(stage(name, repeats=8, seed=seed), asked) for seed in (0, 0, 1))
    assert first == again
    assert said(first, {0}) == said(other, {0})
    assert said(first, range(1, 9)) != said(other, range(1, 9))


@pytest.mark.parametrize("name", ALL)
def test_sampled_answers_depend_on_the_name_of_the_image(stage, items, name):
    module = stage(name, repeats=8)
    item = items(1, descriptions=9)[0]
    rows, other = answer(module, [item]), answer(module, [renamed(item, "other.png")])
    assert said(rows, {0}) == said(other, {0})
    assert said(rows, range(1, 9)) != said(other, range(1, 9))


@pytest.mark.parametrize("name", ALL)
def test_answers_know_nothing_of_quality_split_and_target(stage, items, name):
    module = stage(name)
    item = items(1, descriptions=4)[0]
    record = dataclasses.replace(item.record, q=0.0, q_std=None, split="test", group="other", score=0.0)
    other = dataclasses.replace(item, record=record)
    if name != "inference":
        other = dataclasses.replace(other, descriptions=("Another target.",))
    assert said(answer(module, [item])) == said(answer(module, [other]))


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_answered_the_same_alone_and_in_a_batch(stage, items, name):
    module = stage(name)
    asked = items(3, descriptions=4)
    together = answer(module, asked)
    alone = [row for item in asked for row in answer(module, [item])]
    backwards = answer(module, asked[::-1])
    backwards = [row for start in (8, 4, 0) for row in backwards[start : start + 4]]
    for rows in (alone, backwards):
        assert said(rows) == said(together)
        for row, expected in zip(rows, together, strict=True):
            numbers = [column for column, value in expected.items() if isinstance(value, float)]
            assert [row[column] for column in numbers] == pytest.approx([expected[column] for column in numbers], abs=1e-5)


def test_the_projector_has_a_rate_of_its_own_where_it_is_given(stage):
    alike, apart = (stage("perception", projector_lr=rate) for rate in (None, 0.5))
    for module in (alike, apart):
        adapt(module.vlm, kind="lora", rank=4, alpha=8, dropout=0.0, targets=None, freeze=None, projector=True)
    groups = [
        {(group["lr"], group["weight_decay"]) for group in module.configure_optimizers()["optimizer"].param_groups} for module in (alike, apart)
    ]
    assert {rate for rate, _ in groups[0]} == {alike.lr * alike.learning_rate_factor(0)}
    assert {rate for rate, _ in groups[1]} == {apart.lr * apart.learning_rate_factor(0), 0.5 * apart.learning_rate_factor(0)}
    learning = {id(weight): apart.vlm.part_of(name) for name, weight in apart.vlm.backbone.named_parameters() if weight.requires_grad}
    for group in apart.configure_optimizers()["optimizer"].param_groups:
        (part,) = {learning[id(weight)] for weight in group["params"]}
        assert (group["initial_lr"] == 0.5) == (part == "projector")
        assert all((weight.ndim >= 2) == (group["weight_decay"] > 0) or apart.weight_decay == 0 for weight in group["params"])
