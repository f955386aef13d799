"""A full disk and a lack of memory end in one message, exit code 1, and a run that goes on."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from planted import at_step, files_up_to

from biqa.files import Unwritten, disk_fault
from biqa.stages.checkpoint_files import AtomicCheckpointIO
from biqa.stages.limits import memory_error, size_of

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "data.train=24", "stage.batch_size=2", "stage.epochs=2")
WEIGHTS = Path("model") / "model.safetensors"
EVERY_STEP = "trainer.checkpoint_steps=1"


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A run for which there was room."""
    runs = tmp_path_factory.mktemp("whole")
    assert run(runs, "a", *OPTIONS).code == 0
    return runs / "a"


def names(folder):
    return sorted(path.name for path in folder.glob("checkpoints/*"))


def test_no_room_for_a_checkpoint(whole, run, tmp_path, monkeypatch, digest):
    """A checkpoint may not get larger than files may be from step 15 on: that of step 14 stays, and the run goes on from there."""
    folder = tmp_path / "a"
    size = (whole / "checkpoints" / "step=00000024.ckpt").stat().st_size
    with files_up_to(resource.RLIM_INFINITY):
        at_step(monkeypatch, 15, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY)))
        full = run(tmp_path, "a", *OPTIONS, EVERY_STEP)
    monkeypatch.undo()
    assert full.code == 1
    said = re.escape(f"{folder / 'checkpoints' / 'step=00000015.ckpt'} cannot be written: File too large.")
    found = re.fullmatch(
        said + r" It takes about (\d+) bytes \([\d.]+ MB\), (\d+) bytes \([\d.]+ MB\) are free there. "
        r"What was written before is whole. Make room, and the same command with ckpt=last goes on.",
        full.err,
    )
    assert found, full.err
    assert 0.9 * size < int(found[1]) < size
    assert names(folder) == ["step=00000013.ckpt", "step=00000014.ckpt"]
    assert not (folder / WEIGHTS).exists()
    assert run(tmp_path, "a", *OPTIONS, EVERY_STEP, "ckpt=last").code == 0
    assert digest(folder / WEIGHTS) == digest(whole / WEIGHTS)
    assert (folder / "logs" / "metrics.csv").read_text() == (whole / "logs" / "metrics.csv").read_text()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True, check=False)
    if not mounted or mounted.returncode:
        pytest.skip("no right to mount a disk of 8 MB here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(whole, run, small_disk, monkeypatch, digest):
    """Something else fills it in mid-run, but for the half of a checkpoint; then it grows."""
    half = (whole / "checkpoints" / "step=00000024.ckpt").stat().st_size // 2
    at_step(monkeypatch, 5, lambda: (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - half)))
    full = run(small_disk, "a", *OPTIONS, EVERY_STEP)
    monkeypatch.undo()
    assert full.code == 1
    assert re.search(r"step=0000000\d.ckpt cannot be written: No space left on device. It takes about \d+ bytes", full.err), full.err
    assert all(re.fullmatch(r"step=\d{8}\.ckpt", name) for name in names(small_disk / "a"))
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    assert run(small_disk, "a", *OPTIONS, EVERY_STEP, "ckpt=last").code == 0
    assert digest(small_disk / "a" / WEIGHTS) == digest(whole / WEIGHTS)


@pytest.mark.parametrize(("written_last", "limit"), [("model", 100_000), ("answers", 2_000), ("result.json", 1_000)])
def test_no_room_at_the_end(whole, run, tmp_path, monkeypatch, digest, written_last, limit):
    """The weights, the answers or the result do not fit: what was written before is kept and used."""
    folder = Path(shutil.copytree(whole, tmp_path / "a"))
    for name in ("model", "answers", "result.json")[("model", "answers", "result.json").index(written_last) :]:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    with files_up_to(limit):
        full = run(tmp_path, "a", *OPTIONS, "ckpt=last")
    assert full.code == 1
    assert "cannot be written: " in full.err
    assert "File too large" in full.err
    assert "Traceback" not in full.err
    assert not (folder / "result.json").exists()
    assert run(tmp_path, "a", *OPTIONS, "ckpt=last").code == 0
    assert digest(folder / WEIGHTS) == digest(whole / WEIGHTS)
    assert digest(folder / "answers" / "synthetic.parquet") == digest(whole / "answers" / "synthetic.parquet")


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path):
    target = tmp_path / "step=00000001.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(10)}, target)
    with files_up_to(100_000), pytest.raises(Unwritten, match=r"File too large") as raised:
        AtomicCheckpointIO().save_checkpoint({"a": torch.ones(10**6), "b": [{"c": torch.ones(10)}]}, target)
    assert raised.value.needed == 4_000_040
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert AtomicCheckpointIO().load_checkpoint(target)["a"].sum() == 0


def hoard(*_):
    """As a batch that is too large: the real error of the real allocator."""
    torch.empty(2**50)


@pytest.mark.parametrize(("tuning", "seen"), [((), "pixel_values 2 x 304 x 3 x 3"), (("tuning=lora", "tuning.rank=2"), "features 18 x 32")])
def test_no_memory_to_train(run, tmp_path, monkeypatch, tuning, seen):
    folder = tmp_path / "a"
    at_step(monkeypatch, 13, hoard)
    full = run(tmp_path, "a", *OPTIONS, *tuning, "trainer.checkpoint_steps=5")
    monkeypatch.undo()
    assert full.code == 1
    assert full.err.startswith("Out of memory ([enforce fail at alloc_cpu.cpp")
    assert re.search(
        rf"Training, after step 12: a batch of 2 \(stage.batch_size\), {seen}, 9 visual tokens an image, "
        r"\d+ tokens of image and text a row. What helps: trainer.checkpoint_activations=true",
        full.err,
    ), full.err
    assert "stage.batch_size with a larger trainer.accumulate" in full.err
    assert "Traceback" not in full.err
    assert names(folder) == ["step=00000010.ckpt", "step=00000012.ckpt"]
    assert run(tmp_path, "a", *OPTIONS, *tuning, "trainer.checkpoint_steps=5", "ckpt=last").code == 0


def test_no_memory_to_answer(whole, run, tmp_path, monkeypatch, digest):
    folder = tmp_path / "a"
    monkeypatch.setattr("biqa.stages.joint.Joint.answer", hoard)
    full = run(tmp_path, "a", *OPTIONS)
    monkeypatch.undo()
    assert full.code == 1
    assert re.search(
        r"Answering: 12 images \(the first has 48 x 48 pixels\) with 3 queries each, pixel_values 1 x 304 x 3 x 3, 9 visual tokens an image, "
        r"answers of up to 16 tokens. What helps: a smaller sampling.batch_size, with which ckpt=last goes on",
        full.err,
    ), full.err
    assert not (folder / "answers").exists()
    assert run(tmp_path, "a", *OPTIONS, "ckpt=last", "sampling.batch_size=3").code == 0
    assert digest(folder / WEIGHTS) == digest(whole / WEIGHTS)


def test_no_memory_for_the_model(run, tmp_path):
    full = run(tmp_path, "a", *OPTIONS, "model.hidden=4194304")
    assert full.code == 1
    assert full.err.startswith("Out of memory (")
    assert "Before the first batch: the weights take more than there is. What helps: quantization=nf4" in full.err
    assert not (tmp_path / "a").exists()


def test_what_counts_as_full_and_what_does_not():
    assert disk_fault(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))) == errno.EDQUOT
    assert disk_fault(OSError(errno.EACCES, "no")) is None
    assert disk_fault(ValueError("os error 13")) is None
    assert disk_fault(ValueError("I/O error: Input/output error (os error 5)")) == errno.EIO
    assert memory_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    assert memory_error(MemoryError())
    assert not memory_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not memory_error(ValueError("out of memory"))
    assert size_of({"a": torch.zeros(3, dtype=torch.float16), "b": (1, [torch.zeros(2)])}) == 14
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # as Python has it: a limit is an error, and no end
