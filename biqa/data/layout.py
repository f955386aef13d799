"""An unzipped data set on disk: its folder found, its files found in any case of their letters, nothing read from outside."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from biqa.data.rows import quoted
from biqa.errors import BadRecord, DatasetNotFound

ARCHIVES = {".zip": "unzip", ".rar": "unrar x", ".7z": "7z x", ".tar": "tar xf", ".gz": "tar xf", ".tgz": "tar xf", ".xz": "tar xf"}
"""Ending of an archive -> the command that unpacks it."""


class Folder:
    """A folder whose files are found by the names that label files give them.

    Releases and their label files disagree on capitals (TID2013: `I01.BMP`, `i25.bmp`; CSIQ: `AWGN/`, `awgn/`) and on the form of accents (archives
    made on a Mac), so names are compared without either. Where two files differ in capitals alone, the exact name wins.

    Args:
        path: an existing folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inside = path.resolve()
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, name: str, where: str = "") -> Path | None:
        """The file or folder of a relative name with "/" or "\\", or None.

        Raises:
            BadRecord: the name is empty or absolute (on any system), or leads out of the folder, by itself or through a link; `where` (file and row)
                goes into the message.
        """
        asked = PureWindowsPath(name)  # knows both slashes, drives and shares; on other systems too, as label files come from any
        if not asked.parts:
            raise BadRecord(f"{where or self.path}: there is an empty name. Correct the row, or take it out.")
        if asked.anchor or ".." in asked.parts:
            raise BadRecord(
                f'{where or self.path}: "{quoted(name)}" leads out of {self.path}. Names must be relative to that folder. Correct the row.'
            )
        found = self.path
        for part in asked.parts:
            actual = self._look_up(found, part)
            if actual is None:
                return None
            found = found / actual
            if found.is_symlink() and not (target := Path(os.path.realpath(found))).is_relative_to(self._inside):
                raise BadRecord(
                    f"{found}: this link leads out of {self.path}, to {target}. Put the files there themselves, or, where the whole data set "
                    f"is linked, set data.root= to {target}."
                )
        return found

    def expect(self, name: str) -> Path:
        """The file or folder of a relative name, or the place where it should be, for a message that names it."""
        return self.find(name) or self.path / name

    def _look_up(self, folder: Path, name: str) -> str | None:
        if folder not in self._names:
            names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            self._names[folder] = {_plain(entry): entry for entry in names} | {entry: entry for entry in names}
        return self._names[folder].get(name) or self._names[folder].get(_plain(name))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def find_folder(root: Path, names: Sequence[str], needs: Sequence[str], *, title: str, layout: str, source: str) -> Folder:
    """The folder of a release: `root` itself, or one of `names` in it.

    Args:
        root: what the user gave as data.root.
        names: what the folder is called after unpacking.
        needs: relative names that all must be there.
        title: what the data set is called.
        layout: the tree that the user should have, for the message.
        source: where to get the data set.

    Raises:
        DatasetNotFound: it is an archive, or neither folder has all of `needs`; the message shows the layout and what is missing.
    """
    if root.is_file():
        command = ARCHIVES.get(root.suffix.lower())
        advice = f"Unpack it ({command} {root.name}) and set data.root= to the folder." if command else "Set data.root= to the folder of the release."
        raise DatasetNotFound(f"{root}: this is a file. {title} is read from its unpacked folder. {advice}")
    candidates = [root] if root.is_dir() else []
    candidates += [path for name in names if candidates and (path := Folder(root).find(name)) and path.is_dir()]
    missing: dict[Path, list[str]] = {}
    for path in candidates:
        folder = Folder(path)
        missing[path] = [need for need in needs if folder.find(need) is None]
        if not missing[path]:
            return folder
    what = "there is no such folder"
    if missing:
        nearest = min(reversed(missing), key=lambda path: len(missing[path]))  # of equals the last: it has the name of the release
        what = f"{', '.join(missing[nearest])} is missing" + (f" in {nearest}" if nearest != root else "")
    raise DatasetNotFound(
        f"{root}: {title} is not there ({what}). Set data.root= to the unpacked folder, or datasets= to the one that holds it. It looks "
        f"like this:\n{layout}\nSource: {source}"
    )
