"""Which weights learn; what is saved loads again, with biqa and without."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import NAMES, write_checkpoint
from safetensors.torch import load_file, save_file

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.adapters import adapt, load_weights, merged_bytes, save_merged, save_weights
from biqa.models.base import Base
from biqa.models.hf import build_hf
from biqa.models.learning import learning_summary
from biqa.models.owl2.build import build_owl2
from biqa.models.quantization import Quantization

FULL = {"kind": "full", "rank": 0, "alpha": 0, "dropout": 0.0, "targets": None, "freeze": None}
LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.0, "targets": None, "freeze": None}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Builder of a small backbone from a checkpoint of a family, one a seed; owl2 is drawn from the seed."""
    folders = {}

    def make(family, seed=0, **options):
        options = {"vision": True, "attention": "sdpa", "dtype": "float32"} | options
        if family == "owl2":
            return build_owl2(size="tiny", path=None, template="owl2", pre_step="pad", seed=seed, **options).eval()
        if (family, seed) not in folders:
            place = tmp_path_factory.mktemp("checkpoints") / f"{family}-{seed}"
            folders[family, seed] = write_checkpoint(place, family, seed=seed)
        return build_hf(id=str(folders[family, seed]), revision=None, family=None, visual_tokens=None, image={}, seed=0, **options).eval()

    return make


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
    assert "LlavaForConditionalGeneration:" in learning_summary(vlm)


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


@pytest.mark.parametrize("family", ["tiny", "qwen2_5_vl", "llava"])
def test_a_decoder_tuned_alone_comes_back(tiny, checkpoint, tmp_path, family):
    """What a stage 2 with tuning=full has learnt."""
    build = tiny if family == "tiny" else partial(checkpoint, family)
    tuned, again = build(vision=False), build(vision=False)
    with torch.no_grad():
        tuned.model.get_input_embeddings().weight.add_(1.0)
    save_weights(tuned, tmp_path)
    load_weights(again, tmp_path)
    learnt = tuned.backbone.state_dict()
    assert all(torch.equal(value, learnt[name]) for name, value in again.backbone.state_dict().items())


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


# parts that learn


def learning_parts(vlm):
    return {vlm.part_of(name) for name in learning(vlm) if ".original_module" not in name}


@pytest.mark.parametrize("family", NAMES)
def test_lora_reaches_tower_and_projector_where_asked(checkpoint, family):
    vlm = checkpoint(family)
    adapt(vlm, **LORA, projector=True, tower=True)
    assert learning_parts(vlm) == {"tower", "projector", "decoder"}
    names = learning(vlm)
    assert all("lora_" not in name for name in names if vlm.part_of(name) == "projector")
    assert all("lora_" in name for name in names if vlm.part_of(name) != "projector")
    plain = checkpoint(family)
    whole = {name for name, _ in plain.backbone.named_parameters() if plain.part_of(name) == "projector"}
    learnt = {vlm.whole_name(name).replace("modules_to_save.default.", "") for name in names if vlm.part_of(name) == "projector"}
    assert learnt == whole
    text = checkpoint(family, vision=False)
    adapt(text, **LORA, projector=True, tower=True)
    assert learning_parts(text) == {"decoder"}


def test_targets_count_in_the_decoder_alone(checkpoint):
    for vision in (True, False):
        vlm = checkpoint("llava", vision=vision)
        adapt(vlm, **(LORA | {"targets": r".*\.q_proj"}))
        assert learning_parts(vlm) == {"decoder"}
        assert len(learning(vlm)) == 2 * 2  # A and B, two blocks


@pytest.mark.parametrize("frozen", [["tower"], ["projector"], ["tower", "decoder"]])
def test_parts_stay_frozen_by_name(checkpoint, frozen):
    vlm = checkpoint("qwen2_5_vl")  # whose projector lies inside the tower
    adapt(vlm, **FULL, frozen=frozen)
    assert learning_parts(vlm) == {"tower", "projector", "decoder"} - set(frozen)
    with pytest.raises(IncompatibleChoice, match=r"tuning\.frozen=\[decoder\] leaves nothing that learns\. This stage runs on the decoder alone"):
        adapt(checkpoint("qwen2_5_vl", vision=False), **FULL, frozen=["decoder"])


def test_the_summary_counts_by_part(checkpoint):
    vlm = checkpoint("llava", dtype="bfloat16")
    total = {part: 0 for part in ("tower", "projector", "decoder")}
    for name, weight in vlm.backbone.named_parameters():
        total[vlm.part_of(name)] += weight.numel()
    adapt(vlm, **LORA, projector=True)
    lora = sum(weight.numel() for name, weight in vlm.named_parameters() if "lora_" in name)
    lines = [" ".join(line.split()) for line in learning_summary(vlm).splitlines()]
    assert lines[1] == f"tower 0 of {total['tower']:,} learn"
    assert lines[2] == f"projector {total['projector']:,} of {total['projector']:,} learn"
    assert lines[3] == f"decoder {lora:,} of {total['decoder'] + lora:,} learn"
    assert lines[5] == f"frozen weights: {2 * (total['tower'] + total['decoder']) / 2**20:,.1f} MB bfloat16"


# types

CHOICES = [
    LORA | {"projector": True, "tower": True},
    *(FULL | {"frozen": frozen} for frozen in (["tower"], ["decoder"], ["projector"], ["tower", "decoder"], [])),
    *(FULL | {"freeze": freeze} for freeze in ("bias", "q_proj|norm", "embed|head")),
]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("family", ["llava", "smolvlm", "qwen3_vl", "owl2"])
def test_what_learns_is_float32_beside_frozen_bfloat16(checkpoint, picture, family, choice, autocast):
    plain, vlm = checkpoint(family), checkpoint(family, dtype="bfloat16")
    adapt(vlm, **choice)
    types = {(weight.requires_grad, weight.dtype) for weight in vlm.parameters()}
    assert (True, torch.bfloat16) not in types
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = vlm.logits(hidden(vlm, image=picture()))
    found.log_softmax(-1)[..., 5].sum().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in vlm.parameters())
    expected = plain.logits(hidden(plain, image=picture())).detach()
    assert torch.cosine_similarity(found.detach(), expected, dim=-1).min() > 0.99


def test_small_steps_are_not_lost_in_rounding(checkpoint):
    vlm = checkpoint("llava", vision=False, dtype="bfloat16")
    adapt(vlm, **FULL)
    weight = vlm.model.get_input_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1 + 1e-4)
    assert not torch.equal(before, weight)
    assert torch.equal(before.bfloat16(), weight.bfloat16())


def test_nothing_is_hooked_into_a_model_of_one_type(checkpoint):
    vlm = checkpoint("llava")
    adapt(vlm, **FULL, frozen=["tower"])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in vlm.modules())


# saved and read

ALL = LORA | {"projector": True, "tower": True}


def test_a_learnt_projector_is_never_dropped(checkpoint, picture, tmp_path):
    taught = checkpoint("llava")
    adapt(taught, **ALL)
    shake(taught)
    save_weights(taught, tmp_path)
    again = checkpoint("llava")
    adapt(again, **ALL)
    load_weights(again, tmp_path)
    torch.testing.assert_close(hidden(again, image=picture()), hidden(taught, image=picture()))
    for missing in ({"projector": False}, {"tower": False}, {"projector": False, "tower": False}):
        without = checkpoint("llava")
        adapt(without, **(ALL | missing))
        with pytest.raises(
            IncompatibleChoice, match=r"have learnt and must not be lost: choose " + " and ".join(f"tuning.{part}=true" for part in missing)
        ):
            load_weights(without, tmp_path)
    decoder = checkpoint("llava", vision=False)
    adapt(decoder, **ALL)
    load_weights(decoder, tmp_path)
    torch.testing.assert_close(hidden(decoder), hidden(taught))


def test_an_adapter_may_start_one_with_more_to_learn(checkpoint, picture, tmp_path):
    taught, more = checkpoint("llava"), checkpoint("llava")
    adapt(taught, **LORA)
    shake(taught)
    save_weights(taught, tmp_path)
    adapt(more, **ALL)
    load_weights(more, tmp_path)
    torch.testing.assert_close(hidden(more, image=picture()), hidden(taught, image=picture()))


def test_a_decoders_adapter_serves_the_whole_model_and_another_decoder(checkpoint, tmp_path):
    taught = checkpoint("qwen3_vl", vision=False)
    adapt(taught, **LORA)
    shake(taught)
    save_weights(taught, tmp_path)
    for vision in (True, False):
        again = checkpoint("qwen3_vl", vision=vision)
        adapt(again, **LORA)
        load_weights(again, tmp_path)
        torch.testing.assert_close(hidden(again), hidden(taught), atol=1e-5, rtol=1e-4)


def test_two_adapters_over_one_backbone_serve_both_stages(checkpoint, picture, tmp_path):
    from peft import PeftModel

    said = {}
    for stage, vision in (("one", True), ("two", False)):
        vlm = checkpoint("llava", vision=vision)
        adapt(vlm, **ALL)
        shake(vlm)
        save_weights(vlm, tmp_path / stage)
        said[stage] = hidden(vlm, image=picture() if vision else None)
    both = checkpoint("llava")
    both.backbone = PeftModel.from_pretrained(both.backbone, tmp_path / "one" / "adapter", adapter_name="one")
    both.backbone.load_adapter(tmp_path / "two" / "adapter", adapter_name="two")
    for stage in ("one", "two", "one"):
        both.backbone.set_adapter(stage)
        torch.testing.assert_close(hidden(both.eval(), image=picture() if stage == "one" else None), said[stage])


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({"rank": 8}, {}, r"learnt with tuning\.rank=8, and this run has tuning\.rank=4\. Choose tuning\.rank=8\."),
        ({"alpha": 16}, {}, r"learnt with tuning\.alpha=16, and this run has tuning\.alpha=8"),
        ({}, {"targets": ".*q_proj"}, r"first .*down_proj.*choose the tuning\.targets of that run \(.*layers"),
    ],
)
def test_another_rank_or_targets_are_named(checkpoint, tmp_path, there, here, message):
    taught, other = checkpoint("llava"), checkpoint("llava")
    adapt(taught, **(LORA | there))
    save_weights(taught, tmp_path)
    adapt(other, **(LORA | here))
    with pytest.raises(IncompatibleChoice, match=message):
        load_weights(other, tmp_path)


# the base


def test_an_adapter_names_its_base(checkpoint, tmp_path):
    vlm = checkpoint("llava")
    vlm.base = Base("org/model", "0" * 40)
    adapt(vlm, **LORA)
    save_weights(vlm, tmp_path)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == ("org/model", "0" * 40)
    assert str(vlm.base) == f"org/model (revision {'0' * 40})"


@pytest.mark.parametrize("vision", [True, False])
def test_an_adapter_on_the_wrong_base_is_refused(checkpoint, tmp_path, vision):
    taught = checkpoint("llava")
    adapt(taught, **LORA)
    save_weights(taught, tmp_path)
    other = checkpoint("llava", vision=vision, seed=1)
    adapt(other, **LORA)
    with pytest.raises(
        IncompatibleChoice, match=r"learnt on /.*llava-0, and the base here is /.*llava-1: their weights differ \(decoder; decoder, linear"
    ):
        load_weights(other, tmp_path)


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"quantization": Quantization("nf4")}, {"vision": False}, {"attention": "eager"}])
def test_the_same_base_is_known_however_it_is_loaded(checkpoint, tmp_path, options):
    taught, again = checkpoint("llava", dtype="bfloat16"), checkpoint("llava", **options)
    for vlm in (taught, again):
        adapt(vlm, **LORA)
    save_weights(taught, tmp_path)
    load_weights(again, tmp_path)
    assert set(again.base.prints) & set(taught.base.prints)


@pytest.mark.parametrize("learnt", ["float16", "float32"])
@pytest.mark.parametrize("here", ["float16", "float32", "bfloat16"])
def test_a_base_of_half_precision_is_known_too(checkpoint, tmp_path, capsys, learnt, here):
    taught, again, other = checkpoint("llava", dtype=learnt), checkpoint("llava", dtype=here), checkpoint("llava", seed=1, dtype=here)
    for vlm in (taught, again, other):
        adapt(vlm, **LORA)
    save_weights(taught, tmp_path)
    load_weights(again, tmp_path)
    unlike = (learnt, here) == ("float16", "bfloat16")  # which no rounding makes equal: it is said that nobody can tell
    assert ("cannot be compared" in capsys.readouterr().err) == unlike
    if not unlike:
        with pytest.raises(IncompatibleChoice, match="their weights differ"):
            load_weights(other, tmp_path)


def test_an_adapter_without_a_note_of_its_base_is_read_and_that_is_said(checkpoint, tmp_path, capsys):
    vlm = checkpoint("llava")
    adapt(vlm, **LORA)
    save_weights(vlm, tmp_path)
    (tmp_path / "adapter" / "base.json").unlink()
    load_weights(vlm, tmp_path)
    assert "whether this adapter was learnt on the base here is not known: it has no base.json" in capsys.readouterr().err


def test_a_packed_base_is_known_by_what_is_not_packed(checkpoint, tmp_path):
    taught, other = checkpoint("llava", quantization=Quantization("nf4")), checkpoint("llava", seed=1, quantization=Quantization("nf4"))
    for vlm in (taught, other):
        adapt(vlm, **LORA)
    save_weights(taught, tmp_path)
    with pytest.raises(IncompatibleChoice, match=r"their weights differ \(decoder; projector; tower; tower, linear layers\)"):
        load_weights(other, tmp_path)


# without biqa


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_adapters_and_merged_models_answer_without_biqa(checkpoint, picture, tmp_path, family):
    """Row 5 of issue 5: stage 1 and stage 2, adapter and merged, in a program that imports torch, transformers and peft alone."""
    asked, inputs, expected = {}, {}, {}
    for stage, vision in (("one", True), ("two", False)):
        vlm = checkpoint(family, vision=vision)
        adapt(vlm, **ALL)
        shake(vlm)
        save_weights(vlm, tmp_path / stage)
        prompt = vlm.prompt("Rate it.", picture() if vision else None)
        ids = torch.tensor([prompt.ids])
        seen = vlm.family.batch(prompt.image)
        if vision and vlm.family.positions_in_space:
            seen["mm_token_type_ids"] = (ids == vlm.model.config.image_token_id).int()
        inputs |= {f"{stage}/{name}": value for name, value in {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}.items()}
        expected[stage] = vlm.logits(hidden(vlm, image=picture() if vision else None)).detach()
        save_merged(vlm, tmp_path / stage / "merged")
        asked[stage] = {"text": not vision, "merged": None, "adapter": str(tmp_path / stage / "adapter"), "inputs": stage}
        asked[f"{stage}, merged"] = {"text": not vision, "merged": str(tmp_path / stage / "merged"), "adapter": None, "inputs": stage}
    save_file(inputs, tmp_path / "inputs.safetensors")
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    program = Path(__file__).parents[1] / "plain_models.py"
    done = subprocess.run([sys.executable, str(program), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "logits.safetensors")
    for name, one in asked.items():
        torch.testing.assert_close(found[name], expected[one["inputs"]], atol=1e-4, rtol=1e-4)
        assert torch.equal(found[name].argmax(-1), expected[one["inputs"]].argmax(-1))


def test_packed_weights_are_not_merged_into(checkpoint, tmp_path):
    vlm = checkpoint("llava", quantization=Quantization("nf4"))
    adapt(vlm, **LORA)
    with pytest.raises(AssertionError, match="load the base without quantization"):
        save_merged(vlm, tmp_path / "merged")


def test_a_merged_model_has_the_type_of_its_base(checkpoint, tmp_path):
    vlm = checkpoint("llava", dtype="bfloat16")
    adapt(vlm, **ALL)
    save_merged(vlm, tmp_path / "merged")
    assert merged_bytes(vlm) == pytest.approx((tmp_path / "merged" / "model.safetensors").stat().st_size, rel=0.1)
    assert {value.dtype for value in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
