"""Two runs in one folder: one refuses, whoever was first and however it ended."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from biqa.errors import RunExists
from biqa.running.alone import alone, hold
from biqa.runs import RunFolder

pytest_plugins = ["small_runs"]

HOLDS = """
import sys
from pathlib import Path
from biqa.running.alone import hold
from biqa.runs import RunFolder
hold(RunFolder(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""
PUSHES = """
import os, sys
from pathlib import Path
from biqa.errors import RunExists
from biqa.running import alone
from biqa.runs import RunFolder
if sys.argv[3] == "careless":
    alone.same = lambda *_: True
folder, had = RunFolder(Path(sys.argv[1])), 0
while had < int(sys.argv[2]):
    try:
        with alone.alone(folder, lambda work: work()):
            os.close(os.open(folder.path.with_name("inside"), os.O_CREAT | os.O_EXCL))
            os.unlink(folder.path.with_name("inside"))
            had += 1
    except RunExists:
        pass
print(had)
"""


def process(script, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def other(tmp_path):
    """A process that has the folder `a`, and ends with the test."""
    with process(HOLDS, tmp_path / "a") as holding:
        assert holding.stdout.readline() == "held\n"
        yield holding
        holding.kill()


def test_the_second_run_refuses_and_says_who_has_the_folder(run, other, tmp_path):
    refused = run(tmp_path, "a", "stage=zero_shot")
    assert refused.code == 2
    assert refused.err.startswith(f"{tmp_path / 'a'} is in use by another run: process {other.pid} on {socket.gethostname()}, since 2")
    assert refused.err.endswith("Wait until that has ended, stop it, or choose another name= or runs=.")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["lock"]
    assert run(tmp_path, "a", "stage=zero_shot", "overwrite=true").code == 2
    other.send_signal(signal.SIGKILL)  # which leaves its file, and no lock
    other.wait()
    assert (tmp_path / "a" / "lock").is_file()
    assert run(tmp_path, "a", "stage=zero_shot").code == 0
    assert not (tmp_path / "a" / "lock").exists()


def test_a_run_that_another_has_begun_meanwhile_is_not_begun_again(run, tmp_path, monkeypatch):
    """Both found the folder empty; the other was there first, and has ended when the folder is free."""
    from biqa.running import alone as module

    def late(folder):
        folder.start({"stage": {"_target_": "biqa.stages.joint.Joint"}})
        return hold(folder)

    monkeypatch.setattr(module, "hold", late)
    refused = run(tmp_path, "a", "stage=zero_shot")
    assert refused.code == 2
    assert "holds a run with another config" in refused.err


def test_a_folder_in_which_nothing_was_written_is_gone(tmp_path):
    folder = RunFolder(tmp_path / "a")
    with alone(folder, lambda work: work()):
        assert folder.lock.is_file()
        assert not folder.open({}, resume=False, overwrite=False)  # as if it were empty
    assert not folder.path.exists()
    with alone(folder, lambda work: work()):
        folder.start({"seed": 1})
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


def test_a_run_that_begins_anew_keeps_its_lock(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start({"seed": 1})
    (tmp_path / "answers").mkdir()
    (tmp_path / "kept_elsewhere").symlink_to(tmp_path.parent)
    with alone(folder, lambda work: work()):
        folder.start({"seed": 2}, overwrite=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "lock"]
    assert tmp_path.parent.is_dir()


def test_only_one_process_of_several_holds_it(tmp_path):
    """`decide` of the others does nothing, and they give nothing back."""
    folder = RunFolder(tmp_path / "a")
    with alone(folder, lambda work: None):
        assert not folder.lock.exists()
        with alone(folder, lambda work: work()):
            assert folder.lock.exists()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    with alone(RunFolder(tmp_path / "a"), lambda work: work()):
        pass
    assert capsys.readouterr().err == f"{tmp_path / 'a'}: this file system knows no locks (No locks available). Start no second run in that folder.\n"


def test_what_is_no_lock_of_ours_is_told_too(tmp_path, other):
    (tmp_path / "a" / "lock").write_text("damaged")
    with pytest.raises(RunExists, match="in use by another run: it began this moment"):
        hold(RunFolder(tmp_path / "a"))


def pushed(folder, rounds, how):
    """What four processes say that have wanted a folder so many times each, all at once."""
    pushing = [process(PUSHES, folder, rounds, how) for _ in range(4)]
    return [one.communicate(timeout=120) for one in pushing]


@pytest.mark.faults
def test_many_processes_that_push_are_never_two_in_a_folder(tmp_path, tally):
    """Nor are they without a look whether a lock is still the one of that name: the campaign must see that."""
    told = pushed(tmp_path / "a", 300, "careful")
    assert [out for out, _ in told] == ["300\n"] * 4, told
    tally("two_runs", tried=1200)
    assert any("File exists" in err for _, err in pushed(tmp_path / "b", 1000, "careless"))
