"""What is written does not depend on how it is asked for: batches, padding, caches, beams, several answers."""

import pytest
import torch
from owl2_small import PLACES, padded, pictures, prompts, small
from transformers import DynamicCache, StaticCache

from biqa.models.families import OWL2
from biqa.models.sampling import sample, uniforms
from biqa.models.vlm import VLM, Prompt

OPTIONS = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None}


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request):
    return small(request.param)


def images_of(index):
    """Images of one of `prompts`, or None."""
    counts = [row.count(PLACES[0]) // len(PLACES) for row in prompts()]
    return pictures(4)[sum(counts[:index]) :][: counts[index]] if counts[index] else None


def alone(model, **options):
    """What each prompt by itself goes on with."""
    rows = [torch.tensor([row]) for row in prompts()]
    return [model.generate(ids, attention_mask=torch.ones_like(ids), pixel_values=images_of(i), **OPTIONS | options) for i, ids in enumerate(rows)]


def together(model, **options):
    ids, mask = padded(prompts(), "left")
    return model.generate(input_ids=ids, attention_mask=mask, pixel_values=pictures(4), **OPTIONS | options)


def test_a_batch_writes_what_each_prompt_alone_does(model):
    assert torch.equal(together(model), torch.cat(alone(model)))


def test_what_is_written_is_what_whole_passes_say(model):
    written = alone(model)[1][0]
    ids = torch.tensor([prompts()[1] + written.tolist()])
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=images_of(1)).logits
    assert torch.equal(logits[0, -9:-1].argmax(-1), written)


@pytest.mark.parametrize("options", [{"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_the_kind_of_cache_changes_nothing(model, options):
    assert torch.equal(together(model, **options), together(model))


def test_beams_of_a_batch_are_those_of_each_prompt(model):
    options = {"num_beams": 3, "num_return_sequences": 2}
    expected = alone(model, **options)
    assert torch.equal(together(model, **options), torch.cat(expected))
    assert not torch.equal(torch.cat(expected)[::2], together(model)), "three beams found nothing better anywhere: no test of beams"


def test_several_answers_look_at_their_own_images(model):
    """Sampling among one token is greedy: every answer of a prompt must be its greedy one, also where a prompt has two images."""
    answers = together(model, do_sample=True, top_k=1, num_return_sequences=3)
    assert torch.equal(answers, together(model).repeat_interleave(3, 0))


def test_answers_are_drawn(model):
    torch.manual_seed(0)
    answers = together(model, do_sample=True, num_return_sequences=3)
    assert answers.shape == (12, 8)
    assert len({tuple(row) for row in answers.tolist()}) == 12


def test_processors_of_logits_see_no_placeholders(model):
    """A repetition penalty looks up the logit of every token so far, which -200 has not."""
    with pytest.warns(UserWarning, match="only to newly generated tokens"):
        answers = alone(model, repetition_penalty=1000.0)
    assert all(len(set(row.tolist())) == 8 for (row,) in answers)
    assert any(len(set(row.tolist())) < 8 for (row,) in alone(model))


def test_embeddings_can_be_given_instead(model):
    ids, mask = padded(prompts(), "left")
    with torch.no_grad():
        embeddings, visual = model.model.embed(ids, pictures(4))
    assert torch.equal(model.generate(inputs_embeds=embeddings, visual=visual, attention_mask=mask, **OPTIONS), together(model))


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # transformers 5.24 wants cache=, 5.23 does not know that
def test_a_cache_may_hold_the_beginning(model):
    row, images = prompts()[1], images_of(1)
    cache = DynamicCache()
    with torch.no_grad():
        embeddings, visual = model.model.embed(torch.tensor([row]), images)
        model(inputs_embeds=embeddings[:, :7], visual=visual[:, :7], past_key_values=cache, use_cache=True)
    ids = torch.tensor([row])
    assert torch.equal(model.generate(ids, pixel_values=images, past_key_values=cache, **OPTIONS), alone(model)[1])


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_token_by_token_equals_one_pass(model, kind):
    """The prompt into a cache, then a token at a time; positions counted over real tokens, as biqa has them."""
    tail = torch.tensor([[4, 8, 15], [16, 23, 42], [3, 9, 27], [50, 51, 52]])
    ids, mask = padded(prompts(), "left")
    ids, mask = torch.cat([ids, tail], 1), torch.cat([mask, torch.ones_like(tail)], 1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    start, length = ids.shape[1] - 3, ids.shape[1]
    cache = DynamicCache() if kind == "dynamic" else StaticCache(config=model.config, max_cache_len=length)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pictures(4)).logits[:, start - 1 :]
        steps = []
        for begin, end in [(0, start), (start, start + 1), (start + 1, start + 2), (start + 2, length)]:
            part = {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end], "position_ids": positions[:, begin:end]}
            image = {"pixel_values": pictures(4)} if begin == 0 else {}
            steps.append(model(**part, **image, past_key_values=cache, use_cache=True).logits[:, -1])
    torch.testing.assert_close(torch.stack(steps, 1), expected, atol=1e-4, rtol=1e-4)


def test_a_compiled_step_with_a_static_cache_writes_the_same(model):
    """What transformers does by itself on a GPU."""
    ids, mask = padded(prompts(), "left")
    positions, length = (mask.cumsum(-1) - 1).clamp(min=0), ids.shape[1]
    cache = StaticCache(config=model.config, max_cache_len=length + 3)
    torch._dynamo.reset()
    step = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        prefill = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "pixel_values": pictures(4)}
        written = [model(**prefill, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)]
        for done in range(1, 4):
            real = torch.nn.functional.pad(torch.nn.functional.pad(mask, (0, done), value=1), (0, 3 - done))
            inputs = {"input_ids": written[-1][:, None], "attention_mask": real, "position_ids": positions[:, -1:] + done}
            written.append(step(**inputs, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1))
    assert torch.equal(torch.stack(written, 1), together(model)[:, :4])


class Asked(torch.nn.Module):
    """As much of biqa's VLM as sampling needs."""

    pad_id, eos_id, device = 0, 96, torch.device("cpu")
    hidden, logits, packs, _as_attended = VLM.hidden, VLM.logits, VLM.packs, VLM._as_attended
    level_ids = [11, 22, 33, 44, 55]  # noqa: RUF012
    level_logits = VLM.level_logits
    family, sharded, vision = OWL2, False, True

    def __init__(self, model):
        super().__init__()
        self.model = model

    def continuation(self, text):
        return [7, 8]

    def text(self, ids):
        return " ".join(map(str, ids))


def test_answers_from_one_prefill_are_those_of_separate_runs(model):
    asked = Asked(model)
    rows = [index for index in range(4) if images_of(index) is not None]
    questions = [Prompt(tuple(prompts()[index]), {"pixel_values": images_of(index)}) for index in rows]
    noise = uniforms(5, ["a", "b", "c"], queries=3, steps=8)
    options = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 8, "stem": "The quality is"}
    answers = sample(asked, questions, noise, **options)
    assert len({text for texts in answers.texts for text in texts}) == 12
    for index, question in enumerate(questions):
        for query in range(3):
            single = sample(asked, [question], noise[index : index + 1, query : query + 1], **options)
            assert single.texts[0] == [answers.texts[index][0], answers.texts[index][query + 1]]
            expected = answers.level_probabilities[index, [0, query + 1]]
            torch.testing.assert_close(single.level_probabilities[0], expected, atol=1e-5, rtol=1e-4)


def test_biqas_greedy_answers_are_those_of_generate(model):
    questions = [Prompt(tuple(prompts()[index]), {"pixel_values": images_of(index)}) for index in (0, 1)]
    texts = sample(Asked(model), questions, torch.zeros(2, 0, 8), temperature=1.0, top_p=1.0, max_new_tokens=8).texts
    expected = alone(model, eos_token_id=96)
    assert [text for (text,) in texts] == [Asked(model).text([token for token in expected[i][0].tolist() if token != 96]) for i in (0, 1)]


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_what_is_remembered_is_used_under_its_old_and_its_new_name(model, name):
    ids = torch.tensor([[5, 6, 7, 8]])
    whole = model(ids, use_cache=False).logits[:, -1]
    memory = DynamicCache(config=model.config)
    model(ids[:, :3], **{name: memory}, use_cache=True)
    torch.testing.assert_close(model(ids[:, 3:], **{name: memory}, use_cache=True).logits[:, -1], whole, atol=1e-5, rtol=1e-5)
    assert (whole - model(ids[:, 3:], use_cache=False).logits[:, -1]).abs().max() > 1e-3  # forgetting would show
