"""One copy of what two models have in common."""

import pytest
import torch

from biqa.models import sharing
from biqa.models.adapters import adapt
from biqa.models.sharing import share_weights

LORA = {"kind": "lora", "rank": 2, "alpha": 4, "dropout": 0.0, "targets": None, "freeze": None}


def size(model):
    return sum(parameter.nbytes for parameter in {id(p): p for p in model.parameters()}.values())


def test_the_decoder_of_the_same_base_is_let_go(tiny):
    whole, decoder = tiny(), tiny(vision=False)
    prompt = decoder.prompt("How good?")
    ids = torch.tensor([prompt.ids])
    before = decoder.hidden(ids, torch.ones_like(ids))
    assert share_weights(whole, decoder) == size(decoder)
    assert {id(p) for p in decoder.parameters()} <= {id(p) for p in whole.parameters()}
    assert torch.equal(decoder.hidden(ids, torch.ones_like(ids)), before)
    assert share_weights(whole, decoder) == 0


def test_what_was_learnt_stays(tiny):
    whole, decoder = tiny(), tiny(vision=False)
    adapt(whole, **LORA)
    adapt(decoder, **LORA)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
        decoder.model.model.norm.weight.mul_(2)
    prompt = decoder.prompt("How good?")
    ids = torch.tensor([prompt.ids])
    before = decoder.hidden(ids, torch.ones_like(ids))
    assert 0 < share_weights(whole, decoder) < size(decoder)
    assert torch.equal(decoder.hidden(ids, torch.ones_like(ids)), before)
    assert all(parameter.eq(0.5).all() for name, parameter in decoder.named_parameters() if "lora_B" in name)
    assert all(parameter.eq(0).all() for name, parameter in whole.named_parameters() if "lora_B" in name)


def test_an_adapter_over_the_same_base_shares_the_base(tiny):
    whole, decoder = tiny(), tiny(vision=False)
    base = size(decoder)
    adapt(decoder, **LORA)
    assert share_weights(whole, decoder) == base


def test_tied_weights_are_counted_once(tiny):
    whole, decoder = tiny(), tiny(vision=False)
    for vlm in (whole, decoder):
        vlm.model.get_output_embeddings().weight = vlm.model.get_input_embeddings().weight
    assert share_weights(whole, decoder) == size(decoder)


def test_packed_weights_and_those_of_another_type_stay_apart(tiny, monkeypatch):
    whole, decoder = tiny(), tiny(vision=False)
    assert share_weights(whole, tiny(vision=False).to(torch.float64)) == 0
    monkeypatch.setattr(sharing, "is_packed", lambda weight: weight.ndim == 2)
    assert share_weights(whole, decoder) == sum(parameter.nbytes for parameter in decoder.parameters() if parameter.ndim != 2) > 0


@pytest.mark.parametrize("change", [{"seed": 1}, {"hidden": 64}, {"layers": 1}])
def test_other_bases_share_no_more_than_is_the_same(tiny, change):
    whole, decoder = tiny(), tiny(vision=False, **change)
    values = {name: parameter.clone() for name, parameter in decoder.named_parameters()}
    share_weights(whole, decoder)
    assert all(torch.equal(parameter, values[name]) for name, parameter in decoder.named_parameters())


def test_both_move_together(tiny):
    whole, decoder = tiny(), tiny(vision=False)
    share_weights(whole, decoder)
    whole.to(torch.float64)
    decoder.to(torch.float64)
    assert {p.data_ptr() for p in decoder.parameters()} <= {p.data_ptr() for p in whole.parameters()}
