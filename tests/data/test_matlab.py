"""Label files in MATLAB's format, written by scipy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from biqa.data.matlab import read_names, read_numbers
from biqa.errors import BadRecord, DatasetNotFound


def cells(values: Sequence[object]) -> np.ndarray[Any, Any]:
    array = np.empty((len(values), 1), dtype=object)
    array[:, 0] = values
    return array


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 2)])
def test_numbers_come_flat_whatever_the_shape(tmp_path: Path, compressed: bool, shape: tuple[int, int]) -> None:
    values = [-2.5, 0.0, 0.1, 111.77]
    savemat(tmp_path / "a.mat", {"other": 1.0, "dmos_new": np.reshape(values, shape)}, do_compression=compressed)
    assert read_numbers(tmp_path / "a.mat", "dmos_new") == values


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.bool_])
def test_marks_may_be_of_any_numeric_type(tmp_path: Path, kind: type) -> None:
    savemat(tmp_path / "a.mat", {"orgs": np.array([[0, 1, 1]], dtype=kind)})
    assert read_numbers(tmp_path / "a.mat", "orgs") == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("flip", [False, True])
def test_names_of_a_cell_array(tmp_path: Path, flip: bool) -> None:
    names = ["woman.bmp", "a b (1).JPG", "Köln.bmp", "", "9"]
    array = cells(names)
    savemat(tmp_path / "a.mat", {"refnames_all": array.T if flip else array})
    assert read_names(tmp_path / "a.mat", "refnames_all") == names


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([1.0, 2.0], "names"),  # numbers instead of names
        (np.array(["ab", "cd"]), "names"),  # a matrix of characters
        (cells(["a", 3.0]), "names"),  # a number among the names
        (cells(["a", np.array(["bc", "de"])]), "names"),  # two lines in one cell
        (cells(["a", cells(["b"])]), "names"),  # a cell within a cell
        (cells(["1", "2"]), "numbers"),
        ("12", "numbers"),
        ({"a": 1.0}, "numbers"),
        (np.array([1 + 2j]), "numbers"),
    ],
)
def test_a_variable_of_another_kind_is_refused(tmp_path: Path, value: object, what: str) -> None:
    savemat(tmp_path / "a.mat", {"labels": value})
    kind = {"names": "cell array of texts", "numbers": "list of numbers"}[what]
    with pytest.raises(BadRecord, match=rf"^.*a\.mat: the variable labels is not a {kind}\. Use the file of the release\.$"):
        {"names": read_names, "numbers": read_numbers}[what](tmp_path / "a.mat", "labels")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"dmos\.mat: there is no such file\. Unpack the release again\.$"):
        read_numbers(tmp_path / "dmos.mat", "dmos")


REFUSED = r"^.*a\.mat: holds no variable dmos in MATLAB's format up to 7\.2\. Unpack the release again\.$"


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"dmos_new": [1.0]})
    with pytest.raises(DatasetNotFound, match=REFUSED):
        read_numbers(tmp_path / "a.mat", "dmos")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + bytes(600), b"<html>sign in</html>" * 50, bytes(2000)])
def test_what_is_not_matlab_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DatasetNotFound, match=REFUSED):
        read_numbers(tmp_path / "a.mat", "dmos")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, compressed: bool) -> None:
    savemat(tmp_path / "whole.mat", {"dmos": np.random.default_rng(0).normal(size=50)}, do_compression=compressed)
    whole = (tmp_path / "whole.mat").read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "a.mat").write_bytes(whole[:end])
        with pytest.raises(DatasetNotFound, match=REFUSED):
            read_numbers(tmp_path / "a.mat", "dmos")


@pytest.mark.parametrize(("byte", "bit"), [(144, 2), (163, 5), (200, 0), (210, 0), (228, 4), (232, 2)])
def test_one_flipped_bit_ends_no_process(tmp_path: Path, byte: int, bit: int) -> None:
    """With these scipy 1.17 ends the process or does not come back: 27 of the 1,440 bits of this file do that."""
    savemat(tmp_path / "a.mat", {"names": cells(["a.bmp", ""])})
    changed = bytearray((tmp_path / "a.mat").read_bytes())
    changed[byte] ^= 1 << bit
    (tmp_path / "a.mat").write_bytes(changed)
    with pytest.raises((BadRecord, DatasetNotFound), match=r"a\.mat: "):
        read_names(tmp_path / "a.mat", "names")


def test_the_other_order_of_bytes_is_read_too(tmp_path: Path) -> None:
    def part(tag: int, content: bytes) -> bytes:
        return tag.to_bytes(4, "big") + len(content).to_bytes(4, "big") + content + bytes(-len(content) % 8)

    dimensions = (1).to_bytes(4, "big") + (2).to_bytes(4, "big")
    variable = part(6, (6).to_bytes(4, "big") + bytes(4)) + part(5, dimensions) + part(1, b"dmos") + part(9, np.array([1.5, -2.0], ">f8").tobytes())
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + part(14, variable))
    assert read_numbers(tmp_path / "a.mat", "dmos") == [1.5, -2.0]
