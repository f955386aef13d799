"""Label files in MATLAB's format: what a release needs of it, numbers and cell arrays of texts.

Read here and not with scipy, whose reader takes a damaged file at its word: one flipped bit can end the process without a message (scipy 1.17; 27 of
the 1,440 bits of a small cell array do). "MAT-File Format", The MathWorks, describes the layout.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from biqa.errors import BadRecord, DatasetNotFound

LARGEST = 2**23
"""Bytes of a file and of each variable in it, unpacked. Published label files are smaller than a megabyte."""

MATRIX, COMPRESSED = 14, 15
"""Tags of what is no row of numbers."""
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Tag -> numpy's type."""
TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Tag of letters -> their encoding."""
CELLS, LETTERS, FIRST_NUMERIC, LAST_NUMERIC = 1, 4, 6, 15
"""Classes of variables."""
COMPLEX = 0x800

Order = Literal["little", "big"]


@dataclass(frozen=True)
class _Variable:
    """A variable that is not yet looked into."""

    flags: int
    shape: tuple[int, ...]
    name: str
    parts: Iterator[tuple[int, bytes]]
    """What it holds, as (tag, bytes)."""
    order: Order

    @property
    def kind(self) -> int:
        return self.flags & 0xFF


class _Damaged(ValueError):
    """The file contradicts itself."""


def read_numbers(file: Path, name: str) -> list[float]:
    """A numeric variable of a .mat file (version 5 to 7.2), flat, row after row.

    Raises:
        DatasetNotFound: no such file, not in MATLAB's format, damaged, or without that variable.
        BadRecord: it is not numeric.
    """
    return _read(file, name, "list of numbers", _numbers)


def read_names(file: Path, name: str) -> list[str]:
    """A cell array of texts, flat, row after row; an empty cell is the empty text.

    Raises:
        DatasetNotFound: as `read_numbers`.
        BadRecord: it is not a cell array, or a cell is not one line of text.
    """
    return _read(file, name, "cell array of texts", _names)


def _read(file: Path, name: str, what: str, values: Any) -> Any:  # noqa: ANN401 (what `values` returns)
    if not file.is_file():
        raise DatasetNotFound(f"{file}: there is no such file. Unpack the release again.")
    try:
        with file.open("rb") as handle:
            variable = _find(handle.read(LARGEST), name)
        found = values(variable)
    except (_Damaged, OSError, UnicodeDecodeError, zlib.error) as error:
        raise DatasetNotFound(f"{file}: holds no variable {name} in MATLAB's format up to 7.2. Unpack the release again.") from error
    if found is None:
        raise BadRecord(f"{file}: the variable {name} is not a {what}. Use the file of the release.")
    return found


def _find(data: bytes, name: str) -> _Variable:
    mark = data[126:128]
    if mark not in (b"IM", b"MI"):
        raise _Damaged("no MATLAB file")
    order: Order = "little" if mark == b"IM" else "big"
    for tag, content in _elements(data[128:], order):
        unpacked = zlib.decompressobj().decompress(content, LARGEST) if tag == COMPRESSED else b""
        kind, inner = next(_elements(unpacked, order), (0, b"")) if unpacked else (tag, content)
        if kind == MATRIX and (variable := _variable(inner, order)).name == name:
            return variable
    raise _Damaged(f"no variable {name}")


def _elements(data: bytes, order: Order) -> Iterator[tuple[int, bytes]]:
    """What stands in a row, as (tag, bytes)."""
    place = 0
    while place < len(data):
        tag, size = (int.from_bytes(data[place + at : place + at + 4], order) for at in (0, 4))
        start = place + 8
        if tag >> 16:  # a small one: its size is in the upper half of the tag, its bytes stand where the size would
            tag, size, start = tag & 0xFFFF, tag >> 16, place + 4
            place += 8
            if size > 4:
                raise _Damaged("a size is wrong")
        else:
            place = start + size
            if tag != COMPRESSED:
                place += -size % 8
        if len(data) < start + size:
            raise _Damaged("cut off")
        yield tag, data[start : start + size]


def _variable(content: bytes, order: Order) -> _Variable:
    parts = _elements(content, order)
    try:
        (_, flags), (_, shape), (_, name) = next(parts), next(parts), next(parts)
    except StopIteration as error:
        raise _Damaged("cut off") from error
    sizes = tuple(np.frombuffer(shape[: len(shape) // 4 * 4], np.dtype("i4").newbyteorder(order)).tolist())
    if len(flags) < 4 or not 2 <= len(sizes) <= 32 or min(sizes) < 0:
        raise _Damaged("a head is wrong")
    return _Variable(int.from_bytes(flags[:4], order), sizes, name.decode("latin-1"), parts, order)


def _numbers(variable: _Variable) -> list[float] | None:
    if not FIRST_NUMERIC <= variable.kind <= LAST_NUMERIC or variable.flags & COMPLEX:
        return None
    tag, content = next(variable.parts, (0, b""))
    if tag not in NUMBERS:
        raise _Damaged("no numbers")
    kind = np.dtype(NUMBERS[tag]).newbyteorder(variable.order)
    if len(content) != math.prod(variable.shape) * kind.itemsize:
        raise _Damaged("not as many numbers as it says")
    return np.frombuffer(content, kind).astype(np.float64).reshape(variable.shape, order="F").ravel().tolist()


def _names(variable: _Variable) -> list[str] | None:
    if variable.kind != CELLS:
        return None
    texts: list[str] = []
    for tag, content in variable.parts:
        if tag != MATRIX:
            raise _Damaged("no cell")
        text = _text(_variable(content, variable.order)) if content else ""
        if text is None:
            return None
        texts.append(text)
    if len(texts) != math.prod(variable.shape):
        raise _Damaged("not as many cells as it says")
    return np.array(texts, dtype=object).reshape(variable.shape, order="F").ravel().tolist()


def _text(variable: _Variable) -> str | None:
    """The text of a cell; None where it is not one line of text."""
    if variable.kind != LETTERS or len(variable.shape) != 2:
        return None
    tag, content = next(variable.parts, (0, b""))
    if not math.prod(variable.shape):
        return ""
    if variable.shape[0] != 1:
        return None
    if tag not in TEXTS:
        raise _Damaged("no letters")
    width = {"utf-8": "", "utf-16": f"-{variable.order[0]}e", "utf-32": f"-{variable.order[0]}e"}[TEXTS[tag]]
    text = content.decode(TEXTS[tag] + width).rstrip("\0")
    if len(text) > variable.shape[1]:
        raise _Damaged("more letters than it says")
    return text
