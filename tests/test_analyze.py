"""A look inside small runs through the door: what is written, what is printed, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from biqa.language.features import describe
from biqa.language.lexicon import read

pytest_plugins = ["small_runs"]

ENOUGH = ("data.test=60", "stage.epochs=1")
QUICK = ("resamples=20", "progress=false")
ANALYSES = ("grounding", "logit_lens", "attention", "contradiction", "gap")


def say(run: Path) -> None:
    """Give a run's answers descriptions in the project's own words: so small a model writes none."""
    for file in (run / "answers").glob("*.parquet"):
        answers = pd.read_parquet(file)
        rng = np.random.default_rng(0)
        kinds = ["white_noise", "jpeg", "motion_blur"]
        answers["description"] = [
            describe({str(kind): int(rng.integers(1, 6)) for kind in rng.choice(kinds, 2, replace=False)}, rng) for _ in range(len(answers))
        ]
        answers.to_parquet(file, index=False)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory) -> Path:
    """A folder with a one-stage run, a two-stage run and their stage 1."""
    runs = tmp_path_factory.mktemp("runs")
    for name, *options in (("joint", "stage=joint"), ("one", "stage=1"), ("two", "stage=2", f"stage.perception={runs / 'one'}")):
        outcome = run(runs, name, *options, *ENOUGH)
        assert outcome.code == 0, outcome.err
    for name in ("joint", "two"):
        say(runs / name)
    return runs


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


@pytest.fixture(scope="module")
def whole(made, call, tmp_path_factory):
    """Everything, of one run beside the other: the folder and what was printed."""
    runs = Path(shutil.copytree(made, tmp_path_factory.mktemp("whole") / "runs"))
    outcome = call("biqa.analyze", f"run={runs / 'joint'}", f"against={runs / 'two'}", *QUICK)
    assert outcome.code == 0, outcome.err
    return runs, outcome


def summary(runs: Path, name: str, analysis: str) -> dict:
    return json.loads((runs / name / "analysis" / f"{analysis}.json").read_text())


def test_everything_is_written_for_both_runs(whole):
    runs, outcome = whole
    for name in ("joint", "two"):
        there = {path.name for path in (runs / name / "analysis").iterdir()}
        assert {f"{analysis}.{kind}" for analysis in (*ANALYSES, "grounding-swaps") for kind in ("parquet",)} <= there
        assert {f"{analysis}.json" for analysis in ANALYSES} <= there
        assert not [file for file in there if file.endswith((".parts", ".tmp"))]
        for analysis in ANALYSES:
            assert summary(runs, name, analysis)["datasets"]["synthetic"]["images"] == 60
    there = {path.name for path in (runs / "joint" / "analysis").iterdir()}
    tables = (runs / "joint" / "analysis" / "tables.md").read_text()
    assert "| commit depth (layer) | " in tables
    assert "| | one-stage | two-stage | one-stage minus two-stage |" in tables.replace("|  |", "| |")
    drawn = {*ANALYSES, "grounding-dependence", "grounding-swaps"}
    assert {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")} <= there
    assert len([name for name in there if name.startswith("logit_lens-") and name.endswith(".png")]) == 3
    assert len([name for name in there if name.startswith("attention-map-") and name.endswith(".png")]) == 3
    assert "one-stage" in outcome.out
    assert "two-stage" in outcome.out
    assert "Written to" in outcome.out


def test_the_page_shows_both(whole):
    runs, _ = whole
    page = (runs / "joint" / "analysis" / "report.html").read_text()
    for words in ("Inside joint", "STAND-IN", "one-stage", "two-stage", "Commit depth", "worst contradictions", "largest gaps", "Examples"):
        assert words in page
    assert "left out:" not in page


def test_two_stage_sees_no_image_and_has_no_gap(whole):
    runs, _ = whole
    rows = pd.read_parquet(runs / "two" / "analysis" / "attention.parquet")
    assert set(rows["image_mass"]) == {0.0}
    assert min(pd.read_parquet(runs / "joint" / "analysis" / "attention.parquet")["image_mass"]) > 0
    gap = summary(runs, "two", "gap")["datasets"]["synthetic"]
    assert gap["srcc_gap_text"]["value"] == gap["srcc_gap_answer"]["value"] == 0


def test_data_are_of_each_image_and_layer(whole):
    runs, _ = whole
    answers = pd.read_parquet(runs / "joint" / "answers" / "synthetic.parquet")
    lens = pd.read_parquet(runs / "joint" / "analysis" / "logit_lens.parquet")
    assert set(lens["image"]) == set(answers["image"])
    assert set(lens["image"].value_counts()) == {max(lens["layer"])}
    said = pd.read_parquet(runs / "joint" / "analysis" / "grounding.parquet").set_index("image")
    greedy = answers[answers["query"] == 0].set_index("image")
    for image, row in said.iterrows():
        assert {name: row[f"f:{name}"] for name in read(greedy.loc[image, "description"]).features} == read(greedy.loc[image, "description"]).features
    contradictions = pd.read_parquet(runs / "joint" / "analysis" / "contradiction.parquet")
    assert len(contradictions) == len(answers)


def test_what_is_there_is_not_made_again(whole, call):
    runs, first = whole
    tables = sorted((runs / "joint" / "analysis").glob("*.parquet"))
    before = [table.stat().st_mtime_ns for table in tables]
    again = call("biqa.analyze", f"run={runs / 'joint'}", f"against={runs / 'two'}", *QUICK)
    assert (again.code, again.out) == (0, first.out)
    assert [table.stat().st_mtime_ns for table in tables] == before


def test_other_settings_and_other_answers_are(runs, call):
    def made_at(*options: str) -> tuple[int, dict]:
        outcome = call("biqa.analyze", f"run={runs / 'joint'}", "analysis=attention", *QUICK, *options)
        assert outcome.code == 0, outcome.err
        return (runs / "joint" / "analysis" / "attention.parquet").stat().st_mtime_ns, summary(runs, "joint", "attention")

    first, whole = made_at()
    second, some = made_at("images=7", "batch_size=3")
    assert second > first
    assert (whole["datasets"]["synthetic"]["images"], some["datasets"]["synthetic"]["images"]) == (60, 7)
    answers = runs / "joint" / "answers" / "synthetic.parquet"
    pd.read_parquet(answers).assign(description="The image is dark.").to_parquet(answers, index=False)
    third, dark = made_at("images=7", "batch_size=3")
    assert third > second
    assert dark["key"] != some["key"]


def test_a_killed_analysis_goes_on(runs, call, monkeypatch):
    from biqa.analysis import attention

    calls, rows_of = [], attention.attention_rows

    def killed(vlm, prompts):
        calls.append(len(prompts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rows_of(vlm, prompts)

    monkeypatch.setattr(attention, "attention_rows", killed)
    order = (f"run={runs / 'joint'}", "analysis=attention", *QUICK, "images=50", "batch_size=10")
    assert call("biqa.analyze", *order).code == 130
    assert not (runs / "joint" / "analysis" / "attention.json").exists()
    assert call("biqa.analyze", *order).code == 0
    assert calls[:6] == [10] * 6  # two, the one that was killed, and three more
    assert calls[6:] == [1] * 3  # the maps of single images
    whole = pd.read_parquet(runs / "joint" / "analysis" / "attention.parquet")
    monkeypatch.setattr(attention, "attention_rows", rows_of)
    shutil.rmtree(runs / "joint" / "analysis")
    assert call("biqa.analyze", *order).code == 0
    pd.testing.assert_frame_equal(whole, pd.read_parquet(runs / "joint" / "analysis" / "attention.parquet"))


def test_images_that_are_named_have_figures_and_are_looked_at(runs, call):
    answers = pd.read_parquet(runs / "joint" / "answers" / "synthetic.parquet")
    name = sorted(answers["image"].unique())[-1]
    assert call("biqa.analyze", f"run={runs / 'joint'}", "analysis=logit_lens", f"show=[{name}]", "images=2", *QUICK).code == 0
    there = {path.name for path in (runs / "joint" / "analysis").iterdir()}
    assert f"logit_lens-{Path(name).stem}.png" in there
    assert name in set(pd.read_parquet(runs / "joint" / "analysis" / "logit_lens.parquet")["image"])


@pytest.mark.parametrize(
    "options",
    [("stage=joint", "tuning=lora", "tuning.rank=2"), ("stage=joint", "tuning=lora", "quantization=nf4"), ("stage=zero_shot",)],
    ids=["lora", "nf4", "zero_shot"],
)
def test_the_last_layer_is_the_answer_of_the_run(run, call, tmp_path, options):
    """The model is the one that answered, with what it learnt, packed as it was."""
    assert run(tmp_path, "a", *options, *(("stage.epochs=1",) if "zero_shot" not in options[0] else ()), "sampling.max_new_tokens=4").code == 0
    answers = tmp_path / "a" / "answers" / "synthetic.parquet"
    frame = pd.read_parquet(answers)
    outcome = call("biqa.analyze", f"run={tmp_path / 'a'}", "analysis=logit_lens", *QUICK)
    assert outcome.code == 0, outcome.err
    rows = pd.read_parquet(tmp_path / "a" / "analysis" / "logit_lens.parquet")
    assert len(rows) == frame["image"].nunique()  # one layer
    assert (
        summary(tmp_path, "a", "logit_lens")["datasets"]["synthetic"]["last_layer_error"] < 0.1
    )  # a text may split into other tokens when read back


def test_weights_are_those_that_the_run_answered_with(run, call, tmp_path):
    """Its own where it has learnt, though the run that it began with is gone; of a zero-shot run those of the run that it began with."""
    begun = (f"stage.init_from={tmp_path / 'first'}", "sampling.max_new_tokens=4")
    for name, *options in (
        ("first", "stage=joint", "stage.epochs=1"),
        ("own", "stage=joint", "stage.epochs=1", *begun),
        ("asked", "stage=zero_shot", *begun),
    ):
        assert run(tmp_path, name, *options).code == 0
    assert call("biqa.analyze", f"run={tmp_path / 'asked'}", "analysis=logit_lens", *QUICK).code == 0
    shutil.rmtree(tmp_path / "asked" / "analysis")
    shutil.rmtree(tmp_path / "first")
    assert call("biqa.analyze", f"run={tmp_path / 'own'}", "analysis=logit_lens", *QUICK).code == 0
    gone = call("biqa.analyze", f"run={tmp_path / 'asked'}", "analysis=logit_lens", *QUICK)
    assert gone.code == 2
    assert "stage.init_from=" in gone.err


def test_too_few_images_for_a_regression(runs, call):
    alone = call("biqa.analyze", f"run={runs / 'joint'}", "analysis=grounding", "images=10", *QUICK)
    assert alone.code == 2
    assert "Grounding needs at least" in alone.err
    assert not list((runs / "joint" / "analysis").glob("grounding.*"))
    with_others = call("biqa.analyze", f"run={runs / 'joint'}", "images=10", *QUICK)
    assert with_others.code == 0, with_others.err
    assert "grounding is left out: Grounding needs at least" in with_others.out
    assert "grounding is left out" in (runs / "joint" / "analysis" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("run=nowhere",), "run=nowhere: no run there"),
        (
            ("run={runs}/one",),
            "is a run of stage=perception, whose answers are no level after a description. Choose a run of joint, zero_shot, inference.",
        ),
        (("run={runs}/joint", "analysis=lens"), "analysis=lens is not known: choose grounding, logit_lens, attention, contradiction, gap, or all."),
        (("run={runs}/joint", "against={runs}/joint"), "is the run itself: name another one."),
        (("run={runs}/joint", "against={runs}/gone"), "against={runs}/gone: no run there"),
        (("run={runs}/joint", "show=[nobody.png]"), "show=[nobody.png]: nobody.png was not answered. There are 60, such as"),
        (("run={runs}/joint", "images=1"), "images=1: choose 2 or more."),
        (("run={runs}/joint", "folds=1", "batch_size=0"), "folds=1: choose 2 or more. batch_size=0: choose 1 or more."),
        (("run={runs}/joint", "accelerator=tpu"), "accelerator=tpu is not known: choose auto, cpu or cuda."),
        ((), "run has no value. Set it: run=VALUE"),
        (("run={runs}/joint", "+deep=1"), "There is no option deep."),
    ],
)
def test_mistakes_are_told(made, call, options, message):
    outcome = call("biqa.analyze", *(option.format(runs=made) for option in options))
    assert outcome.code == 2
    assert message.format(runs=made) in outcome.err
    assert "Traceback" not in outcome.err
    assert not (made / "joint" / "analysis").exists()


def test_answers_that_are_gone(runs, call):
    (runs / "joint" / "answers" / "synthetic.parquet").unlink()
    outcome = call("biqa.analyze", f"run={runs / 'joint'}")
    assert outcome.code == 2
    assert "its answers are gone (synthetic.parquet is not there). Make the run again: biqa rerun" in outcome.err
    assert outcome.err.endswith(f"biqa rerun {runs / 'joint'}")


def test_an_unfinished_run(runs, call):
    (runs / "joint" / "result.json").unlink()
    outcome = call("biqa.analyze", f"run={runs / 'joint'}")
    assert (outcome.code, "is not finished" in outcome.err) == (2, True)


def test_a_decoder_without_the_usual_names(runs, call, monkeypatch):
    """Such as one of a family that transformers has and biqa has not met."""
    from biqa.models import inside

    class Other(nn.Module):
        pass

    monkeypatch.setattr(nn.Module, "get_submodule", lambda self, name: Other())
    vlm = type("VLM", (), {"model": nn.Module(), "family": type("F", (), {"decoder": "d", "name": "strange"})(), "vision": True})()
    with pytest.raises(ValueError, match="analysis=grounding, contradiction and gap need none of that"):
        inside.decoder_of(vlm)


def test_descriptions_in_which_nothing_can_be_changed(runs, call):
    """Of such a run no swap is shown, beside another one too."""
    answers = runs / "two" / "answers" / "synthetic.parquet"
    pd.read_parquet(answers).assign(description="No distortion is visible.").to_parquet(answers, index=False)
    outcome = call("biqa.analyze", f"run={runs / 'two'}", f"against={runs / 'joint'}", "analysis=grounding", *QUICK)
    assert outcome.code == 0, outcome.err
    found = summary(runs, "two", "grounding")["datasets"]["synthetic"]
    assert (found["swaps"], found["right_way"], found["features"]) == ({}, None, {})


def test_runs_without_a_data_set_in_common(runs, call):
    result = json.loads((runs / "two" / "result.json").read_text())
    for key in ("metrics", "data"):
        result[key] = {"other": result[key]["synthetic"]}
    (runs / "two" / "result.json").write_text(json.dumps(result))
    answers = runs / "two" / "answers" / "synthetic.parquet"
    answers.rename(answers.with_stem("other"))
    outcome = call("biqa.analyze", f"run={runs / 'joint'}", f"against={runs / 'two'}")
    assert outcome.code == 2
    assert "The two runs answered no data set in common" in outcome.err


def test_pictures_that_changed_since(runs, call, monkeypatch):
    """The data set has other test images now: a model that sees them cannot be looked into, and a table says which."""
    file = runs / "joint" / "answers" / "synthetic.parquet"
    frame = pd.read_parquet(file)
    frame["image"] = frame["image"].str.replace("test", "gone")
    frame.to_parquet(file, index=False)
    outcome = call("biqa.analyze", f"run={runs / 'joint'}", "analysis=attention", *QUICK)
    assert outcome.code == 2
    assert "was answered and is no test image of synthetic now" in outcome.err


def test_no_gpu(runs, call):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    outcome = call("biqa.analyze", f"run={runs / 'joint'}", "analysis=attention", "accelerator=cuda", *QUICK)
    assert outcome.code == 2
    assert "accelerator=cuda: there is no GPU here" in outcome.err
