"""Label files in MATLAB's format."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from biqa.errors import BadRecord, DatasetNotFound


def read_variable(file: Path, name: str) -> np.ndarray[Any, Any]:
    """One variable of a .mat file (up to version 7.2), flat.

    Raises:
        DatasetNotFound: no such file, not in MATLAB's format, damaged, or without that variable.
    """
    if not file.is_file():
        raise DatasetNotFound(f"{file}: there is no such file. Unpack the release again.")
    try:
        return loadmat(file, variable_names=[name])[name].ravel()
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise DatasetNotFound(f"{file}: holds no variable {name} in MATLAB's format up to 7.2. Unpack the release again.") from error


def read_numbers(file: Path, name: str) -> list[float]:
    """A numeric variable, flat.

    Raises:
        DatasetNotFound: as `read_variable`.
        BadRecord: it is not numeric.
    """
    values = read_variable(file, name)
    if values.dtype.kind not in "biuf":
        raise BadRecord(f"{file}: the variable {name} is not a list of numbers. Use the file of the release.")
    return values.astype(np.float64).tolist()


def read_names(file: Path, name: str) -> list[str]:
    """A cell array of texts, flat; an empty cell is the empty text.

    Raises:
        DatasetNotFound: as `read_variable`.
        BadRecord: it is not a cell array, or a cell is not one line of text.
    """
    cells = read_variable(file, name)
    if cells.dtype.kind != "O" or not all(cell.dtype.kind == "U" and cell.size <= 1 for cell in cells):
        raise BadRecord(f"{file}: the variable {name} is not a cell array of texts. Use the file of the release.")
    return [cell.item() if cell.size else "" for cell in cells]
