"""Which weights learn; what is saved loads again, with biqa and without."""

import pytest
import torch

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.adapters import adapt, learning_summary, load_weights, save_weights

FULL = {"kind": "full", "rank": 0, "alpha": 0, "dropout": 0.0, "targets": None, "freeze": None}
LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.0, "targets": None, "freeze": None}


def learning(vlm):
    return {name for name, parameter in vlm.backbone.named_parameters() if parameter.requires_grad}


def hidden(vlm, *, image=None):
    prompt = vlm.prompt("Rate it.", image)
    ids = torch.tensor([prompt.ids])
    return vlm.hidden(ids, torch.ones_like(ids), image=prompt.image)


def shake(vlm):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in vlm.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def test_full_tuning_can_freeze_the_tower(tiny):
    vlm = tiny()
    adapt(vlm, **(FULL | {"freeze": "vision_tower"}))
    assert learning(vlm)
    assert not any("vision_tower" in name for name in learning(vlm))
    assert "tower, projector and decoder" in learning_summary(vlm)


def test_freezing_everything_is_refused(tiny):
    with pytest.raises(IncompatibleChoice, match=r"tuning\.freeze=\. matches every parameter"):
        adapt(tiny(), **(FULL | {"freeze": "."}))


@pytest.mark.parametrize("vision", [True, False])
def test_lora_learns_in_the_decoder_alone(tiny, vision):
    vlm = tiny(vision=vision)
    adapt(vlm, **LORA)
    assert len(learning(vlm)) == 2 * 7 * 2  # A and B, seven linear layers, two decoder blocks
    assert all("lora_" in name and "vision" not in name for name in learning(vlm))


def test_lora_targets_that_match_nothing_are_refused(tiny):
    with pytest.raises(IncompatibleChoice, match=r"tuning\.targets=nothing: no module"):
        adapt(tiny(), **(LORA | {"targets": "nothing"}))


@pytest.mark.parametrize("options", [FULL, LORA], ids=["full", "lora"])
def test_saved_weights_come_back(tiny, picture, tmp_path, options):
    tuned, fresh = tiny(), tiny()
    for vlm in (tuned, fresh):
        adapt(vlm, **options)
    shake(tuned)
    save_weights(tuned, tmp_path)
    assert not torch.allclose(hidden(fresh, image=picture()), hidden(tuned, image=picture()), atol=1e-3)
    load_weights(fresh, tmp_path)
    torch.testing.assert_close(hidden(fresh, image=picture()), hidden(tuned, image=picture()))


@pytest.mark.parametrize("options", [FULL, LORA], ids=["full", "lora"])
def test_a_decoder_takes_its_weights_out_of_a_whole_model(tiny, tmp_path, options):
    tuned, decoder = tiny(), tiny(vision=False)
    for vlm in (tuned, decoder):
        adapt(vlm, **options)
    shake(tuned)
    save_weights(tuned, tmp_path)
    load_weights(decoder, tmp_path)
    torch.testing.assert_close(hidden(decoder), hidden(tuned))


def test_a_full_model_loads_with_transformers_alone(tiny, picture, tmp_path):
    from transformers import LlavaForConditionalGeneration

    vlm = tiny()
    shake(vlm)
    save_weights(vlm, tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model")
    prompt = vlm.prompt("Rate it.", picture())
    logits = loaded(input_ids=torch.tensor([prompt.ids]), **prompt.image).logits
    ids = torch.tensor([prompt.ids])
    torch.testing.assert_close(logits, vlm.logits(vlm.hidden(ids, torch.ones_like(ids), image=prompt.image)), atol=1e-5, rtol=1e-4)


def test_an_adapter_loads_with_peft_alone(tiny, tmp_path):
    from peft import PeftModel

    vlm = tiny()
    adapt(vlm, **LORA)
    shake(vlm)
    save_weights(vlm, tmp_path)
    loaded = PeftModel.from_pretrained(tiny().backbone, tmp_path / "adapter")
    prompt = vlm.prompt("Rate it.")
    ids = torch.tensor([prompt.ids])
    logits = loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(logits, vlm.logits(vlm.hidden(ids, torch.ones_like(ids))), atol=1e-5, rtol=1e-4)


def test_weights_that_are_not_there(tiny, tmp_path):
    with pytest.raises(RunNotFound, match="no weights to start from; is that run finished"):
        load_weights(tiny(), tmp_path)


def test_weights_of_another_tuning(tiny, tmp_path):
    save_weights(tiny(), tmp_path)
    vlm = tiny()
    adapt(vlm, **LORA)
    with pytest.raises(RunNotFound, match="it holds model/ instead: use the same tuning= as that run"):
        load_weights(vlm, tmp_path)


def test_weights_of_another_size(tiny, tmp_path):
    save_weights(tiny(), tmp_path)
    with pytest.raises(IncompatibleChoice, match="weights are missing, misshaped or unknown"):
        load_weights(tiny(layers=3), tmp_path)
