"""Rows of a long piece of work as they are made: a file a part, so that a killed one goes on where it was, and no more than a part in memory."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from biqa.files import whole_file, write_whole

T = TypeVar("T")

Row = Mapping[str, Any]


class RowsInParts:
    """Rows of images, in any order, on their way to a table: kept in `<table>.parts/` until `clear`.

    A part that cannot be read counts as not made, and so do parts that other weights have made. Rows of an image come together or not at all.

    Args:
        table: the file that they will end in.
        weights: print of the weights that make them; "": not known.
    """

    def __init__(self, table: Path, weights: str = "") -> None:
        self.folder = table.with_suffix(".parts")
        self.weights = weights
        self._made: list[dict[str, Any]] = []
        self._unwritten: list[dict[str, Any]] = []
        self._known: set[str] = set()
        self._files = 0

    def images(self) -> set[str]:
        """Read what was kept before: the images that have rows."""
        self._made, self._unwritten = [], []
        if self.weights and self._made_by.is_file() and self._made_by.read_text(encoding="utf-8") != self.weights:
            self.clear()
        for file in sorted(self.folder.glob("*.parquet")):
            try:
                self._made += pq.read_table(file).to_pylist()
            except (pa.ArrowInvalid, OSError):
                file.unlink(missing_ok=True)
            self._files = max(self._files, int(file.stem) + 1)
        self._known = {row["image"] for row in self._made}
        return set(self._known)

    @property
    def _made_by(self) -> Path:
        return self.folder / "weights"

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows of further images; those of an image that has some already are left out. They are on disk after `write`."""
        new = [dict(row) for row in rows if row["image"] not in self._known]
        self._known |= {row["image"] for row in new}
        self._unwritten += new

    def write(self) -> None:
        """Write what was added, as one more part.

        Raises:
            OSError: the disk is full, or takes nothing.
        """
        if not self._unwritten:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.weights and not self._made_by.is_file():
            write_whole(self._made_by, self.weights)
        _write(self._unwritten, self.folder / f"{self._files:06d}.parquet")
        self._files += 1
        self._made += self._unwritten
        self._unwritten = []

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All rows, by image."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in [*self._made, *self._unwritten]:
            found.setdefault(row["image"], []).append(row)
        return found

    def clear(self) -> None:
        """Delete the parts: the table is whole."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def rows_in_parts(work: Sequence[T], make: Callable[[T], Sequence[Row]], table: Path, key: str) -> Iterable[None]:
    """Make the rows of each piece of work that is not done yet, one after another, and in the end the whole table; yields after each piece.

    Parts lie in `<table>-<key>.parts/` until the table is whole.

    Args:
        work: the pieces, in order.
        make: the rows of one piece; may be none.
        table: the parquet file that they end in.
        key: says what the rows depend on; parts under another key are of other work, and are deleted.
    """
    folder = table.with_name(f"{table.stem}-{key}.parts")
    for old in table.parent.glob(f"{table.stem}-*.parts"):
        if old != folder:
            shutil.rmtree(old)
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(work):
        part = folder / f"{number:06d}.parquet"
        if not part.is_file():
            _write(make(piece), part)
        yield
    _join([folder / f"{number:06d}.parquet" for number in range(len(work))], table)
    shutil.rmtree(folder)


def _write(rows: Iterable[Row], part: Path) -> None:
    """Whole or not at all."""
    write_whole(part, pd.DataFrame([dict(row) for row in rows]).to_parquet(index=False))


def _join(parts: Sequence[Path], table: Path) -> None:
    """One table of all parts. Those without rows have no columns and are passed over; a column that one part has only empty takes their type."""
    kept = [part for part in parts if pq.read_metadata(part).num_columns]
    schema = pa.unify_schemas([pq.read_schema(part).remove_metadata() for part in kept], promote_options="permissive") if kept else pa.schema([])
    with whole_file(table, sum(part.stat().st_size for part in kept)) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in kept:
            writer.write_table(pq.read_table(part).cast(schema))
