"""Files that are whole or not there: written beside their place under a temporary name, flushed to the disk, then renamed.

    write_whole(folder / "result.json", text)

    with whole_file(folder / "table.parquet") as temporary:
        frame.to_parquet(temporary)

A kill, a full disk or a broken one leaves what was there before as it was. What goes wrong is raised as `Unwritten`, whatever library met it, and
is told with the file, the bytes that it needs where they are known, and those that are free.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from biqa.errors import DiskFault, MachineLimit, NoDiskSpace

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a file larger than `ulimit -f` allows."""
FAULTY = (errno.EIO, errno.EROFS, errno.ESTALE)
"""The disk or its server fails, takes nothing any more, or is another one than before."""
IN_WORDS = re.compile(r"os error (\d+)")
"""How what is written in Rust says it: safetensors and tokenizers."""
OF_SQLITE = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_IOERR": errno.EIO}
"""How SQLite says it; of its words the first two count."""
AGAIN = "the same command begins anew"
"""What to do where nothing is kept of what a command has begun."""


class Unwritten(OSError):
    """A file was not written, for a reason that is the machine's. What lay in its place is untouched.

    Args:
        number: the system's number of what is wrong, one of `FULL` and `FAULTY`.
        reason: the system's words.
        path: the file or folder.
        needed: its bytes, where they are known.
    """

    def __init__(self, number: int, reason: str, path: str, needed: int | None = None) -> None:
        super().__init__(number, reason, path)
        self.needed = needed


@contextmanager
def whole_file(path: Path, needed: int | Callable[[], int] | None = None) -> Iterator[Path]:
    """A temporary name beside a file, which takes its place once what is written there is on the disk. Folders above it are made.

    Args:
        path: the file.
        needed: bytes that it takes, or what finds that out when it did not fit.

    Raises:
        Unwritten: the disk is full, or takes nothing.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        try:
            flush(path.parent)  # the name too
        except OSError as error:
            if error.errno in (*FULL, *FAULTY):  # and not a file system that takes no flush of folders
                raise
    except BaseException as error:  # a signal too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise_unwritten(error, path, needed)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one step: UTF-8, with the ends of lines as they are.

    Raises:
        Unwritten: the disk is full, or takes nothing.
    """
    written = content.encode("utf-8") if isinstance(content, str) else content
    with whole_file(path, len(written)) as temporary:
        temporary.write_bytes(written)


@contextmanager
def whole_folder(path: Path, needed: int | Callable[[], int] | None = None) -> Iterator[Path]:
    """The same for a folder: what was in it before is replaced as a whole. The folder under the temporary name is there, and empty.

    Raises:
        Unwritten: the disk is full, or takes nothing.
    """
    temporary, old = (path.with_name(f"{path.name}.{ending}") for ending in ("tmp", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                flush(file)
        shutil.rmtree(old, ignore_errors=True)
        if path.is_dir():
            path.replace(old)
        try:
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise_unwritten(error, path, needed)
        raise


@contextmanager
def told_as(path: Path) -> Iterator[None]:
    """Name this file or folder in what is said of a disk that is full or broken: not a part of it, or nothing, as libraries have it.

    Raises:
        Unwritten: the disk is full, or takes nothing.
    """
    try:
        yield
    except Exception as error:
        raise_unwritten(error, path)
        raise


def flush(file: Path) -> None:
    """See a file onto the disk: some say only then that it was too much (a quota, a server)."""
    opened = os.open(file, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def raise_unwritten(error: BaseException, path: Path, needed: int | Callable[[], int] | None = None) -> None:
    """Raise `Unwritten` in place of an error that says in a library's way that a disk is full or broken; otherwise do nothing."""
    if isinstance(error, MachineLimit | Unwritten) or (number := disk_fault(error)) is None:
        return
    size = needed() if callable(needed) else needed
    raise Unwritten(number, os.strerror(number), str(path), size) from error


def disk_fault(error: BaseException) -> int | None:
    """The system's number of what is wrong with a disk when that is what went wrong, else None."""
    for inner in _chain(error):
        said = IN_WORDS.search(str(inner))
        number = inner.errno if isinstance(inner, OSError) and inner.errno is not None else int(said[1]) if said else None
        if named := getattr(inner, "sqlite_errorname", None):
            number = OF_SQLITE.get("_".join(named.split("_")[:2]))
        if number in (*FULL, *FAULTY):
            return number
    return None


def disk_limit(error: BaseException, folder: Path, then: str) -> MachineLimit | None:
    """The error to raise in place of one that says that a disk is full or broken; None where it says something else.

    Args:
        error: what was raised.
        folder: where files were written, for an error that names none.
        then: what to do once that is mended.
    """
    number = disk_fault(error)
    if number is None:
        return None
    named = next((inner.filename for inner in _chain(error) if isinstance(inner, OSError) and isinstance(inner.filename, str)), None)
    needed = next((inner.needed for inner in _chain(error) if isinstance(inner, Unwritten)), None)
    return not_written(Path(named) if named else folder, number, needed=needed, then=then)


def not_written(path: Path, number: int, *, needed: int | None, then: str) -> MachineLimit:
    """What to say of a file that could not be written.

    Args:
        path: the file, or the folder where it would lie.
        number: the system's, one of `FULL` and `FAULTY`.
        needed: its size in bytes, where that is known.
        then: what to do once that is mended.
    """
    size = f"It takes about {needed} bytes ({needed / 2**20:.1f} MB), " if needed else ""
    kept = "What was written before is whole."
    told = f"{path} cannot be {'written' if number != errno.EIO else 'read or written'}: {os.strerror(number)}. {size}{free_in_words(path)}. {kept}"
    if number in FULL:
        return NoDiskSpace(f"{told} Make room, and {then}.")
    return DiskFault(f"{told} The disk, its mount or its server fails (dmesg and mount say more). Once it takes files, {then}.")


def free_in_words(path: Path) -> str:
    """How much is free on the disk of a file or a folder."""
    try:
        free = shutil.disk_usage(nearest_folder(path)).free
    except OSError as error:
        return f"How much is free there cannot be asked ({error.strerror})"
    return f"{free} bytes ({free / 2**20:.1f} MB) are free there"


def nearest_folder(path: Path) -> Path:
    """A folder, or the one where it would be made."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def free_for(path: Path) -> int:
    """Bytes that are free for a folder. What it holds already counts as free: it is a part of what will be written, or goes."""
    held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
    return shutil.disk_usage(nearest_folder(path)).free + held


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from: torch's writer raises one of its own when the file below it fails."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__
