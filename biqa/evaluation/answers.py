"""The answers table: one row a query, and the seam of the project. Training ends here and every figure starts here."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.api.types import is_float_dtype, is_integer_dtype

from biqa.errors import BadRecord
from biqa.files import write_whole
from biqa.language.levels import LEVELS

PROBABILITIES = tuple(f"p_{level}" for level in LEVELS)
NUMBERS = (*PROBABILITIES, "score", "q")
COLUMNS = ("dataset", "image", "query", "description", "level", *NUMBERS, "subset")
"""`query` 0 is the greedy answer, 1..N the sampled ones. `level` is the word of the answer (sampled at temperature T; arg-max for query 0), or
missing when it could not be parsed; `p_*` the level distribution, `score` its mean in [0, 1]; `q` the human quality in [0, 1]; `subset` the source
of the image within the data set, missing where there is none."""

MOST_ROWS = 5_000_000
"""Of a table that is read: ten data sets of ten thousand images, asked fifty times."""
MOST_MB = 1024
"""Of text in it, in MB (2^20 bytes)."""


def refuse_other_images(answers: pd.DataFrame, asked: Mapping[str, float], file: Path, *, judged: bool) -> None:
    """Check that a table holds the images that were to be answered, all and no others, with their quality.

    Args:
        answers: of one data set.
        asked: image -> its quality in [0, 1].
        file: where the table lies, for the message.
        judged: whether its rows hold a quality: those of stage 1 do not.

    Raises:
        BadRecord: images are missing, or there are others, or one has another quality.
    """
    there = set(answers["image"])
    missing, others = sorted(asked.keys() - there), sorted(there - asked.keys())
    again = "Answers of other data are no answers to these: run it again with overwrite=true."
    if missing or others:
        first = f"{missing[0]} is not in it" if missing else f"{others[0]} is no test image"
        raise BadRecord(
            f"{file}: it holds {len(there)} images and {len(asked)} are to be answered; {len(missing) + len(others)} differ, first: {first}. {again}"
        )
    if not judged:
        return
    moved = answers.loc[answers["q"].to_numpy() != np.array([asked[image] for image in answers["image"]]), "image"]
    if len(moved):
        image = moved.iloc[0]
        there_q = answers.loc[answers["image"] == image, "q"].iloc[0]
        raise BadRecord(f"{file}: image {image} has quality {there_q:g} in it and {asked[image]:g} in the labels. {again}")


def answers_frame(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Rows as a frame in the fixed column order, sorted by image and query, with fixed types."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    floats = dict.fromkeys(NUMBERS, "float64")
    frame = frame.astype({"query": "int64", **floats})
    return frame.sort_values(["dataset", "image", "query"], kind="stable", ignore_index=True)


MADE_BY = "weights"
"""Name in a table's file of the print of the weights that its rows were made by."""


def made_by(path: Path) -> str | None:
    """The print of the weights by which a table was made; None of a table of a release that kept none, or that cannot be read."""
    try:
        kept = json.loads((pq.read_schema(path).metadata or {}).get(b"PANDAS_ATTRS", b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return None
    return kept.get(MADE_BY)


def write_answers(frame: pd.DataFrame, path: Path, weights: str | None = None) -> None:
    """Write a table whole or not at all: a killed run leaves no half of it.

    Args:
        frame: the rows.
        path: the file.
        weights: print of the weights that they were made by, kept with them.
    """
    frame.attrs = {} if weights is None else {MADE_BY: weights}
    write_whole(path, frame.to_parquet(index=False, write_page_checksum=True))


def read_table(path: Path) -> pd.DataFrame:
    """Read a parquet file within bounds: a repeated value is stored once, so that a file of some kB may hold billions.

    Raises:
        BadRecord: it is damaged, or holds more than MOST_ROWS rows or MOST_MB of text.
    """
    again = "Run that run again with overwrite=true."
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
        if rows > MOST_ROWS:
            raise BadRecord(f"{path}: {rows:,} rows, and no more than {MOST_ROWS:,} are read. {again}")
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
        table = pq.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True).read()
        if (size := sum(_bytes_of(table[name]) for name in texts)) > MOST_MB * 2**20:
            raise BadRecord(f"{path}: {size / 2**20:,.0f} MB of text, and no more than {MOST_MB:,} are read. {again}")
        return table.cast(schema).to_pandas()
    except (BadRecord, MemoryError):
        raise
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise BadRecord(f"{path}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]}). {again}") from error


def _bytes_of(column: pa.ChunkedArray) -> int:
    """Of texts that are stored once each, when every row has its own."""
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    lengths = (pc.take(pc.binary_length(chunk.dictionary), chunk.indices) for chunk in column.chunks)  # pyright: ignore[reportAttributeAccessIssue]
    return sum(int(of_chunk.fill_null(0).to_numpy(zero_copy_only=False).sum(dtype="int64")) for of_chunk in lengths)


def read_answers(path: Path) -> pd.DataFrame:
    """Read an answers table back.

    Raises:
        BadRecord: it is damaged, columns are missing (the message lists those found), or a column holds something else.
    """
    frame = read_table(path)
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns))
        raise BadRecord(f"{path}: columns {', '.join(missing)} are missing; found {found}. Is this an answers table of biqa?")
    holds = {"query": is_integer_dtype, **dict.fromkeys(NUMBERS, is_float_dtype)}
    wrong = [column for column, right in holds.items() if not right(frame[column].dtype)]
    wrong += [column for column in ("dataset", "image") if not all(isinstance(value, str) for value in frame[column])]
    if wrong:
        raise BadRecord(f"{path}: the column {wrong[0]} holds something else than an answers table does. Run that run again with overwrite=true.")
    return frame.loc[:, list(COLUMNS)]
