"""One look at every image of a data set, in parallel and kept on disk: does it decode, how large is it, its perceptual hash, its measurements."""

import hashlib
import json
import multiprocessing
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from biqa.data.images import load_image
from biqa.data.measured import measure
from biqa.data.record import Record, Reduction
from biqa.errors import BadRecord

Part = Literal["hash", "measured", "pixels"]

VERSION = 3
"""Of what is measured and how it is kept. A change that moves a figure raises it, so that no old look is taken for a new one."""

TABLE = f"looks_{VERSION}"
"""Of the file that keeps looks. `shorter_side` in it is that of the reduction, 0 without one."""

FEW = 256
"""Up to so many images are looked at in threads: starting processes would take longer."""

PATIENCE = 10.0
"""Seconds to wait for another run that writes its looks."""

AT_ONCE = 16
"""Images that a process is handed at a time."""


@dataclass(frozen=True)
class Look:
    """What is known of one image file."""

    problem: str | None
    """Why it cannot be used; None: it can."""
    width: int = 0
    """Pixels, after reduction where it was asked for."""
    height: int = 0
    """Pixels, after reduction where it was asked for."""
    hash: str | None = None
    """Perceptual hash, 64 bits as 16 hex digits; None where it was not asked for."""
    measured: dict[str, float] | None = None
    """`biqa.data.measured.measure`; None where it was not asked for, or `unmeasurable` says why not."""
    pixels: str | None = None
    """Hash of size and pixels, 32 hex digits: the same for two files of one picture in any lossless format; None where it was not asked for."""
    unmeasurable: str | None = None
    """Why it cannot be measured though it decodes."""

    def has(self, parts: Collection[Part]) -> bool:
        """Whether all that is asked for is there."""
        known = {
            "hash": self.hash is not None,
            "measured": (self.measured or self.unmeasurable) is not None,
            "pixels": self.pixels is not None,
        }
        return self.problem is not None or all(known[part] for part in parts)

    def unusable(self, parts: Collection[Part] = ()) -> str | None:
        """Why it cannot be used where all of `parts` is needed; None: it can."""
        return self.problem or (self.unmeasurable if "measured" in parts else None)


def survey(
    paths: Sequence[Path],
    parts: Collection[Part] = (),
    *,
    reduction: Reduction | None = None,
    cache: Path | None = None,
    workers: int = 2,
    title: str = "Looking at images",
) -> list[Look]:
    """Look at every image, or remember the look of an earlier run: one for each path, in their order.

    Args:
        paths: image files.
        parts: what is asked for beyond decodability and size.
        reduction: to which size images are reduced first; looking makes the copies that it keeps, so that each original is decoded once.
        cache: folder in which looks are kept, for files that have not changed since (time and size); None: nothing is kept. A damaged or
            unwritable cache costs time, never a result.
        workers: processes.
        title: what the progress bar says.
    """
    states = [_state(path) for path in paths]
    looks: dict[Path, Look] = {}
    with _memory(cache, reduction) as memory:
        known = memory.known(parts)
        for path, state in zip(paths, states, strict=True):
            if state is None:
                looks[path] = Look(problem=f"{path}: there is no such file.")
            elif (look := known.get((str(path.absolute()), *state))) is not None:
                looks[path] = look
        todo = {path: state for path, state in zip(paths, states, strict=True) if state is not None and path not in looks}
        for path, look in _look_at(list(todo), partial(look_at, parts=tuple(parts), reduction=reduction), workers, title):
            looks[path] = look
            memory.keep(path, todo[path], look)
    return [looks[path] for path in paths]


def look_at(path: Path, parts: Collection[Part] = (), reduction: Reduction | None = None) -> Look:
    """One look at one image, at the size in which the model will see it."""
    try:
        image = load_image(path, reduction)
    except BadRecord as error:
        return Look(problem=str(error))
    found = Look(problem=None, width=image.width, height=image.height)
    if "hash" in parts:
        from imagehash import phash

        found = replace(found, hash=str(phash(image)))
    if "pixels" in parts:
        found = replace(found, pixels=hashlib.blake2b(image.tobytes(), digest_size=16, person=f"{image.width}x{image.height}".encode()).hexdigest())
    if "measured" in parts:
        try:
            found = replace(found, measured=measure(np.asarray(image)))
        except ValueError as error:
            found = replace(found, unmeasurable=str(error))
    return found


def _look_at(paths: Sequence[Path], look: Callable[[Path], Look], workers: int, title: str) -> Iterator[tuple[Path, Look]]:
    """Look at images in parallel, with a progress bar on a terminal where there are many."""
    if not paths:
        return
    from rich.console import Console  # here: the processes that look need none of it, and start sooner
    from rich.progress import track

    console = Console(stderr=True)
    with _pool(len(paths), workers) as pool:
        found = pool.map(look, paths, chunksize=AT_ONCE)
        yield from zip(
            paths, track(found, title, total=len(paths), console=console, disable=not console.is_terminal or len(paths) <= FEW), strict=True
        )


def _pool(images: int, workers: int) -> Executor:
    if images <= FEW or workers <= 1:
        return ThreadPoolExecutor(max(1, workers))
    # spawn: a fork of a process with torch's threads in it may hang
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def check_images(
    records: Sequence[Record], on_bad_image: Literal["stop", "skip"], looks: Sequence[Look] | None = None, parts: Collection[Part] = ()
) -> tuple[list[Record], list[str]]:
    """Leave unusable images out, or stop: a bad one is known by name before a run starts and not hours into it.

    Args:
        records: what the data set lists.
        on_bad_image: "stop" ends at the first bad image; "skip" leaves bad images out.
        looks: what `survey` found, one for each record; None: look now.
        parts: what is needed of every image. With "skip" one that decodes and yet is too small to measure is left out too, where measurements are
            needed; with "stop" it is for whoever needs them to refuse it.

    Returns:
        The usable records in their order, and a sentence for each image left out.

    Raises:
        BadRecord: an image is missing or does not decode, and on_bad_image is "stop"; or none can be used. Names image, row and file, and says how
            many there are.
    """
    looks = survey([record.path for record in records]) if looks is None else looks
    reasons = [look.unusable(parts if on_bad_image == "skip" else ()) for look in looks]
    bad = [
        f"Image {record.image} (row {row} of {len(records)}): {reason}"
        for row, (record, reason) in enumerate(zip(records, reasons, strict=True), start=1)
        if reason
    ]
    if bad and on_bad_image == "stop":
        raise BadRecord(f"{bad[0]} Unusable images in all: {len(bad)}. Repair the file, or set data.on_bad_image=skip to leave such images out.")
    if len(bad) == len(records):
        raise BadRecord(f"{bad[0]} None of the {len(records)} images can be used. Set data.root= to the folder of the images.")
    return [record for record, reason in zip(records, reasons, strict=True) if not reason], bad


State = tuple[int, int]
"""Time of the last change in nanoseconds, size in bytes."""


def _state(path: Path) -> State | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None
    return status.st_mtime_ns, status.st_size


class _Memory:
    """Looks of earlier runs at one size, in an SQLite file; forgets everything where there is none."""

    def __init__(self, connection: sqlite3.Connection | None, shorter_side: int) -> None:
        self.connection = connection
        self.shorter_side = shorter_side
        self.unsaved = 0

    def known(self, parts: Collection[Part]) -> dict[tuple[str, int, int], Look]:
        """(path, time, size) -> look, of those that have all parts."""
        if self.connection is None:
            return {}
        try:
            rows = self.connection.execute(f"SELECT path, changed, size, look FROM {TABLE} WHERE shorter_side = ?", (self.shorter_side,)).fetchall()
        except sqlite3.Error:  # damaged further in than the first row
            return {}
        looks = {(path, changed, size): Look(**json.loads(look)) for path, changed, size, look in rows}
        return {key: look for key, look in looks.items() if look.has(parts)}

    def keep(self, path: Path, state: State, look: Look) -> None:
        """Remember a look, on disk every few hundred and at the end: what was seen before a kill need not be seen again."""
        if self.connection is None:
            return
        row = (str(path.absolute()), self.shorter_side, *state, json.dumps(vars(look)))
        try:
            self.connection.execute(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?)", row)
            self.unsaved += 1
            if self.unsaved >= FEW:
                self.save()
        except sqlite3.Error:  # another run holds it, or the disk is full: go on without
            self.connection = None

    def save(self) -> None:
        """Write what is remembered to disk."""
        if self.connection is not None:
            self.connection.commit()
            self.unsaved = 0


@contextmanager
def _memory(cache: Path | None, reduction: Reduction | None) -> Iterator[_Memory]:
    shorter_side = reduction.shorter_side if reduction else 0
    connection = None if cache is None else _connect(cache / "looks.sqlite")
    if connection is None:
        yield _Memory(None, shorter_side)
        return
    with closing(connection):
        memory = _Memory(connection, shorter_side)
        try:
            yield memory
        finally:
            with suppress(sqlite3.Error):
                memory.save()


def _connect(file: Path, again: bool = True) -> sqlite3.Connection | None:
    """The table of looks; a damaged file is made anew, and where nothing can be written there is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(file, timeout=PATIENCE)
    except (OSError, sqlite3.OperationalError):
        return None
    try:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} "
            f"(path TEXT, shorter_side INTEGER, changed INTEGER, size INTEGER, look TEXT, PRIMARY KEY (path, shorter_side))"
        )
        connection.execute(f"SELECT path, shorter_side, changed, size, look FROM {TABLE} LIMIT 1").fetchone()
        return connection
    except sqlite3.OperationalError:  # read-only, locked, or another table of that name
        connection.close()
        return None
    except sqlite3.DatabaseError:
        connection.close()
        with suppress(OSError):
            file.unlink()
        return _connect(file, again=False) if again else None
