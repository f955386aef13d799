"""--help says what Hydra would say, and no door loads what it does not need."""

import sys
from pathlib import Path

import omegaconf
import pytest
from light_doors import HEAVY, loaded
from quick_hydra import without_detours

from biqa import analyze, predict, prepare, report, run
from biqa import config as schema
from biqa.config.checks import MISSING
from biqa.doors.help import choices, help_text, show_help
from biqa.doors.opening import open_door


@pytest.mark.parametrize(
    ("door", "name", "more"),
    [(run, "config", []), (report, "report", []), (analyze, "analyze", []), (predict, "predict", []), (prepare, "prepare", ["data=koniq"])],
)
def test_help_is_that_of_hydra(door, name, more, monkeypatch, capsys):
    schema.register()
    monkeypatch.setattr(sys, "argv", [name, "--help", *more])
    with pytest.raises(SystemExit) as end, without_detours():
        open_door(door.main)
    assert not end.value.code
    assert help_text(Path(schema.config_directory()), name) + "\n" == capsys.readouterr().out


@pytest.mark.parametrize("door", ["run", "prepare", "report", "analyze", "predict"])
def test_help_alone_needs_no_hydra(door, tmp_path):
    code, packages = loaded(tmp_path, door, "--help")
    assert code == 0
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich"})


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (0, "run --cfg job"),
        (2, "run stage.epoch=3"),
        (2, "run stage.epochs=-1"),
        (2, "run -m stage=1,2 seed=-1"),
        (2, "prepare data=koniq out="),
        (2, "analyze run=x folds=1"),
        (2, "report runs=nowhere"),
        (2, "predict run=nowhere photo.jpg"),
        (2, "predict run=x photo.jpg repeats=1"),
        (0, "search --help"),
        (2, "search stage=joint"),
    ],
)
def test_no_door_loads_what_config_alone_does_not_need(code, command, tmp_path):
    found, packages = loaded(tmp_path, *command.split())
    assert found == code
    assert not packages & HEAVY


@pytest.mark.parametrize("typed", [[], ["--help", "stage=joint"], ["stage=joint"], ["--hydra-help"]])
def test_anything_more_is_for_hydra(typed, capsys):
    show_help("config", typed)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("typed", ["-h", "--help"])
def test_it_ends_the_door(typed, capsys):
    with pytest.raises(SystemExit) as end:
        show_help("report", [typed])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Make the tables")


def test_choices_are_the_folders_of_yaml_files(tmp_path):
    for name in ("stage/b.yaml", "stage/a.yaml", "stage/notes.txt", "experiment/table/one.yaml", "hydra/launcher/x.yaml", "top.yaml", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    lines = choices(tmp_path).splitlines()
    assert [line for line in lines if not line.startswith("schema:")] == ["experiment/table: one", "stage: a, b"]


def test_what_is_missing_is_what_omegaconf_calls_so():
    assert MISSING == omegaconf.MISSING
