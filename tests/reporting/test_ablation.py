"""An ablation: one row a system, and paired differences to a reference."""

import pytest

from biqa.errors import IncompatibleChoice
from biqa.evaluation.answers import read_answers
from biqa.evaluation.evaluate import compare
from biqa.reporting.ablation import METRICS, ablation_table
from biqa.reporting.result import find_results
from biqa.reporting.tables import study_runs

pytest_plugins = ["fabrication"]


@pytest.fixture
def study(fabricate, tmp_path):
    for target, noise in (("hard", 0.4), ("soft", 0.1)):
        fabricate(tmp_path, f"joint-{target}", "joint", noise=noise, config={"stage": {"target": target}})
    fabricate(tmp_path, "two", "inference")
    return study_runs(find_results(tmp_path), baseline="joint", resamples=100, seed=0)


def test_differences_are_paired_and_to_the_reference(study, tmp_path):
    table = ablation_table(study, "joint-soft*", "")
    wanted = compare(
        *(read_answers(tmp_path / f"joint-{name}" / "answers" / "synthetic.parquet") for name in ("hard", "soft")), resamples=100, seed=0
    )
    rows = {row.system: row.cells for row in table.rows}
    changes = rows["one-stage (joint), stage.target=hard"][len(METRICS) :]
    for metric, cell in zip(METRICS, changes, strict=True):
        assert (cell.value, cell.low, cell.high, cell.p) == pytest.approx(tuple(wanted["synthetic"][metric].values()))
    assert rows["one-stage (joint), stage.target=soft"][len(METRICS) :] == (None,) * len(METRICS)


def test_systems_on_other_images_are_not_compared(study, fabricate, tmp_path):
    fabricate(tmp_path, "other", "inference", images=50, text="target")
    table = ablation_table(study_runs(find_results(tmp_path), baseline="joint", resamples=20, seed=0), "joint-soft", "")
    [row] = [row for row in table.rows if row.system == "two-stage, trained on target text"]
    assert row.cells[len(METRICS) :] == (None,) * len(METRICS)


@pytest.mark.parametrize("pattern", ["*", "nothing"])
def test_the_reference_is_one_system(study, pattern):
    with pytest.raises(IncompatibleChoice, match=r"reference=.* fits the runs of \d systems, and has to fit those of one\..*joint-hard"):
        ablation_table(study, pattern, "")


def test_the_reference_is_all_runs_of_its_system(study, fabricate, tmp_path):
    fabricate(tmp_path, "other-seed", "inference", seed=1)
    with pytest.raises(IncompatibleChoice, match="reference=two fits the runs of 0 systems"):
        ablation_table(study_runs(find_results(tmp_path), baseline="joint", resamples=20, seed=0), "two", "")
