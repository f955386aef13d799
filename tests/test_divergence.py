"""A loss or weights that are no numbers end a training at the last good checkpoint, with the step and the images of its batch."""

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch

from biqa.stages.base import StageModule
from biqa.stages.divergence import OnlyNumbers

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "data.train=24", "stage.batch_size=3", "stage.epochs=2", "trainer.checkpoint_steps=5")
"""Eight steps an epoch."""
WEIGHTS = Path("model") / "model.safetensors"


def at_batch(monkeypatch, number, make):
    """Let the loss of the training batch of that number in this process, from 1, be what `make` makes of it; gives the qualities of its images."""
    training_step, seen, qualities = StageModule.training_step, [], []

    def step(module, batch, index):
        loss = training_step(module, batch, index)
        seen.append(index)
        if len(seen) == number:
            qualities.extend(batch.q.tolist())
            loss = make(loss, module)
            module.step_loss = loss.detach()
        return loss

    monkeypatch.setattr(StageModule, "training_step", step)
    return qualities


def no_number(loss, module):
    return loss * float("nan")


def infinite_gradient(loss, module):
    """The value of the loss stays; its gradient is no number."""
    weight = next(weight for weight in module.parameters() if weight.requires_grad)
    return loss + torch.sqrt((weight * 0).sum())


def steps(folder):
    return sorted(int(path.stem.removeprefix("step=")) for path in folder.glob("checkpoints/*"))


def finite(folder):
    states = [torch.load(file, weights_only=True)["state_dict"] for file in folder.glob("checkpoints/*.ckpt")]
    return all(bool(value.isfinite().all()) for state in states for value in state.values())


def names_the_images(said, root, qualities):
    """Whether the images that a message names have these qualities in the labels."""
    named = re.search(r"Its batch: (.*?)\. Nothing", said)[1].split(", ")
    for labels in Path(root).rglob("labels.csv"):  # data of other tests may lie there too
        with labels.open(newline="") as file:
            score = {row["image"]: (float(row["score"]) - 1) / 4 for row in csv.DictReader(file)}
        if set(named) <= set(score) and [score[image] for image in named] == pytest.approx(qualities, abs=1e-6):
            return True
    return False


@pytest.fixture(scope="module")
def root(synthetic):
    return next(option for option in synthetic if option.startswith("data.root=")).partition("=")[2]


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory, digest):
    runs = tmp_path_factory.mktemp("whole")
    assert run(runs, "a", *OPTIONS).code == 0
    return digest(runs / "a" / WEIGHTS)


@pytest.mark.trust
@pytest.mark.parametrize(
    ("number", "make", "step", "found", "kept"),
    [
        (7, no_number, 7, "the loss of step 7 is nan", [5]),
        (10, infinite_gradient, 10, "step 10 has made weights that are no numbers", [5, 8]),
        (9, infinite_gradient, 10, "the loss of step 10 is nan", [5, 8]),  # what step 9 has made of the weights is seen in the next one
        (16, no_number, 16, "the loss of step 16 is nan", [10, 15]),  # the last one of all
    ],
)
def test_it_ends_at_the_last_good_checkpoint(whole, run, tmp_path, monkeypatch, digest, root, tally, number, make, step, found, kept):
    folder = tmp_path / "a"
    qualities = at_batch(monkeypatch, number, make)
    ended = run(tmp_path, "a", *OPTIONS)
    monkeypatch.undo()
    assert ended.code == 2
    assert f"Training has diverged: {found}" in ended.err
    assert (
        f"the newest checkpoint is {folder / 'checkpoints' / f'step={kept[-1]:08d}.ckpt'}. What helps: a smaller tuning.lr (now 0.002)" in ended.err
    )
    assert "Traceback" not in ended.err
    assert steps(folder) == kept
    assert finite(folder)
    assert not (folder / "model").exists()
    if number == step:
        assert names_the_images(ended.err, root, qualities)
    assert all("nan" not in file.read_text() for file in folder.glob("logs/metrics.csv"))
    if number == 10:  # what was kept is good
        assert run(tmp_path, "a", *OPTIONS, "ckpt=last").code == 0
        assert digest(folder / WEIGHTS) == whole
    tally("divergence")


def test_without_it_a_checkpoint_would_hold_what_is_no_number(run, tmp_path, monkeypatch):
    at_batch(monkeypatch, 10, infinite_gradient)
    monkeypatch.setattr(OnlyNumbers, "_bad", lambda *_: None)
    run(tmp_path, "a", *OPTIONS, "sampling.repeats=0")
    assert not finite(tmp_path / "a")


def test_the_batch_is_named_after_a_resumed_epoch_and_with_accumulation(run, tmp_path, monkeypatch, root):
    """Two batches a step; the fifth batch after going on in mid-epoch is bad."""
    options = (*OPTIONS, "trainer.accumulate=2", "trainer.checkpoint_steps=2")
    at_batch(monkeypatch, 13, lambda loss, module: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert run(tmp_path, "a", *options).code == 130
    monkeypatch.undo()
    assert steps(tmp_path / "a") == [4, 6]
    qualities = at_batch(monkeypatch, 3, no_number)
    ended = run(tmp_path, "a", *options, "ckpt=last")
    assert "the loss of step 8 is nan" in ended.err, ended.err
    assert names_the_images(ended.err, root, qualities)


def test_a_learning_rate_that_is_too_high(run, tmp_path):
    ended = run(tmp_path, "a", *OPTIONS, "tuning.lr=1e30", "trainer.clip=0")
    assert ended.code == 2
    assert re.search(r"Training has diverged: (the loss of step \d+ is (nan|inf)|step \d+ has made weights)", ended.err), ended.err
    assert "there is no checkpoint yet" in ended.err
    assert "tuning.lr (now 1e+30)" in ended.err


@pytest.mark.faults
def test_of_two_processes_one_says_it(synthetic, start, tmp_path):
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    process = start(
        *synthetic,
        *OPTIONS,
        f"runs={tmp_path}",
        "name=a",
        "tuning.lr=1e30",
        "trainer.clip=0",
        "trainer.devices=2",
        "trainer.accelerator=cpu",
        "strategy=ddp",
    )
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2, err
    assert err.count("Training has diverged") == 1
    assert "Traceback" not in err
