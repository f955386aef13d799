"""What a config may name."""

import re
import sys

import pytest
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from biqa.data.record import Card
from biqa.data.table import Table
from biqa.errors import IncompatibleChoice
from biqa.running.instantiate import allowed, make

REFUSED = """os.system builtins.eval lightning.pytorch.Trainer biqanother.Thing biqa.running.building biqa.running.building.os.system
biqa.running.instantiate.get_object biqa.running.building.L.Trainer lightning.pytorch.loggers.csv_logs.os.remove"""


def test_a_class_of_the_project_and_a_logger_of_lightning_are_accepted():
    assert allowed("biqa.data.table.Table") is Table
    assert allowed("lightning.pytorch.loggers.CSVLogger") is CSVLogger


@pytest.mark.parametrize("target", REFUSED.split())
def test_anything_else_is_refused(target):
    message = f"_target_={target} is refused: a config may only name what biqa or lightning.pytorch.loggers defines."
    with pytest.raises(IncompatibleChoice, match=re.escape(message)):
        allowed(target)


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(IncompatibleChoice, match=r"_target_=biqa\.data\.table\.Chair cannot be had: .*"):
        allowed("biqa.data.table.Chair")


def test_a_refused_module_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "payload.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(IncompatibleChoice, match="is refused"):
        make(OmegaConf.create({"_target_": "payload.Thing"}))
    assert "payload" not in sys.modules


def test_make_calls_with_the_values_left_and_the_given_ones_as_they_stand():
    nested = {"_target_": "os.getcwd"}  # a value like any other: not run
    node = OmegaConf.create({"_target_": "biqa.data.record.Card", "name": nested, "low": 0, "high": "${low}", "note": "x"})
    assert make(node, without=("note",), direction="mos") == Card(name=nested, low=0, high=0, direction="mos")
