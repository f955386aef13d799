"""Two processes on the CPU against one with as many images a step: the same weights, curves and answers, however weights are held."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from several_jobs import one_after_another

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import read_result
from biqa.running.building import build_model
from biqa.running.launching import launch

pytest_plugins = ["quick_processes", "small_runs"]
pytestmark = pytest.mark.filterwarnings("ignore:.*resource_tracker")

TOLERANCE = 1e-5
"""Of weights (float32, the largest about 1) and probabilities: sums are taken in another order."""

# 25 = 3 x 8 + 1 and 9 = 8 + 1: of the last batch of an epoch one process has nothing; 7 images to answer
SIZES = ("data.train=25", "data.val=9", "data.test=7", "model.tower_layers=2", "stage.epochs=2", "trainer.accelerator=cpu")
LORA = ("tuning=lora", "tuning.rank=2", "tuning.lr=0.01", "tuning.dropout=0")
STAGES = {
    "joint": ("stage=joint",),
    "accumulated": ("stage=joint", "trainer.accumulate=2", "trainer.clip=0.1"),
    "lora": ("stage=joint", *LORA),
    "perception": ("stage=1",),
    "inference": ("stage=2", "stage.descriptions=mixed"),
}
TWO = ("trainer.devices=2", "stage.batch_size=4")
SHARED = {
    "joint-ddp": ("joint", "strategy=auto"),
    "joint-fsdp": ("joint", "strategy=fsdp", "trainer.checkpoint_activations=true"),
    "accumulated-ddp": ("accumulated", "strategy=ddp"),
    "accumulated-fsdp": ("accumulated", "strategy=fsdp"),
    "lora-ddp": ("lora", "strategy=ddp", "trainer.checkpoint_activations=true"),
    "lora-fsdp": ("lora", "strategy=fsdp"),
    "perception-fsdp": ("perception", "strategy=fsdp"),
    "inference-ddp": ("inference", "strategy=ddp"),
    "inference-fsdp": ("inference", "strategy=fsdp"),
    "one-image-ddp": ("joint", "strategy=ddp", "data.test=1", "stage.epochs=0"),
}
LONG = {"uninterrupted": ("lora", "tuning.dropout=0.3", "stage.epochs=6", "trainer.checkpoint_steps=2", "data.train=40")}


def options_of(stage, runs):
    return (*SIZES, *STAGES[stage], *((f"stage.perception={runs / 'perception'}",) if stage == "inference" else ()))


def made_by_two(run, folder, wanted):
    """Runs of two processes that were started once."""
    jobs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biqa.run.launch", lambda number, work, *job, gpus, waits: jobs.append(job))
        patch.setattr("biqa.run.read_result", lambda file: {}, raising=False)
        for name, (stage, *more) in wanted.items():
            run(folder, name, *options_of(stage, folder), *TWO, *more, f"images.cache={folder / 'caches' / name}")  # all to be made by two processes
    assert len(jobs) == len(wanted)
    launch(2, one_after_another, jobs, gpus=False)


@pytest.fixture(scope="module")
def runs(run, quickly, tmp_path_factory):
    """A folder with a run of one process for each stage, and all of SHARED."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in STAGES.keys() - {"inference"}:
        assert run(folder, stage, *options_of(stage, folder), "stage.batch_size=8").code == 0
    assert run(folder, "inference", *options_of("inference", folder), "stage.batch_size=8").code == 0
    made_by_two(run, folder, SHARED)
    return folder


@pytest.fixture
def uninterrupted(run, quickly, tmp_path):
    """The run that others are to end as."""
    made_by_two(run, tmp_path, LONG)
    return tmp_path / "uninterrupted"


def weights(folder):
    [file] = folder.glob("*/*.safetensors")
    return load_file(file)


def furthest(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def assert_same_answers(one, other, tolerance=TOLERANCE):
    words = [name for name in one if not pd.api.types.is_float_dtype(one[name])]
    pd.testing.assert_frame_equal(one[words], other[words])
    pd.testing.assert_frame_equal(one.drop(columns=words), other.drop(columns=words), rtol=0, atol=tolerance)


def answers(folder):
    return read_answers(folder / "answers" / "synthetic.parquet")


@pytest.mark.parametrize("name", [name for name in SHARED if name.partition("-")[0] in STAGES])
def test_two_processes_end_with_the_weights_curves_and_answers_of_one(runs, name):
    one, two = runs / SHARED[name][0], runs / name
    assert furthest(weights(one), weights(two)) < TOLERANCE
    assert_same_answers(answers(one), answers(two))
    curves = [pd.read_csv(folder / "logs" / "metrics.csv").set_index("step") for folder in (one, two)]
    assert len(curves[0]["val/loss"].dropna()) == 2
    for curve in ("val/loss", "train/loss"):
        if curve in curves[0]:
            pd.testing.assert_series_equal(curves[0][curve], curves[1][curve], rtol=TOLERANCE)
    results = [read_result(folder / "result.json") for folder in (one, two)]
    assert [result["hardware"]["processes"] for result in results] == [1, 2]
    metrics, others = (result["metrics"]["synthetic"] for result in results)
    assert {figure: others[figure].get("value") for figure in others} == pytest.approx(
        {figure: metrics[figure].get("value") for figure in metrics}, abs=10 * TOLERANCE, nan_ok=True
    )  # correlations: the scores of so small a model differ little from image to image, so a difference of 1e-6 in a score is more there


def test_correlations_of_validation_are_those_of_one_process(runs):
    for name in ("joint", "lora"):
        one, ddp, fsdp = (pd.read_csv(runs / each / "logs" / "metrics.csv") for each in (name, f"{name}-ddp", f"{name}-fsdp"))
        for other in (ddp, fsdp):
            assert other["val/srcc"].tolist() == pytest.approx(one["val/srcc"].tolist(), abs=1e-6)
            assert other["val/plcc"].tolist() == pytest.approx(one["val/plcc"].tolist(), abs=1e-4)


def test_what_was_compared_had_learnt(runs):
    """Equal weights say nothing where they are still those that all began with."""
    for stage in ("joint", "accumulated"):
        vlm = build_model(OmegaConf.load(runs / stage / "config.yaml"), vision=True, weights=None)
        assert furthest(vlm.backbone.state_dict(), weights(runs / stage)) > 100 * TOLERANCE
    assert max(float(value.abs().max()) for name, value in weights(runs / "lora").items() if "lora_B" in name) > 100 * TOLERANCE


def test_fewer_images_than_processes_are_answered_once_each(runs):
    assert list(answers(runs / "one-image-ddp")["query"]) == [0, 1, 2]


RESUMED = (*SIZES, *STAGES["lora"], *TWO, *LONG["uninterrupted"][1:])


def steps(folder):
    return sorted(int(match[1]) for path in folder.glob("checkpoints/*.ckpt") if (match := re.fullmatch(r"step=(\d{8})\.ckpt", path.name)))


def descendants(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs_still(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"  # dead, and perhaps not yet fetched by its parent


def stopped_in_mid_epoch(process, folder, number):
    """Send a signal as soon as there is a checkpoint beyond those there are that is none of the end of an epoch, which has five steps."""
    before = max(steps(folder), default=0)
    while not any(step > before and step % 5 for step in steps(folder)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    children = descendants(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    time.sleep(0.5)
    assert not [child for child in children if runs_still(child)]
    return process.returncode, err


@pytest.mark.faults
def test_a_killed_and_a_stopped_run_of_two_leave_no_process_and_go_on_to_the_same_bits(uninterrupted, run, start, synthetic, tmp_path):
    """Dropout draws other numbers in each process: each has its own generator back."""
    folder = tmp_path / "runs" / "a"
    command = (*synthetic, *RESUMED, f"runs={tmp_path / 'runs'}", "name=a")
    code, _ = stopped_in_mid_epoch(start(*command), folder, signal.SIGKILL)
    assert code == -signal.SIGKILL
    code, err = stopped_in_mid_epoch(start(*command, "ckpt=last"), folder, signal.SIGINT)
    assert code == 130
    last = steps(folder)[-1]
    assert err.splitlines()[-1].startswith(f"Stopped by SIGINT after step {last}; a checkpoint is in {folder / 'checkpoints'}.")
    assert "Traceback" not in err
    assert not (folder / "result.json").exists()
    assert run(tmp_path / "runs", "a", *RESUMED, "ckpt=last").code == 0
    assert furthest(weights(uninterrupted), weights(folder)) == 0.0
    pd.testing.assert_frame_equal(answers(uninterrupted), answers(folder), check_exact=True)


def test_a_checkpoint_of_two_processes_is_not_gone_on_with_by_one(runs, run, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(runs / "lora-ddp", folder)
    (folder / "result.json").unlink()
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.save(OmegaConf.merge(config, {"name": "a", "runs": str(tmp_path)}), folder / "config.yaml")
    options = (*options_of("lora", runs), *TWO, *SHARED["lora-ddp"][1:])
    refused = run(tmp_path, "a", *options, "ckpt=last", "trainer.devices=1")
    assert refused.code == 2
    assert "The checkpoint is of a run with 8 images a step over all devices; here they are 4." in refused.err


@pytest.mark.faults
def test_torchrun_starts_them_too(runs, synthetic, tmp_path):
    """As on several machines: each process composes the options by itself and finds the others by the environment."""
    command = ["torchrun", "--nproc-per-node=2", "-m", "biqa.run", *synthetic, *options_of("joint", runs), *TWO, f"runs={tmp_path}", "name=a"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SRCC") == 2  # of the greedy answer and of the mean score: one table
    assert furthest(weights(runs / "joint-ddp"), weights(tmp_path / "a")) == 0.0
    assert torch.distributed.is_initialized() is False
