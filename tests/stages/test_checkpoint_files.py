"""A checkpoint on disk is, to the bit, what was written, or it is not taken."""

import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from biqa.stages.checkpoint_files import SEAL_BYTES, AtomicCheckpointIO, damage, newest_checkpoint

save = AtomicCheckpointIO().save_checkpoint
ELSEWHERE = Path("/dev/shm")
"""Another file system than that of temporary folders, mostly."""


@pytest.fixture
def whole(tmp_path):
    """A checkpoint of tensors and plain values."""
    file = tmp_path / "step=00000010.ckpt"
    save({"state_dict": {"w": torch.randn(40, 50)}, "global_step": 10, "name": "x" * 300}, file)
    return file


def test_written_and_read_back(tmp_path):
    save({"a": torch.arange(3)}, tmp_path / "deep" / "step=00000005.ckpt")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["step=00000005.ckpt"]
    file = tmp_path / "deep" / "step=00000005.ckpt"
    assert damage(file) is None
    for options in ({}, {"mmap": True}):
        assert torch.load(file, weights_only=True, **options)["a"].tolist() == [0, 1, 2]


def test_a_failed_write_leaves_the_old_one(tmp_path):
    target = tmp_path / "step=00000001.ckpt"
    save({"a": 1}, target)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        save({"a": lambda: None}, target)  # cannot be pickled: the write dies half-way
    assert AtomicCheckpointIO().load_checkpoint(target) == {"a": 1}
    assert damage(target) is None


def test_the_newest_whole_one_is_taken(tmp_path):
    save({"a": 1}, tmp_path / "step=00000009.ckpt")
    save({"a": 2}, tmp_path / "step=00000010.ckpt")
    assert newest_checkpoint(tmp_path) == tmp_path / "step=00000010.ckpt"
    content = (tmp_path / "step=00000010.ckpt").read_bytes()
    (tmp_path / "step=00000011.ckpt").write_bytes(content[: len(content) // 2])
    (tmp_path / "step=00000012.ckpt.tmp").write_bytes(content)
    told: list[str] = []
    assert newest_checkpoint(tmp_path, told.append) == tmp_path / "step=00000010.ckpt"
    cut_off = f"{tmp_path / 'step=00000011.ckpt'} is passed over: it is cut off, or was never one of biqa's."
    assert told == [f"{cut_off}\nGoing on from step=00000010.ckpt."]
    for number in (9, 10):
        (tmp_path / f"step={number:08d}.ckpt").unlink()
    assert newest_checkpoint(tmp_path, told.append) is None
    assert told[1:] == [f"{cut_off}\nThere is no other: training begins anew."]
    assert newest_checkpoint(tmp_path / "nowhere", told.append) is None
    assert len(told) == 2


@pytest.mark.trust
def test_each_kind_of_damage_is_noticed(whole, tally):
    content = whole.read_bytes()
    draw = random.Random(0)
    last_seal = len(content) - SEAL_BYTES
    lengths = [0, 1, last_seal, len(content) - 1, *draw.sample(range(2, len(content) - 1), 60)]
    flipped = [*range(len(content) - 4, len(content)), *range(last_seal - 3, last_seal + 1), *draw.sample(range(len(content)), 56)]
    missed = []

    def noticed(damaged: bytes, what: str) -> None:
        whole.write_bytes(damaged)
        if damage(whole) is None or newest_checkpoint(whole.parent) is not None:
            missed.append(what)

    for length in lengths:
        noticed(content[:length], f"cut off at {length}")
    for place in flipped:
        noticed(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :], f"bit of byte {place}")
    noticed(content.replace(b"biqa checkpoint 0001", b"biqa checkpoint 0002"), "another format")
    noticed(content[:-SEAL_BYTES], "no seal")
    noticed(content + b"x", "more than was written")
    noticed(b"x" * len(content), "something else")
    whole.unlink()
    assert damage(whole) == "it cannot be read: No such file or directory"
    tried = len(lengths) + len(flipped) + 5
    tally("damage", tried, survived=tried - len(missed))
    assert not missed
    whole.write_bytes(content)
    assert damage(whole) is None, "the control: what was written is whole"


def test_torch_alone_does_not_notice_a_flipped_bit(whole):
    """Why there is a seal."""
    content = whole.read_bytes()
    place = content.index(torch.load(whole, weights_only=True)["state_dict"]["w"].numpy().tobytes())
    whole.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    torch.load(whole, weights_only=True, mmap=True)
    assert damage(whole) == "its content is not what was written"
    assert newest_checkpoint(whole.parent) is None


def test_where_there_is_no_time_the_end_alone_is_looked_at(whole, monkeypatch):
    """A signal leaves seconds, and to read a hundred gigabytes takes a minute."""
    monkeypatch.setattr("biqa.stages.checkpoint_files._digest", lambda *_: pytest.fail("read to its end"))
    assert newest_checkpoint(whole.parent, whole=False) == whole
    whole.write_bytes(whole.read_bytes()[:-1])
    assert newest_checkpoint(whole.parent, whole=False) is None


def saved_until_killed(write: Callable[[object, Path], None], file: Path, content: object, seconds: float) -> None:
    """Save again and again in a process that is killed after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                write(content, file)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def lost_of(number: int, write: Callable[[object, Path], None], folder: Path) -> int:
    """Of so many kills at random moments of saving over a whole checkpoint, those that left none."""
    draw = random.Random(number)
    content = {"w": torch.arange(10**6), "step": 1}
    file = folder / "step=00000001.ckpt"
    lost = 0
    for _ in range(number):
        begun = time.perf_counter()
        write(content, file)
        took = time.perf_counter() - begun
        saved_until_killed(write, file, content, draw.uniform(0, 2 * took))
        try:
            lost += not torch.equal(torch.load(file, weights_only=True)["w"], content["w"])
        except Exception:  # whatever torch says of half a file
            lost += 1
    return lost


@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another file system than the one where temporary files lie."""
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=ELSEWHERE) as folder:
        yield Path(folder)


@pytest.mark.parametrize("number", [10, pytest.param(200, marks=pytest.mark.faults)])
def test_a_kill_in_mid_save_leaves_a_whole_one_on_any_file_system(elsewhere, tally, number):
    lost = lost_of(number, save, elsewhere)  # pyright: ignore[reportArgumentType]
    assert len(list(elsewhere.iterdir())) <= 2
    if number > 10:
        tally("saves", number, survived=number - lost)
    assert not lost
    assert damage(elsewhere / "step=00000001.ckpt") is None


@pytest.mark.faults
def test_lightning_loses_them_there(elsewhere, tmp_path, monkeypatch):
    """The control: what stages in $TMPDIR and moves from one file system to another."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert lost_of(40, TorchCheckpointIO().save_checkpoint, elsewhere)  # pyright: ignore[reportArgumentType]


@pytest.mark.faults
def test_saving_takes_little_memory(tmp_path):
    """Of a checkpoint of 200 MB, less than a tenth."""
    script = (
        "import resource, sys, torch\nfrom pathlib import Path\nfrom biqa.stages.checkpoint_files import AtomicCheckpointIO\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "content = {'w': torch.ones(50, 10**6)}\n"
        "AtomicCheckpointIO().save_checkpoint({'w': torch.ones(2)}, Path(sys.argv[1]))\n"
        "before = peak()\nAtomicCheckpointIO().save_checkpoint(content, Path(sys.argv[1]))\nprint((peak() - before) / 1024)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.ckpt"], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20
