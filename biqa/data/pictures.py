"""Which pictures a command line names: files, folders, patterns."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic

from biqa.errors import IncompatibleChoice

ENDINGS = (".bmp", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".png", ".tif", ".tiff", ".webp")
"""What the name of a picture ends with, in letters of any case, for those that nobody has named one by one."""
TOLD = 4
"""Arguments that lead nowhere and are named in the message, at most."""


@dataclass
class Pictures:
    """What was found."""

    paths: list[str] = field(default_factory=list)
    """Each file once, in the order of the arguments; inside a folder or a pattern by name."""
    closed: dict[str, str] = field(default_factory=dict)
    """What is named or lies in a folder and cannot be opened at all -> why."""


def pictures_named(given: Sequence[str]) -> Pictures:
    """The pictures that arguments name.

    Args:
        given: files (whatever their names end with), folders (everything below that ends as a picture does and is not hidden), or patterns with
            *, ? and **, whose matches are folders, or files that end as pictures do.

    Raises:
        IncompatibleChoice: there are no arguments, or one of them leads to no picture.
    """
    if not given:
        raise IncompatibleChoice(
            "No picture is named. Name files, folders or patterns: python -m biqa.predict run=FOLDER photo.jpg holiday 'scans/*.png'"
        )
    found, nothing = Pictures(), []
    for argument in given:
        before = len(found.paths) + len(found.closed)
        _add(found, argument)
        if len(found.paths) + len(found.closed) == before:
            nothing.append(argument)
    if nothing:
        more = [f"and {len(nothing) - TOLD} more"] if len(nothing) > TOLD else []
        raise IncompatibleChoice("\n".join([*map(_why, nothing[:TOLD]), *more]))
    return Pictures(_once(found.paths), found.closed)


def _add(found: Pictures, argument: str) -> None:
    def closed(folder: str, reason: str) -> None:
        found.closed[folder] = reason

    if os.path.isdir(argument):
        found.paths += _below(argument, closed)
    elif os.path.isfile(argument):
        found.paths.append(argument)
    elif os.path.lexists(argument):
        found.closed[argument] = "no file that holds a picture (a broken link, a device or a pipe)"
    elif has_magic(argument):
        for match in sorted(glob(argument, recursive=True)):
            if os.path.isdir(match):
                found.paths += _below(match, closed)
            elif os.path.isfile(match) and _is_picture(match):
                found.paths.append(match)


def _below(folder: str, closed: Callable[[str, str], None]) -> Iterator[str]:
    """Pictures in a folder and below it, in the order of their names; folders that cannot be read are handed on."""

    def refused(error: OSError) -> None:
        closed(str(error.filename), f"the folder cannot be read ({error.strerror})")

    for path, folders, files in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_picture(name) and os.path.isfile(whole := os.path.join(path, name)):
                yield whole


def _is_picture(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _once(paths: Iterable[str]) -> list[str]:
    """Each file once, under the name by which it came first."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.abspath(path), path)
    return list(first.values())


def _why(argument: str) -> str:
    if os.path.isdir(argument):
        return f"{argument}: no picture lies in this folder or below it (looked for {' '.join(ENDINGS)})."
    if has_magic(argument):
        return f"{argument}: no picture fits this pattern (looked for {' '.join(ENDINGS)})."
    return f"{argument}: there is no such file or folder. An option is written NAME=VALUE."
