"""Answers as branches of one row are the answers that reading everything anew for every token gives, whenever they end and however they are arranged."""

import pytest
import torch

from biqa.models import compiled, sampling, tree
from biqa.models.hf import build_hf
from biqa.models.sampling import left_padded, level_probabilities, next_tokens, sample, uniforms
from biqa.models.vlm import Prompt

STEM = " The quality of the image is"
STEPS = 10
OPTIONS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": STEPS, "stem": STEM}


@pytest.fixture
def ending(tiny, monkeypatch):
    """A small model whose answers end at different places: the end token is likely at every step."""

    def build(**options):
        vlm = tiny(**options)
        plain = vlm.logits

        def with_ends(hidden):
            logits = plain(hidden)
            logits[..., vlm.eos_id] = logits.logsumexp(-1) - 1.2
            logits[..., vlm.image_token_id] = -torch.inf  # read anew, it would ask for a picture
            return logits

        monkeypatch.setattr(vlm, "logits", with_ends)
        return vlm

    return build


def plain_answer(vlm, prompt, numbers):
    """Token ids of one answer, everything read anew for each; greedy without random numbers."""
    ids = []
    for step in range(STEPS):
        tokens, mask, image = left_padded([Prompt((*prompt.ids, *ids), prompt.image)], vlm.pad_id, vlm.device)
        logits = vlm.logits(vlm.hidden(tokens, mask, image=image)[:, -1])
        token = int(logits.argmax(-1) if numbers is None else next_tokens(logits, numbers[step : step + 1], 1.0, 1.0))
        if token == vlm.eos_id:
            break
        ids.append(token)
    return ids


def prompts_of(vlm, picture, number=3):
    questions = ("Describe.", "Describe what you see in the image in several words.", "Rate it.")
    return [vlm.prompt(questions[i % 3], picture(i)) for i in range(number)]


@torch.no_grad()
def check_against_plain(vlm, prompts, queries, steps=None):
    numbers = uniforms(0, [str(number) for number in range(len(prompts))], queries, STEPS)
    together = sample(vlm, prompts, numbers, steps=steps, **OPTIONS)
    lengths = set()
    for row, prompt in enumerate(prompts):
        for query in range(queries + 1):
            ids = plain_answer(vlm, prompt, numbers[row, query - 1] if query else None)
            lengths.add(len(ids))
            assert together.texts[row][query] == vlm.text(ids)
            after = level_probabilities(vlm, [Prompt((*prompt.ids, *ids), prompt.image)], vlm.continuation(STEM))[0]
            torch.testing.assert_close(together.level_probabilities[row, query], after, atol=1e-5, rtol=1e-4)
    return lengths


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_answers_that_end_at_different_places(ending, picture, attention):
    vlm = ending(attention=attention)
    lengths = check_against_plain(vlm, prompts_of(vlm, picture), queries=5)
    assert len(lengths) > 3  # else nothing was rearranged


@pytest.mark.parametrize("most", [1, 2, 3])
def test_more_answers_than_a_row_holds(ending, picture, monkeypatch, most):
    monkeypatch.setattr(tree, "BRANCHES", most)
    vlm = ending()
    check_against_plain(vlm, prompts_of(vlm, picture), queries=4)


def test_an_attention_that_takes_no_mask_has_a_row_an_answer(ending, picture, monkeypatch):
    monkeypatch.setattr("biqa.models.vlm.MASKABLE", ())
    vlm = ending()
    assert tree.branches(vlm) == 1
    check_against_plain(vlm, prompts_of(vlm, picture), queries=3)


@pytest.mark.parametrize("worthwhile", [0.0, 1.0])
def test_it_does_not_matter_when_answers_leave(ending, picture, monkeypatch, worthwhile):
    vlm = ending()
    prompts, numbers = prompts_of(vlm, picture), uniforms(0, ["a", "b", "c"], 6, STEPS)
    usual = sample(vlm, prompts, numbers, **OPTIONS)
    monkeypatch.setattr(tree, "WORTHWHILE", worthwhile)
    other = sample(vlm, prompts, numbers, **OPTIONS)
    assert other.texts == usual.texts
    torch.testing.assert_close(other.level_probabilities, usual.level_probabilities, atol=1e-5, rtol=1e-4)


def test_places_of_ended_answers_are_given_up(ending, picture, monkeypatch):
    """The passes get smaller as answers end: the tokens of all passes are far fewer than answers times steps."""
    vlm = ending()
    prompts, numbers = prompts_of(vlm, picture), uniforms(0, ["a", "b", "c"], 15, STEPS)
    tokens = []
    feed = tree.Tree.feed
    monkeypatch.setattr(tree.Tree, "feed", lambda self, ids: tokens.append(ids.numel()) or feed(self, ids))
    sample(vlm, prompts, numbers, **{**OPTIONS, "stem": None})
    kept = sum(tokens)
    tokens.clear()
    monkeypatch.setattr(tree, "WORTHWHILE", 0.0)
    sample(vlm, prompts, numbers, **{**OPTIONS, "stem": None})
    assert kept < 0.6 * sum(tokens)


def test_a_prompt_is_read_once_and_its_keys_are_kept_once(tiny, picture, monkeypatch):
    vlm = tiny()
    prompts = prompts_of(vlm, picture)
    towers, passes = [], []
    vlm.model.get_submodule(vlm.family.tower).register_forward_hook(lambda *_: towers.append(1))
    hidden = vlm.hidden

    def watched(ids, mask, **options):
        passes.append((tuple(ids.shape), options["memory"]))
        return hidden(ids, mask, **options)

    monkeypatch.setattr(vlm, "hidden", watched)
    sample(vlm, prompts, uniforms(0, ["a", "b", "c"], 9, STEPS), **{**OPTIONS, "stem": None})
    longest = max(len(prompt.ids) for prompt in prompts)
    assert towers == [1]
    assert [shape for shape, _ in passes if shape[1] >= longest] == [(3, longest)]
    assert all(shape == (3, 10) for shape, _ in passes[1:])
    (memory,) = {id(memory): memory for _, memory in passes}.values()
    assert [len(layer.keys) for layer in memory.layers] == [3, 3]  # a row an image, not an answer
    assert memory.positions() == longest + 10 * (len(passes) - 1)


def test_prompts_of_different_length_are_read_in_groups(ending, picture, monkeypatch):
    monkeypatch.setattr(sampling, "NEAR", 0)
    vlm = ending()
    prompts = prompts_of(vlm, picture, number=6)
    lengths = [len(prompt.ids) for prompt in prompts]
    groups = sampling.alike(prompts)
    assert len(groups) == 2
    assert sorted(number for group in groups for number in group) == list(range(6))
    assert all(max(lengths[number] for number in group) <= 1.2 * lengths[group[0]] for group in groups)
    check_against_plain(vlm, prompts, queries=4)


@pytest.fixture
def compiler(monkeypatch):
    """What torch.compile hands to a backend is run as it is: the tracing is that of the real one. `frame_count` counts compilations."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(compiled, "COMPILER", {"backend": counter, "dynamic": False, "fullgraph": True})
    yield counter
    torch._dynamo.reset()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_compiled_steps_give_the_same_answers(ending, picture, compiler, attention):
    vlm = ending(attention=attention)
    check_against_plain(vlm, prompts_of(vlm, picture), queries=4, steps=compiled.CompiledSteps(vlm))
    assert compiler.frame_count == 1


def test_a_step_is_compiled_once_for_all_batches_of_a_shape(tiny, picture, compiler):
    vlm = tiny()
    steps = compiled.CompiledSteps(vlm)
    numbers = uniforms(0, ["a", "b", "c"], 3, STEPS)
    for first in range(3):
        prompts = [vlm.prompt("Describe."[: 9 - first], picture(first + number)) for number in range(3)]
        fixed = sample(vlm, prompts, numbers, steps=steps, **OPTIONS)
        free = sample(vlm, prompts, numbers, **OPTIONS)
        assert fixed.texts == free.texts
        torch.testing.assert_close(fixed.level_probabilities, free.level_probabilities, atol=1e-5, rtol=1e-4)
    assert compiler.frame_count == 1


def test_a_compiled_step_goes_on_where_an_image_has_ended(checkpoint, picture, compiler):
    """Visual tokens in rows and columns take few positions, so that the text after them goes on early."""
    vlm = build_hf(
        id=str(checkpoint("qwen2_5_vl")),
        revision=None,
        family=None,
        dtype="float32",
        attention="sdpa",
        visual_tokens=None,
        image=None,
        vision=True,
        seed=0,
    ).eval()
    prompts = [vlm.prompt("Describe.", picture(number, size=140)) for number in range(2)]
    numbers = uniforms(0, ["a", "b"], 3, STEPS)
    fixed, free = (sample(vlm, prompts, numbers, steps=steps, **OPTIONS) for steps in (compiled.CompiledSteps(vlm), None))
    assert fixed.texts == free.texts
    torch.testing.assert_close(fixed.level_probabilities, free.level_probabilities, atol=1e-5, rtol=1e-4)
