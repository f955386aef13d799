"""What happens to files on disks, in downloads and in strangers' hands: bits, cuts, splices, and lies about lengths, sizes and numbers.

Every change is drawn from a seeded generator, so that an input is known by its number.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

INTERESTING = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 1024, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers at which counters, lengths and sizes turn over."""
WORDS = (
    "nan", "inf", "-inf", "1e999", "-1", "0", "1_0", "", " ", '"', '""', "'", ",", ";", "\t", "\n", "\r", "\r\n", "\x00", "\ufeff", "\u2028", "\u0301", "\U0001f600",
    "null", "true", "[]", "{}", "[[[[", "9" * 400, "0x10", "1,5", "3.5e2", "\u0663", "../up.png", "/etc/passwd", "C:\\x.png", "\\ud800", "${a}", "*a", "&a ",
    "!!binary ", "? ", "- ", "-0.0", "1e-400", "x" * 300, "#", "\x1b[2J", "%s%n", "=1+1",
)  # fmt: skip
"""What stands in a label file where it should not."""
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][+-]?\d+)?")
STRETCH = 5000
"""Bytes that one change may add, at most: inputs are small, and what they say of themselves is not."""

Change = Callable[[bytes, Random], bytes]


def mutated(data: bytes, name: str, others: Sequence[bytes], rng: Random) -> bytes:
    """A file with one to four changes.

    Args:
        data: a valid file.
        name: its name, whose ending tells which changes fit.
        others: files of the same kind, for splices.
        rng: draws the changes.
    """
    ending = name.rpartition(".")[2].lower()
    if ending == "xlsx" and rng.random() < 0.8:
        return _inside_zip(data, rng)
    changes: list[Change] = [flip_bits, set_bytes, cut, lose, repeat, lie, lambda data, rng: splice(data, rng.choice(others), rng)]
    if ending == "png":
        changes += [png_lie] * 3
    elif ending in ("csv", "tsv", "json", "jsonl", "txt", "yaml", "xml"):
        changes = [flip_bits, cut, lose, repeat, changes[-1], *[put_word, other_number, other_line] * 3]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(changes)(data, rng)
    return data


def flip_bits(data: bytes, rng: Random) -> bytes:
    """One to eight bits the other way."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 8) if found else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def set_bytes(data: bytes, rng: Random) -> bytes:
    """A few bytes in a row anything."""
    start, number = rng.randint(0, len(data)), rng.choice((1, 2, 4, 16))
    return data[:start] + rng.randbytes(number) + data[start + number :]


def cut(data: bytes, rng: Random) -> bytes:
    """The beginning alone, as a download leaves it that broke off."""
    return data[: rng.randint(0, len(data))]


def lose(data: bytes, rng: Random) -> bytes:
    """A piece is missing."""
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.choice((1, 4, 64, 512)) :]


def repeat(data: bytes, rng: Random) -> bytes:
    """A piece stands there several times."""
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.choice((1, 4, 32, 256))]
    return data[:start] + (piece * rng.choice((2, 3, 20)))[:STRETCH] + data[start:]


def splice(data: bytes, other: bytes, rng: Random) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def lie(data: bytes, rng: Random) -> bytes:
    """A number somewhere is another: a length, a count, a size, in either order of its bytes; mostly in the head, where most of them stand."""
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(kind)
    end = len(data) - size
    if end < 0:
        return data
    start = rng.randint(0, min(end, 200)) if rng.random() < 0.7 else rng.randint(0, end)
    value = rng.choice(INTERESTING) & (2 ** (8 * size) - 1)
    return data[:start] + struct.pack(kind, value) + data[start + size :]


def png_lie(data: bytes, rng: Random) -> bytes:
    """A PNG whose chunks say something else of lengths, sizes or depth, with checksums that agree."""
    chunks: list[tuple[bytes, bytes]] = []
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return data
    at = 0 if rng.random() < 0.5 else rng.randrange(len(chunks))
    kind, body = chunks[at]
    what = rng.randrange(4)
    if kind == b"IHDR" and what:
        body = lie(body[:8], rng) + body[8:] if what < 3 else body[:8] + set_bytes(body[8:], rng)[:5]
    elif what == 0:
        chunks.insert(rng.randint(0, len(chunks)), chunks[at])
    elif what == 1:
        del chunks[at]
        at = None
    else:
        body = lie(body, rng)
    if at is not None:
        chunks[at] = (kind, body)
    told = [(rng.choice(INTERESTING) % 2**32 if rng.random() < 0.05 else len(body), kind, body) for kind, body in chunks]
    return data[:8] + b"".join(struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for length, kind, body in told)


def put_word(data: bytes, rng: Random) -> bytes:
    """A word of `WORDS` in between, or in the place of a cell."""
    word = rng.choice(WORDS).encode("utf-8", "surrogatepass")
    start = rng.randint(0, len(data))
    if rng.random() < 0.5:
        return data[:start] + word + data[start:]
    end = min((place for mark in b",\n\t:}" if (place := data.find(bytes([mark]), start)) >= 0), default=len(data))
    start = max(data.rfind(bytes([mark]), 0, start) for mark in b",\n\t:{") + 1
    return data[:start] + word + data[end:]


def other_number(data: bytes, rng: Random) -> bytes:
    """A number is another."""
    numbers = [match.span() for match in NUMBER.finditer(data)]
    if not numbers:
        return data
    start, end = rng.choice(numbers)
    value = str(rng.choice((*INTERESTING, -1, 0.5, 1e308, float("nan"), float("inf")))).encode()
    return data[:start] + value + data[end:]


def other_line(data: bytes, rng: Random) -> bytes:
    """Lines go, come twice, change places, or end otherwise."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at, what = rng.randrange(len(lines)), rng.randrange(5)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(rng.randint(0, len(lines)), lines[at])
    elif what == 2:
        rng.shuffle(lines)
    elif what == 3:
        lines = [line.rstrip(b"\r\n") + rng.choice((b"\n", b"\r", b"\r\n")) for line in lines]
    else:
        lines = [line.replace(b",", rng.choice((b";", b"\t", b",,")), 1) if number == at else line for number, line in enumerate(lines)]
    return b"".join(lines)


def _inside_zip(data: bytes, rng: Random) -> bytes:
    """An archive that is whole, with one of its members changed, gone or twice as large as it says."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sheets = [name for name in members if "sheet" in name or "shared" in name]
    name = rng.choice(sheets) if rng.random() < 0.8 else rng.choice(sorted(members))
    if rng.random() < 0.05:
        del members[name]
    else:
        members[name] = mutated(members[name], name, [*members.values()], rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()
