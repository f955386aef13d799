"""Runs with features of a frozen tower looked up on disk and without: the same weights, texts and answers; and the runs that must not look up."""

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from biqa import config as schema
from biqa.evaluation.answers import read_answers
from biqa.running.building import build_model, build_stage, known_images, quiet

pytest_plugins = ["small_runs"]

LORA = ("tuning=lora", "tuning.rank=2", "tuning.lr=0.01", "stage.epochs=2", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    """A folder of runs, one after another, with and without; and what each says, by name."""
    folder = tmp_path_factory.mktemp("runs")
    cache, off = f"images.cache={folder / 'cache'}", "images.features_gb=0"
    calls = {
        "joint-with": ("stage=joint", *LORA),
        "joint-again": ("stage=joint", *LORA),
        "joint-without": ("stage=joint", *LORA, off),
        "one": ("stage=1", *LORA),
        "two-with": ("stage=2", *LORA),
        "two-without": ("stage=2", *LORA, off),
        "zero": ("stage=zero_shot", "trainer.accelerator=cpu"),
    }
    said = {name: run(folder, name, *options, cache) for name, options in calls.items()}
    assert [outcome.code for outcome in said.values()] == [0] * len(calls), said
    return folder, {name: outcome.out for name, outcome in said.items()}


@pytest.mark.parametrize(("one", "other"), [("joint-with", "joint-without"), ("joint-with", "joint-again"), ("two-with", "two-without")])
def test_a_run_is_the_same_with_it(both, one, other):
    folder, _ = both
    tables = [read_answers(folder / name / "answers" / "synthetic.parquet") for name in (one, other)]
    assert list(tables[0]["description"]) == list(tables[1]["description"])
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-6)
    for file in (folder / one).glob("adapter/*.safetensors"):
        weights = load_file(file), load_file(folder / other / "adapter" / file.name)
        assert max(float((weights[0][name] - value).abs().max()) for name, value in weights[1].items()) < 1e-6
    if other == "joint-again":  # nothing was computed, so nothing can differ
        pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_runs_say_what_they_look_up(both):
    folder, said = both
    there = folder / "cache" / "features"
    assert f"features of 30 images: 30 to compute, 0.0 MB in {there}" in said["joint-with"]  # 24 to learn from and 6 to validate on
    assert f"features of 12 images: 12 to compute, 0.0 MB in {there}" in said["joint-with"]
    for name in ("joint-again", "one"):
        assert f"features of 30 images: known, in {there}" in said[name]
        assert f"features of 12 images: known, in {there}" in said[name]
        assert "to compute" not in said[name]
    assert "features of 24 images: 24 to compute" in said["two-with"]  # described, so that pixels are not halved
    assert f"features of 12 images: known, in {there}" in said["two-with"]
    assert f"features of 12 images: known, in {there}" in said["zero"]
    assert not [name for name in said if "without" in name and "features of" in said[name]]
    assert len(list(there.iterdir())) == 1  # all see alike


LOOKS_UP = {
    "stage=joint tuning=lora": True,
    "stage=joint tuning=full tuning.frozen=[tower,projector]": True,
    "stage=joint tuning=lora quantization=nf4": True,
    "stage=zero_shot": True,
    "stage=joint stage.epochs=0": True,
    "stage=joint": False,
    "stage=joint tuning=full tuning.frozen=[tower]": False,
    "stage=joint tuning=lora tuning.projector=true": False,
    "stage=joint tuning=lora tuning.tower=true": False,
    "stage=joint tuning=lora images.features_gb=0": False,
    "stage=joint tuning=lora images.cache=null": False,
    "stage=joint tuning=lora strategy=deepspeed_zero2": False,
    "stage=probe": False,
}


@pytest.mark.parametrize("options", LOOKS_UP)
def test_only_runs_in_which_nothing_learns_to_see_look_up(synthetic, options):
    quiet()
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        composed = compose("config", [*synthetic, *options.split(), "name=x"])
    vlm = build_model(composed, vision=True, weights=None)
    stage = build_stage(composed, composed.stage._target_, vlm, steps=0, repeats=1, target="soft", level_weight=1.0)
    assert (stage.known is not None) == LOOKS_UP[options]


def test_a_decoder_alone_looks_nothing_up(synthetic):
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        composed = compose("config", [*synthetic, "stage=zero_shot", "name=x"])
    assert known_images(composed, build_model(composed, vision=False, weights=None)) is None


def test_trouble_with_the_disk_ends_no_run_and_is_said_once(run, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").write_text("a file in its place")
    cache = f"images.cache={tmp_path / 'cache'}"
    said = [run(tmp_path / "runs", stage, f"stage={stage}", *LORA, cache) for stage in "12"]
    assert [outcome.code for outcome in said] == [0, 0], said
    assert [outcome.out.count("features of images are not kept") for outcome in said] == [1, 0]  # both are of one process, as in a sweep


def test_a_negative_size_is_refused(run, tmp_path):
    refused = run(tmp_path, "a", "images.features_gb=-1")
    assert refused.code == 2
    assert "images.features_gb=-1.0: choose 0 (none are kept) or more." in refused.err
