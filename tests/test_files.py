"""A file is as it was or as it shall be, whatever fails on the way, and what fails is told with path, bytes needed and free."""

import errno
import os
import pickle
import shutil
import sqlite3
from pathlib import Path

import pytest
from planted import files_up_to

from biqa.errors import DiskFault, NoDiskSpace
from biqa.evaluation.predictions import Unreadable
from biqa.files import Unwritten, disk_fault, disk_limit, raise_unwritten, told_as, whole_file, whole_folder, write_whole
from biqa.reporting.predictions import Whole
from biqa.stages.curves import CurveLogger

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)


def failing(number, after=0):
    """A function that raises after so many calls."""
    calls = []

    def fail(*_, **__):
        calls.append(1)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("step", ["pathlib.Path.mkdir", "pathlib.Path.write_bytes", "os.fsync", "pathlib.Path.replace"])
def test_the_old_file_stays_whatever_fails(tmp_path, monkeypatch, number, step):
    file = tmp_path / "a.json"
    file.write_text("old")
    monkeypatch.setattr(step, failing(number))
    with pytest.raises(Unwritten) as raised:
        write_whole(file, "new, in ä few bytes")
    monkeypatch.undo()
    assert (raised.value.errno, raised.value.filename, raised.value.needed) == (number, str(file), 20)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"
    write_whole(file, "new")
    assert file.read_text() == "new"


@pytest.mark.parametrize("number", NUMBERS)
def test_the_new_name_too_must_reach_the_disk(tmp_path, monkeypatch, number):
    monkeypatch.setattr("os.fsync", failing(number, after=1))  # the file's content is there
    with pytest.raises(Unwritten):
        write_whole(tmp_path / "a.json", "new")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOTSUP])
def test_a_file_system_that_takes_no_flush_of_folders_is_no_fault(tmp_path, monkeypatch, number):
    monkeypatch.setattr("os.fsync", failing(number, after=1))
    write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_file_below_folders_that_are_not_there(tmp_path):
    write_whole(tmp_path / "a" / "b" / "c.csv", "x\r\n")
    assert (tmp_path / "a" / "b" / "c.csv").read_bytes() == b"x\r\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_what_is_not_the_disks_passes_through(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def half():
        with whole_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.parametrize(("step", "after"), [("os.fsync", 0), ("pathlib.Path.replace", 0), ("pathlib.Path.replace", 1)])
def test_the_old_folder_stays_too(tmp_path, monkeypatch, step, after):
    """Also where it was moved away already and the new one does not take its place."""
    folder, replace, calls = tmp_path / "model", Path.replace, []
    folder.mkdir()
    (folder / "weights").write_text("old")

    def once(path, target):
        calls.append(path.name)
        if len(calls) == after + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(path, target)

    monkeypatch.setattr(step, once if step.endswith("replace") else failing(errno.EIO))
    with pytest.raises(Unwritten, match="Input/output error"), whole_folder(folder, lambda: 7) as place:
        (place / "weights").write_text("new")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "weights").read_text() == "old"
    with whole_folder(folder) as place:
        (place / "other").write_text("new")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/other"]


def test_how_libraries_say_it():
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"
    broken = sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorname = "SQLITE_IOERR_WRITE"
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorname = "SQLITE_BUSY"
    assert [disk_fault(error) for error in (full, broken, locked)] == [errno.ENOSPC, errno.EIO, None]
    assert disk_fault(Exception("Error while serializing: I/O error: No space left on device (os error 28)")) == errno.ENOSPC
    assert disk_fault(OSError(errno.EACCES, "no")) is None
    assert disk_fault(OSError("encoder error -2")) is None
    of_torch = RuntimeError("PytorchStreamWriter failed writing file")
    of_torch.__context__ = OSError(errno.ENOSPC, "full")
    assert disk_fault(of_torch) == errno.ENOSPC


def test_what_is_told_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 5 * 2**20 if path == tmp_path else -1))
    full = disk_limit(Unwritten(errno.ENOSPC, "", str(tmp_path / "new" / "a"), 3 * 2**20), Path("/x"), "go on")
    assert type(full) is NoDiskSpace
    assert str(full) == (
        f"{tmp_path}/new/a cannot be written: No space left on device. It takes about 3145728 bytes (3.0 MB), 5242880 bytes (5.0 MB) are free there. "
        f"What was written before is whole. Make room, and go on."
    )
    broken = disk_limit(OSError(errno.EROFS, "whatever"), tmp_path, "go on")
    assert type(broken) is DiskFault
    assert str(broken) == (
        f"{tmp_path} cannot be written: Read-only file system. 5242880 bytes (5.0 MB) are free there. What was written before is whole. "
        f"The disk, its mount or its server fails (dmesg and mount say more). Once it takes files, go on."
    )
    assert "cannot be read or written: Input/output error" in str(disk_limit(OSError(errno.EIO, ""), tmp_path, "go on"))
    assert disk_limit(ValueError(), tmp_path, "go on") is None
    monkeypatch.setattr(shutil, "disk_usage", failing(errno.EIO))
    assert "How much is free there cannot be asked (Input/output error)" in str(disk_limit(OSError(errno.EIO, ""), tmp_path, "go on"))


def test_it_travels_between_processes(tmp_path):
    error = pickle.loads(pickle.dumps(Unwritten(errno.ENOSPC, "full", "a/b", 12)))
    assert (error.errno, error.filename, error.needed) == (errno.ENOSPC, "a/b", 12)
    raise_unwritten(error, tmp_path)  # it knows better


def test_predictions_that_do_not_fit_do_not_take_the_place_of_old_ones(tmp_path, capsys):
    """What is written at the very end, when the stream is closed, may be what does not fit."""
    file = tmp_path / "scores.jsonl"
    file.write_text("old\n")

    def write(number):
        with Whole(file, overwrite=True) as rows:
            for place in range(number):
                rows.add(Unreadable(f"{place}.png", "no picture"))

    with files_up_to(500), pytest.raises(Unwritten, match=f"File too large: '{file}'"):
        write(100)
    assert file.read_text() == "old\n"
    assert f"is in {file}.tmp" in capsys.readouterr().err
    write(100)
    assert len(file.read_text().splitlines()) == 100
    assert not file.with_name("scores.jsonl.tmp").exists()


def test_a_row_of_the_curve_that_does_not_fit_names_the_file(tmp_path):
    curve = CurveLogger(str(tmp_path), "logs")
    curve.log_metrics({"loss": 1.0}, step=0)
    with files_up_to(curve.file.stat().st_size + 3), pytest.raises(Unwritten, match=r"logs/metrics\.csv"):
        curve.log_metrics({"loss": 2.0}, step=1)
    again = CurveLogger(str(tmp_path), "logs")
    again.go_on_from(1)
    again.log_metrics({"loss": 2.0}, step=1)
    assert [row["loss"] for row in again.rows()] == ["1.0", "2.0"]


def test_a_name_for_what_others_write(tmp_path):
    with pytest.raises(Unwritten, match="set"), told_as(tmp_path / "set"):
        raise OSError(errno.ENOSPC, "full", "some/part")
    with pytest.raises(KeyError), told_as(tmp_path / "set"):
        raise KeyError
