"""Packed weights: the decoder's linear layers and nothing else, in every family; they pass gradients on, and stages share one base."""

import pytest
import torch
from checkpoints import NAMES, write_checkpoint
from torch import nn

from biqa.models.adapters import adapt
from biqa.models.hf import build_hf
from biqa.models.learning import learning_summary
from biqa.models.owl2.build import build_owl2
from biqa.models.quantization import Quantization, is_packed, size
from biqa.models.tiny import build_tiny

LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.0, "targets": None, "freeze": None}
KINDS = ("nf4", "int8")
BACKBONES = ("tiny", "owl2", *NAMES)
WIDE = {name: {"text_config": {"hidden_size": 64, "intermediate_size": 128}} for name in NAMES}
for name in ("qwen2_5_vl", "qwen3_vl"):
    WIDE[name]["vision_config"] = {"out_hidden_size": 64}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builder of any backbone, small."""
    folders = {}

    def make(backbone, **options):
        options = {"vision": True, "seed": 0, "attention": "sdpa"} | options
        if backbone == "tiny":
            options.pop("dtype", None)
            return build_tiny(hidden=64, layers=2, heads=2, tower_hidden=64, tower_layers=1, grid=3, vocabulary=2048, **options)
        options = {"dtype": "float32"} | options
        if backbone == "owl2":
            return build_owl2(size="tiny", path=None, template="owl2", pre_step="pad", **options)
        if backbone not in folders:
            folders[backbone] = write_checkpoint(tmp_path_factory.mktemp(backbone), backbone, **WIDE[backbone])
        return build_hf(id=str(folders[backbone]), revision=None, family=None, visual_tokens=None, image={}, **options)

    return make


def logits(vlm, picture):
    prompt = vlm.prompt("Rate it.", picture(0) if vlm.vision else None)
    ids = torch.tensor([prompt.ids])
    return vlm.logits(vlm.hidden(ids, torch.ones_like(ids), image=prompt.image))


def packed_modules(vlm):
    return {vlm.whole_name(name) for name, module in vlm.backbone.named_modules() if hasattr(module, "weight") and is_packed(module.weight)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_decoders_linear_layers_are_packed_and_nothing_else(build, backbone, kind):
    whole, alone = build(backbone, quantization=Quantization(kind)), build(backbone, quantization=Quantization(kind), vision=False)
    plain = build(backbone)
    blocks = f"{plain.family.decoder}.layers."
    linears = {name for name, module in plain.backbone.named_modules() if name.startswith(blocks) and isinstance(module, nn.Linear)}
    assert packed_modules(whole) == linears
    assert packed_modules(alone) == {name for name in linears if plain.family.text_key(f"{name}.weight")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_both_stages_have_one_packed_base(build, backbone, kind):
    whole, alone = build(backbone, quantization=Quantization(kind)), build(backbone, quantization=Quantization(kind), vision=False)
    there = dict(whole.backbone.named_parameters())
    for name, weight in alone.backbone.named_parameters():
        assert torch.equal(weight, there[alone.whole_name(name)]), name


@pytest.mark.parametrize(("dtype", "autocast"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_packed_model_answers_alike_and_learns(build, picture, backbone, kind, dtype, autocast):
    plain, vlm = build(backbone), build(backbone, quantization=Quantization(kind), dtype=dtype)
    adapt(vlm, **LORA, projector=True)
    learning = {name: weight for name, weight in vlm.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in learning.values()} == {torch.float32}
    with torch.no_grad():
        for name, weight in learning.items():
            if "lora_B" in name:
                weight.normal_(std=1e-3, generator=torch.Generator().manual_seed(0))
        expected = logits(plain, picture)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = logits(vlm, picture)
    # four bits are a tenth off in every weight of a normal distribution; no other model comes so near
    assert torch.cosine_similarity(found.detach(), expected, dim=-1).median() > (0.8 if kind == "nf4" else 0.99)
    found.log_softmax(-1)[..., 5].sum().backward()
    assert {name for name, weight in learning.items() if weight.grad is None or not weight.grad.any()} == set()


def test_options_of_nf4_reach_the_layers(build):
    layers = {
        double: next(
            weight.quant_state for weight in build("llava", quantization=Quantization("nf4", double_quant=double)).parameters() if is_packed(weight)
        )
        for double in (True, False)
    }
    assert [layers[double].nested for double in (True, False)] == [True, False]
    modules = build("llava", quantization=Quantization("nf4", compute_dtype="bfloat16")).modules()
    assert {module.compute_dtype for module in modules if hasattr(module, "compute_dtype")} == {torch.bfloat16}


def test_packed_weights_are_counted_as_the_numbers_they_stand_for(build):
    plain, packed = build("llava"), build("llava", quantization=Quantization("nf4"))
    assert sum(map(size, packed.parameters())) == sum(map(size, plain.parameters()))
    adapt(packed, **LORA)
    assert "MB of four bits" in learning_summary(packed)


def test_packing_random_weights_leaves_nothing_behind(build, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    vlm = build("tiny", quantization=Quantization("nf4"))
    assert not list(tmp_path.iterdir())
    assert vlm.backbone.name_or_path == ""
