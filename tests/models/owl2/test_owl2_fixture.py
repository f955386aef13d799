"""Against what the original code put out for a small random model: folder $BIQA_OWL2_FIXTURE, else owl2/fixture of $BIQA_SHARED."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from biqa.models.owl2 import Owl2Config, Owl2ForConditionalGeneration
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID

CASES = ("train", "equal", "text_only")
GENERATIONS = ("generate0", "generate1", "generate_text")


@pytest.fixture(scope="module")
def folder() -> Path:
    place = os.environ.get("BIQA_OWL2_FIXTURE") or (os.environ.get("BIQA_SHARED") and os.environ["BIQA_SHARED"] + "/owl2/fixture")
    if not place:
        pytest.skip("neither BIQA_OWL2_FIXTURE nor BIQA_SHARED is set: no outputs of the original here")
    return Path(place)


@pytest.fixture(scope="module")
def recorded(folder):
    return load_file(folder / "io.safetensors")


@pytest.fixture(scope="module")
def tolerance(folder):
    return json.loads((folder / "meta.json").read_text())["suggested_tolerance"]


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(folder, request):
    config = Owl2Config.from_dict(json.loads((folder / "config.json").read_text()))
    config._attn_implementation = request.param
    built = Owl2ForConditionalGeneration(config).eval()
    missing, unexpected = built.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    assert not missing
    assert all(key.endswith("inv_freq") for key in unexpected)
    return built


def expanded(values, ids, each, filler, image):
    """Rows in which every placeholder of `ids` stands for `each` positions of value `image`; padded on the right."""
    rows = [
        [new for value, token in zip(row, tokens, strict=True) for new in ([image] * each if token == IMAGE_TOKEN_ID else [value])]
        for row, tokens in zip(values.tolist(), ids.tolist(), strict=True)
    ]
    length = max(map(len, rows))
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])


def inputs(model, recorded, case):
    """What the port takes: placeholders expanded, which the original does inside."""
    ids = recorded[f"{case}.in.input_ids"]
    each = model.config.tokens_per_image
    mask = recorded.get(f"{case}.in.attention_mask", torch.ones_like(ids))
    batch = {"input_ids": expanded(ids, ids, each, 0, IMAGE_TOKEN_ID), "attention_mask": expanded(mask, ids, each, 0, 1)}
    if f"{case}.in.labels" in recorded:
        batch["labels"] = expanded(recorded[f"{case}.in.labels"], ids, each, -100, -100)
    return batch | {"pixel_values": recorded.get(f"{case}.in.pixel_values")}


@pytest.mark.parametrize("case", ["train", "equal"])
def test_what_is_seen(model, recorded, tolerance, case):
    pixels = recorded[f"{case}.in.pixel_values"]
    with torch.no_grad():
        seen = model.model.vision_model(pixels)
        summary = model.model.visual_abstractor(seen)
    torch.testing.assert_close(seen, recorded[f"{case}.out.vision_last_hidden_state"], atol=tolerance["hidden_atol"], rtol=0)
    torch.testing.assert_close(summary, recorded[f"{case}.out.abstractor_last_hidden_state"], atol=tolerance["hidden_atol"], rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_whole_pass(model, recorded, tolerance, case):
    batch = inputs(model, recorded, case)
    real = recorded[f"{case}.out.expanded_attention_mask"].bool()
    assert torch.equal(batch["attention_mask"].bool(), real)
    assert torch.equal(batch["labels"][real], recorded[f"{case}.out.expanded_labels"][real])
    with torch.no_grad():
        embedded, visual = model.model.embed(batch["input_ids"], batch["pixel_values"])
        out = model(**batch, output_hidden_states=True)
    indicators = recorded[f"{case}.out.modality_indicators"].bool()
    if visual is None:
        assert not indicators.any()
    else:
        assert torch.equal(visual[real], indicators[real])
        torch.testing.assert_close(embedded[real], recorded[f"{case}.out.inputs_embeds"][real], atol=tolerance["hidden_atol"], rtol=0)
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1
    for index, hidden in enumerate(out.hidden_states):
        torch.testing.assert_close(hidden[real], recorded[f"{case}.out.hidden_states.{index}"][real], atol=tolerance["hidden_atol"], rtol=0)
    torch.testing.assert_close(out.logits[real], recorded[f"{case}.out.logits"][real], atol=tolerance["logits_atol"], rtol=0)
    torch.testing.assert_close(out.loss, recorded[f"{case}.out.loss"], atol=tolerance["loss_atol"], rtol=0)


def test_gradients(model, recorded, tolerance):
    model.zero_grad()
    model(**inputs(model, recorded, "train")).loss.backward()
    parameters = dict(model.named_parameters())
    expected = {key.removeprefix("train.grad."): value for key, value in recorded.items() if key.startswith("train.grad.")}
    assert len(expected) == 21
    for name, gradient in expected.items():
        limit = tolerance["grad_rel_to_absmax"] * float(gradient.abs().max())
        torch.testing.assert_close(parameters[name].grad, gradient, atol=limit, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("case", GENERATIONS)
def test_greedy_generation(model, recorded, tolerance, case, cache):
    batch = inputs(model, recorded, case)
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None, "cache_implementation": cache}
    out = model.generate(**batch, **options, output_logits=True, return_dict_in_generate=True)
    assert torch.equal(out.sequences[0], recorded[f"{case}.out.new_tokens"])
    torch.testing.assert_close(torch.cat(out.logits), recorded[f"{case}.out.step_logits"], atol=tolerance["logits_atol"], rtol=0)


def test_a_batch_padded_on_the_left_generates_what_each_prompt_alone_does(model, recorded):
    alone = [inputs(model, recorded, case) for case in GENERATIONS]
    length = max(batch["input_ids"].shape[1] for batch in alone)
    pads = [(length - batch["input_ids"].shape[1], 0) for batch in alone]
    ids, mask = (
        torch.cat([torch.nn.functional.pad(batch[name], pad) for batch, pad in zip(alone, pads, strict=True)])
        for name in ("input_ids", "attention_mask")
    )
    images = torch.cat([batch["pixel_values"] for batch in alone if batch["pixel_values"] is not None])
    tokens = model.generate(input_ids=ids, attention_mask=mask, pixel_values=images, do_sample=False, max_new_tokens=12, eos_token_id=None)
    assert torch.equal(tokens, torch.stack([recorded[f"{case}.out.new_tokens"] for case in GENERATIONS]))
