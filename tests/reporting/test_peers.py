"""Published rows beside ours: each says what its PLCC is of, and figures are as printed."""

import pytest

from biqa.evaluation.answers import read_answers
from biqa.evaluation.correlation import plcc, plcc_logistic4
from biqa.reporting.peers import peers_table
from biqa.reporting.published import PEERS
from biqa.reporting.result import find_results
from biqa.reporting.tables import study_runs

pytest_plugins = ["fabrication"]


def table_of(folder):
    return peers_table(study_runs(find_results(folder), baseline="joint", resamples=20, seed=0), "")


def test_raw_and_fitted_correlations_never_share_a_row(fabricate, tmp_path):
    folder = fabricate(tmp_path, "a", "joint", dataset="koniq", stand_in=False)
    table = table_of(tmp_path)
    rows = {row.system: row.cells for row in table.rows}
    answers = read_answers(folder / "answers" / "koniq.parquet").query("query == 0")
    for said, fit in (("raw scores", plcc), ("after a logistic fit", plcc_logistic4)):
        [_, cell] = rows[f"ours: one-stage (joint) (PLCC: {said})"]
        assert cell.value == pytest.approx(float(fit(answers["score"].to_numpy(), answers["q"].to_numpy())), abs=1e-6)
    assert all("PLCC: " in row.system for row in table.rows)


def test_published_rows_are_those_with_a_figure_on_our_data_sets(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", dataset="live", stand_in=False)
    table = table_of(tmp_path)
    assert [(column.dataset, column.metric) for column in table.columns] == [("live", "srcc"), ("live", "plcc")]
    theirs = {row.system: [cell.printed for cell in row.cells] for row in table.rows if row.paper}
    assert theirs["Q-Instruct + OneAlign (preview) (trained on Q-Instruct and OneAlign's data; PLCC: fit not said)"] == ["0.893", "0.862"]
    assert len(theirs) == sum("live" in peer.figures for peer in PEERS)
    assert any("Q-Instruct, model_zoo/README.md: Q-Instruct + OneAlign (preview)" in note for note in table.notes)


def test_no_table_where_no_data_set_is_published(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint")
    assert table_of(tmp_path) is None


def test_every_published_figure_is_a_correlation_and_has_a_source():
    for peer in PEERS:
        assert peer.source
        assert all(0 < float(text) < 1 for pair in peer.figures.values() for text in pair)
