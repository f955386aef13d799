"""Checkpoints as they lie about: shards of either format, buffers missing or rounded, leftovers in config.json, and damaged or dishonest ones."""

import json
import os
import re

import pytest
import torch
from owl2_small import padded, pictures, prompts, small, values
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

import biqa.models.owl2
from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.owl2 import Owl2Config, Owl2ForCausalLM, Owl2ForConditionalGeneration
from biqa.models.owl2.loading import load_owl2, read_config

LEFTOVERS = {
    "architectures": ["MPLUGOwl2LlamaForCausalLM"],
    "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoModelForImageTextToText": "code.Model"},
    "image_aspect_ratio": "pad",
    "image_grid_pinpoints": None,
    "tune_visual_abstractor": True,
    "visual_abstractor_lr": None,
    "level_ids": [15129, 1781],
    "softkl_loss": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0",
    "rope_scaling": None,
    "_name_or_path": "/home/somebody/checkpoints",
}
"""What other people's training left in config.json."""
FLOAT = {"dtype": torch.float32}


def original_state(model, *, positions=False):
    """A state dict as the base checkpoint has it: 32-style inv_freq there, position buffers not."""
    state = {key: value.clone() for key, value in model.state_dict().items() if positions or not key.endswith("pos_embed")}
    return state | {f"model.layers.{index}.self_attn.rotary_emb.inv_freq": torch.ones(3) for index in range(model.config.num_hidden_layers)}


def write(folder, state, kind="bin", shards=3, **changes):
    """A checkpoint folder. Shards are called as the original's are, without zero padding."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values(**LEFTOVERS | changes)))
    stem, save = ("pytorch_model", torch.save) if kind == "bin" else ("model", save_file)
    if shards == 1:
        save(state, folder / f"{stem}.{kind}")
        return folder
    names = {key: f"{stem}-{1 + index % shards}-of-{shards}.{kind}" for index, key in enumerate(state)}
    for file in sorted({*names.values()}):
        save({key: value for key, value in state.items() if names[key] == file}, folder / file)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


@pytest.fixture(scope="module")
def model():
    return small("sdpa")


@pytest.fixture
def checkpoint(tmp_path, model):
    return write(tmp_path / "owl2", original_state(model))


def outputs(model, rows=None):
    ids, mask = padded(rows or prompts(), "right")
    images = pictures(4) if rows is None else None
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, **({"pixel_values": images} if rows is None else {})).logits


@pytest.mark.parametrize(("kind", "shards"), [("bin", 1), ("bin", 33), ("safetensors", 1), ("safetensors", 3)])
def test_checkpoints_of_the_original_load(tmp_path, model, kind, shards):
    loaded = load_owl2(write(tmp_path, original_state(model), kind, shards), **FLOAT)
    assert not loaded.training
    assert torch.equal(outputs(loaded), outputs(model))


def test_transformers_alone_loads_them_too(checkpoint, model):
    loaded = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    assert type(loaded) is Owl2ForConditionalGeneration
    assert torch.equal(outputs(loaded), outputs(model))


def test_a_file_of_old_torch_loads(tmp_path, model):
    write(tmp_path, {}, shards=1)
    torch.save(original_state(model), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(outputs(load_owl2(tmp_path, **FLOAT)), outputs(model))


def test_positions_in_the_checkpoint_are_kept_and_others_computed(tmp_path, model):
    """A checkpoint trained in 16 bits holds them rounded; here two are there, changed, and two are not."""
    state = original_state(model)
    name = "model.visual_abstractor.encoder.layers.{}.crossattention.attention.{}_pos_embed"
    state[name.format(0, "q")] = torch.full((3, 16), 0.25)
    state[name.format(1, "k")] = torch.full((10, 16), 0.5)
    loaded = load_owl2(write(tmp_path, state), **FLOAT).state_dict()
    assert (loaded[name.format(0, "q")] == 0.25).all()
    assert (loaded[name.format(1, "k")] == 0.5).all()
    for key in (name.format(0, "k"), name.format(1, "q")):
        assert torch.equal(loaded[key], model.state_dict()[key])


def test_the_dtype_is_the_one_asked_for(tmp_path, model):
    state = {key: value.half() for key, value in original_state(model).items()}
    write(tmp_path, state)
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_owl2(tmp_path, dtype=dtype, attention="eager")
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
        assert loaded.config._attn_implementation == "eager"
        assert outputs(loaded).dtype == dtype
    torch.testing.assert_close(outputs(load_owl2(tmp_path, **FLOAT)), outputs(model), atol=0.05, rtol=0.02)


def test_values_come_from_the_checkpoints_config(tmp_path, model):
    write(tmp_path, original_state(model), rms_norm_eps=0.5, rope_theta=77.0)
    loaded = load_owl2(tmp_path, **FLOAT)
    assert loaded.model.norm.variance_epsilon == 0.5
    assert torch.equal(outputs(loaded), outputs(small("sdpa", rms_norm_eps=0.5, rope_theta=77.0)))


def test_the_decoder_alone_comes_out_of_a_whole_checkpoint(checkpoint, model):
    rows = [[1, 5, 6, 7], [1, 8]]
    for decoder in (load_owl2(checkpoint, vision=False, **FLOAT), AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)):
        assert type(decoder) is Owl2ForCausalLM
        assert not any(re.search(r"vision|visual|multiway\.1", key) for key in decoder.state_dict())
        assert torch.equal(outputs(decoder, rows), outputs(model, rows))


def test_what_is_saved_loads_again(checkpoint, model, tmp_path):
    load_owl2(checkpoint, **FLOAT).save_pretrained(tmp_path / "whole")
    load_owl2(tmp_path / "whole", vision=False, **FLOAT).save_pretrained(tmp_path / "decoder")
    rows = [[1, 5, 6, 7], [1, 8]]
    assert torch.equal(outputs(load_owl2(tmp_path / "whole", **FLOAT)), outputs(model))
    assert torch.equal(outputs(load_owl2(tmp_path / "decoder", vision=False, **FLOAT), rows), outputs(model, rows))
    assert [read_config(tmp_path / name).has_vision for name in ("whole", "decoder")] == [True, False]
    with pytest.raises(IncompatibleChoice, match="a decoder without its vision tower"):
        load_owl2(tmp_path / "decoder", **FLOAT)


def test_a_self_contradicting_generation_config_is_left_behind(checkpoint, tmp_path):
    """LLaMA 2's own: a temperature without sampling, which transformers refuses to write."""
    (checkpoint / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6, "eos_token_id": 2, "max_length": 4096}))
    loaded = load_owl2(checkpoint, **FLOAT)
    loaded.save_pretrained(tmp_path / "again")
    assert loaded.generation_config.eos_token_id == 2
    assert loaded.generation_config.temperature != 0.9


def test_leftovers_do_no_harm_and_code_is_not_run(checkpoint, tmp_path):
    for name in ("code.py", "custom_generate/generate.py"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for kind in (AutoConfig, AutoModelForImageTextToText, AutoModelForCausalLM):
        kind.from_pretrained(checkpoint)
    loaded = load_owl2(checkpoint, **FLOAT)
    assert not (tmp_path / "ran").exists()
    assert loaded.config.image_aspect_ratio == "pad"
    loaded.save_pretrained(tmp_path / "again")
    assert "auto_map" not in json.loads((tmp_path / "again" / "config.json").read_text())


def test_importing_twice_registers_once():
    import importlib

    importlib.reload(biqa.models.owl2)
    assert type(AutoConfig.for_model("mplug_owl2")) is Owl2Config


def test_wrong_weights_are_told_all_at_once(tmp_path, model):
    state = original_state(model)
    for key in list(state):
        if "layers.1.self_attn.k_proj" in key or "norm1" in key:
            del state[key]
    state["lm_head.weight"] = torch.zeros(90, 24)
    state["model.mm_projector.weight"] = torch.zeros(2)
    expected = (
        r"its weights do not fit its config\.json: 6 missing, first model\.layers\.1\.self_attn\.k_proj\.multiway\.0\.weight, \S+, \S+; "
        r"1 misshaped, first lm_head\.weight \(90, 24\) for \(97, 24\); 1 unknown, first model\.mm_projector\.weight\. Download"
    )
    with pytest.raises(IncompatibleChoice, match=expected):
        load_owl2(write(tmp_path, state), **FLOAT)


def test_a_decoder_needs_its_own_part_whole(tmp_path, model):
    state = original_state(model)
    del state["model.norm.weight"], state["model.visual_abstractor.visual_fc.weight"]
    with pytest.raises(IncompatibleChoice, match=r"config\.json: 1 missing, first model\.norm\.weight\. Download"):
        load_owl2(write(tmp_path, state), vision=False, **FLOAT)


class Dishonest:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused(checkpoint, tmp_path, zipped):
    file = checkpoint / "pytorch_model-2-of-3.bin"
    torch.save({"model.norm.weight": Dishonest(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(RunNotFound, match=r"pytorch_model-2-of-3\.bin: refused\. It is cut short, or holds Python objects, which could run code"):
        load_owl2(checkpoint, **FLOAT)
    with pytest.raises(Exception, match="Weights only load failed"):
        AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert not (tmp_path / "ran").exists()


def cut(file):
    file.write_bytes(file.read_bytes()[:-2000])


def pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@pytest.mark.parametrize("damage", [cut, pointer])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_damaged_files_are_named(tmp_path, model, kind, damage):
    write(tmp_path, original_state(model), kind)
    file = next(tmp_path.glob(f"*-2-of-3.{kind}"))
    damage(file)
    with pytest.raises(RunNotFound, match=rf"{file.name}: (refused|damaged).*ownload it again"):
        load_owl2(tmp_path, **FLOAT)


def test_a_training_state_is_no_checkpoint(tmp_path, model):
    write(tmp_path, {"state_dict": original_state(model), "epoch": 3}, shards=1)
    with pytest.raises(
        RunNotFound, match=r"pytorch_model\.bin: no plain table of tensors, but state_dict, epoch\. Save the model's state_dict alone\."
    ):
        load_owl2(tmp_path, **FLOAT)


def test_missing_files_are_named(checkpoint):
    (checkpoint / "pytorch_model-2-of-3.bin").unlink()
    with pytest.raises(RunNotFound, match=r"1 of 3 files that pytorch_model\.bin\.index\.json names are not there, first pytorch_model-2-of-3\.bin"):
        load_owl2(checkpoint, **FLOAT)
    (checkpoint / "pytorch_model.bin.index.json").write_text("{")
    with pytest.raises(RunNotFound, match=r"pytorch_model\.bin\.index\.json: no JSON"):
        load_owl2(checkpoint, **FLOAT)
    (checkpoint / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(RunNotFound, match=r"no weights there; looked for model\.safetensors, "):
        load_owl2(checkpoint, **FLOAT)
    (checkpoint / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(IncompatibleChoice, match="a model of type llava, not mplug_owl2"):
        load_owl2(checkpoint, **FLOAT)
    (checkpoint / "config.json").unlink()
    with pytest.raises(RunNotFound, match=r"config\.json: not there\. Name the folder of an mPLUG-Owl2 checkpoint"):
        load_owl2(checkpoint, **FLOAT)
