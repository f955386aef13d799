"""From a folder of data sets to the paper's tables: found, planned, estimated, run, gone on with, written."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest

from biqa import reproduce
from biqa.errors import DatasetNotFound, IncompatibleChoice, NoDiskSpace
from biqa.planning.plan import PlannedRun, plan_studies
from biqa.reporting.estimate import Estimate, write_estimate
from biqa.reproduce import ReproduceOptions, carry_out, estimate, main
from biqa.runs import RunFolder

pytest_plugins = ["small_runs"]

FAST = (
    "model.size=tiny", "model.min_steps=0", "stage.epochs=1", "stage.batch_size=8", "sampling.repeats=2", "sampling.max_new_tokens=8",
    "evaluation.resamples=20", "trainer.progress=false", "trainer.precision=32-true", "images.workers=1",
)  # fmt: skip


@pytest.fixture
def here(monkeypatch, call):
    """Runs in this process, which is quicker; what was called, by title. A title in `fails` ends with its code instead."""
    called: list[str] = []
    fails: dict[str, int] = {}

    def run(planned: PlannedRun) -> None:
        called.append(planned.title)
        if code := fails.get(planned.title):
            raise SystemExit(code)
        outcome = call("biqa.run", *planned.overrides)
        assert outcome.code == 0, outcome.err

    monkeypatch.setattr(reproduce, "call", run)
    return called, fails


def typed(*arguments: str) -> int:
    """Exit code of the door in this process."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def write_releases(place: Path, *names: str) -> None:
    for name in names:
        import_module(f"test_{name}").write_release(place)


@pytest.fixture(autouse=True)
def _releases(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "data"))


def test_other_options_go_to_every_run(monkeypatch):
    given = []
    monkeypatch.setattr(reproduce, "reproduce", lambda config, options: given.append((config, options)))
    assert main(["model=owl2", "model.size=tiny", "seeds=[0,1]", "stage.epochs=1"]) == 0
    assert given == [(ReproduceOptions(model="owl2", seeds=["0", "1"]), ["model.size=tiny", "stage.epochs=1"])]


def test_a_table_of_real_sets_goes_on_where_it_was_killed(here, monkeypatch, tmp_path, capsys):
    called, fails = here
    monkeypatch.chdir(tmp_path)
    write_releases(tmp_path / "data", "koniq", "spaq", "csiq")
    (tmp_path / "data" / "ChallengeDB_release").mkdir()
    typed_in = ["model=owl2", "data_root=data", "seeds=[0]", "estimate=false", "overlap=note", *FAST]  # releases of a few pictures over and over
    fails["perception, trained on koniq+spaq, seed 0"] = 137
    assert typed(*typed_in) == 137, capsys.readouterr()
    fails.clear()
    before = list(called)
    assert typed(*typed_in) == 0
    assert called[len(before) :] == [f"{stage}, trained on koniq+spaq, seed 0" for stage in ("perception", "inference")]
    said = " ".join(capsys.readouterr().out.split())
    assert "found koniq 10 images of the release's 10073" in said
    assert "incomplete livec" in said
    assert "missing live databaserelease2" in said
    assert "owl2 trained on koniq+spaq, measured on csiq, spaq, koniq; seeds 0: 4 runs, 2 of them finished" in said
    with (tmp_path / "experiments" / "main_table-owl2" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = {(row["table"], row["system"], row["dataset"], row["metric"]) for row in rows if row["paper"] == "false"}
    for system in ("zero-shot", "one-stage (joint)", "two-stage"):
        for dataset in ("csiq", "koniq", "spaq"):
            assert ("accuracy", system, dataset, "srcc") in ours
            assert ("instability", system, dataset, "instability_argmax") in ours
        assert ("instability", system, "mean", "instability_sampled") in ours
    assert any(row["table"] == "peers" and row["system"].startswith("DeQA-Score") for row in rows)


def test_without_data_it_says_what_is_missing_and_where_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BIQA_DATASETS", raising=False)
    finds = reproduce.look_for_data(ReproduceOptions())
    assert not finds.found
    said = capsys.readouterr().out
    assert "there is no folder datasets/" in said
    assert "koniq10k" in said
    assert "https://live.ece.utexas.edu" in said


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DatasetNotFound, match=r"data_root=.*nowhere: there is no such folder\. Name the one that holds"):
        reproduce.look_for_data(ReproduceOptions(data_root=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seeds=[0,0]"], r"seeds=\[0,0\]: give different whole numbers"),
        (["seeds=[-1]"], r"seeds=\[-1\]: give different whole numbers"),
        (["seed=1"], r"seed= is what the plan gives each run"),
        (["stage=joint"], r"stage= is what the plan gives each run"),
        (["out="], r"out= is empty"),
        (["/data"], r"/data: an option is written NAME=VALUE"),
        (["estimate=perhaps"], r"estimate=perhaps: write true or false"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(IncompatibleChoice, match=message):
        main(arguments)


def planned(folder: Path, stage: str = "joint") -> PlannedRun:
    return PlannedRun(stage, 0, "synthetic", RunFolder(folder), ())


def test_the_estimate_adds_up_what_is_left(monkeypatch, tmp_path, capsys):
    [study] = plan_studies(model="tiny", found=[], seeds=[0], runs=tmp_path / "runs")
    found = Estimate("x", seconds={"fit": 60.0, "answer": 40.0}, disk={"weights": 9 * 2**30, "answers": 2**30})
    monkeypatch.setattr(reproduce, "dry_run", lambda run: found)
    (tmp_path / "runs" / "tiny-joint-synthetic-s0").mkdir(parents=True)
    (tmp_path / "runs" / "tiny-joint-synthetic-s0" / "result.json").write_text("{}")
    costs = estimate([study])
    assert {path.name: cost.seconds for path, cost in costs.items()} == {
        "tiny-zero_shot-synthetic-s0": 40, "tiny-perception-synthetic-s0": 100, "tiny-inference-synthetic-s0": 100,
    }  # fmt: skip
    assert "Estimated for 3 runs: 240 s, 21.0 GB of disk" in capsys.readouterr().out


def test_a_disk_that_is_too_small_is_told_before_anything_runs(monkeypatch, tmp_path):
    [study] = plan_studies(model="tiny", found=[], seeds=[0], runs=tmp_path / "runs")
    monkeypatch.setattr(reproduce, "dry_run", lambda run: Estimate("x", seconds={"answer": 1.0}, disk={"answers": 10**18}))
    with pytest.raises(NoDiskSpace, match=r"4 runs need about .* GB and .* GB are free"):
        estimate([study])


def test_time_left_follows_what_the_runs_take(monkeypatch, tmp_path, capsys):
    runs = [planned(tmp_path / name) for name in "abc"]
    costs = {run.folder.path: reproduce.Cost(10.0, 0.0) for run in runs}
    clock = iter(range(0, 1000, 20))

    def finish(run: PlannedRun) -> None:
        run.folder.path.mkdir()
        run.folder.result.write_text("{}")

    monkeypatch.setattr(reproduce, "call", finish)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    carry_out(runs, costs)
    assert [line.rpartition("; ")[2] for line in capsys.readouterr().out.splitlines()] == ["about 30 s left", "about 40 s left", "about 20 s left"]


def test_what_is_asked_of_a_run_beforehand_is_its_own_estimate(monkeypatch, tmp_path):
    def ran(command, **_):
        file = next(one for one in command if one.startswith("estimate=")).removeprefix("estimate=").strip("'")
        write_estimate(Estimate("x", seconds={"fit": 2.0}, disk={"weights": 5}), Path(file))
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", ran)
    found = reproduce.dry_run(planned(tmp_path))
    assert (found.total_seconds, found.disk_bytes) == (2.0, 5)


def test_a_run_that_would_be_refused_is_refused_before_any_is_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2, "what it said\n"))
    with pytest.raises(SystemExit) as end:
        reproduce.dry_run(planned(tmp_path))
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == "what it said\n"
    assert "joint, trained on synthetic, seed 0" in said.err


def test_a_run_that_fails_ends_it_with_its_code_and_its_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        reproduce.call(PlannedRun("joint", 0, "synthetic", RunFolder(tmp_path), ("seed=-1", "runs='a b'")))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "joint, trained on synthetic, seed 0 ended with exit code 2" in said
    assert "python -m biqa.run seed=-1 " in said


def test_a_signal_goes_to_the_run_and_ends_both(monkeypatch, tmp_path, capsys):
    """A stand-in for the run that says which signal it got."""
    got = tmp_path / "got"
    script = f"import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda n, _: (open({str(got)!r}, 'w').write(str(n)), sys.exit(143))); "
    script += (
        f"open({str(tmp_path / 'group')!r}, 'w').write(str(os.getpgrp() == os.getpid())); open({str(tmp_path / 'ready')!r}, 'w'); time.sleep(60)"
    )
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: start([sys.executable, "-c", script], **options))

    def send() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as end:
        reproduce.call(planned(tmp_path))
    assert end.value.code == 128 + signal.SIGTERM
    assert got.read_text() == str(int(signal.SIGTERM))
    assert (tmp_path / "group").read_text() == "True"  # of its own: the terminal's Ctrl-C comes to one of them alone
    assert "The same command goes on." in capsys.readouterr().err
