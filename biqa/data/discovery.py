"""Which published data sets lie below a folder, by the official names of their folders, and what is missing of those that are not whole."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from biqa.data.agiqa import Agiqa
from biqa.data.biq2021 import Biq2021
from biqa.data.csiq import Csiq
from biqa.data.kadid import Kadid
from biqa.data.koniq import Koniq
from biqa.data.layout import Folder
from biqa.data.live import Live
from biqa.data.livec import LiveC
from biqa.data.official import OfficialSet
from biqa.data.spaq import Spaq
from biqa.data.tid2013 import Tid2013
from biqa.errors import UserError

READERS: dict[str, type[OfficialSet]] = {
    "live": Live, "csiq": Csiq, "spaq": Spaq, "koniq": Koniq, "kadid": Kadid, "tid2013": Tid2013, "livec": LiveC, "agiqa": Agiqa, "biq2021": Biq2021,
}  # fmt: skip
"""Choice of `data=` -> its reader; the paper's four first."""

DEPTH = 2
"""Folders below the one that is named, in which a release is looked for."""


@dataclass(frozen=True)
class Found:
    """A release with all its labelled images."""

    choice: str
    """What `data=` calls it."""
    folder: Path
    images: int
    """Labelled images."""
    whole: int | None
    """Labelled images of the published release; None where that is not known."""


@dataclass(frozen=True)
class Incomplete:
    """A folder with a release's name that cannot be used as it is."""

    choice: str
    folder: Path
    reason: str


@dataclass
class Finds:
    """What lies below a folder."""

    found: list[Found] = field(default_factory=list)
    incomplete: list[Incomplete] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Choices of data of which nothing was found."""


def discover(root: Path) -> Finds:
    """Look for every official release at a folder, in it, and in the folders in it.

    Args:
        root: an existing folder.
    """
    finds = Finds()
    folders = [root, *_below(root, DEPTH)]
    for choice, reader in READERS.items():
        tried = [_read(choice, reader, folder) for folder in folders if _named(folder, reader)]
        whole = [one for one in tried if isinstance(one, Found)]
        finds.found += whole[:1]
        if not whole:
            finds.incomplete += [one for one in tried if isinstance(one, Incomplete)][:1]
            finds.missing += [] if tried else [choice]
    return finds


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders in a folder, down to a depth, sorted; a release's own folders of images are looked into no deeper than that."""
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:  # of the images in it no more than their names
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except PermissionError:
        return
    for name in names:
        yield folder / name
        yield from _below(folder / name, depth - 1)


def _named(folder: Path, reader: type[OfficialSet]) -> bool:
    """Whether a folder is called as the release is once unpacked ("SPAQ/Dataset": so below one of that name)."""
    parts = [part.casefold() for part in folder.absolute().parts]
    names = (name.casefold().split("/") for name in reader.release.folders)
    return any(parts[-len(name) :] == name for name in names)


def _read(choice: str, reader: type[OfficialSet], folder: Path) -> Found | Incomplete:
    """The release in a folder, its labels read and its images counted."""
    lacking = [need for need in reader.release.needs if Folder(folder).find(need) is None]
    if lacking:
        return Incomplete(choice, folder, f"{', '.join(lacking)} is missing")
    try:
        source = reader(root=folder, on_bad_image="skip")
        records = source.records()
    except UserError as error:
        return Incomplete(choice, folder, str(error).partition(". ")[0])
    absent = [record.image for record in records if not record.path.is_file()]
    if absent:
        return Incomplete(choice, folder, f"{len(absent)} of {len(records)} labelled images are missing, {absent[0]} first")
    return Found(choice, folder, len(records), source.card.images)
