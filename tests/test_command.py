"""The command `biqa`: it goes to the door that is named, and loads nothing to do so."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import biqa
from biqa.command import ALSO, DOORS, HELP, main

CHECKOUT = Path(__file__).parents[1]
PROBE = """
import contextlib, io, json, runpy, sys
sys.argv = ["biqa", *json.loads(sys.stdin.read())]
with contextlib.redirect_stdout(io.StringIO()):
    try:
        runpy.run_module("biqa.command", run_name="biqa.command").get("main")()
    except SystemExit:
        pass
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture
def call(monkeypatch, capsys):
    """`biqa ...` in this process: exit code, stdout, stderr, and what it would have become."""
    became = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: became.append((program, arguments)))

    def called(*typed, as_module=False):
        monkeypatch.setattr(sys, "argv", ["/somewhere/biqa/__main__.py" if as_module else "/usr/bin/biqa", *typed])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err, [*became]

    return called


@pytest.mark.parametrize("door", DOORS)
def test_every_door_is_a_module_and_stands_in_the_help(door):
    assert importlib.util.find_spec(f"biqa.{door}") is not None
    assert f"  {door:<12}{DOORS[door]}" in HELP


def test_names_of_other_programs_lead_to_doors():
    assert set(ALSO.values()) <= set(DOORS)
    assert not set(ALSO) & set(DOORS)


def test_it_becomes_the_door_with_all_that_follows(call):
    _, _, _, became = call("run", "stage=joint", "data.root=a b", "--cfg", "job")
    assert became == [(sys.executable, [sys.executable, "-P", "-m", "biqa.run", "stage=joint", "data.root=a b", "--cfg", "job"])]


def test_a_python_that_looks_nowhere_else_becomes_such_a_one(call, monkeypatch):
    monkeypatch.setattr(sys, "flags", SimpleNamespace(safe_path=True))
    assert call("ls", as_module=True)[3] == [(sys.executable, [sys.executable, "-P", "-m", "biqa.ls"])]


def test_as_a_module_of_a_checkout_it_finds_the_door_there(call):
    assert call("ls", as_module=True)[3] == [(sys.executable, [sys.executable, "-m", "biqa.ls"])]


@pytest.mark.parametrize("typed", [[], ["--help"], ["-h"], ["help"]])
def test_help_is_short_and_has_three_examples(call, typed):
    code, out, err, became = call(*typed)
    assert (code, out, err, became) == (0, f"{HELP}\n", "", [])
    assert len(out.splitlines()) < 30
    examples = out.partition("Examples\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 3
    assert all(line.split()[0] == "biqa" and line.split()[1] in DOORS for line in examples)


def test_help_of_a_door_is_its_own(call):
    assert call("help", "report")[3] == [(sys.executable, [sys.executable, "-P", "-m", "biqa.report", "--help"])]


@pytest.mark.parametrize("typed", ["--version", "-V", "version"])
def test_version(call, typed):
    assert call(typed)[:3] == (0, f"biqa {biqa.__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["rnu"], "There is no command rnu. Did you mean biqa run?"),
        (["analyse"], "There is no command analyse. Did you mean biqa analyze?"),
        (["train", "stage=1"], "There is no command train. Did you mean biqa run?"),
        (["stage=joint"], "There is no command stage=joint. An option follows its command: biqa run stage=joint"),
        (["xyzzy"], f"There is no command xyzzy. There are {', '.join(DOORS)}."),
        (["help", "rnu"], "There is no command rnu. Did you mean biqa run?"),
    ],
)
def test_a_word_that_is_no_door(call, typed, message):
    assert call(*typed) == (2, "", f"{message}\n", [])


@pytest.mark.parametrize("typed", [["--help"], ["--version"]])
def test_it_imports_nothing_but_the_standard_library(typed):
    said = subprocess.run([sys.executable, "-c", PROBE], input=json.dumps(typed), cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert {name for name in json.loads(said.stdout) if name not in sys.stdlib_module_names and not name.startswith(("_", "sitecustomize"))} <= {
        "biqa", "distutils-precedence", "_distutils_hack",
    }  # fmt: skip


def test_the_real_thing(tmp_path):
    """Help in less than half a second; a door's exit code and stderr are those of the command."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}

    def typed(*arguments):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "biqa", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done, time.perf_counter() - start

    helped = [typed("--help") for _ in range(3)]
    assert {done.stdout for done, _ in helped} == {f"{HELP}\n"}
    assert min(seconds for _, seconds in helped) < 0.5
    refused, _ = typed("ls", "runs=nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("runs=nowhere: there is no such folder.")
