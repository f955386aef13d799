"""Checkpoints as files: a kill at any moment leaves the one before or the new one, and a damaged one is not taken for a whole one.

A checkpoint is what `torch.save` writes, a zip archive, with a comment at its end: the format and the SHA-256 of everything before. One file, so that
one rename makes it visible with its proof; any program that reads torch's files reads it.
"""

import hashlib
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from biqa.files import whole_file
from biqa.stages.limits import size_of

NAME = re.compile(r"step=(\d+)\.ckpt")
FORMAT = 1
"""Of what a checkpoint of this release holds."""
COMMENT_LENGTH = struct.Struct("<H")
"""The last field of a zip archive: how long the comment is that follows. torch writes 0, and that is what is hashed."""
SEAL_BYTES = len(b"biqa checkpoint 0001 sha256 ") + 64
SEAL = re.compile(re.escape(COMMENT_LENGTH.pack(SEAL_BYTES)) + rb"biqa checkpoint (\d{4}) sha256 ([0-9a-f]{64})")
CHUNK = 2**22


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, seal, flush to disk, rename.

    Lightning stages a checkpoint in $TMPDIR and moves it: on another file system a kill in mid-move destroys the old file and the new one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401 (Lightning's method)
        """Write `checkpoint` to `path`; an existing file there is replaced in one step or not at all.

        Raises:
            Unwritten: the disk is full, or takes nothing. What lay there before is untouched.
        """
        with whole_file(Path(path), needed=lambda: size_of(checkpoint)) as temporary, temporary.open("wb") as file:
            hashed = _Hashed(file)
            torch.save(checkpoint, hashed)  # pyright: ignore[reportArgumentType] (it only writes and flushes)
            seal = f"biqa checkpoint {FORMAT:04d} sha256 {hashed.digest.hexdigest()}".encode()
            file.seek(-COMMENT_LENGTH.size, os.SEEK_END)
            file.write(COMMENT_LENGTH.pack(len(seal)) + seal)


class _Hashed:
    """A file that is written from its beginning to its end, and the SHA-256 of that."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def damage(path: Path, *, whole: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words; None: it is, to the bit, what was written.

    Args:
        path: the file, or DeepSpeed's folder.
        whole: read all of it, which takes a minute for a hundred gigabytes; else its end alone, which is not there where it was cut off.
    """
    if path.is_dir():  # DeepSpeed's: it writes this file last
        return None if (path / "latest").is_file() else "it was not written to its end"
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - SEAL_BYTES - COMMENT_LENGTH.size))
            seal = SEAL.fullmatch(file.read())
            if seal is None:
                return "it is cut off, or was never one of biqa's"
            if int(seal[1]) != FORMAT:
                return f"it is of format {int(seal[1])}, and this release reads {FORMAT}"
            file.seek(0)
            return None if not whole or _digest(file, size - SEAL_BYTES) == seal[2].decode() else "its content is not what was written"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _digest(file: BinaryIO, size: int) -> str:
    """SHA-256 of the first bytes of a file as torch wrote them: without a comment."""
    digest, left = hashlib.sha256(), size - COMMENT_LENGTH.size
    while left > 0:
        data = file.read(min(CHUNK, left))
        if not data:
            break
        digest.update(data)
        left -= len(data)
    digest.update(COMMENT_LENGTH.pack(0))
    return digest.hexdigest()


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Steps and place of each checkpoint in a folder, the earliest first. Temporary files of a killed save are left out."""
    return sorted((int(match[1]), path) for path in folder.glob("*.ckpt") if (match := NAME.fullmatch(path.name)))


def newest_checkpoint(folder: Path, tell: Callable[[str], object] | None = None, *, whole: bool = True) -> Path | None:
    """The checkpoint with the most steps that has no `damage`, or None.

    Args:
        folder: where checkpoints lie.
        tell: is told of each that is passed over, and of what is done instead.
        whole: as of `damage`.
    """
    passed_over: list[str] = []
    found = None
    for _, path in reversed(numbered(folder)):
        problem = damage(path, whole=whole)
        if problem is None:
            found = path
            break
        passed_over.append(f"{path} is passed over: {problem}.")
    if tell is not None and passed_over:
        tell("\n".join([*passed_over, f"Going on from {found.name}." if found else "There is no other: training begins anew."]))
    return found
