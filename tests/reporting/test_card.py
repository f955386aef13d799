"""Model cards: the hub reads them, what they say is what the run found, and their program gives the run's own answers without biqa's help."""

import contextlib
import io
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NAMES
from huggingface_hub import ModelCard

import biqa
from biqa.evaluation.answers import PROBABILITIES, read_answers
from biqa.finished.restoring import composed_of
from biqa.language.prompts import INFER, JOINT, STEM
from biqa.models.adapters import adapt, save_weights
from biqa.models.base import Base
from biqa.models.hf import build_hf
from biqa.models.owl2.build import build_owl2
from biqa.models.sampling import level_probabilities
from biqa.reporting.card import CARD, INDEXED, card, write_cards
from biqa.reporting.result import read_result
from biqa.running.building import build_model
from biqa.runs import RunFolder

pytest_plugins = ["small_runs"]

RUNS = {
    "tiny-joint": ("stage=joint", "stage.epochs=1"),
    "tiny-one": ("stage=1", "stage.epochs=1"),
    "tiny-two": ("stage=2", "stage.epochs=1"),
    "tiny-lora": ("stage=joint", "stage.epochs=1", "tuning=lora", "tuning.rank=2"),
    "llava-one": ("model=llava", "stage=1", "stage.epochs=1"),
    "llava-two": ("model=llava", "stage=2", "stage.epochs=1"),
    "llava-joint": ("model=llava", "stage=joint", "stage.epochs=1", "model.image={crop_size:{height:28,width:28}}"),
}
WEIGHTS = {"tiny-joint": ("model",), "tiny-one": ("model",), "tiny-two": ("model",), "tiny-lora": ("adapter",)}
"""Folders of weights; of the others "adapter" and "merged"."""


@pytest.fixture(scope="module")
def runs(call, synthetic, checkpoint, tmp_path_factory) -> Path:
    """A finished run of each kind; llava's with a merged model."""
    folder, images = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("images")
    for name, options in RUNS.items():
        more: tuple[str, ...] = synthetic
        if "model=llava" in options:
            small = [option for option in synthetic if not option.startswith("model.")]
            more = (*small, "tuning=lora", "tuning.rank=4", f"model.id={checkpoint('llava')}", "model.dtype=float32", "export.merge=true")
        done = call("biqa.run", *options, *more, f"data.root={images}", f"runs={folder}", f"name={name}")
        assert done.code == 0, done.err
    return folder


EACH = [(name, kind) for name in RUNS for kind in WEIGHTS.get(name, ("adapter", "merged"))]


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_the_hub_reads_its_index(runs, name, kind):
    result = read_result(runs / name / "result.json")
    said = ModelCard.load(runs / name / kind / CARD).data
    assert said.library_name == ("peft" if kind == "adapter" else "transformers")
    assert said.pipeline_tag == ("text-generation" if name.endswith("two") else "image-text-to-text")
    assert {"biqa", "stand-in", result["run"]["stage"]} <= set(said.tags)
    figures = result["metrics"]["synthetic"]
    known = {metric: round(figures[metric]["value"], 4) for metric in INDEXED if metric in figures and not np.isnan(figures[metric]["value"])}
    assert {one.metric_type: one.metric_value for one in said.eval_results or []} == known
    if not name.endswith("one"):
        assert "instability_sampled" in known
    assert (said.get("license"), said.get("base_model")) == (("other", None) if name.startswith("llava") else (None, None))


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_it_says_what_the_run_found(runs, checkpoint, name, kind):
    result, text = read_result(runs / name / "result.json"), (runs / name / kind / CARD).read_text()
    data = result["data"]["synthetic"]
    assert f"| synthetic | 24 | 12 | `{data['fingerprint']}` |" in text
    assert "**Stand-in.** The labels of synthetic are not human opinions" in text
    for metric, label in (("srcc", "SRCC"), ("instability_argmax", "instability % (arg-max)"), ("feature_f1", "feature f1")):
        if figure := result["metrics"]["synthetic"].get(metric):
            [shown] = re.findall(rf"^\| {re.escape(label)} \| (\S+)", text, re.MULTILINE)
            assert shown == "undefined" or float(shown) == pytest.approx(figure["value"], abs=0.05)
    assert f"biqa {biqa.__version__}" in text
    assert (str(checkpoint("llava")) in text) == name.startswith("llava")
    assert not list(Path(runs / name / kind).glob("*.tmp"))


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_its_program_gives_the_answers_of_the_run(runs, monkeypatch, name, kind, tmp_path):
    """The first image of the answers table, asked by the lines of the card alone."""
    answers = read_answers(runs / name / "answers" / "synthetic.parquet")
    row = answers[answers["query"] == 0].iloc[0]
    [program] = re.findall(r"```python\n(.*?)```", (runs / name / kind / CARD).read_text(), re.DOTALL)
    assert not name.startswith("llava") or "biqa" not in program
    [image] = {path for path in Path(image_root(runs, name)).rglob(row["image"])}
    program = program.replace('"photo.jpg"', repr(str(image))).replace('"The image is slightly blurred."', repr(row["description"]))
    monkeypatch.chdir(runs / name / kind)
    found: dict[str, object] = {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(program, found)
    assert printed.getvalue()
    if name.endswith("one"):
        assert found["said"] == row["description"]
        return
    assert found["description"] == row["description"]
    if name.endswith("two"):
        np.testing.assert_allclose(found["probabilities"].numpy(), row[list(PROBABILITIES)].to_numpy(float), atol=1e-4)
        assert found["score"] == pytest.approx(row["score"], abs=1e-4)
        return
    # these models have learnt no spelling: what they wrote, read again, is not always the same tokens
    vlm = build_model(composed_of(RunFolder(runs / name)), vision=True, weights=RunFolder(runs / name)).eval()
    asked = vlm.prompt(JOINT, found["image"])
    asked = replace(asked, ids=(*asked.ids, *vlm.opening(str(found["description"]))))
    with torch.no_grad():
        expected = level_probabilities(vlm, [asked], vlm.continuation(f" {STEM}"))
    torch.testing.assert_close(found["probabilities"], expected[0], atol=1e-4, rtol=0)
    assert found["score"] == pytest.approx(float(expected[0] @ torch.tensor([0, 0.25, 0.5, 0.75, 1])), abs=1e-4)


@pytest.mark.parametrize("family", NAMES)
def test_the_program_of_a_stage_two_reads_as_every_family_does(runs, checkpoint, monkeypatch, tmp_path, family):
    """Prompt, space and first tokens differ by family. The truth is the model that was saved."""
    options = {"dtype": "float32", "attention": "sdpa", "revision": None, "family": None, "visual_tokens": None, "image": None}
    vlm = build_hf(id=str(checkpoint(family)), vision=False, seed=0, **options).eval()
    adapt(vlm, kind="lora", rank=2, alpha=4, dropout=0.0, targets=None, freeze=None)
    save_weights(vlm, tmp_path)
    result = read_result(runs / "llava-two" / "result.json")
    write_cards(tmp_path, result, vlm)
    [program] = re.findall(r"```python\n(.*?)```", (tmp_path / "adapter" / CARD).read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path / "adapter")
    found: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program, found)
    with torch.no_grad():
        expected = level_probabilities(vlm, [vlm.prompt(INFER.format(description=found["description"]))], vlm.opening(STEM))
    torch.testing.assert_close(found["probabilities"], expected[0], atol=1e-4, rtol=0)


def test_a_backbone_that_transformers_has_not_is_loaded_by_biqa(runs):
    vlm = build_owl2(size="tiny", path=None, template="v1", pre_step="pad", dtype="float32", attention="sdpa", vision=True, seed=0)
    result = read_result(runs / "llava-joint" / "result.json")
    result["config"]["model"]["_target_"] = "biqa.models.owl2.build.build_owl2"
    assert "load(Path.cwd().parent)" in card("adapter", result, vlm)
    result["config"]["stage"]["_target_"] = "biqa.stages.perception.Perception"
    assert "```python" not in card("adapter", result, vlm)


def test_a_card_names_a_base_on_the_hub_and_its_commit(runs, checkpoint):
    vlm = build_hf(
        id=str(checkpoint("llava")),
        vision=True,
        seed=0,
        dtype="float32",
        attention="sdpa",
        revision=None,
        family=None,
        visual_tokens=None,
        image=None,
    )
    vlm.base = Base("org/model", "0" * 40)
    result = read_result(runs / "llava-joint" / "result.json")
    result["config"]["quantization"] = {"kind": "nf4"}
    result["config"]["images"]["shorter_side"] = 512
    result["data"]["synthetic"] |= {"stand_in": False, "notes": ["a note"]}
    text = card("adapter", result, vlm)
    said = ModelCard(text).data
    assert (said.base_model, said.base_model_relation) == ("org/model", "adapter")
    assert (said.license, said.license_link) == ("other", "https://huggingface.co/org/model")
    assert f'from_pretrained("org/model", revision="{"0" * 40}", dtype="float32")' in text
    for words in ("packed as nf4", "a shorter side of 512 pixels", "- synthetic: a note", f"commit `{'0' * 40}`"):
        assert words in text
    assert "Stand-in" not in text
    assert "stand-in" not in said.tags
    assert ModelCard(card("merged", result, vlm)).data.base_model_relation == "finetune"


def image_root(runs: Path, name: str) -> str:
    return read_result(runs / name / "result.json")["config"]["data"]["root"]
