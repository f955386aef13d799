"""What training asks of the port: loss, gradients, checkpointing, lower precision, compilation, what it lets one look at."""

import pytest
import torch
from owl2_small import PLACES, padded, pictures, prompts, small
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from biqa.models.owl2.decoder import Owl2Attention
from biqa.models.owl2.vision import AbstractorAttention, TowerAttention


def batch(side="right"):
    """Four mixed rows; the last three tokens of each are learnt."""
    ids, mask = padded(prompts(), side)
    labels = torch.full_like(ids, -100)
    for row, real in enumerate(mask.bool()):
        last = real.nonzero()[-2:, 0]
        labels[row, last] = ids[row, last]
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pictures(4), "labels": labels}


def gradients(model, inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_loss_is_the_cross_entropy_of_next_tokens():
    model, inputs = small(), batch()
    with torch.no_grad():
        out = model(**inputs)
    rows = [
        torch.nn.functional.cross_entropy(out.logits[row, at - 1], inputs["labels"][row, at])
        for row, at in (inputs["labels"] != -100).nonzero().tolist()
    ]
    assert len(rows) == 8
    torch.testing.assert_close(out.loss, torch.stack(rows).mean())


def test_every_weight_learns_from_a_mixed_batch():
    model = small("sdpa")
    _, learnt = gradients(model, batch())
    assert learnt.keys() == dict(model.named_parameters()).keys()
    assert [name for name, gradient in learnt.items() if not gradient.any()] == []


def test_a_row_of_text_alone_moves_the_way_of_sight_not_at_all():
    model = small()
    inputs = batch()
    inputs["labels"][[0, 1, 3]] = -100
    _, learnt = gradients(model, inputs)
    assert not any(learnt[name].any() for name in learnt if "multiway.1" in name or "vision_model" in name or "visual_abstractor" in name)
    assert learnt["model.layers.0.self_attn.k_proj.multiway.0.weight"].any()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_and_changes_nothing(reentrant, monkeypatch):
    model = small("sdpa").train()
    calls = {kind: 0 for kind in (Owl2Attention, TowerAttention, AbstractorAttention)}
    for kind in calls:
        original = kind.forward

        def counted(self, *args, original=original, kind=kind, **kwargs):
            calls[kind] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", counted)
    loss, expected = gradients(model, batch())
    assert set(calls.values()) == {2}
    today = hasattr(model, "activation_checkpointing_enable")  # since transformers 5.23
    (model.activation_checkpointing_enable if today else model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    again, learnt = gradients(model, batch())
    assert calls[Owl2Attention] == 6
    assert calls[AbstractorAttention] == 6
    assert calls[TowerAttention] == 6
    assert again == loss
    assert learnt.keys() == expected.keys()
    for name, gradient in learnt.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bfloat16_is_near(attention, way):
    model = small(attention)
    loss, expected = gradients(model, batch())
    if way == "weights":
        model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        low, learnt = gradients(model, batch())
    assert float(low) == pytest.approx(float(loss), rel=0.02)
    assert low != loss
    for name in ("lm_head.weight", "model.layers.0.self_attn.k_proj.multiway.1.weight", "model.vision_model.embeddings.patch_embed.weight"):
        cosine = torch.cosine_similarity(learnt[name].float().flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.98, name


def test_eyes_may_keep_a_precision_of_their_own():
    model = small("sdpa")
    loss, _ = gradients(model, batch())
    model.to(torch.bfloat16)
    model.model.vision_model.float()
    model.model.visual_abstractor.float()
    low, learnt = gradients(model, batch())
    assert float(low) == pytest.approx(float(loss), rel=0.02)
    assert learnt["model.vision_model.embeddings.patch_embed.weight"].dtype == torch.float32


def test_bfloat16_writes():
    """Parameters alone are converted, as FSDP does: buffers stay as they are."""
    model = small("sdpa")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    ids, mask = padded(prompts(), "left")
    tokens = model.generate(input_ids=ids, attention_mask=mask, pixel_values=pictures(4), max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert tokens.shape == (4, 4)


@pytest.mark.parametrize(
    ("given", "attention"), [("ids", "sdpa"), ("embeddings", "sdpa"), ("visual", "sdpa"), ("visual", "eager"), ("images", "sdpa")]
)
def test_compiles_in_one_piece(given, attention):
    model = small(attention, num_hidden_layers=1, visual_model={"num_hidden_layers": 1}, visual_abstractor={"num_hidden_layers": 1})
    ids, mask = padded(prompts() if given in ("visual", "images") else [[1, 5, 6], [1, 9, 8]], "right")
    inputs = {"attention_mask": mask, "input_ids": ids, "pixel_values": pictures(4) if given == "images" else None}
    if given in ("embeddings", "visual"):
        with torch.no_grad():
            inputs["inputs_embeds"], inputs["visual"] = model.model.embed(inputs.pop("input_ids"), pictures(4) if given == "visual" else None)
    expected_loss = model(**inputs).logits.square().mean()
    expected_loss.backward()
    expected = model.lm_head.weight.grad.clone()
    model.zero_grad()
    torch._dynamo.reset()
    loss = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).logits.square().mean()
    loss.backward()
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(model.lm_head.weight.grad, expected, atol=1e-5, rtol=1e-4)


def test_hidden_states_and_attentions_can_be_looked_at():
    model = small()
    inputs = batch()
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True, output_attentions=True)
        embedded, _ = model.model.embed(inputs["input_ids"], inputs["pixel_values"])
    rows, length = inputs["input_ids"].shape
    assert torch.equal(out.hidden_states[0], embedded)
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)
    assert [hidden.shape for hidden in out.hidden_states] == [(rows, length, 24)] * 3
    assert [weights.shape for weights in out.attentions] == [(rows, 4, length, length)] * 2
    for weights in out.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(rows, 4, length))
        assert not weights.triu(1).any()


def test_every_attention_goes_through_the_chosen_implementation():
    """So that flash attention reaches tower and abstractor too, which it must be told are not causal."""
    seen = []

    def recorded(module, query, key, value, attention_mask, **options):
        seen.append((type(module), module.is_causal, attention_mask is None))
        return eager_attention_forward(module, query, key, value, attention_mask, **options)

    ALL_ATTENTION_FUNCTIONS.register("recorded", recorded)
    model = small()
    model.set_attn_implementation("recorded")
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, *PLACES]]), pixel_values=pictures(1))
    assert seen == [(TowerAttention, False, True)] * 2 + [(AbstractorAttention, False, True)] * 2 + [(Owl2Attention, True, True)] * 2
    assert model._supports_flash_attn
    assert model._supports_sdpa
