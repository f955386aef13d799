"""Many answers from one prefill are the answers that asking one by one gives."""

import numpy as np
import pytest
import torch

from biqa.errors import NoNumbers
from biqa.models.sampling import draw, left_padded, level_probabilities, next_tokens, sample, uniforms
from biqa.models.vlm import Prompt

STEM = " The quality of the image is"
OPTIONS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12}


def test_draw_inverts_the_cumulative_sum():
    probabilities = torch.tensor([0.2, 0.0, 0.5, 0.3])
    numbers = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(draw(probabilities.expand(1000, 4), numbers), minlength=4)
    assert counts.tolist() == [200, 0, 500, 300]


@pytest.mark.parametrize("size", [256, 257, 512, 1000, 32_000])
def test_of_many_probabilities_the_same_one_is_drawn_as_by_one_long_sum(size):
    generator = torch.Generator().manual_seed(size)
    probabilities = (3 * torch.randn(500, size, generator=generator)).softmax(-1)
    probabilities[:, ::3] = 0.0
    numbers = torch.rand(500, generator=generator, dtype=torch.float64)
    expected = [
        int(np.searchsorted(np.cumsum(row), number * np.sum(row), side="right"))
        for row, number in zip(probabilities.double().numpy(), numbers.numpy(), strict=True)
    ]
    assert draw(probabilities, numbers).tolist() == expected


def test_what_cannot_happen_is_never_drawn():
    """Also where the random number lies on the border of a block, or next to 1."""
    probabilities = torch.zeros(4, 1024)
    probabilities[:, 10] = probabilities[:, 300] = 0.5
    numbers = torch.tensor([0.0, 0.5 - 2**-53, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(probabilities, numbers).tolist() == [10, 10, 300, 300]


@pytest.mark.parametrize("size", [5, 1000])
def test_what_is_drawn_of_nothing_known_is_an_index_all_the_same(size):
    drawn = draw(torch.full((2, size), torch.nan), torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < size


def test_top_p_leaves_the_likeliest_tokens_that_reach_the_mass():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(1000, 4)
    drawn = next_tokens(logits, (torch.arange(1000) + 0.5) / 1000, temperature=1.0, top_p=0.7)
    assert torch.bincount(drawn, minlength=4).tolist() == [625, 375, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_whose_numbers_are_none_answers_nothing(tiny, value):
    """The likeliest of words that are all NaN is some word, and a level drawn from them is "excellent"."""
    vlm = tiny(vision=False)
    asked = [vlm.prompt("Is it sharp?"), vlm.prompt("Is it noisy?")]
    stem = vlm.opening(STEM.strip())
    assert level_probabilities(vlm, asked, stem).isfinite().all()
    with torch.no_grad():
        vlm.backbone.get_input_embeddings().weight[asked[0].ids[-1]] = value
    with pytest.raises(NoNumbers, match=r"no number \(NaN or infinity\) for 2 of 2 questions.*smaller tuning\.lr"):
        level_probabilities(vlm, asked, stem)
    with pytest.raises(NoNumbers, match="no number"):
        sample(vlm, asked, torch.zeros(2, 2, 13), **OPTIONS)


def test_temperature_sharpens():
    logits = torch.tensor([0.6, 0.4]).log().expand(1000, 2)
    numbers = (torch.arange(1000) + 0.5) / 1000
    shares = [float((next_tokens(logits, numbers, temperature=t, top_p=1.0) == 0).float().mean()) for t in (1.0, 0.5)]
    assert shares == [pytest.approx(0.6, abs=0.002), pytest.approx(0.36 / (0.36 + 0.16), abs=0.002)]


def test_random_numbers_belong_to_the_image_not_to_its_place():
    together = uniforms(3, ["a.png", "b.png"], queries=4, steps=5)
    assert torch.equal(together[1], uniforms(3, ["b.png"], queries=4, steps=5)[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], uniforms(4, ["a.png"], queries=4, steps=5)[0])


@pytest.mark.parametrize("stem", [None, STEM])
def test_batch_equals_one_by_one(tiny, picture, stem):
    vlm = tiny()
    prompts = [vlm.prompt("Describe.", picture(1)), vlm.prompt("Describe what you see in the image in several words.", picture(2))]
    numbers = uniforms(0, ["a", "b"], queries=3, steps=12)
    together = sample(vlm, prompts, numbers, stem=stem, **OPTIONS)
    for image, prompt in enumerate(prompts):
        alone = sample(vlm, [prompt], numbers[image : image + 1], stem=stem, **OPTIONS)
        assert alone.texts[0] == together.texts[image]
        for query in range(3):
            single = sample(vlm, [prompt], numbers[image : image + 1, query : query + 1], stem=stem, **OPTIONS)
            assert single.texts[0] == [together.texts[image][0], together.texts[image][query + 1]]
        if stem:
            torch.testing.assert_close(alone.level_probabilities[0], together.level_probabilities[image], atol=1e-5, rtol=1e-4)


def test_greedy_query_is_transformers_own_greedy_decoding(tiny, picture):
    vlm = tiny()
    prompt = vlm.prompt("Describe.", picture(1))
    ids, mask, image = left_padded([prompt], vlm.pad_id, vlm.device)
    expected = vlm.model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=12, **image)[0, ids.shape[1] :]
    texts = sample(vlm, [prompt], torch.zeros(1, 0, 12), **OPTIONS).texts
    assert texts == [[vlm.text(expected.tolist())]]


def test_level_distribution_after_the_answer_equals_a_fresh_pass(tiny, picture):
    vlm = tiny()
    prompts = [vlm.prompt("Describe.", picture(seed)) for seed in range(3)]
    answers = sample(vlm, prompts, uniforms(0, ["a", "b", "c"], queries=2, steps=12), stem=STEM, **OPTIONS)
    ids = [[_ids(vlm, prompts, image, query) for query in range(3)] for image in range(3)]
    for image, prompt in enumerate(prompts):
        for query in range(3):
            full = Prompt((*prompt.ids, *ids[image][query]), prompt.image)
            expected = level_probabilities(vlm, [full], vlm.continuation(STEM))[0]
            torch.testing.assert_close(answers.level_probabilities[image, query], expected, atol=1e-5, rtol=1e-4)


def _ids(vlm, prompts, image, query):
    """Token ids of one answer, asked again alone: text does not always tokenize back to the ids it came from."""
    recorded = []
    original = vlm.text

    def record(row):
        recorded.append(row)
        return original(row)

    vlm.text = record
    sample(vlm, [prompts[image]], uniforms(0, [chr(ord("a") + image)], queries=2, steps=12), stem=STEM, **OPTIONS)
    del vlm.text
    return recorded[query]


def test_an_answer_ends_where_the_model_says_the_stem(tiny, picture, monkeypatch):
    vlm = tiny()
    said = [*vlm.continuation(" sharp"), *vlm.continuation(STEM), *vlm.continuation(" good")]
    prompt = vlm.prompt("Describe.", picture(1))
    steps = iter(range(100))

    def forced(hidden):
        logits = torch.full((*hidden.shape[:-1], len(vlm.tokenizer)), -100.0)
        logits[..., said[min(next(steps), len(said) - 1)]] = 100.0
        return logits

    monkeypatch.setattr(vlm, "logits", forced)
    texts = sample(vlm, [prompt], uniforms(0, ["a"], queries=2, steps=12), stem=STEM, **OPTIONS).texts
    assert texts == [["sharp", "sharp", "sharp"]]


def test_level_probabilities_do_not_depend_on_padding(tiny):
    vlm = tiny(vision=False)
    prompts = [vlm.prompt("Short."), vlm.prompt("A much longer question about the picture and what can be seen in it.")]
    together = level_probabilities(vlm, prompts, vlm.continuation(STEM))
    alone = torch.cat([level_probabilities(vlm, [prompt], vlm.continuation(STEM)) for prompt in prompts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(together.sum(-1), 1.0, atol=1e-6)
