"""Experiments are held to what was expected of them."""

import csv
from pathlib import Path

import pytest

from biqa.errors import BadRecord, DatasetNotFound
from biqa.experiments import COLUMNS, main
from biqa.report import ReportConfig, report

pytest_plugins = ["fabrication"]

PLACE = ("accuracy", "one-stage (joint)", "synthetic", "srcc")


@pytest.fixture
def experiment(fabricate, tmp_path, capsys):
    """An experiment whose runs are there, and its figure."""
    fabricate(tmp_path / "runs", "one", "joint")
    folder = tmp_path / "experiments" / "one"
    report(ReportConfig(runs=str(tmp_path / "runs"), out=str(folder), baseline="joint", only=["*"], resamples=20, seed=0))
    capsys.readouterr()
    with (folder / "table.csv").open() as file:
        value = next(float(row["value"]) for row in csv.DictReader(file) if (row["table"], row["metric"]) == ("accuracy", "srcc"))
    return folder, value


def expect(folder: Path, value: object, tolerance: object = 0.01, place=PLACE) -> None:
    (folder / "expected.csv").write_text(",".join(COLUMNS) + "\n" + ",".join(map(str, (*place, value, tolerance))) + "\n")


def test_figures_are_computed_from_the_answers_where_the_runs_are_here(experiment, capsys):
    folder, value = experiment
    expect(folder, value + 0.005)
    (folder / "table.csv").unlink()
    assert main([str(folder.parent)]) == 0
    assert "1 of 1 figures as expected, computed from the answers in" in capsys.readouterr().out


def test_a_figure_outside_its_tolerance_is_named(experiment, capsys):
    folder, value = experiment
    expect(folder, value + 0.02)
    assert main([f"folder={folder}"]) == 1
    assert f"accuracy, one-stage (joint), synthetic, srcc: is {value:g}; {value + 0.02:g} +- 0.01 is expected" in capsys.readouterr().out


def test_without_its_runs_the_table_is_read(experiment, capsys, tmp_path):
    folder, value = experiment
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    expect(folder, value)
    assert main([str(folder)]) == 0
    assert "read from its table.csv" in capsys.readouterr().out
    expect(folder, value, place=("accuracy", "two-stage", "synthetic", "srcc"))
    assert main([str(folder)]) == 1
    assert "is not there" in capsys.readouterr().out


def test_mistakes(experiment, tmp_path):
    folder, _ = experiment
    with pytest.raises(DatasetNotFound, match=r"no expected\.csv lies there"):
        main([str(folder)])
    expect(folder, "high")
    with pytest.raises(BadRecord, match=r"expected\.csv, row 2: value and tolerance must be numbers"):
        main([str(folder)])
    (folder / "expected.csv").write_text("table,value\naccuracy,1\n")
    with pytest.raises(BadRecord, match=r"the columns table, system, .* are needed; found table, value"):
        main([str(folder)])


def test_the_experiments_of_this_repository_are_as_expected(monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("biqa.experiments.figures_of", _table)
    assert main([]) == 0, capsys.readouterr().out


def _table(folder: Path):
    """Of the committed table, whatever runs lie about."""
    with (folder / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["paper"] == "false" and row["value"]]
    return {tuple(row[name] for name in COLUMNS[:4]): float(row["value"]) for row in rows}, "table.csv"
