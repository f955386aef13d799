"""How Liger is asked to change a decoder. It needs a GPU and Triton, so a stand-in of its interface is asked here; its kernels were not run."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers.models.llama import modeling_llama

from biqa.errors import IncompatibleChoice
from biqa.models import liger
from biqa.models.liger import use_liger

NORM = modeling_llama.LlamaRMSNorm


def stand_in(monkeypatch, *, kinds=("llama",), gpu=True):
    """liger_kernel 0.8.5 as far as it is called: replaces a class in transformers' module and binds a forward to each norm of the instance."""
    asked = []

    def apply(model, **options):
        asked.append((model, options))
        modeling_llama.LlamaRMSNorm = modeling_llama.LlamaMLP = object
        for module in model.modules():
            if isinstance(module, NORM):
                module.forward = lambda states, own=module: 2 * NORM.forward(own, states)

    patch = ModuleType("liger_kernel.transformers.monkey_patch")
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = dict.fromkeys(kinds, apply)
    package = ModuleType("liger_kernel.transformers")
    package._apply_liger_kernel_to_instance = apply
    for name, module in (("liger_kernel", ModuleType("liger_kernel")), (package.__name__, package), (patch.__name__, patch)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(liger, "find_spec", lambda name: SimpleNamespace() if name in sys.modules else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    return asked


@pytest.mark.parametrize("vision", [False, True])
def test_the_decoder_gets_norms_and_mlps_and_no_head(tiny, monkeypatch, vision):
    asked = stand_in(monkeypatch)
    vlm = tiny(vision=vision)
    ids = torch.arange(6)[None] + 20
    before = vlm.hidden(ids, torch.ones_like(ids))
    use_liger(vlm, accelerator="auto")
    ((decoder, options),) = asked
    assert decoder is vlm.model.get_submodule(vlm.family.decoder if vision else "model")
    assert options == {"rope": False, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False}
    assert not torch.allclose(vlm.hidden(ids, torch.ones_like(ids)), before)


def test_other_models_stay_as_they_are(tiny, monkeypatch):
    stand_in(monkeypatch)
    use_liger(tiny(), accelerator="gpu")
    assert modeling_llama.LlamaRMSNorm is NORM
    assert modeling_llama.LlamaMLP is not object
    assert tiny().model.model.language_model.norm.__dict__.get("forward") is None


@pytest.mark.parametrize(
    ("options", "accelerator", "message"),
    [
        ({}, "cpu", r"trainer.liger=true: Liger's kernels run on a GPU, and here is none. Leave it out\."),
        ({"gpu": False}, "auto", "run on a GPU, and here is none"),
        ({"kinds": ("qwen2",)}, "gpu", r"Liger does not know a decoder of the type llama\. Leave it out\."),
    ],
)
def test_what_it_cannot_do_is_refused(tiny, monkeypatch, options, accelerator, message):
    asked = stand_in(monkeypatch, **options)
    with pytest.raises(IncompatibleChoice, match=message):
        use_liger(tiny(), accelerator=accelerator)
    assert not asked


def test_where_it_is_not_installed_the_extra_is_named(tiny, monkeypatch):
    stand_in(monkeypatch)
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    with pytest.raises(IncompatibleChoice, match=r"needs the package liger-kernel: pip install 'biqa\[liger\]'"):
        use_liger(tiny(), accelerator="gpu")
