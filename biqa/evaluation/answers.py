"""The answers table: one row a query, and the seam of the project. Training ends here and every figure starts here."""

import json
from collections.abc import Collection, Iterable, Mapping
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


def refuse_other_qualities(answers: pd.DataFrame, asked: Mapping[str, float], file: Path) -> None:
    """Check that a table, which holds the images that were asked about, holds their quality.

    Args:
        answers: of one data set.
        asked: image -> its quality in [0, 1].
        file: where the table lies, for the message.

    Raises:
        BadRecord: one has another quality.
    """
    moved = answers.loc[answers["q"].to_numpy() != np.array([asked[image] for image in answers["image"]]), ["image", "q"]]
    if len(moved):
        image, q = moved.iloc[0]
        raise BadRecord(
            f"{file}: image {image} has quality {q:g} in it and {asked[image]:g} in the labels. Answers of other data are no answers to these: run "
            f"it again with overwrite=true."
        )


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


def refuse_other_answers(frame: pd.DataFrame, path: Path, *, images: Collection[str] | int, queries: int) -> None:
    """Check that a table holds the answers that were asked for, each once: no figure may come from fewer images, or from one that counts twice.

    Args:
        frame: the answers of one data set.
        path: their file.
        images: names of those that were asked about, or how many.
        queries: about each: 1 + N.

    Raises:
        BadRecord: an image or an answer is missing, is there twice, or was not asked for; the message names the first.
    """
    codes, names = pd.factorize(frame["image"], sort=True)
    query = frame["query"].to_numpy()
    known = (query >= 0) & (query < queries)
    times = np.bincount(codes[known] * queries + query[known], minlength=len(names) * queries).reshape(-1, queries)
    wrong = (times != 1).any(axis=1) | (np.bincount(codes[~known], minlength=len(names)) > 0)
    found = [str(name) for name in names]
    problem = ""
    if isinstance(images, int):
        problem = f"it holds {len(found)} images, and {images} were asked about" if len(found) != images else ""
    elif missing := sorted(set(images) - set(found)):
        problem = f"{len(missing)} of {len(images)} images are missing, first {missing[0]}"
    elif others := sorted(set(found) - set(images)):
        problem = f"{len(others)} images were not asked about, first {others[0]}"
    if not problem and wrong.any():
        place = int(wrong.argmax())
        has = ", ".join(map(str, sorted(query[codes == place])))
        problem = f"{found[place]} needs the queries 0..{queries - 1} once each, and has {has} ({int(wrong.sum())} images in all are wrong)"
    if problem:
        raise BadRecord(f"{path}: {problem}. Figures of it would be wrong. Move it and result.json away; with ckpt=last the run answers again.")
