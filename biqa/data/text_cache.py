"""Texts that somebody was paid for, on disk: one for each content of an image file, question and writer."""

import fcntl
import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from biqa.data.contents import TABLE as FILES
from biqa.data.contents import contents
from biqa.errors import TeacherUnavailable
from biqa.files import raise_unwritten

PATIENCE = 60.0
"""Seconds to wait for another process that writes."""

TABLES = (
    "CREATE TABLE IF NOT EXISTS texts (image TEXT, question TEXT, writer TEXT, text TEXT NOT NULL, PRIMARY KEY (image, question, writer))",
    FILES,
)


class TextCache:
    """The texts in `texts.sqlite` of a folder. Each is on disk as soon as it is kept, whatever happens to the process next.

    An image goes by the SHA-256 of its file's bytes, so that a renamed or copied file is the same image and a changed one is another.
    Processes and threads may use the file at the same time. It is never cleared: texts cost money or hours.

    Args:
        folder: made where it is not there.

    Raises:
        TeacherUnavailable: from here and from every method: the file is damaged, or may not be written.
        Unwritten: likewise: the disk is full, or takes nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "texts.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise_unwritten(error, folder)
            raise TeacherUnavailable(
                f"{folder} cannot be made ({error.strerror}). Choose a folder that you may write to: descriptions.cache=."
            ) from error
        with self._open() as connection:
            for table in TABLES:
                connection.execute(table)
            [state] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state.splitlines()[-1])

    def known(self, question: str, writer: str) -> dict[str, str]:
        """Image -> what a writer answered to a question, of all images."""
        with self._open() as connection:
            return dict(connection.execute("SELECT image, text FROM texts WHERE question = ? AND writer = ?", (question, writer)))

    def keep(self, image: str, question: str, writer: str, text: str) -> None:
        """Write a text to disk. One that is there already stays."""
        with self._open() as connection:
            connection.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?)", (image, question, writer, text))

    def contents(self, paths: Collection[Path]) -> dict[Path, str]:
        """SHA-256 of each file's bytes. A file is read again when its time or size has changed."""
        return contents(paths, self._open)

    @contextmanager
    def alone(self, question: str, writer: str, waiting: Callable[[], object]) -> Iterator[None]:
        """Only one process at a time asks a writer a question, so that two runs that start together do not both pay for an image.

        Args:
            question: what is asked, `writer` who is asked.
            waiting: called when another process is at it: this one waits until that one has finished or died.
        """
        place = int.from_bytes(hashlib.sha256(f"{question}\n{writer}".encode()).digest()[:4], "big") >> 1
        with self.file.with_suffix(".lock").open("wb") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)  # a byte of the file for each question and writer
            except OSError:
                waiting()
                fcntl.lockf(lock, fcntl.LOCK_EX, 1, place)
            yield

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use, which SQLite keeps apart from those of other threads and processes."""
        try:
            with closing(sqlite3.connect(self.file, timeout=PATIENCE)) as connection, connection:
                yield connection
        except sqlite3.OperationalError as error:  # locked for long, read-only, or somebody else's tables
            raise_unwritten(error, self.file)
            raise TeacherUnavailable(f"{self.file} cannot be used: {error}. Mend that, or choose another folder: descriptions.cache=.") from error
        except sqlite3.DatabaseError as error:
            raise TeacherUnavailable(
                f"{self.file} is damaged: {error}. It holds texts that were paid for, so it is left as it is. "
                f"Restore it from a backup; or move it away, and all is asked anew."
            ) from error
