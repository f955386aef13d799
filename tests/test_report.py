import csv
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from biqa import report as door
from biqa.doors.opening import open_door, user_errors
from biqa.errors import IncompatibleChoice
from biqa.report import ReportConfig, best_of, command_of, main, report
from biqa.reporting.result import find_results
from biqa.reporting.tables import study_runs

pytest_plugins = ["fabrication"]

FILES = {"table.md", "table.tex", "table.csv", "figure.png", "figure.svg", "flips.png", "flips.svg"}


def config(runs: Path, out: Path, **options) -> ReportConfig:
    return ReportConfig(**({"runs": str(runs), "out": str(out), "baseline": "joint", "only": ["*"], "resamples": 50, "seed": 0} | options))


def call(monkeypatch, *arguments: str) -> int:
    """The door with these arguments in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    try:
        open_door(main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def runs(fabricate, tmp_path):
    folder = tmp_path / "runs"
    fabricate(folder, "tiny-joint-s0", "joint", noise=0.4)
    fabricate(folder, "tiny-inference-s0", "inference", noise=0.1)
    fabricate(folder, "tiny-perception-s0", "perception")
    return folder


def test_end_to_end(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, f"runs={runs}", "out=out/main_table", "resamples=50") == 0
    out = tmp_path / "out" / "main_table"
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}  # nothing of Hydra's
    printed = capsys.readouterr().out
    assert "two-stage" in printed
    assert "† stand-in" in printed
    text = (out / "table.md").read_text()
    assert f"Made with `python -m biqa.report runs={runs} out=out/main_table baseline=joint resamples=50 seed=0`" in text
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert {row["table"] for row in rows} == {"accuracy", "instability"}
    assert {row["system"] for row in rows if row["paper"] == "false"} == {"one-stage (joint)", "two-stage"}


def test_the_same_runs_give_the_same_files(runs, tmp_path):
    for name in ("a", "b"):
        report(config(runs, tmp_path / name))
    for name in FILES - {"table.md", "table.tex"}:  # these two name the folder they were written to
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_ablation_has_its_own_table_and_figures(fabricate, tmp_path):
    for repeats in (3, 5):
        fabricate(tmp_path / "runs", f"asked-{repeats}", "joint", repeats=repeats, config={"sampling": {"repeats": repeats, "temperature": 1.0}})
    report(config(tmp_path / "runs", tmp_path / "out", reference="asked-3"))
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert {row["table"] for row in rows} == {"ablation"}
    assert "reference=asked-3" in (tmp_path / "out" / "table.md").read_text()
    figures = {f"{name}.{ending}" for name in ("figure", "asking") for ending in ("png", "svg")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"table.md", "table.tex", "table.csv"} | figures


def test_only_keeps_the_runs_that_fit(runs, tmp_path):
    report(config(runs, tmp_path / "out", only=["tiny-joint-*", "nothing"]))
    assert "| two-stage" not in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs={empty}"], "no result.json lies below it"),
        (["runs={empty}/nowhere"], "there is no such folder. Name the folder that holds the runs: runs=FOLDER."),
        (["runs={runs}", "only=[owl2-*]"], "only=[owl2-*] fits none of the 3 finished runs below"),
        (["runs={runs}", "only=[*perception*]"], "None of the 1 runs found scores images"),
        (
            ["baseline=perception", "resamples=0"],
            "baseline=perception is not known: choose joint, zero_shot, inference.\nresamples=0: choose 1 or more.",
        ),
        (["runs=???"], "runs has no value. Set it: runs=VALUE"),
        (["outt=x"], "There is no option outt. Did you mean out?"),
        (["resamples=many"], "resamples=many: write a whole number."),
        (["hydra/job_logging=loud"], "There is no hydra/job_logging=loud. Choices: default, disabled, none, stdout."),
        (["a=["], "a=[ cannot be read: its value is no plain word, number or list. Quote it, with both kinds of quotes: \"a='['\""),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments, message, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert call(monkeypatch, *(text.format(runs=runs, empty=tmp_path / "empty") for text in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert "Error executing job" not in error
    assert "HYDRA_FULL_ERROR" not in error
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "empty"}


def test_a_defect_shows_its_stack_trace_at_once(monkeypatch, capsys):
    monkeypatch.setattr(door, "report", lambda config: 1 / 0)
    assert call(monkeypatch) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ZeroDivisionError" in shown
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_full_error_that_the_user_asks_for(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="Could not override 'outt'"):
        call(monkeypatch, "outt=x")


def test_user_errors_hands_results_through(capsys):
    assert user_errors(lambda value: value + 1)(1) == 2

    @user_errors
    def refuse():
        raise IncompatibleChoice("these two do not go together")

    with pytest.raises(SystemExit) as end:
        refuse()
    assert end.value.code == 2
    assert capsys.readouterr().err == "these two do not go together\n"


def test_help_names_every_option_and_gives_examples(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    described = text[: text.index("Values now")]
    for option in fields(ReportConfig):
        assert f"\n  {option.name} " in described
    assert "python -m biqa.report baseline=zero_shot" in text


def test_the_command_is_ready_for_a_shell():
    command = command_of(config(Path("my runs"), Path("out"), only=["tiny-*", "b"]))
    assert command == "python -m biqa.report 'runs=my runs' out=out baseline=joint resamples=50 seed=0 'only=[tiny-*,b]'"


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A Python of its own, in a folder where the package is not."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_door_ends_with_the_right_code(tmp_path):
    refused = python(tmp_path, "-m", "biqa.report")
    assert refused.returncode == 2
    assert refused.stderr == "runs=runs: there is no such folder. Name the folder that holds the runs: runs=FOLDER.\n"
    assert refused.stdout == ""
    assert not list(tmp_path.iterdir())


def test_help_and_config_do_not_pay_for_what_they_do_not_use(tmp_path):
    heavy = "{'torch', 'pandas', 'scipy', 'matplotlib'}"
    loaded = python(tmp_path, "-c", f"import biqa.report, sys; print(sorted({heavy} & set(sys.modules)))")
    assert loaded.stdout == "[]\n"


def test_figures_show_the_best_systems_and_tables_all(fabricate, tmp_path, monkeypatch, capsys):
    for name, noise in {"a": 0.8, "b": 0.1, "c": 0.4}.items():
        fabricate(tmp_path / "runs", name, "joint", noise=noise, config={"stage": {"epochs": "abc".index(name)}})
    study = study_runs(find_results(tmp_path / "runs"), baseline="joint", resamples=20, seed=0)
    assert best_of(study) is study
    monkeypatch.setattr("biqa.report.DRAWN", 2)
    assert [system.runs[0].name for system in best_of(study).systems] == ["b", "c"]
    assert call(monkeypatch, f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}", "resamples=20") == 0
    assert "The figures show the 2 of 3 systems with the highest SRCC" in " ".join(capsys.readouterr().out.split())
    drawn = (tmp_path / "out" / "figure.svg").read_text()
    assert [f"stage.epochs={i}" in drawn for i in range(3)] == [False, True, True]
    assert all(f"stage.epochs={i}" in (tmp_path / "out" / "table.md").read_text() for i in range(3))
    monkeypatch.setattr("biqa.report.DRAWN", 48)
    monkeypatch.setattr("biqa.report.PANELS", 1)
    assert [system.runs[0].name for system in best_of(study).systems] == ["b"]
