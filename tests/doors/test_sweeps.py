"""Sweeps by a launcher: stage 2 after stage 1, and what is said when a launcher is missing or a job fails."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from biqa import config as schema
from biqa.doors.sweeps import failed_job, in_order, missing_launcher

pytest_plugins = ["small_runs"]

CONF = Path(schema.config_directory())
RAY = "hydra/launcher=ray"
WITHOUT_SUBMITIT = importlib.util.find_spec("submitit") is None
WITHOUT_RAY = importlib.util.find_spec("ray") is None


@pytest.mark.parametrize(
    ("typed", "sweeps"),
    [
        (["-m", "stage=perception,inference", "seed=0,1"], None),  # Hydra's own launcher keeps the order
        (["-m", "stage=perception,inference", "hydra/launcher=basic"], None),
        (["-m", "stage=joint", "seed=0,1", RAY], None),
        (["-m", "stage=inference", RAY], None),
        (
            ["-m", "stage=perception,inference,joint", "seed=0,1", RAY],
            [["-m", "seed=0,1", RAY, "stage=perception,joint"], ["-m", "seed=0,1", RAY, "stage=inference"]],
        ),
        (
            ["sweep=main_table", RAY, "seed=0"],
            [["sweep=main_table", RAY, "seed=0", "stage=zero_shot,joint,perception"], ["sweep=main_table", RAY, "seed=0", "stage=inference"]],
        ),
        (["sweep=main_table", "stage=joint", RAY], None),
        (["sweep=texts", RAY], None),  # stage 2 alone
        (
            ["experiment=one_stage,stage_1,two_stage", "seed=0", RAY],
            [["seed=0", RAY, "experiment=one_stage,stage_1"], ["seed=0", RAY, "experiment=two_stage"]],
        ),
        (["sweep=none_such", RAY], None),
    ],
)
def test_stage_two_begins_when_the_others_are_done(typed, sweeps):
    assert in_order(typed, CONF) == (sweeps or [typed])


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local", "ray"])
def test_a_launcher_that_is_not_installed(call, tmp_path, launcher):
    if not (WITHOUT_RAY if launcher == "ray" else WITHOUT_SUBMITIT):
        pytest.skip("it is installed")
    refused = call("biqa.run", "-m", "seed=0,1", f"hydra/launcher={launcher}", f"runs={tmp_path / 'runs'}")
    extra = "ray" if launcher == "ray" else "slurm"
    package = "hydra-ray-launcher" if launcher == "ray" else "hydra-submitit-launcher"
    assert refused.code == 2
    assert refused.err == f"This launcher needs {package}, which is not installed: pip install 'biqa[{extra}]' (or pip install {package})."


def test_what_is_no_fault_of_a_launcher_is_none():
    assert missing_launcher(RuntimeError("Unknown plugin class : 'hydra_plugins.mine.Launcher'")) is None
    assert failed_job(RuntimeError("anything")) is None


@pytest.mark.parametrize(
    ("typed", "there", "here"),
    [(("cpu", 4), 0, 0), (("gpu", 4), 4, 4), (("gpu", "2"), 2, 2), (("gpu", [0, 3]), 2, 2), (("gpu", "auto"), 1, 1), (("auto", 2), 2, None)],
)
def test_gpus_that_a_launcher_asks_for(typed, there, here):
    assert schema.gpus(*typed) == there
    assert schema.gpus(*typed, "here") == (here if here is not None else 2 if any(Path("/dev").glob("nvidia[0-9]*")) else 0)


def sweep(tmp_path, *arguments):
    """`python -m biqa.run -m` in an empty folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    (tmp_path / "here").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "biqa.run", "-m", *arguments, "stage.epochs=1", f"runs={tmp_path / 'runs'}"]
    return subprocess.run(command, check=False, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.faults
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("submitit_local", marks=pytest.mark.skipif(WITHOUT_SUBMITIT, reason="not installed: pip install 'biqa[slurm]'")),
        pytest.param("ray", marks=pytest.mark.skipif(WITHOUT_RAY, reason="hydra-ray-launcher needs cloudpickle < 3, and the tested joblib >= 3")),
    ],
)
def test_two_stages_by_a_launcher(synthetic, tmp_path, launcher):
    """Two jobs, the second after the first; a choice that is made of others (`test=`) reaches them; nothing lands in the folder one stands in."""
    done = sweep(tmp_path, *synthetic, "stage=1,2", "test=[synthetic]", f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("tiny-*/result.json"))) == 2
    assert not list((tmp_path / "here").iterdir())
    failed = sweep(tmp_path, *synthetic, "stage=2", "seed=7", f"hydra/launcher={launcher}")
    assert failed.returncode == 1
    assert "A job of the sweep failed" in failed.stderr
    assert "stage 2 needs a finished stage 1" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr
