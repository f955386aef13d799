"""NAME=VALUE without Hydra: what is read, and what is refused in words."""

import sys
from dataclasses import dataclass, field

import pytest

from biqa.config.checks import did_you_mean, nearest
from biqa.doors.arguments import open_light_door, read_options, show_text
from biqa.errors import IncompatibleChoice, NoDiskSpace


@dataclass
class Options:
    run: str
    against: str | None = None
    number: int = 3
    json: bool = False
    names: list[str] = field(default_factory=list)


def read(*arguments):
    return read_options(arguments, Options, alone=("run", "against"))


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        (["a"], Options("a")),
        (["a", "b"], Options("a", "b")),
        (["run=a", "b"], Options("a", "b")),
        (["number=-4", "run=a=b", "--json"], Options("a=b", None, -4, True)),
        (["a", "json=False", "names=[x, y]"], Options("a", names=["x", "y"])),
        (["a", "against=null", "names=x"], Options("a", names=["x"])),
        (["a", "names=[]"], Options("a")),
        (["a", "--json=false", "--number=4"], Options("a", number=4)),
    ],
)
def test_options_are_read(typed, options):
    assert read(*typed) == options


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "run has no value. Set it: run=VALUE"),
        (["a", "b", "c"], "c: an option is written NAME=VALUE. Options: run=, against=, number=, json=, names=."),
        (["a", "nubmer=3"], "There is no option nubmer. Did you mean number=?"),
        (["a", "--jsn"], "There is no option jsn. Did you mean json=?"),
        (["a", "xyz=3"], "There is no option xyz. Options: run=, against=, number=, json=, names=."),
        (["a", "number=many"], "number=many: write a whole number."),
        (["a", "json=maybe"], "json=maybe: write true or false."),
        (["run="], "run= is empty: give a value, or leave the option out."),
        (["a", "run=b"], "run= stands there twice (run=b is the second). Leave one out."),
    ],
)
def test_mistakes_are_told(typed, message):
    with pytest.raises(IncompatibleChoice) as error:
        read(*typed)
    assert str(error.value) == message


def raising(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (len, 1, ""),
        (raising(IncompatibleChoice("no")), 2, "no\n"),
        (raising(NoDiskSpace("full")), 1, "full\n"),
        (raising(KeyboardInterrupt()), 130, "Stopped by SIGINT.\n"),
    ],
)
def test_a_door_ends_with_its_code(main, code, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["door", "x"])
    with pytest.raises(SystemExit) as end:
        open_light_door(main)
    assert (end.value.code, capsys.readouterr().err) == (code, said)


@pytest.mark.parametrize("typed", [["--help"], ["x=1", "-h"]])
def test_help_is_printed_where_it_is_asked_for(typed, capsys):
    show_text("How.\n", ["x=1"])
    with pytest.raises(SystemExit) as end:
        show_text("How.\n", typed)
    assert (end.value.code, capsys.readouterr().out) == (0, "How.\n")


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("owl", ["hf", "owl2", "tiny"], ["owl2"]),
        ("konik", ["kadid", "koniq", "spaq"], ["koniq"]),
        ("qwen", ["qwen2_5_vl", "qwen3_vl", "tiny"], ["qwen3_vl", "qwen2_5_vl"]),
        ("KonIQ10k", ["kadid", "koniq"], ["koniq"]),
        ("slurm", ["basic", "submitit_slurm"], ["submitit_slurm"]),
        ("run", ["runs", "run1", "run2", "run3"], ["runs", "run3", "run2"]),
        ("x", ["xyz"], []),
        ("zebra", ["kadid", "koniq"], []),
    ],
)
def test_what_may_have_been_meant(word, known, found):
    assert nearest(word, known) == found


def test_it_is_asked_in_a_sentence():
    assert did_you_mean([]) == ""
    assert did_you_mean(["a"]) == " Did you mean a?"
    assert did_you_mean(["a", "b", "c"]) == " Did you mean a, b or c?"
