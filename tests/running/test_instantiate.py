"""What a config may name."""

import re
import sys

import pytest
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf

from biqa.data.table import Table
from biqa.errors import IncompatibleChoice
from biqa.running.instantiate import allowed, choices, make

REFUSED = """os.system builtins.eval lightning.pytorch.Trainer biqanother.Thing biqa.running.building biqa.running.building.os.system
biqa.running.instantiate.get_object biqa.running.building.L.Trainer lightning.pytorch.loggers.csv_logs.os.remove"""


def test_a_class_of_the_project_and_a_logger_of_lightning_are_accepted():
    assert allowed("biqa.data.table.Table") is Table
    assert allowed("lightning.pytorch.loggers.WandbLogger") is WandbLogger


@pytest.mark.parametrize("target", REFUSED.split())
def test_anything_else_is_refused(target):
    message = f"_target_={target} is refused: a config may only name what biqa or lightning.pytorch.loggers defines."
    with pytest.raises(IncompatibleChoice, match=re.escape(message)):
        allowed(target)


@pytest.mark.parametrize(
    "target", ["biqa.predict.main", "biqa.reporting.result.write_json", "biqa.data.record.Card", "lightning.pytorch.loggers.CSVLogger"]
)
def test_what_biqa_has_besides_its_choices_is_refused(target):
    with pytest.raises(IncompatibleChoice, match=re.escape(f"_target_={target} is refused: no choice of conf/ has it")):
        allowed(target)


def test_every_choice_is_accepted():
    assert len(choices()) > 20
    assert all(callable(allowed(target)) for target in choices())


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
    node = OmegaConf.create({"_target_": "biqa.data.table.Table", "file": "a.csv", "image": nested, "low": 0, "high": "${low}", "note": "x"})
    with pytest.raises(IncompatibleChoice, match=r"data\.low=0 and data\.high=0"):
        make(node, without=("note",))
    node.high = 2
    table = make(node, without=("note",), direction="dmos")
    assert (table.image, table.card.high, table.card.direction) == (nested, 2, "dmos")
