"""A logger of others cannot hurt a run: W&B's server refuses, hangs, dies or falls silent, a logger raises or never comes back."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from lightning.pytorch.loggers.logger import DummyLogger

from biqa.running import building
from biqa.stages import aside
from biqa.stages.aside import Aside

pytest_plugins = ["small_runs"]

LEARNS = ("stage=joint", "stage.epochs=8", "stage.batch_size=8")
LONG = ("stage.epochs=80",)
"""Long enough that rows reach a server before the end."""
START, STEP = 10.0, 0.1
"""What a logger may cost here: seconds at the start, and a share of each step. That is 0.01 on a machine without other work: it is counted."""


class Raises(DummyLogger):
    """One that works for a while."""

    def __init__(self, after=2):
        super().__init__()
        self.left, self.rows = after, []

    def log_metrics(self, metrics, step=None):
        if self.left == 0:
            raise RuntimeError("the server is\ngone")
        self.left -= 1
        self.rows.append((metrics, step))


class Hangs(DummyLogger):
    """One that does not come back from the first row."""

    def log_metrics(self, metrics, step=None):
        threading.Event().wait()


@pytest.fixture(autouse=True)
def none_open():
    yield
    aside._open.clear()


def test_rows_are_handed_over_in_order():
    logger = Raises(after=100)
    other = Aside(logger, "other", "curve")
    for step in range(50):
        other.log_metrics({"loss": float(step)}, step)
    other.close(0)
    assert logger.rows == [({"loss": float(step)}, step) for step in range(50)]
    assert not other.failed


@pytest.mark.trust
def test_one_that_raises_is_left_out_and_that_is_said_once(capsys, tally):
    logger = Raises()
    other = Aside(logger, "other", "runs/a/logs/metrics.csv")
    for step in range(50):
        other.log_metrics({"loss": 0.0}, step)
    other.close(0)
    assert len(logger.rows) == 2
    assert capsys.readouterr().err == (
        "other is left out from here on: RuntimeError (the server is gone). The run goes on; its curve is in runs/a/logs/metrics.csv.\n"
    )
    tally("loggers")


@pytest.mark.trust
def test_one_that_hangs_costs_no_step_and_no_more_than_the_wait_at_the_end(capsys, tally, monkeypatch):
    monkeypatch.setattr(aside, "MOST", 100)
    other = Aside(Hangs(), "other", "curve")
    began = time.perf_counter()
    for step in range(90):
        other.log_metrics({"loss": 0.0}, step)
    assert time.perf_counter() - began < 1.0
    other.close(0, within=0.2)
    for step in range(1000):
        other.log_metrics({"loss": 0.0}, step)  # nor does it fill the memory
    assert other.calls.qsize() <= 100
    assert capsys.readouterr().err.count("other is left out from here on: it did not take all within 0.2 s of the run's end.") == 1
    tally("loggers")


def test_without_the_thread_such_a_logger_ends_the_run(run, tmp_path, monkeypatch):
    """The control."""
    monkeypatch.setattr(building, "build_logger", lambda composed, folder: Raises())
    failed = run(tmp_path, "a", *LEARNS)
    assert failed.code == 1
    assert "the server is gone" in failed.err


@pytest.mark.trust
def test_a_run_whose_logger_raises_ends_as_one_without(run, tmp_path, monkeypatch, tally):
    assert run(tmp_path, "own", *LEARNS).code == 0
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_metrics", Raises(after=0).log_metrics)
    done = run(tmp_path, "other", *LEARNS, "logger=wandb")
    assert (done.code, done.err.count("W&B is left out from here on")) == (0, 1)
    assert_same_record(tmp_path / "own", tmp_path / "other")
    tally("loggers")


def assert_same_record(own, other):
    assert (own / "logs" / "metrics.csv").read_text() == (other / "logs" / "metrics.csv").read_text()
    first, second = (json.loads((folder / "result.json").read_text())["metrics"] for folder in (own, other))
    assert first == second


@contextmanager
def wandb_server(mode, monkeypatch, home):
    """W&B pointed at a server that does so."""
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name, value in {"HOME": str(home), "WANDB_API_KEY": "0" * 40, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(name, value)
    server = subprocess.Popen([sys.executable, Path(__file__).parent / "wandb_server.py", mode], stdout=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().strip()
        if mode == "refuses":
            server.kill()
            server.wait()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        yield server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        monkeypatch.delenv("WANDB_MODE", raising=False)  # Lightning sets it
        wandb.teardown()


@contextmanager
def timed(monkeypatch):
    """Seconds that a run waits for its loggers: where it begins, and in all steps."""
    spent = {"start": 0.0, "steps": 0.0}

    def counted(name, function):
        def call(*given, **named):
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    with monkeypatch.context() as patch:
        patch.setattr(building, "build_logger", counted("start", building.build_logger))
        patch.setattr(Aside, "log_metrics", counted("steps", Aside.log_metrics))
        yield spent


def logged_to(mode, run, folder, monkeypatch, tally, *options):
    assert run(folder, "own", *LEARNS, *options).code == 0
    with wandb_server(mode, monkeypatch, folder) as server, timed(monkeypatch) as spent:
        done = run(folder, "other", *LEARNS, *options, "logger=wandb")
        alive = server.poll() is None
    assert done.code == 0, done.err
    assert_same_record(folder / "own", folder / "other")
    share = spent["steps"] / json.loads((folder / "other" / "result.json").read_text())["seconds"]["fit"]
    assert spent["start"] < START
    assert share < STEP
    tally("loggers", start_seconds=spent["start"], percent_of_a_step=100 * share)
    return done, alive, [path.name.partition("run-")[0] for path in (folder / "other" / "wandb").glob("*run-*")]


@pytest.mark.trust
def test_a_server_that_takes_calls_and_never_answers(run, tmp_path, monkeypatch, tally):
    done, _, logs = logged_to("hangs", run, tmp_path, monkeypatch, tally)
    assert logs == ["offline-"]
    assert "left out" not in done.err


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["whole", "refuses", "hangs", "dies", "falls_silent"])
def test_whatever_the_server_does_the_run_and_its_record_are_whole(run, tmp_path, monkeypatch, tally, mode):
    _, alive, logs = logged_to(mode, run, tmp_path, monkeypatch, tally, *LONG)
    assert logs == ["offline-" if mode in ("refuses", "hangs") else ""]
    assert alive is (mode in ("whole", "hangs", "falls_silent"))  # it did what it is there for


@pytest.mark.faults
def test_how_long_a_run_takes_beside_one_without(run, tmp_path, monkeypatch, tally):
    """In turn, as a figure: this machine may have other work."""
    seconds = {"csv": [], "wandb": []}
    with wandb_server("dies", monkeypatch, tmp_path):
        for turn in range(5):
            for logger, taken in seconds.items():
                assert run(tmp_path, f"{logger}{turn}", *LEARNS, *LONG, f"logger={logger}").code == 0
                taken.append(json.loads((tmp_path / f"{logger}{turn}" / "result.json").read_text())["seconds"]["fit"])
    tally("loggers", len(seconds["wandb"]), fit_with_over_without=sorted(w / c for w, c in zip(seconds["wandb"], seconds["csv"], strict=True))[2])
