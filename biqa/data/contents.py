"""What files hold, as hashes: a file is read again only when its time or size has changed since it was last read."""

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, changed INTEGER, size INTEGER, content TEXT NOT NULL)"
"""What a database remembers of files; `changed` is in nanoseconds."""

READERS = 4
"""Files that are read at a time."""

PATIENCE = 10.0
"""Seconds to wait for another run that writes what it has read."""


def contents(paths: Collection[Path], connected: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> dict[Path, str]:
    """SHA-256 of each file's bytes.

    Args:
        paths: files.
        connected: a connection to a database that has TABLE; what is done inside is kept.

    Raises:
        sqlite3.Error: the database cannot be used.
        OSError: a file cannot be read.
    """
    with connected() as connection:
        rows = connection.execute("SELECT path, changed, size, content FROM files")
        seen = {(path, changed, size): content for path, changed, size, content in rows}
    states = {path: (str(path.absolute()), status.st_mtime_ns, status.st_size) for path in paths for status in [path.stat()]}
    new = [path for path, state in states.items() if state not in seen]
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(new, pool.map(_content, new), strict=True))
    if new:
        with connected() as connection:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", [(*states[path], content) for path, content in found.items()])
    return {path: found[path] if path in found else seen[state] for path, state in states.items()}


def contents_kept_in(database: Path, paths: Collection[Path]) -> dict[Path, str]:
    """The same, remembered in a database that may be deleted at any time. Where it is damaged or cannot be written, this costs time alone.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        return contents(paths, partial(_connected, database))
    except sqlite3.Error as error:
        if not isinstance(error, sqlite3.OperationalError):  # which is read-only, locked, or no disk space: another run may use it
            with suppress(OSError):
                database.unlink()
        return {path: _content(path) for path in paths}


@contextmanager
def _connected(database: Path) -> Iterator[sqlite3.Connection]:
    with suppress(OSError):
        database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
        connection.execute(TABLE)
        yield connection


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
