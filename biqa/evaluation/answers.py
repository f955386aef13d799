"""The answers table: one row a query, and the seam of the project. Training ends here and every figure starts here."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from pyarrow import ArrowInvalid

from biqa.errors import BadRecord
from biqa.language.levels import LEVELS

PROBABILITIES = tuple(f"p_{level}" for level in LEVELS)
COLUMNS = ("dataset", "image", "query", "description", "level", *PROBABILITIES, "score", "q", "subset")
"""`query` 0 is the greedy answer, 1..N the sampled ones. `level` is the word of the answer (sampled at temperature T; arg-max for query 0), or
missing when it could not be parsed; `p_*` the level distribution, `score` its mean in [0, 1]; `q` the human quality in [0, 1]; `subset` the source
of the image within the data set, missing where there is none."""


def answers_frame(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Rows as a frame in the fixed column order, sorted by image and query, with fixed types."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    floats = dict.fromkeys((*PROBABILITIES, "score", "q"), "float64")
    frame = frame.astype({"query": "int64", **floats})
    return frame.sort_values(["dataset", "image", "query"], kind="stable", ignore_index=True)


def write_answers(frame: pd.DataFrame, path: Path) -> None:
    """Write under a temporary name beside the target, then rename: a killed run leaves no half table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".parquet.tmp")
    frame.to_parquet(temporary, index=False)
    temporary.replace(path)


def read_answers(path: Path) -> pd.DataFrame:
    """Read an answers table back.

    Raises:
        BadRecord: it is damaged, or columns are missing; the message lists those found.
    """
    try:
        frame = pd.read_parquet(path)
    except (ArrowInvalid, OSError) as error:
        raise BadRecord(f"{path}: cannot be read ({error}). Run that run again with overwrite=true.") from error
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise BadRecord(f"{path}: columns {', '.join(missing)} are missing; found {', '.join(frame.columns)}. Is this an answers table of biqa?")
    return frame.loc[:, list(COLUMNS)]
