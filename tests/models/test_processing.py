"""Image processor, tokenizer and chat template of a checkpoint, and what is written of them beside what was learnt."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from biqa.models.adapters import save_weights
from biqa.models.hf import build_hf
from biqa.models.processing import Processor

PLAIN = {"revision": None, "family": None, "dtype": "float32", "attention": "sdpa", "visual_tokens": None, "image": None, "vision": True, "seed": 0}
IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate it."}]}]


def processor_of(folder):
    return Processor(folder, AutoConfig.from_pretrained(folder).image_token_id)


@pytest.mark.parametrize("family", ["llava", "smolvlm", "idefics3", "qwen2_5_vl", "qwen3_vl", "internvl"])
def test_what_is_saved_is_read_by_transformers(checkpoint, picture, tmp_path, family):
    """With the settings of the run: pixels and tokens are those of the run."""
    vlm = build_hf(id=str(checkpoint(family)), **(PLAIN | {"visual_tokens": 16}))
    save_weights(vlm, tmp_path)
    images = AutoImageProcessor.from_pretrained(tmp_path / "model", backend="pil")
    made = images(images=[picture()], return_tensors="pt", **dict(vlm.family.image_options))
    for name, value in vlm.prompt("Rate it.", picture()).image.items():
        assert torch.equal(vlm.family.seen(made)[name], value)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.apply_chat_template(IMAGE, tokenize=False) == vlm.processor.apply_chat_template(IMAGE)
    again = build_hf(id=str(tmp_path / "model"), **PLAIN)
    assert again.prompt("Rate it.", picture()).ids == vlm.prompt("Rate it.", picture()).ids


def test_a_template_in_a_file_of_years_ago(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("llava"), tmp_path / "copy")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert processor_of(folder).apply_chat_template(IMAGE) == "USER: <image>\nRate it. "


def test_the_image_processor_in_the_processor_s_own_file(checkpoint, picture, tmp_path):
    """Where transformers 5 writes it."""
    folder = shutil.copytree(checkpoint("smolvlm"), tmp_path / "copy")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    whole = json.loads((folder / "processor_config.json").read_text()) | {"image_processor": settings}
    (folder / "processor_config.json").write_text(json.dumps(whole))
    processor, usual = processor_of(folder), processor_of(checkpoint("smolvlm"))
    made = [one.image_processor(images=[picture()], return_tensors="pt")["pixel_values"] for one in (processor, usual)]
    assert torch.equal(*made)
    processor.set_image_options({"size": {"longest_edge": 56}})
    processor.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "processor_config.json").read_text())["image_processor"]["size"] == {"longest_edge": 56}


def test_a_tokenizer_without_a_padding_token(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / "copy")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": None}))
    tokenizer = processor_of(folder).tokenizer
    assert tokenizer.pad_token_id is not None
