"""What files hold: read once as long as they stay as they are, whatever becomes of the database that remembers it."""

import sqlite3
from hashlib import sha256

import pytest

from biqa.data.contents import contents_kept_in


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / name for name in ("one.png", "two.png")]
    for path in made:
        path.write_bytes(path.name.encode())
    return made


def hashes(files):
    return {path: sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_file_is_read_once_as_long_as_it_stays_as_it_is(files, tmp_path, monkeypatch):
    database = tmp_path / "made" / "contents.sqlite"
    assert contents_kept_in(database, files) == hashes(files)
    files[1].write_bytes(b"changed")
    expected = hashes(files)
    read = []
    monkeypatch.setattr("biqa.data.contents._content", lambda path: read.append(path) or "read")
    assert contents_kept_in(database, files) == expected | {files[1]: "read"}
    assert read == [files[1]]


def no_database(path):
    path.write_bytes(b"no database at all" * 100)


def other_table(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE files (something TEXT)")
    connection.close()


def a_folder(path):
    path.mkdir()


@pytest.mark.parametrize(("trouble", "mends"), [(no_database, True), (other_table, False), (a_folder, False)])
def test_a_database_of_no_use_costs_time_alone(files, tmp_path, monkeypatch, trouble, mends):
    database = tmp_path / "contents.sqlite"
    trouble(database)
    assert contents_kept_in(database, files) == hashes(files)
    contents_kept_in(database, files)
    monkeypatch.setattr("biqa.data.contents._content", lambda path: "read again")
    assert (contents_kept_in(database, files) == hashes(files)) == mends


def test_a_place_that_cannot_be_made_costs_time_alone(files):
    assert contents_kept_in(files[0] / "contents.sqlite", files) == hashes(files)


def test_a_file_that_is_gone_is_told(files, tmp_path):
    files[0].unlink()
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=r"one\.png"):
            contents_kept_in(tmp_path / "contents.sqlite", files)
