"""What every data set becomes: a `Card` (one data set) and its `Record`s (one image each)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from biqa.errors import BadRecord

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Card:
    """The facts of one data set that do not depend on a split.

    `low` and `high` are the ends of the published scale; `direction` says which end is best: "mos" (higher is better) or "dmos" (higher is worse).
    """

    name: str
    low: float
    high: float
    direction: Literal["mos", "dmos"]
    stand_in: bool = False
    """True when the scores are not human opinions of these very images. Every table says so."""
    images: int | None = None
    """Labelled images of the whole release."""
    published: tuple[float, float] | None = None
    """Lowest and highest score of the whole release."""

    def quality(self, score: float, where: str) -> float:
        """Map a raw score to q in [0, 1], 1 = best (METHOD.md section 2).

        Raises:
            BadRecord: the score is NaN or outside [low, high]; `where` (file and row) goes into the message.
        """
        if not self.low <= score <= self.high:  # NaN fails this comparison too
            raise BadRecord(
                f"{where}: score {score} is not within the scale {self.low:g}..{self.high:g} of {self.name}. "
                f"Correct the row, or declare the scale with data.low= and data.high= where the data set allows it."
            )
        share = (score - self.low) / (self.high - self.low)
        return share if self.direction == "mos" else 1.0 - share


@dataclass(frozen=True)
class Reduction:
    """To which size large images are reduced before anything looks at them, and where the reduced copies are kept.

    Copies are PNG: a lossy copy would add artefacts to images that are judged for theirs. They take about 1.6 bytes a pixel: 6 to 7 GB for the
    11,125 photographs of SPAQ at a shorter side of 512, 3 GB at 336. Deleting them costs time only.
    """

    shorter_side: int
    """Pixels. A larger image is reduced to it, keeping its shape; none is enlarged."""
    cache: Path | None
    """Folder whose subfolder `reduced` holds the copies; None: nothing is kept, an image is reduced whenever it is read."""


@dataclass(frozen=True)
class Record:
    """One image with its human score."""

    image: str
    """Name of the image, unique within the data set: what stands in the answers table."""
    path: Path
    """Where the pixels lie."""
    q: float
    """Quality in [0, 1], 1 = best."""
    split: Split
    group: str
    """What must not lie on both sides of a split: the reference, or the image itself."""
    score: float
    """The raw score as published (MOS or DMOS)."""
    q_std: float | None = None
    """Standard deviation of the opinions, on the scale of q; None where the data set has none."""
    distortions: tuple[tuple[str, int], ...] = ()
    """Known distortions as (type, level 1..5), for `descriptions=distortions`; () for a pristine or an unlabelled image."""
    attributes: dict[str, float] = field(default_factory=dict)
    """Annotated attributes (name -> value, any scale), for `descriptions=attributes`."""
    dataset: str = ""
    """Name of the data set: that of its card."""
    subset: str | None = None
    """Source within the data set, where sources differ in quality: accuracy within subsets is reported too."""
    reduction: Reduction | None = None
    """How the image is made smaller before anything looks at it; None: it is seen as it is."""
    absent: str = ""
    """The label file of its distortions or attributes where that is missing, and where to get it: half a sentence for a message."""


class DataSource(Protocol):
    """A reader: one class a data set, built from named arguments."""

    @property
    def card(self) -> Card:
        """The facts of the data set."""
        ...

    @property
    def split_published(self) -> bool:
        """Whether its test split is a published or labelled one. False: it was drawn here."""
        ...

    def records(self) -> list[Record]:
        """All records, each with its split. Raises a UserError that names the file and the row when something is wrong."""
        ...
