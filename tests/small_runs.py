"""Fixtures that make small real runs: a test module asks for them with `pytest_plugins = ["small_runs"]`."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from quick_hydra import without_detours

SMALL = (
    "model.hidden=32", "model.layers=1", "model.heads=2", "model.tower_hidden=32", "model.tower_layers=1", "model.min_steps=0",
    "data.workers=0", "data.train=24", "data.val=6", "data.test=12", "data.crop=48",
    "sampling.repeats=2", "sampling.max_new_tokens=16", "evaluation.resamples=40", "trainer.progress=false", "trainer.precision=32-true",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a call of a door left on the terminal; white space is one blank."""

    code: int
    out: str
    err: str


def door(module: str, *arguments: str) -> Outcome:
    """`python -m <module> <arguments>` in this process."""
    from biqa import analyze, prepare, report, run
    from biqa import config as schema
    from biqa.doors.opening import open_door

    out, err, code = io.StringIO(), io.StringIO(), 0
    schema.register()
    typed = [module, *run.numbers_to_words(list(arguments))]
    with patch.object(sys, "argv", typed), redirect_stdout(out), redirect_stderr(err), without_detours(arguments):
        try:
            open_door({"biqa.run": run, "biqa.report": report, "biqa.prepare": prepare, "biqa.analyze": analyze}[module].main)
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, " ".join(out.getvalue().split()), " ".join(err.getvalue().split()))


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> tuple[str, ...]:
    """Options of a run that is over in a second; its images are made once a session."""
    return (*SMALL, f"data.root={tmp_path_factory.mktemp('synthetic')}")


@pytest.fixture(scope="session")
def call() -> Callable[..., Outcome]:
    """`door`."""
    return door


@pytest.fixture(scope="session")
def run(synthetic) -> Callable[..., Outcome]:
    """A small run on synthetic data in this process: `run(folder of runs, name, *options)`. Options given here win."""

    def small(runs: Path, name: str, *options: str) -> Outcome:
        return door("biqa.run", *synthetic, f"runs={runs}", f"name={name}", *options)

    return small


@pytest.fixture(scope="session")
def finished(run, tmp_path_factory) -> Path:
    """Folder of finished runs, made once a session: `joint`, `one` (stage 1) and `probe`. Who changes one copies it first."""
    folder = tmp_path_factory.mktemp("finished")
    for name, *options in (("joint", "stage=joint", "stage.epochs=1"), ("one", "stage=1", "stage.epochs=1"), ("probe", "stage=probe")):
        outcome = run(folder, name, *options)
        assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def start(tmp_path) -> Callable[..., "subprocess.Popen[str]"]:
    """`python -m biqa.run` as a process of its own, in a folder where the package is not."""

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-m", "biqa.run", *arguments]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return begin


@pytest.fixture(scope="session")
def digest() -> Callable[[Path], str]:
    """Hash of a file's bytes."""
    return lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
