"""What all readers of official releases share: labelled rows in, checked and split records out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from biqa.data.layout import Folder, find_folder
from biqa.data.record import Card, Record, Split
from biqa.data.rows import QUOTED_PATH, quoted
from biqa.data.splits import split_by_group
from biqa.errors import BadRecord, IncompatibleChoice

DRAWN = ("random", "reference", "prompt")
"""Protocols whose split is drawn; the sides of the others are published."""


@dataclass(frozen=True)
class Entry:
    """One labelled image as the label files have it, before it is checked."""

    where: str
    """File and row."""
    image: str
    """Name of the image, unique within the data set."""
    file: str
    """Its file, relative to the release."""
    score: float
    """As published."""
    group: str
    """What belongs together: the reference, the prompt; or the image's own name."""
    std: float | None = None
    """Standard deviation of the opinions, on the scale of the score; None where it is not published, or is that of the mean."""
    side: Split | None = None
    """Side of the official split; None where there is none."""
    distortions: tuple[tuple[str, int], ...] = ()
    """Known distortions as (type, level 1..5)."""
    attributes: Mapping[str, float] = field(default_factory=dict)
    """Annotated attributes."""
    subset: str | None = None
    """Source within the data set, where sources differ in quality."""
    absent: str = ""
    """The label file of distortions or attributes where that is missing, and where to get it."""


@dataclass(frozen=True)
class Release:
    """What a release looks like once it is unpacked."""

    title: str
    folders: tuple[str, ...]
    """What its folder is called."""
    needs: tuple[str, ...]
    """Files and folders that must be there."""
    layout: str
    """The tree, for messages."""
    source: str
    """Where to get it."""


class OfficialSet(ABC):
    """A published data set, read from its unpacked folder. A subclass gives the class attributes, and `entries`.

    Args:
        root: the release's folder, or the one that holds it.
        protocol: name of the split, one of `protocols`; None: the first of them. "reference" and "prompt": drawn by group, so that no content is on
            both sides; "random": drawn by image; any other: as published under that name.
        split_seed: draws the random split, and the validation images of an official split that has none.
        val_share: share of all groups held out for validation (of an official split that has none: share of its training groups).
        test_share: share of all groups held out for test, where the split is drawn.
        on_bad_image: "stop" refuses a label whose image is missing; "skip" leaves that to `biqa.data.survey.check_images`, which counts and lists it.

    Raises:
        IncompatibleChoice: there is no such protocol.
    """

    card: Card
    release: ClassVar[Release]
    protocols: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        *,
        root: str | Path,
        protocol: str | None = None,
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.2,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.root = Path(root)
        self.protocol = protocol or self.protocols[0]
        if self.protocol not in self.protocols:
            raise IncompatibleChoice(f"data.protocol={protocol} is not known for {self.card.name}: choose {', '.join(self.protocols)}.")
        self.split_seed = split_seed
        self.val_share = val_share
        self.test_share = test_share
        self.on_bad_image = on_bad_image

    @property
    def split_published(self) -> bool:
        """Whether the split is as published."""
        return self.protocol not in DRAWN

    @abstractmethod
    def entries(self, folder: Folder) -> list[Entry]:
        """The labelled images in the order of the label files. Raises DatasetNotFound, BadRecord."""

    def records(self) -> list[Record]:
        """One record a labelled image, in the order of the label files.

        Raises:
            DatasetNotFound: the folder or a label file is not there, or is not what its name says.
            BadRecord: a name or a file that stands twice, a name that leads out of the folder, a score or a deviation off the scale, or
                (on_bad_image="stop") a missing image.
        """
        release = self.release
        folder = find_folder(self.root, release.folders, release.needs, title=release.title, layout=release.layout, source=release.source)
        entries = self.entries(folder)
        _require_distinct(entries, [entry.image for entry in entries])
        records = [self._record(entry, side, folder) for entry, side in zip(entries, self._sides(entries), strict=True)]
        _require_distinct(entries, [record.path for record in records])  # names that differ in capitals alone may mean one file
        return records

    def _sides(self, entries: Sequence[Entry]) -> list[Split]:
        """The split of each entry: the published one, or drawn by group."""
        if self.protocol in DRAWN:
            groups = [entry.group for entry in entries]
            return split_by_group(groups, val_share=self.val_share, test_share=self.test_share, seed=self.split_seed)
        sides: list[Split] = [entry.side for entry in entries if entry.side is not None]
        assert len(sides) == len(entries), f"{self.card.name} has entries without a side in protocol {self.protocol}"
        if "val" in sides:
            return sides
        training = [entry.group for entry in entries if entry.side == "train"]
        drawn = iter(split_by_group(training, val_share=self.val_share, test_share=0.0, seed=self.split_seed))
        return [next(drawn) if side == "train" else side for side in sides]

    def _record(self, entry: Entry, side: Split, folder: Folder) -> Record:
        path = folder.find(entry.file, entry.where)
        if path is None or not path.is_file():
            path = folder.path / entry.file
            if self.on_bad_image == "stop":
                raise BadRecord(
                    f"{entry.where}: the image {quoted(str(path), QUOTED_PATH)} is missing. Unpack the release again, or set "
                    f"data.on_bad_image=skip to leave such images out."
                )
        card = self.card
        return Record(
            image=entry.image, path=path, q=card.quality(entry.score, entry.where), split=side, group=entry.group, score=entry.score,
            q_std=self._deviation(entry), distortions=entry.distortions, attributes=dict(entry.attributes), dataset=card.name, subset=entry.subset,
            absent=entry.absent,
        )  # fmt: skip

    def _deviation(self, entry: Entry) -> float | None:
        """The deviation on the scale of q."""
        if entry.std is None:
            return None
        width = self.card.high - self.card.low
        if not 0 <= entry.std <= width:  # NaN fails this comparison too
            raise BadRecord(
                f"{entry.where}: a standard deviation of {entry.std:g} cannot be on the scale {self.card.low:g}..{self.card.high:g} of "
                f"{self.card.name}. Use the label file of the release."
            )
        return entry.std / width


def _require_distinct(entries: Sequence[Entry], keys: Sequence[str | Path]) -> None:
    """Raise BadRecord where two entries have one key: their name, or their file."""
    first: dict[str | Path, Entry] = {}
    for entry, key in zip(entries, keys, strict=True):
        if key in first:
            raise BadRecord(f"{entry.where}: the image {entry.image} stands in {first[key].where} already. Use the label file of the release.")
        first[key] = entry
