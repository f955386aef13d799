"""Rows of a csv, tsv, jsonl, json or xlsx file as words, each with its place for error messages."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from biqa.errors import BadRecord, DatasetNotFound

QUOTED, QUOTED_PATH = 80, 400
"""Letters of a cell and of a path that a message shows, at most: an unclosed quote makes a cell of half a file."""
MOST_CELLS = 500_000
"""Of a sheet, empty ones included; that of SPAQ, the largest, has 78,000."""
MOST_UNPACKED_MB = 48
"""What a workbook may hold when it is unpacked, in MB (2^20 bytes): those of SPAQ and CSIQ have less than 10. Reading a MB takes about a second."""


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
        text = self.cells[column]
        number = number_in(text)
        if number is None:
            hint = " Write a decimal point, not a comma." if "," in text else " Correct it, or take the row out."
            raise BadRecord(f'{self.where}: "{quoted(text)}" in column {column} is not a number.{hint}')
        return number

    def whole(self, column: str) -> int:
        """The cell as a whole number; a spreadsheet may have it as 3.0.

        Raises:
            BadRecord: it is none.
        """
        value = self.number(column)
        if not value.is_integer():
            raise BadRecord(
                f'{self.where}: "{quoted(self.cells[column])}" in column {column} is not a whole number. Correct it, or take the row out.'
            )
        return int(value)


def number_in(text: str) -> float | None:
    """What a text says as a number, None where it says none. Python's own "3_5" for 35 is none: it is a slip of the hand for 3.5."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def quoted(text: str, most: int = QUOTED) -> str:
    """A text as a message shows it: in one line, and the first letters of a long one."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def is_there(file: Path) -> bool:
    """Whether there is such a file. A name that no file system takes (too long, with a zero byte) is that of no file."""
    return os.path.isfile(file)  # Path.is_file raises OSError for such a name


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
    if not is_there(file):
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
            raise DatasetNotFound(f"{row.where}: no column {', '.join(missing)}; found {quoted(', '.join(row.cells), QUOTED_PATH)}. {advice}")
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
        found = quoted(", ".join(name for name in names if name), QUOTED_PATH) or "none"
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
    _refuse_bomb(file)
    try:
        with file.open("rb") as handle, closing(load_workbook(handle, read_only=True, data_only=True)) as workbook:
            sheets = workbook.sheetnames
            if sheet in sheets:
                workbook[sheet].reset_dimensions()  # some programs write a wrong size, and rows would be cut to it
                return _few_lines(file, workbook[sheet].iter_rows(values_only=True))
    except (BadRecord, MemoryError):
        raise
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise BadRecord(f"{file}: cannot be read as a workbook ({quoted(str(error))}). Unpack or download it again.") from error
    raise DatasetNotFound(f'{file}: there is no sheet "{sheet}"; found {", ".join(sheets) or "none"}. Use the file of the release.')


def _few_lines(file: Path, lines: Iterable[tuple[object, ...]]) -> list[list[str]]:
    """The cells of a sheet as texts. A row's number may be any: those before it would be made up until memory ends."""
    found: list[list[str]] = []
    places = 0
    for line in lines:
        places += 1 + len(line)
        if places > MOST_CELLS:
            raise BadRecord(f"{file}: the sheet has more than {MOST_CELLS:,} places for cells. Unpack or download it again.")
        found.append(["" if cell is None else str(cell).strip() for cell in line])
    return found


def _refuse_bomb(file: Path) -> None:
    """Check what a workbook, which is an archive, says that it holds when it is unpacked: the unpacker holds each part to it.

    Raises:
        BadRecord: more than MOST_UNPACKED_MB.
    """
    try:
        with ZipFile(file) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (BadZipFile, OSError, NotImplementedError, ValueError):  # damaged: the reader says so
        return
    if size > MOST_UNPACKED_MB * 2**20:
        raise BadRecord(f"{file}: unpacked it has {size / 2**20:,.0f} MB, and no more than {MOST_UNPACKED_MB} are read. Use the file of the release.")


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
                yield _object_row(parse_json(line, f"{file}, row {number}"), f"{file}, row {number}")


def _json_rows(file: Path) -> Iterator[Row]:
    entries = parse_json(file.read_text(encoding="utf-8-sig"), str(file))
    if not isinstance(entries, list):
        raise BadRecord(f"{file}: a .json file must hold a list of objects. For one object a line, name it .jsonl.")
    for number, entry in enumerate(entries, start=1):
        yield _object_row(entry, f"{file}, row {number}")


def parse_json(text: str, where: str) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """What a text of JSON holds.

    Args:
        text: one value.
        where: file, or file and row, for messages.

    Raises:
        BadRecord: not JSON, a key that stands twice in one object, half of a letter (an escape such as \\ud83d without its second half, which nothing
            can write out again), or brackets or digits by the thousand.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once_each)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise BadRecord(f"{where}: not JSON ({error.msg} at line {error.lineno}, column {error.colno}). Was the download complete?") from error
    except UnicodeEncodeError as error:
        raise BadRecord(f"{where}: half of a letter stands there ({error.object[error.start]!a}). Write whole letters.") from error
    except (RecursionError, ValueError) as error:
        raise BadRecord(f"{where}: cannot be read as JSON ({error}). Correct it, or download the file again.") from error
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a key that stands twice JSON's readers would silently take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {quoted(next(key for key in keys if keys.count(key) > 1))} stands twice in one object")
    return found


def _object_row(entry: object, where: str) -> Row:
    if not isinstance(entry, dict):
        raise BadRecord(f'{where}: not an object with keys. Write one object an image, such as {{"image": "a.png", "mos": 3.5}}.')
    return Row(where, {str(key): "" if value is None else str(value).strip() for key, value in entry.items()})
