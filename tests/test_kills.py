"""kill -9 at random moments of training: a run that goes on each time ends with the curve, weights and figures of one that nothing interrupted.

`make test-faults` does it with ten runs and prints what it did; `make test` with one run that is killed three times.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import read_result

pytest_plugins = ["small_runs"]

STEPS = 150
OPTIONS = ("stage=joint", "data.train=100", "stage.batch_size=2", "stage.epochs=3")
TUNINGS = {"full": (), "lora": ("tuning=lora", "tuning.rank=2", "tuning.lr=0.01", "tuning.dropout=0.3")}
WEIGHTS = {"full": "model/model.safetensors", "lora": "adapter/adapter_model.safetensors"}
LONGEST_DELAY = 0.05
"""Seconds between the beginning of a step and the kill: a few steps, or a step and a checkpoint."""


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Folders of uninterrupted runs by tuning."""
    runs = tmp_path_factory.mktemp("whole")
    made = {}

    def of(tuning):
        if tuning not in made:
            assert run(runs, tuning, *OPTIONS, *TUNINGS[tuning]).code == 0
            made[tuning] = runs / tuning
        return made[tuning]

    return of


def killed(step, delay, *options):
    """Run until the kill; the step of the newest checkpoint it left."""
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(step), str(delay), *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def newest(folder):
    return max((int(path.stem.removeprefix("step=")) for path in folder.glob("checkpoints/step=*.ckpt")), default=0)


def assert_same(folder, other, tuning, digest):
    assert (folder / "logs" / "metrics.csv").read_text() == (other / "logs" / "metrics.csv").read_text()
    assert digest(folder / WEIGHTS[tuning]) == digest(other / WEIGHTS[tuning])
    assert read_answers(folder / "answers" / "synthetic.parquet").equals(read_answers(other / "answers" / "synthetic.parquet"))
    assert read_result(folder / "result.json")["metrics"] == read_result(other / "result.json")["metrics"]


def test_the_curve_has_every_tenth_step_once(whole):
    rows = [line.split(",") for line in (whole("full") / "logs" / "metrics.csv").read_text().splitlines()]
    named = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [int(row["step"]) for row in named if row["train/loss"]] == list(range(9, STEPS, 10))
    assert [int(row["step"]) for row in named if row["val/srcc"]] == [49, 99, 149]


def test_killed_three_times_it_ends_with_the_same_curve_and_weights(whole, run, synthetic, tmp_path, digest):
    draw = random.Random(5)
    folder = tmp_path / "full"
    command = (*synthetic, *OPTIONS, f"runs={tmp_path}", "name=full", "trainer.checkpoint_steps=10", "ckpt=last")
    for step in sorted(draw.sample(range(11, STEPS - 10), 3)):
        killed(step, draw.uniform(0, LONGEST_DELAY), *command)
        assert 0 < newest(folder) < STEPS
        assert not (folder / WEIGHTS["full"]).exists()
    assert run(tmp_path, "full", *OPTIONS, "ckpt=last").code == 0
    assert_same(folder, whole("full"), "full", digest)


@pytest.mark.faults
@pytest.mark.parametrize("number", range(10))
def test_ten_runs_killed_at_a_random_step(whole, run, synthetic, tmp_path, digest, number, capsys):
    draw = random.Random(number)
    tuning = ("full", "lora")[number % 2]
    every, step, delay = draw.choice((1, 7, 10)), draw.randrange(1, STEPS - 10), draw.uniform(0, LONGEST_DELAY)
    folder = tmp_path / tuning
    options = (*OPTIONS, *TUNINGS[tuning])
    killed(step, delay, *synthetic, *options, f"runs={tmp_path}", f"name={tuning}", f"trainer.checkpoint_steps={every}")
    left = newest(folder)
    assert not (folder / WEIGHTS[tuning]).exists()
    assert run(tmp_path, tuning, *options, f"trainer.checkpoint_steps={every}", "ckpt=last").code == 0
    assert_same(folder, whole(tuning), tuning, digest)
    with capsys.disabled():
        print(
            f"\n{number}: {tuning}, checkpoint every {every}, killed {1000 * delay:.0f} ms after step {step} began, went on from {left}: the same",
            end="",
        )
