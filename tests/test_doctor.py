"""Is everything here? What is missing is told with what to do, and what goes into an issue tells nothing of whose machine it is."""

import getpass
import shutil
import tempfile
from collections import namedtuple
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from light_doors import HEAVY, loaded

from biqa import doctor
from biqa.data.discovery import Finds, Found, Incomplete
from biqa.doctor import DoctorOptions, Finding, ask_torch, block, cpu, data_sets, disk, extras, gpu, look, main, memory, packages, places, settings

TORCH = {"version": "2.13.0+cpu", "cuda": None, "hip": None, "threads": 2, "gpus": []}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def requires(monkeypatch):
    """Set what the package needs and what is installed."""

    def needed(texts, installed):
        def version(name):
            if name not in installed:
                raise PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(doctor, "version", version)
        monkeypatch.setattr(doctor, "requires", lambda _: texts)

    return needed


def test_every_requirement_of_the_installed_package_is_met_here():
    [found] = packages()
    assert found.state == "ok"
    needed = {requirement.name for extra, requirement in doctor.requirements() if not extra}
    assert {"torch", "lightning", "hydra-core", "transformers", "peft", "torchmetrics", "wandb", "bitsandbytes"} <= needed


def test_what_is_below_its_floor_is_a_problem_with_its_remedy(requires):
    requires(["torch>=2.11", "lightning>=2.6.6", "numpy>=2"], {"torch": "2.13.0+cpu", "lightning": "2.6.3"})
    assert list(packages()) == [
        Finding("PROBLEM", "packages", "lightning is 2.6.3, needed is >=2.6.6: pip install 'lightning>=2.6.6'"),
        Finding("PROBLEM", "packages", "numpy is not installed: pip install 'numpy>=2'"),
        Finding("ok", "packages", "1 of 3 as required"),
    ]


def test_extras_are_there_too_old_or_not(requires):
    texts = [
        "numpy>=2",
        "optuna>=5; extra == 'optuna'",
        "submitit>=1.5; extra == 'slurm'",
        "vllm>=0.32; extra == 'vllm'",
        "biqa[optuna]; extra == 'dev'",
    ]
    requires(texts, {"numpy": "2.4", "optuna": "5.1rc1", "submitit": "1.4"})
    assert [(found.state, found.text) for found in extras()] == [
        ("note", "slurm: submitit is 1.4, needed is >=1.5: pip install 'biqa[slurm]'"),
        ("ok", "installed: optuna"),
        ("ok", "not installed: vllm. Any of them when you need it: pip install 'biqa[vllm]'"),
    ]


def test_extras_of_this_installation_are_known():
    names = {extra for extra, _ in doctor.requirements() if extra}
    assert {"optuna", "slurm", "owl2", "teacher", "dev"} <= names


@pytest.mark.parametrize(
    ("torch", "devices", "states", "said"),
    [
        (TORCH, 0, ["ok", "note"], "none. model=tiny learns in minutes without"),
        (TORCH, 2, ["ok", "PROBLEM"], "2 present, and this torch is built for the CPU alone. Install a build with CUDA"),
        (TORCH | {"cuda": "13.0"}, 1, ["ok", "PROBLEM"], "1 present, and torch cannot use any: is the driver older than CUDA 13.0?"),
        (TORCH | {"cuda": "13.0", "gpus": [["NVIDIA H200", 140]]}, 1, ["ok", "ok"], "NVIDIA H200, 140 GB"),
        ({"error": "ImportError: libcudart.so: cannot open"}, 1, ["PROBLEM"], "cannot be used: ImportError: libcudart.so: cannot open. Install it again"),
    ],
)  # fmt: skip
def test_gpus(monkeypatch, torch, devices, states, said):
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [Path(f"/dev/nvidia{n}") for n in range(devices)])
    found = list(gpu(torch))
    assert [one.state for one in found] == states
    assert said in found[-1].text


def test_torch_is_asked_in_another_process(monkeypatch):
    said = ask_torch()
    assert said["version"].partition("+")[0] == version("torch").partition("+")[0]
    assert said.keys() == TORCH.keys()
    monkeypatch.setattr(doctor, "ASK_TORCH", "raise ImportError('libcudart.so: cannot open')")
    assert ask_torch() == {"error": "ImportError: libcudart.so: cannot open"}
    monkeypatch.setattr(doctor, "ASK_TORCH", "import os; os.abort()")
    assert ask_torch() == {"error": "exit code -6"}
    monkeypatch.setattr(doctor, "ASK_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    assert ask_torch() == {"error": "it said nothing in 0.2 s"}


def test_threads_beyond_what_a_container_may_use_are_noted(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(doctor, "_first_numbers", lambda _: [200000.0, 100000.0])
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: {"avx2"})
    first, second = cpu()
    assert (first.state, first.text.split(":")[1]) == ("note", " export OMP_NUM_THREADS=2, or threads wait for each other")
    assert "no bfloat16 in hardware" in second.text
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: {"avx512_bf16"})
    assert list(cpu()) == [Finding("ok", "CPU", "64 cores, OMP_NUM_THREADS=2")]


def test_memory_is_that_of_the_container(monkeypatch):
    assert "GB are free" in memory().text
    monkeypatch.setattr(doctor, "_first_numbers", lambda file: [3 * 2.0**30] if file.name == "memory.max" else [2.0**30])
    assert memory() == Finding("note", "memory", "2.0 of 3.0 GB are free: little. Close other programs")


@pytest.mark.parametrize(("free", "state"), [(1e8, "PROBLEM"), (2e9, "note"), (1e11, "ok")])
def test_space_on_disk(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, free))
    found = disk("runs", tmp_path / "not" / "there", "runs=FOLDER")
    assert found.state == state
    assert f"{free / 1e9:.1f} GB free in {tmp_path / 'not' / 'there'} (made when it is needed)" in found.text
    assert ("runs=FOLDER" in found.text) == (state != "ok")
    assert not (tmp_path / "not").exists()


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    found = disk("cache", tmp_path / "file" / "below", "export BIQA_CACHE=FOLDER")
    assert (found.state, found.text.partition(": ")[2]) == (
        "PROBLEM", "nothing can be written there (Not a directory). Choose another: export BIQA_CACHE=FOLDER",
    )  # fmt: skip


def test_places_are_those_that_a_run_writes_to(monkeypatch):
    monkeypatch.setenv("BIQA_CACHE", "/a")
    monkeypatch.setenv("HF_HOME", "/b")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/c")
    assert {about: str(folder) for about, folder, _ in places("/d")} == {"runs": "/d", "cache": "/a", "temporary": "/c", "hub cache": "/b/hub"}


def test_settings_of_offline_use(monkeypatch):
    hub, wandb = settings({"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_API_KEY": "secret"})
    assert (hub.state, hub.text.partition(":")[0]) == ("note", "HF_HUB_OFFLINE set")
    assert wandb.text == "logger=wandb is offline, as WANDB_MODE says. WANDB_API_KEY is set"
    assert [found.state for found in settings({"HF_HUB_OFFLINE": "0", "HF_TOKEN": "secret"})] == ["ok", "ok"]


def test_data_sets_are_listed_with_what_is_missing(monkeypatch, tmp_path):
    assert [(found.state, found.text.partition(":")[0]) for found in data_sets(str(tmp_path / "no"))] == [("PROBLEM", str(tmp_path / "no"))]
    monkeypatch.chdir(tmp_path)
    assert [found.state for found in data_sets(None)] == ["note"]
    finds = Finds(
        [Found("koniq", Path("x"), 9, 10), Found("spaq", Path("z"), 5, 5)], [Incomplete("live", Path("y"), "a.mat is missing")], ["csiq", "kadid"]
    )
    monkeypatch.setattr("biqa.data.discovery.discover", lambda _: finds)
    assert [(found.state, found.text) for found in data_sets(str(tmp_path))] == [
        ("ok", "koniq: 9 of 10 images in x"),
        ("ok", "spaq: 5 images in z"),
        ("note", "live: y is not whole: a.mat is missing. Unpack the release again"),
        ("ok", f"not in {tmp_path}: csiq, kadid"),
    ]


def test_the_block_for_an_issue_is_of_nobody(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "hf_abcdefgh")
    monkeypatch.setenv("BIQA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("BIQA_DATASETS", str(tmp_path / "sets"))
    findings = list(look(DoctorOptions(runs=str(tmp_path / "file" / "runs")), TORCH))
    text = block(TORCH, findings)
    for private in (str(tmp_path), str(Path.home()), "hf_abcdefgh", f"/{getpass.getuser()}/"):
        assert private not in text
    assert "torch 2" in text
    assert "- runs: PROBLEM" in text
    assert "- data sets: PROBLEM" in text


@pytest.mark.parametrize(("below", "code"), [("", 0), ("file/", 1)])
def test_the_exit_code_says_whether_there_is_a_problem(monkeypatch, tmp_path, capsys, below, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "ask_torch", lambda: TORCH)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, 1e11))
    monkeypatch.delenv("BIQA_DATASETS", raising=False)
    Path("file").touch()
    assert main([f"runs={below}runs"]) == code
    out = capsys.readouterr().out
    assert ("No problems." if code == 0 else "1 problem.") in out
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_it_loads_no_torch_itself(tmp_path):
    code, packages = loaded(tmp_path, "doctor", "--help")
    assert code == 0
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich"})
    code, packages = loaded(tmp_path, "doctor", "rnus=x")
    assert code == 2
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich"})


def test_requirements_of_another_system_are_left_out(requires):
    requires(["numpy>=2", "pywin32>=300; sys_platform == 'win32'"], {"numpy": "2.4"})
    assert list(packages()) == [Finding("ok", "packages", "1 of 1 as required")]


def test_a_package_that_is_not_installed_is_told(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", absent)
    monkeypatch.setattr(doctor, "metadata", absent)
    assert list(packages()) == []
    found = doctor.python_version()
    assert (found.state, found.text) == ("PROBLEM", "is not installed, so that its requirements are not known. In its folder: pip install -e .")


def test_another_python_than_is_asked_for_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.8.1")
    found = doctor.python_version()
    assert (found.state, found.text.partition(", ")[0]) == ("PROBLEM", "3.8.1")


def test_limits_of_a_container_are_read(tmp_path):
    for text, numbers in (("200000 100000\n", [200000.0, 100000.0]), ("max 100000\n", []), ("", [])):
        (tmp_path / "limit").write_text(text)
        assert doctor._first_numbers(tmp_path / "limit") == numbers
    assert doctor._first_numbers(tmp_path / "none") == []
