"""A checkpoint of a known family: what is refused, and in which words."""

import json
import re
import shutil

import pytest
import torch
from checkpoints import rename_weights
from safetensors.torch import load_file, save_file

from biqa.errors import IncompatibleChoice, UserError
from biqa.models.attention import PRODUCTS
from biqa.models.hf import build_hf

PLAIN = {"revision": None, "family": None, "dtype": "float32", "attention": "sdpa", "visual_tokens": None, "image": None, "vision": True, "seed": 0}


@pytest.fixture
def copied(checkpoint, tmp_path):
    """A copy of a family's checkpoint, to be damaged."""

    def copy(family="smolvlm"):
        return shutil.copytree(checkpoint(family), tmp_path / "copy")

    return copy


def rewrite(file, **changes):
    """Change values of a JSON file; None takes one out."""
    values = {key: value for key, value in (json.loads(file.read_text()) | changes).items() if value is not None}
    file.write_text(json.dumps(values))


def change_weight(folder, name, change):
    state = load_file(folder / "model.safetensors")
    state[name] = change(state[name])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {name: f"model-0000{1 + ('lm_head' in name)}-of-00002.safetensors" for name in load_file(folder / "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize(
    ("family", "damage", "message"),
    [
        ("smolvlm", lambda folder: (folder / "config.json").unlink(), r"copy/config\.json: not there\. Name the folder of a checkpoint\."),
        ("smolvlm", lambda folder: (folder / "config.json").write_text('{"model_type":'), r"copy/config\.json: no JSON object \(.*Download the checkpoint again\."),
        ("smolvlm", lambda folder: (folder / "config.json").write_text("[]"), r"copy/config\.json: no JSON object \(.*Download the checkpoint again\."),
        ("smolvlm", lambda folder: rewrite(folder / "config.json", model_type="paligemma"),
         r"copy/config\.json: a model of type paligemma, which is none of llava, smolvlm, idefics3, qwen2_5_vl, qwen3_vl, internvl\. Choose a checkpoint"),
        ("smolvlm", lambda folder: rewrite(folder / "config.json", model_type="mplug_owl2"),
         r"copy/config\.json: a model of type mplug_owl2\. Choose model=owl2 model\.path="),
        ("smolvlm", lambda folder: rewrite(folder / "config.json", scale_factor="two"), r"copy/config\.json: transformers cannot read it: .*scale_factor"),
        ("smolvlm", lambda folder: (folder / "model.safetensors").unlink(), r"copy: its weights cannot be read: .*model\.safetensors.*Download the checkpoint again\."),
        ("smolvlm", truncate, r"copy: its weights cannot be read: .*Download the checkpoint again\."),
        ("smolvlm", lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), r"copy: its weights cannot be read: "),
        ("smolvlm", shard, r"copy: its weights cannot be read: .*Download the checkpoint again\."),
        ("smolvlm", lambda folder: change_weight(folder, "lm_head.weight", lambda value: value[:-3].clone()),
         r"copy: 1 weights are missing, misshaped or unknown, first lm_head\.weight\. Download the checkpoint again, or mend config\.json\."),
        ("qwen2_5_vl", lambda folder: rename_weights(folder, r"^visual\.merger\.ln_q\.weight$", "visual.merger.ln_z.weight"),
         r"copy: 2 weights are missing, misshaped or unknown, first model\.visual\.merger\.ln_q\.weight, model\.visual\.merger\.ln_z\.weight\."),
        ("llava", lambda folder: rename_weights(folder, r"layers\.1\.mlp\.up_proj", None),
         r"copy: 1 weights are missing, misshaped or unknown, first model\.language_model\.layers\.1\.mlp\.up_proj\.weight\."),
        ("smolvlm", lambda folder: (folder / "preprocessor_config.json").unlink(), r"copy: its processor or tokenizer cannot be read: .*Download it again\."),
        ("smolvlm", lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
         r"copy: its processor or tokenizer cannot be read: .*Download it again\."),
        ("smolvlm", lambda folder: (folder / "tokenizer.json").write_text("{}"), r"copy: its processor or tokenizer cannot be read: .*Download it again\."),
        ("smolvlm", lambda folder: (folder / "chat_template.jinja").unlink(),
         r"copy: the checkpoint has no chat template, so that it cannot be asked anything\. Choose an instruct model\."),
        ("smolvlm", lambda folder: (folder / "chat_template.jinja").write_text("{% for %}"), r"copy: its chat template cannot be used: .*Download it again\."),
        ("smolvlm", lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }}: 1"),
         r"copy: the chat template has no place for an image \(<image>\)\. Choose another revision or model\."),
        ("smolvlm", lambda folder: (folder / "chat_template.json").write_text("{"), r"copy/chat_template\.json: no JSON object \(.*Download the checkpoint again\."),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint(copied, family, damage, message):
    folder = copied(family)
    damage(folder)
    with pytest.raises(UserError) as refusal:
        build_hf(id=str(folder), **PLAIN)
    assert re.search(message, str(refusal.value))
    assert "\n" not in str(refusal.value)


def test_level_words_that_begin_alike(copied):
    """A tokenizer of single bytes: all five begin with a space."""
    folder = copied("qwen3_vl")
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    whole["model"]["merges"] = []
    file.write_text(json.dumps(whole))
    with pytest.raises(IncompatibleChoice, match="the level words bad, poor, fair, good, excellent do not begin with five different tokens"):
        build_hf(id=str(folder), **PLAIN)


def test_a_tower_that_is_not_needed_may_be_damaged(copied):
    """Stage 2 reads the decoder alone: what is wrong with the projector does not stop it, stage 1 it does."""
    folder = copied()
    change_weight(folder, "model.connector.modality_projection.proj.weight", lambda value: torch.zeros(3, 3))
    assert build_hf(id=str(folder), **(PLAIN | {"vision": False})).model.num_parameters() > 0
    with pytest.raises(
        IncompatibleChoice, match=r"1 weights are missing, misshaped or unknown, first model\.connector\.modality_projection\.proj\.weight"
    ):
        build_hf(id=str(folder), **PLAIN)


@pytest.mark.parametrize("vision", [True, False])
def test_a_model_is_ready_to_learn(checkpoint, vision):
    """transformers hands over what it loads for use; dropout and the like want the other mode."""
    model = build_hf(id=str(checkpoint("llava")), **(PLAIN | {"vision": vision})).model
    assert model.training
    assert model.config._attn_implementation == PRODUCTS
    assert not model.generation_config.do_sample


def test_weights_in_shards(copied):
    folder = copied()
    whole = build_hf(id=str(folder), **PLAIN).model.state_dict()
    shard(folder)
    state = load_file(folder / "model-00001-of-00002.safetensors")
    head = {"lm_head.weight": state.pop("lm_head.weight")}
    save_file(state, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file(head, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    again = build_hf(id=str(folder), **PLAIN).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert set(again) == set(whole)
