"""Rows of a long piece of work as they are made: a file a part, so that a killed one goes on where it was, and no more than a part in memory."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

T = TypeVar("T")


def rows_in_parts(work: Sequence[T], make: Callable[[T], Sequence[Mapping[str, Any]]], table: Path, key: str) -> Iterable[None]:
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
            pd.DataFrame([dict(row) for row in make(piece)]).to_parquet(part.with_suffix(".tmp"), index=False)
            part.with_suffix(".tmp").replace(part)
        yield
    _join([folder / f"{number:06d}.parquet" for number in range(len(work))], table)
    shutil.rmtree(folder)


def _join(parts: Sequence[Path], table: Path) -> None:
    """One table of all parts. Those without rows have no columns and are passed over; a column that one part has only empty takes their type."""
    kept = [part for part in parts if pq.read_metadata(part).num_columns]
    temporary = table.with_suffix(".parquet.tmp")
    schema = pa.unify_schemas([pq.read_schema(part).remove_metadata() for part in kept], promote_options="permissive") if kept else pa.schema([])
    with pq.ParquetWriter(temporary, schema) as writer:
        for part in kept:
            writer.write_table(pq.read_table(part).cast(schema))
    temporary.replace(table)
