"""Defects of authentic images as people named them: LIQE's lists of one distortion word an image (METHOD.md section 7)."""

from collections.abc import Collection, Sequence
from pathlib import Path

from biqa.data.record import Record
from biqa.data.rows import Row, quoted, read_rows
from biqa.data.survey import Part
from biqa.data.targets import Description, Looks, MeasuredTargets, worded
from biqa.errors import BadRecord
from biqa.language.features import MAIN_DEFECT

WORDS = ("realistic blur", "realistic noise", "underexposure", "overexposure", "realistic contrast change", "other realistic")
"""LIQE's words for the kinds of `MAIN_DEFECT`, in their order."""


class DefectTargets:
    """The main defect of each image in words, and with it, if wanted, the six measurements of its pixels.

    LIQE (W. Zhang et al., "Blind Image Quality Assessment via Vision-Language Correspondence", CVPR 2023) gave every image of LIVE in the Wild and of
    KonIQ-10k one word of `WORDS`, also where nothing disturbs: "other realistic" is what is left. Its lists have the scenes of the images too, which
    are not read: they say what is in an image, not how it looks. The word is a kind and no strength: so by default the measurements of
    `MeasuredTargets` stand before it, which say how sharp, noisy or bright the image is.

    Args:
        file: .csv, .tsv, .jsonl or .json with columns image (its name as it stands in the data set) and distortion (one of `WORDS`). Other columns
            are passed over.
        seed: draws the paraphrases.
        measured: whether descriptions name the six measurements too.

    Raises:
        DatasetNotFound, BadRecord: see `biqa.data.rows.read_rows`.
        BadRecord: a word that is none of `WORDS`, an empty cell, or an image that stands twice.
    """

    def __init__(self, *, file: str | Path, seed: int = 0, measured: bool = True) -> None:
        self.file = Path(file)
        self.seed = seed
        self.measured = MeasuredTargets(seed=seed) if measured else None
        self.parts: Collection[Part] = self.measured.parts if self.measured else ()
        self.kinds: dict[str, int] = {}
        """Image -> kind of `MAIN_DEFECT`."""
        places: dict[str, str] = {}
        for row in read_rows(self.file, ["image", "distortion"]):
            image, kind = row.cells["image"], _kind(row)
            if image in places:
                raise BadRecord(f"{row.where}: the image {quoted(image)} stands in {places[image]} already. Keep one word an image.")
            places[image] = row.where
            self.kinds[image] = kind

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Fit the bins of the measurements, if they are wanted. Raises what `MeasuredTargets.fit` does."""
        if self.measured:
            self.measured.fit(train, looks)

    def describe(self, record: Record) -> Description:
        """The target of one image.

        Raises:
            BadRecord: the file has no row for it; or, with measurements, it does not decode or is too small to measure.
        """
        if record.image not in self.kinds:
            raise BadRecord(
                f"Image {record.image}: {self.file} has no row for it (its first image is {next(iter(self.kinds))}). "
                f"Add a row under that name, or choose descriptions=measured, which describes any image."
            )
        features = self.measured.describe(record).features if self.measured else {}
        return worded({**features, MAIN_DEFECT.name: self.kinds[record.image]}, self.seed, record.image)


def _kind(row: Row) -> int:
    for column in ("image", "distortion"):
        if not row.cells[column]:
            raise BadRecord(f"{row.where}, column {column}: the cell is empty. Fill it in, or take the row out.")
    word = row.cells["distortion"]
    if word not in WORDS:
        raise BadRecord(
            f'{row.where}, column distortion: "{quoted(word)}" is not one of {", ".join(WORDS)}. Correct it, or take the row out; '
            f"for images with known distortions choose descriptions=distortions."
        )
    return WORDS.index(word)
