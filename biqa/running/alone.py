"""One run at a time in a folder: the second one refuses, and says which process has it.

The lock is one of the kernel's (POSIX, on `runs/<name>/lock`): a process that is killed leaves none behind, and processes that it forked do not hold
it. Of a run of several processes one holds it for all: the one that starts them, or the first of those that torchrun or srun started. On a network
file system it also holds between machines where the server has locks; where it has none, that is said, and runs go on without.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from biqa.errors import RunExists
from biqa.files import told_as
from biqa.running.stopping import job
from biqa.runs import RunFolder

TAKEN = (errno.EACCES, errno.EAGAIN)
"""How the kernel says that another process has a lock."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""How a file system says that it knows none."""


@contextmanager
def alone(folder: RunFolder, decide: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Keep other runs out of a folder. One that is made for that, and in which nothing was written, is gone afterwards.

    Args:
        folder: of the run.
        decide: gives all processes what one of them finds; that one holds the lock.

    Raises:
        RunExists: another process has the folder.
        Unwritten: the disk is full, or takes nothing.
    """
    held: list[int] = []
    made = [place for place in folder.path.parents if not place.exists()]
    decide(lambda: held.append(hold(folder)))
    try:
        yield
    finally:
        for file in held:
            with suppress(OSError):
                folder.lock.unlink()
                for place in (folder.path, *made):  # where nothing was written
                    place.rmdir()
            os.close(file)


def hold(folder: RunFolder) -> int:
    """Take the lock of a folder: an open file, and whoever closes it gives the lock back.

    Raises:
        RunExists: another process has it.
        Unwritten: the disk is full, or takes nothing.
    """
    with told_as(folder.lock):
        while True:
            try:
                folder.path.mkdir(parents=True, exist_ok=True)
                file = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except (FileExistsError, FileNotFoundError):  # who had it has just ended without having written anything, and taken the folder along
                if folder.path.is_file():
                    raise
                continue
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (*TAKEN, *NO_LOCKS):
                    raise
                if error.errno in TAKEN:
                    holder = who(os.read(file, 1000))
                    os.close(file)
                    raise RunExists(
                        f"{folder.path} is in use by another run: {holder}. Wait until that has ended, stop it, or choose another name= or runs=."
                    ) from None
                print(f"{folder.path}: this file system knows no locks ({error.strerror}). Start no second run in that folder.", file=sys.stderr)
            if same(file, folder.lock):
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(myself()).encode(), 0)
                return file
            os.close(file)  # who had it has just ended, and deleted the file


def same(file: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def myself() -> dict[str, Any]:
    """What a lock says of its holder."""
    return {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "job": job()}


def who(content: bytes) -> str:
    """A holder in words."""
    try:
        told = json.loads(content)
        of_job = f", job {told['job']}" if told["job"] else ""
        return f"process {told['process']} on {told['host']}{of_job}, since {told['since']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, and has not said yet who it is
        return "it began this moment"
