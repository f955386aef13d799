"""The list of runs: what it says of each, and that it says it quickly."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fabrication import made_up_run
from light_doors import HEAVY, loaded

from biqa.errors import UserError
from biqa.ls import age, look, main, run_folders, size_in_words, table
from biqa.reporting.result import read_result
from biqa.runs import RunFolder

SCORING = ("b-joint", "more/a-inference")
UNFINISHED = {
    "name": "half", "seed": 7, "stage": {"_target_": "biqa.stages.inference.Inference"},
    "model": {"_target_": "biqa.models.hf.build_hf", "family": "qwen3_vl"},
    "data": {"_target_": "biqa.running.loading.training_nodes", "parts": {"koniq": {}, "spaq": {}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Three finished runs at different depths, one that is not finished, one that is damaged, and things that are no runs."""
    root = tmp_path_factory.mktemp("written") / "runs"
    made_up_run(root, "b-joint", "joint", noise=0.4)
    made_up_run(root / "more", "a-inference", "inference", noise=0.1)
    made_up_run(root, "c-perception", "perception")
    RunFolder(root / "half").start(UNFINISHED)
    (root / "half" / "checkpoints").mkdir()
    (root / "half" / "checkpoints" / "step=5.ckpt").write_bytes(bytes(3_000_000))
    (root / "torn").mkdir()
    (root / "torn" / "result.json").write_text('{"schema": 1, "run')
    (root / "search").mkdir()
    (root / "search" / "journal.log").write_text("{}")
    (root / ".submitit" / "x").mkdir(parents=True)
    (root / ".submitit" / "x" / "config.yaml").write_text("{}")
    result = json.loads((root / "c-perception" / "result.json").read_text())
    result["metrics"] = {"synthetic": {"feature_f1": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    (root / "c-perception" / "result.json").write_text(json.dumps(result))
    return root


@pytest.fixture
def runs(written, tmp_path, monkeypatch) -> Path:
    """The same, to change, below the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(written, "runs"))


def listed(capsys, *typed) -> list[str]:
    assert main(typed) == 0
    return capsys.readouterr().out.splitlines()


def test_every_run_has_a_line(runs, capsys):
    lines = listed(capsys)
    assert [line.split()[0] for line in lines[1:-1]] == ["runs/b-joint", "runs/c-perception", "runs/half", "runs/more/a-inference", "runs/torn"]
    figures = read_result(runs / "b-joint" / "result.json")["metrics"]["synthetic"]
    sampled, likeliest = (figures[f"instability_{decision}"]["value"] for decision in ("sampled", "argmax"))
    assert lines[1].split()[1:8] == ["tiny", "joint", "synthetic", "0", f"{figures['srcc']['value']:.3f}", f"{sampled:.1f}", f"{likeliest:.1f}"]
    assert lines[2].split()[1:8] == ["tiny", "perception", "synthetic", "0", "-", "-", "-"]
    assert lines[3].split()[1:6] == ["unfinished", "qwen3_vl", "inference", "koniq+spaq", "7"]
    assert lines[3].endswith("3.0 MB")
    assert lines[5].split()[1] == "damaged"
    assert lines[-1].startswith("3 finished, 1 unfinished, 1 damaged, 3.")
    assert "means" not in lines[-1]
    assert len({len(line.split("  ")[0]) for line in lines[1:-1]}) > 1, "names are whole, however long"


def test_the_json_has_all_figures_of_all_data_sets(runs, capsys):
    found = {run["folder"]: run for run in json.loads("\n".join(listed(capsys, "--json")))}
    assert set(found) == {"runs/b-joint", "runs/c-perception", "runs/half", "runs/more/a-inference", "runs/torn"}
    assert found["runs/b-joint"]["metrics"] == json.loads((runs / "b-joint" / "result.json").read_text())["metrics"]
    sizes = sum(path.stat().st_size for path in (runs / "b-joint").rglob("*") if path.is_file())
    assert found["runs/b-joint"]["bytes"] == sizes
    assert found["runs/half"] == {
        "folder": "runs/half", "state": "unfinished", "model": "qwen3_vl", "stage": "inference", "data": "koniq+spaq", "seed": 7, "metrics": {},
        "changed": (runs / "half" / "checkpoints" / "step=5.ckpt").stat().st_mtime, "bytes": found["runs/half"]["bytes"],
    }  # fmt: skip


def test_figures_of_several_data_sets_are_averaged_and_that_is_said(runs, capsys):
    file = runs / "b-joint" / "result.json"
    result = json.loads(file.read_text())
    result["metrics"]["other"] = {metric: figure | {"value": 0.0} for metric, figure in result["metrics"]["synthetic"].items()}
    file.write_text(json.dumps(result))
    lines = listed(capsys, "runs/b-joint")
    assert float(lines[1].split()[5]) == pytest.approx(result["metrics"]["synthetic"]["srcc"]["value"] / 2, abs=6e-4)
    assert lines[-1].endswith("the figures are means over them.")


@pytest.mark.parametrize("order", ["name", "age", "srcc", "instability", "size"])
def test_runs_are_sorted(runs, capsys, order):
    for place, name in enumerate(("half", "torn", "more/a-inference", "c-perception", "b-joint")):
        for file in (runs / name).rglob("*"):
            os.utime(file, (1_700_000_000 - 1000 * place,) * 2)
    lines = listed(capsys, "runs", f"sort={order}")[1:-1]
    assert all(re.search(r"  \d+ d  ", line) for line in lines), "their ages"
    names = [line.split()[0].removeprefix("runs/") for line in lines]
    found = {name: look(runs / name) for name in names}
    expected = {
        "name": sorted(names),
        "age": ["half", "torn", "more/a-inference", "c-perception", "b-joint"],
        "srcc": ["more/a-inference", "b-joint", "c-perception", "half", "torn"],
        "instability": [*sorted(SCORING, key=lambda name: found[name].figure("instability_sampled")), "c-perception", "half", "torn"],
        "size": sorted(names, key=lambda name: -found[name].bytes),
    }
    assert names == expected[order]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["nowhere"], r"runs=nowhere: there is no such folder\. Name the one that holds the runs, runs=FOLDER, or make a run: biqa run"),
        (["sort=date"], r"sort=date is not known: choose name, age, srcc, instability, size\."),
        (["rusn=runs"], r"There is no option rusn\. Did you mean runs=\?"),
    ],
)
def test_what_cannot_be_listed(runs, typed, message):
    with pytest.raises(UserError, match=message):
        main(typed)


def test_an_empty_folder_is_no_mistake(tmp_path, capsys):
    assert listed(capsys, str(tmp_path)) == [f"No run lies below {tmp_path}. Make one: biqa run"]


def test_a_run_that_goes_on_meanwhile_is_listed(runs, monkeypatch):
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: real("gone" if str(path).endswith(".ckpt") else path, **options))
    assert look(runs / "half").state == "unfinished"


def test_a_thousand_runs_in_seconds(runs, tmp_path, capsys):
    many = tmp_path / "many"
    for number in range(1000):
        folder = many / f"{number:04d}"
        folder.mkdir(parents=True)
        shutil.copy(runs / "b-joint" / "result.json", folder)
    start = time.perf_counter()
    assert len(listed(capsys, str(many))) == 1002
    assert time.perf_counter() - start < 4


def test_it_loads_neither_torch_nor_hydra(runs, tmp_path):
    code, packages = loaded(tmp_path, "ls", "runs")
    assert code == 0
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich"})


def test_whoever_reads_may_have_had_enough(runs, tmp_path):
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "biqa.ls", "runs"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_folders_are_found_at_any_depth(runs):
    (runs / "more" / "loop").symlink_to(runs)
    assert {str(path.relative_to(runs)) for path in run_folders(runs)} == {"b-joint", "c-perception", "half", "more/a-inference", "torn"}


def test_columns_are_aligned_and_an_empty_one_is_left_out():
    rows = [("run", "", "model", "stage", "data", "seed", "SRCC"), ("a-name", "", "tiny", "1", "x", "0", "-")]
    assert table(rows) == ["run     model  stage  data  seed  SRCC", "a-name  tiny   1      x        0     -"]


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (86400, "1 d"), (86400 * 400, "400 d")])
def test_ages(seconds, text):
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (25_300_000, "25 MB"), (1.32e10, "13 GB"), (5e15, "5000 TB")]
)
def test_sizes(number, text):
    assert size_in_words(number) == text
