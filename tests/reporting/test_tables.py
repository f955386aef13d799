import json

import numpy as np
import pytest

from biqa.evaluation.answers import read_answers
from biqa.evaluation.evaluate import compare
from biqa.reporting.result import find_results
from biqa.reporting.tables import MEAN, Cell, accuracy_table, stability_table, study_runs

pytest_plugins = ["fabrication"]


def study_of(folder, baseline="joint"):
    return study_runs(find_results(folder), baseline=baseline, resamples=100, seed=0)


def cell(table, system: str, dataset: str, metric: str) -> Cell | None:
    """The one cell of a system (the beginning of its name) in a column."""
    (position,) = [position for position, column in enumerate(table.columns) if (column.dataset, column.metric) == (dataset, metric)]
    (row,) = [row for row in table.rows if row.system.startswith(system)]
    return row.cells[position]


def number(table, system: str, dataset: str, metric: str) -> Cell:
    found = cell(table, system, dataset, metric)
    assert found is not None
    return found


@pytest.fixture
def runs(fabricate, tmp_path):
    """One-stage and two-stage on one stand-in data set, the second with less noise."""
    fabricate(tmp_path, "one", "joint", noise=0.4)
    fabricate(tmp_path, "two", "inference", noise=0.1)
    return tmp_path


def test_gain_is_the_paired_difference(runs):
    table = accuracy_table(study_of(runs), "")
    tables = [read_answers(runs / name / "answers" / "synthetic.parquet") for name in ("two", "one")]
    wanted = compare(*tables, resamples=100, seed=0)["synthetic"]
    for metric in ("srcc", "plcc"):
        gain = number(table, "two-stage", "synthetic", f"{metric}_gain")
        assert (gain.value, gain.low, gain.high, gain.p) == pytest.approx(tuple(wanted[metric].values()))
    assert cell(table, "one-stage", "synthetic", "srcc_gain") is None


def test_change_of_instability_is_the_paired_difference(runs):
    table = stability_table(study_of(runs), "")
    tables = [read_answers(runs / name / "answers" / "synthetic.parquet") for name in ("two", "one")]
    wanted = compare(*tables, resamples=100, seed=0)["synthetic"]["instability_argmax"]
    found = number(table, "two-stage", "synthetic", "instability_argmax_gain")
    assert (found.value, found.low, found.high) == pytest.approx((wanted["value"], wanted["low"], wanted["high"]))
    assert number(table, "two-stage", "", "repeats").value == 4
    assert number(table, "two-stage", "", "temperature").value == 1


def test_figures_by_feature_change_no_table(runs, fabricate):
    """A stage-1 run lies among the others, as in every folder of a sweep."""
    before = [make(study_of(runs), "") for make in (accuracy_table, stability_table)]
    folder = fabricate(runs, "stage-one", "perception")
    result = json.loads((folder / "result.json").read_text())
    names = ("feature_f1", "accuracy", "accuracy/brightness", "over_majority/white_noise")
    result["metrics"]["synthetic"] = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in names}
    (folder / "result.json").write_text(json.dumps(result))
    after = [make(study_of(runs), "") for make in (accuracy_table, stability_table)]
    assert [table.rows for table in after] == [table.rows for table in before]
    assert [table.columns for table in after] == [table.columns for table in before]


def test_another_baseline(runs):
    table = accuracy_table(study_of(runs, baseline="inference"), "")
    assert number(table, "one-stage", "synthetic", "srcc_gain").value < 0
    assert any(column.group == "gain over two-stage" for column in table.columns)


def test_published_figures_stand_beside_ours(runs):
    study = study_of(runs)
    accuracy, stability = accuracy_table(study, ""), stability_table(study, "")
    assert [row.system for row in accuracy.rows if row.paper] == ["paper (mPLUG-Owl2; LIVE, CSIQ, SPAQ, KonIQ)"]
    assert number(accuracy, "paper", "synthetic", "srcc_gain") == Cell(0.3124, printed="+0.3124")
    assert number(accuracy, "paper", "synthetic", "plcc_gain").value == 0.3507
    assert cell(accuracy, "paper", "synthetic", "srcc") is None
    assert number(stability, "paper, baseline", "SPAQ+KonIQ", "instability").printed == "22.00"
    assert number(stability, "paper, two-stage", "SPAQ+KonIQ", "instability").value == 12.39
    assert cell(stability, "two-stage", "SPAQ+KonIQ", "instability") is None
    for table in (accuracy, stability):
        assert any("arXiv 2512.09555" in note for note in table.notes)


def test_stand_ins_are_marked_and_noted_and_no_mean_is_taken_with_them(fabricate, runs):
    for dataset in ("koniq", "csiq"):
        fabricate(runs, f"real-{dataset}", "joint", dataset=dataset, stand_in=False)
    table = accuracy_table(study_of(runs), "")
    headings = {column.dataset: column.heading for column in table.columns if column.kind == "correlation"}
    assert headings == {"csiq": "csiq", "koniq": "koniq", "synthetic": "synthetic†", MEAN: "mean over csiq, koniq"}
    gains = [column.heading for column in table.columns if column.metric == "srcc_gain"]
    assert gains == ["gain over one-stage (joint), mean over csiq, koniq", "gain over one-stage (joint), synthetic"]
    paper = table.rows[-1].cells
    assert [cell is not None for cell, column in zip(paper, table.columns, strict=True) if column.metric == "srcc_gain"] == [True, False]
    assert any(note.startswith("† stand-in: the labels of synthetic are not") for note in table.notes)


def test_without_stand_ins_there_is_no_mark(fabricate, tmp_path):
    fabricate(tmp_path, "real", "joint", dataset="koniq", stand_in=False)
    table = accuracy_table(study_of(tmp_path), "")
    assert "†" not in "".join([*(column.heading for column in table.columns), *table.notes])


def test_means_are_over_the_data_sets_of_the_paper_where_all_of_them_were_measured(fabricate, tmp_path):
    for dataset in ("live", "csiq", "spaq", "koniq", "livec"):
        for stage, noise in (("joint", 0.4), ("inference", 0.1)):
            fabricate(tmp_path, f"{stage}-{dataset}", stage, dataset=dataset, noise=noise, stand_in=False)
    study = study_of(tmp_path)
    for table, metric, over in (
        (accuracy_table(study, ""), "srcc", ("live", "csiq", "spaq", "koniq")),
        (stability_table(study, ""), "instability_argmax", ("spaq", "koniq")),
    ):
        values = [number(table, "two-stage", dataset, metric).value for dataset in over]
        assert number(table, "two-stage", MEAN, metric).value == pytest.approx(np.mean(values))
        change = number(table, "two-stage", MEAN, f"{metric}_gain").value
        assert change == pytest.approx(np.mean(values) - np.mean([number(table, "one-stage", dataset, metric).value for dataset in over]))
        assert f"mean over {', '.join(over)}" in {column.group for column in table.columns}
        assert {column.dataset for column in table.columns if column.kind in ("gain", "points")} == {MEAN}


def test_mean_and_gain_over_data_sets(fabricate, tmp_path):
    for dataset in ("koniq", "spaq"):
        fabricate(tmp_path, f"one-{dataset}", "joint", dataset=dataset, noise=0.4)
        fabricate(tmp_path, f"two-{dataset}", "inference", dataset=dataset, noise=0.1)
    table = accuracy_table(study_of(tmp_path), "")
    mean = {system: number(table, system, MEAN, "srcc") for system in ("one-stage", "two-stage")}
    parts = [number(table, "two-stage", dataset, "srcc").value for dataset in ("koniq", "spaq")]
    gain = number(table, "two-stage", MEAN, "srcc_gain")
    assert mean["two-stage"].value == pytest.approx(np.mean(parts))
    assert gain.value == pytest.approx(mean["two-stage"].value - mean["one-stage"].value)
    assert gain.low < gain.value < gain.high
    assert "Each data set's figures are of the model trained on it." in table.notes


def test_a_data_set_that_one_system_lacks(fabricate, runs):
    fabricate(runs, "real", "joint", dataset="koniq")
    table = accuracy_table(study_of(runs), "")
    assert cell(table, "two-stage", "koniq", "srcc") is None
    assert cell(table, "two-stage", MEAN, "srcc") is None
    gain = number(table, "two-stage", MEAN, "srcc_gain").value
    assert gain == pytest.approx(number(table, "two-stage", "synthetic", "srcc").value - number(table, "one-stage", "synthetic", "srcc").value)
    assert "two-stage: the gain leaves out koniq, where the two did not answer the same images." in table.notes


def test_no_gain_between_different_test_images(fabricate, tmp_path):
    fabricate(tmp_path, "one", "joint", images=50)
    fabricate(tmp_path, "two", "inference", images=60)
    table = accuracy_table(study_of(tmp_path), "")
    assert cell(table, "two-stage", "synthetic", "srcc_gain") is None
    assert "two-stage: the gain leaves out synthetic, where the two did not answer the same images." in table.notes


def test_no_gain_without_a_baseline(fabricate, tmp_path):
    fabricate(tmp_path, "two", "inference")
    table = accuracy_table(study_of(tmp_path), "")
    assert cell(table, "two-stage", "synthetic", "srcc_gain") is None
    assert any("no single one-stage (joint) run of the same kind" in note for note in table.notes)


def test_seeds_give_a_mean_and_a_spread(fabricate, tmp_path):
    for seed in range(3):
        fabricate(tmp_path, f"one{seed}", "joint", seed=seed, noise=0.4)
        fabricate(tmp_path, f"two{seed}", "inference", seed=seed, noise=0.1)
    table = accuracy_table(study_of(tmp_path), "")
    one, two, gain = (
        number(table, *place)
        for place in [("one-stage", "synthetic", "srcc"), ("two-stage", "synthetic", "srcc"), ("two-stage", "synthetic", "srcc_gain")]
    )
    values = [json.loads((tmp_path / f"two{seed}" / "result.json").read_text())["metrics"]["synthetic"]["srcc"]["value"] for seed in range(3)]
    assert two.by_seed == tuple(enumerate(values))
    assert two.value == pytest.approx(np.mean(values))
    assert two.std == pytest.approx(np.std(values, ddof=1))
    assert gain.value == pytest.approx(two.value - one.value)
    assert dict(gain.by_seed)[1] == pytest.approx(values[1] - dict(one.by_seed)[1])
    assert any(note.startswith("a ± b: mean and standard deviation over seeds") for note in table.notes)


def test_one_seed_has_no_spread(runs):
    table = accuracy_table(study_of(runs), "")
    assert np.isnan(number(table, "two-stage", "synthetic", "srcc").std)
    assert not any("±" in note for note in table.notes)


def test_gain_without_the_answers_has_no_interval(runs):
    (runs / "one" / "answers" / "synthetic.parquet").unlink()
    gain = number(accuracy_table(study_of(runs), ""), "two-stage", "synthetic", "srcc_gain")
    assert gain.value > 0
    assert np.isnan(gain.low)
    assert np.isnan(gain.p)


def test_runs_without_sampled_queries_have_no_instability(fabricate, tmp_path):
    fabricate(tmp_path, "one", "joint", repeats=0)
    table = stability_table(study_of(tmp_path), "")
    assert cell(table, "one-stage", "synthetic", "instability_sampled") is None
    assert number(table, "one-stage", "", "repeats").value == 0


def test_notes_say_what_made_the_figures(runs):
    note = accuracy_table(study_of(runs), "").notes[-1]
    assert note == "Seeds: 0. Top-p: 1. Hardware: A CPU. Commit: 0123abc. Versions: biqa 0.1.0, numpy 2.4."
