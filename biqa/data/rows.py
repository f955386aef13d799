"""Rows of a csv, tsv, jsonl, json or xlsx file as words, each with its place for error messages."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from biqa.errors import BadRecord, DatasetNotFound


@dataclass(frozen=True)
class Row:
    """One row of a label file."""

    where: str
    """File and row, as a spreadsheet or an editor counts it: the header is row 1, so the first row of a csv is row 2."""
    cells: dict[str, str]
    """Column -> stripped text; a missing or null value is the empty text."""

    def number(self, column: str) -> float:
        """The cell as a number ("nan" is one; a range is checked elsewhere).

        Raises:
            BadRecord: it is not a number.
        """
        try:
            return float(self.cells[column])
        except ValueError as error:
            hint = " Write a decimal point, not a comma." if "," in self.cells[column] else " Correct it, or take the row out."
            raise BadRecord(f'{self.where}: "{self.cells[column]}" in column {column} is not a number.{hint}') from error

    def whole(self, column: str) -> int:
        """The cell as a whole number; a spreadsheet may have it as 3.0.

        Raises:
            BadRecord: it is none.
        """
        value = self.number(column)
        if not value.is_integer():
            raise BadRecord(f'{self.where}: "{self.cells[column]}" in column {column} is not a whole number. Correct it, or take the row out.')
        return int(value)


def read_rows(file: Path, columns: Sequence[str]) -> list[Row]:
    """All rows of a UTF-8 file, with or without a byte order mark.

    The kind goes by the ending: .csv, .tsv, .jsonl (an object a line), .json (a list of objects).

    Args:
        file: what to read.
        columns: columns (or keys) that every row must have.

    Raises:
        DatasetNotFound: no such file, an unknown ending, or a column is missing (the message lists those found).
        BadRecord: not UTF-8, not JSON, two columns of one name, a row with too few or too many cells, or no row at all.
    """
    if not file.is_file():
        raise DatasetNotFound(f"{file}: there is no such file. Give the path of a .csv, .tsv, .jsonl or .json file.")
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}
    if file.suffix.lower() not in readers:
        raise DatasetNotFound(f'{file}: the ending "{file.suffix}" is not known. Choose a .csv, .tsv, .jsonl or .json file.')
    try:
        rows = list(readers[file.suffix.lower()](file))
    except UnicodeDecodeError as error:
        raise BadRecord(f"{file}: the text is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise BadRecord(f"{file}: not a table ({error}). Is there a stray quote?") from error
    if not rows:
        raise BadRecord(f"{file}: the file has no rows. Give one row an image below the header.")
    for row in rows:
        missing = [column for column in columns if column not in row.cells]
        if missing:
            advice = "Name the columns of your file in the config."
            if len(row.cells) == 1 and ";" in next(iter(row.cells)):
                advice = "Its cells are parted by semicolons: save it with commas, or with tabs as .tsv."
            raise DatasetNotFound(f"{row.where}: no column {', '.join(missing)}; found {', '.join(row.cells)}. {advice}")
    return rows


def read_sheet(file: Path, sheet: str, columns: Sequence[str], header: int = 1) -> list[Row]:
    """All rows of one sheet of a workbook, below its header.

    Args:
        file: an .xlsx file.
        sheet: name of the sheet.
        columns: columns that must be there.
        header: row of the column names, as a spreadsheet counts.

    Raises:
        DatasetNotFound: no such file, sheet or column (the message lists those found).
        BadRecord: damaged, or without a row.
    """
    lines = _sheet_lines(file, sheet)
    place = f'{file}, sheet "{sheet}"'
    names = lines[header - 1] if len(lines) >= header else []
    missing = [column for column in columns if column not in names]
    if missing:
        found = ", ".join(name for name in names if name) or "none"
        raise DatasetNotFound(f"{place}, row {header}: no column {', '.join(missing)}; found {found}. Use the file of the release.")
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise BadRecord(f"{place}, row {header}: the column {', '.join(twice)} stands there twice. Use the file of the release.")
    rows = [
        Row(f"{place}, row {number}", dict(zip_longest(names, line[: len(names)], fillvalue="")))
        for number, line in enumerate(lines[header:], start=header + 1)
        if any(line)
    ]
    if not rows:
        raise BadRecord(f"{place}: there are no rows below the header. Unpack or download it again.")
    return rows


def _sheet_lines(file: Path, sheet: str) -> list[list[str]]:
    from openpyxl import load_workbook

    if not file.is_file():
        raise DatasetNotFound(f"{file}: there is no such file. Unpack the release again.")
    try:
        with file.open("rb") as handle, closing(load_workbook(handle, read_only=True, data_only=True)) as workbook:
            sheets = workbook.sheetnames
            if sheet in sheets:
                workbook[sheet].reset_dimensions()  # some programs write a wrong size, and rows would be cut to it
                return [["" if cell is None else str(cell).strip() for cell in line] for line in workbook[sheet].iter_rows(values_only=True)]
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise BadRecord(f"{file}: cannot be read as a workbook ({error}). Unpack or download it again.") from error
    raise DatasetNotFound(f'{file}: there is no sheet "{sheet}"; found {", ".join(sheets) or "none"}. Use the file of the release.')


def _csv_rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        lines = csv.reader(handle, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        header = [name.strip() for name in next(lines, [])]
        twice = sorted({name for name in header if name and header.count(name) > 1})
        if twice:
            raise BadRecord(f"{file}, row 1: the column {', '.join(twice)} stands there twice. Rename one of them.")
        for number, line in enumerate(lines, start=2):
            if not any(cell.strip() for cell in line):
                continue
            if len(line) != len(header):
                raise BadRecord(f"{file}, row {number}: {len(line)} cells under a header of {len(header)}. Is there a stray delimiter or quote?")
            yield Row(f"{file}, row {number}", {name: cell.strip() for name, cell in zip(header, line, strict=True)})


def _jsonl_rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield _object_row(_json(line, f"{file}, row {number}"), f"{file}, row {number}")


def _json_rows(file: Path) -> Iterator[Row]:
    entries = _json(file.read_text(encoding="utf-8-sig"), str(file))
    if not isinstance(entries, list):
        raise BadRecord(f"{file}: a .json file must hold a list of objects. For one object a line, name it .jsonl.")
    for number, entry in enumerate(entries, start=1):
        yield _object_row(entry, f"{file}, row {number}")


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRecord(f"{where}: not JSON ({error.msg} at column {error.colno}). Correct it.") from error


def _object_row(entry: object, where: str) -> Row:
    if not isinstance(entry, dict):
        raise BadRecord(f'{where}: not an object with keys. Write one object an image, such as {{"image": "a.png", "mos": 3.5}}.')
    return Row(where, {str(key): "" if value is None else str(value).strip() for key, value in entry.items()})
