"""Sheets of a workbook, and whole numbers in rows."""

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from openpyxl import Workbook

from biqa.data.rows import Row, read_sheet
from biqa.errors import BadRecord, DatasetNotFound, UserError

LINES = [["image", "level", "mos"], ["a.png", 1, 2.5], [1600, 2, 1 / 3]]


def book(file: Path, lines: Sequence[Sequence[object]] = LINES, sheet: str = "labels") -> Path:
    """A workbook with the sheet behind an empty one."""
    workbook = Workbook()
    worksheet = workbook.create_sheet(sheet)
    for line in lines:
        worksheet.append(list(line))
    workbook.save(file)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.xlsx"


def test_rows_are_words_with_their_place(file: Path) -> None:
    rows = read_sheet(book(file), "labels", ["image", "mos"])
    assert [row.cells for row in rows] == [{"image": "a.png", "level": "1", "mos": "2.5"}, {"image": "1600", "level": "2", "mos": str(1 / 3)}]
    assert [row.where for row in rows] == [f'{file}, sheet "labels", row 2', f'{file}, sheet "labels", row 3']
    assert rows[1].number("mos") == 1 / 3  # to the last bit


def test_the_header_may_stand_lower_and_rows_count_as_in_a_spreadsheet(file: Path) -> None:
    lines = [[], ["a note"], [], *[["", *line] for line in LINES], [], ["", "b.png", 3, 1]]
    rows = read_sheet(book(file, lines), "labels", ["image"], header=4)
    assert [(row.cells["image"], row.where.rpartition(" ")[2]) for row in rows] == [("a.png", "5"), ("1600", "6"), ("b.png", "8")]


def test_spaces_are_stripped_and_empty_cells_are_empty_texts(file: Path) -> None:
    rows = read_sheet(book(file, [[" image ", "mos"], [" a b.png\n", None], ["c.png"]]), "labels", ["image", "mos"])
    assert [row.cells for row in rows] == [{"image": "a b.png", "mos": ""}, {"image": "c.png", "mos": ""}]


def test_rows_of_nothing_but_spaces_are_no_rows(file: Path) -> None:
    assert len(read_sheet(book(file, [*LINES, [None, " ", None], [""]]), "labels", ["image"])) == 2


def test_columns_beyond_the_header_are_left_out(file: Path) -> None:
    assert read_sheet(book(file, [["image"], ["a.png", "a note"]]), "labels", ["image"])[0].cells == {"image": "a.png"}


def test_a_wrong_size_in_the_sheet_cuts_nothing(file: Path) -> None:
    whole = read_sheet(book(file), "labels", ["image"])
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            new.writestr(name, re.sub(rb'<dimension ref="A1:C3"', b'<dimension ref="A1"', old.read(name)))
    assert packed.getvalue().count(b'ref="A1"') > file.read_bytes().count(b'ref="A1"')
    file.write_bytes(packed.getvalue())
    assert read_sheet(file, "labels", ["image"]) == whole


def test_missing_columns_are_listed_with_those_found(file: Path) -> None:
    with pytest.raises(DatasetNotFound) as error:
        read_sheet(book(file), "labels", ["image", "dmos", "std"])
    assert str(error.value) == f'{file}, sheet "labels", row 1: no column dmos, std; found image, level, mos. Use the file of the release.'


@pytest.mark.parametrize("lines", [[], [[], [], []]])
def test_an_empty_sheet_has_no_columns(file: Path, lines: list[list[object]]) -> None:
    with pytest.raises(DatasetNotFound, match=r'sheet "labels", row 1: no column image; found none\. Use the file of the release\.$'):
        read_sheet(book(file, lines), "labels", ["image"])


def test_a_header_beyond_the_sheet(file: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r'sheet "labels", row 9: no column image; found none\.'):
        read_sheet(book(file), "labels", ["image"], header=9)


def test_a_column_that_stands_twice_is_refused(file: Path) -> None:
    with pytest.raises(BadRecord, match=r'sheet "labels", row 1: the column mos stands there twice\. Use the file of the release\.$'):
        read_sheet(book(file, [["image", "mos", "mos"], ["a.png", 1, 2]]), "labels", ["image", "mos"])


def test_a_header_without_rows_is_refused(file: Path) -> None:
    with pytest.raises(BadRecord, match=r'labels\.xlsx, sheet "labels": there are no rows below the header\. Unpack or download it again\.$'):
        read_sheet(book(file, LINES[:1]), "labels", ["image"])


def test_a_wrong_sheet_is_answered_with_those_there(file: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r'labels\.xlsx: there is no sheet "Sheet1"; found Sheet, labels\. Use the file of the release\.$'):
        read_sheet(book(file), "Sheet1", ["image"])


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"labels\.xlsx: there is no such file\. Unpack the release again\.$"):
        read_sheet(file, "labels", ["image"])


DAMAGED = r"^.*labels\.xlsx: cannot be read as a workbook \(.+\)\. Unpack or download it again\.$"


@pytest.mark.parametrize("content", [b"", b"image,mos\na.png,3\n", b"<html>sign in</html>", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)])
def test_another_kind_of_file_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BadRecord, match=DAMAGED):
        read_sheet(file, "labels", ["image"])


def test_a_truncated_workbook_is_refused_wherever_it_ends(file: Path) -> None:
    whole = book(file).read_bytes()
    for end in range(0, len(whole), 97):
        file.write_bytes(whole[:end])
        with pytest.raises(BadRecord, match=DAMAGED):
            read_sheet(file, "labels", ["image"])


def test_a_changed_byte_never_changes_a_row(file: Path) -> None:
    whole = book(file).read_bytes()
    rows = read_sheet(file, "labels", ["image"])
    refused = 0
    for place in range(0, len(whole), 31):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            assert read_sheet(file, "labels", ["image"]) == rows
        except UserError:  # damaged; or the sheet is not to be found any more
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("part", ["xl/worksheets/sheet2.xml", "xl/workbook.xml", "[Content_Types].xml"])
def test_a_damaged_part_in_a_sound_archive_is_refused(file: Path, part: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(book(file)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: -20 if name == part else None])
    file.write_bytes(packed.getvalue())
    with pytest.raises(BadRecord, match=DAMAGED):
        read_sheet(file, "labels", ["image"])


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("3.0", 3), ("-2", -2), ("1e3", 1000)])
def test_whole_numbers(text: str, value: int) -> None:
    whole = Row("a.csv, row 2", {"level": text}).whole("level")
    assert whole == value
    assert isinstance(whole, int)


@pytest.mark.parametrize("text", ["3.5", "nan", "inf"])
def test_numbers_that_are_not_whole_are_refused(text: str) -> None:
    with pytest.raises(BadRecord) as error:
        Row("a.csv, row 2", {"level": text}).whole("level")
    assert str(error.value) == f'a.csv, row 2: "{text}" in column level is not a whole number. Correct it, or take the row out.'


@pytest.mark.parametrize("text", ["", "three", "#DIV/0!"])
def test_what_is_no_number_is_not_whole_either(text: str) -> None:
    with pytest.raises(BadRecord, match=rf'^a\.csv, row 2: "{re.escape(text)}" in column level is not a number\.'):
        Row("a.csv, row 2", {"level": text}).whole("level")
