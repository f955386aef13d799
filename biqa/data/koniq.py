"""KonIQ-10k, as unzipped from the authors' archives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card, Split
from biqa.data.rows import Row, quoted, read_rows
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice

SETS = "koniq10k_distributions_sets.csv"
SCORES = "koniq10k_scores_and_distributions.csv"
INDICATORS = "koniq10k_indicators.csv"
SIDES: dict[str, Split] = {"training": "train", "validation": "val", "test": "test"}
SPLIT_SOURCE = "Get it at https://github.com/subpic/koniq"
SIZES = ("1024x768", "512x384")
FOLDERS = ("koniq10k", "koniq-10k", "koniq")
PLACES = ("", *(f"{name}/" for name in FOLDERS))
"""Where label files and images may lie: in data.root itself, or one folder below."""
SCALES = {
    "acr": Card(name="koniq", low=1.0, high=5.0, direction="mos", images=10073, published=(1.09, 4.32)),
    "zscore": Card(name="koniq", low=0.0, high=100.0, direction="mos", images=10073, published=(3.9, 88.4)),
}
INDICATOR_NAMES = {"brightness": "brightness", "contrast": "contrast", "colorfulness": "colourfulness", "sharpness": "sharpness"}
"""Column -> feature."""
INDICATOR_SOURCE = "get it at https://database.mmsp-kn.de/koniq-10k-database.html"
VOTES = ("koniq++database.csv", "koniq++database_distributions.csv")
"""Names of KonIQ++'s file: that of its authors' README, and one that another reader has."""
VOTE_NAMES = {"artifacts": "visible_artefacts", "blur": "visible_blur", "contrast": "contrast_defect", "colors": "colour_defect"}
"""Column -> feature."""
VOTE_SOURCE = "get it at https://database.mmsp-kn.de/koniq-image-defects-database.html"
ATTRIBUTES = ("indicators", "defects", "both")

Attributes = Mapping[str, Mapping[str, float]]
"""Name of an image without ".jpg" -> feature -> value."""


class Koniq(OfficialSet):
    """KonIQ-10k.

    | | |
    |---|---|
    | Source | https://database.mmsp-kn.de/koniq-10k-database.html (images, scores, indicators); https://github.com/subpic/koniq (split) |
    | Citation | V. Hosu, H. Lin, T. Sziranyi, D. Saupe, "KonIQ-10k: An Ecologically Valid Database for Deep Learning of BIQA", IEEE TIP 29, 2020 |
    | Licence | images: Creative Commons licences of their Flickr authors (YFCC100M); split and code: MIT |
    | Images | 10073 photographs with authentic distortions, 1024 x 768 (and the same at 512 x 384), .jpg |
    | Score | MOS of about 120 observers, higher is better, in two forms: `scale=acr` 1.096..4.310 on 1..5, `scale=zscore` 3.91..88.39 on 0..100 |
    | Deviation | standard deviation of the opinions, 0.296..1.098, always on 1..5 |
    | Groups | none: every image has its own content |
    | Split | official: training 7058, validation 1000, test 2015; or random |

    The column MOS means the z-score form in the file with the split and the 1..5 form in the file of scores (their correlation is 0.9954: no linear
    map leads from one to the other). So the 1..5 form is always computed from the votes, which both files have, as counts or as shares.

    Its attributes are computed indicators (brightness, contrast, colorfulness, sharpness), no human ratings. Their file has the number of an image
    without ".jpg".

    KonIQ++ (S. Su, V. Hosu, H. Lin, Y. Zhang, D. Saupe, BMVC 2021; https://database.mmsp-kn.de/koniq-image-defects-database.html) has human votes for
    defects of the same images. Where its csv lies beside the scores, the shares of the viewers who saw artefacts, blur, a contrast or a colour
    defect can be the attributes. Its other columns are not read: `qmos` and `degraded.amount` would give the answer away, `other` names nothing that
    is seen. **No file of KonIQ++ was at hand**: its name, the column `filename` (that of the image) and shares within 0..1 are as public readers
    have them, among them its authors' (https://github.com/SSL92/koniqplusplus).

    Indicators and votes are not mixed unless asked for, as "Details are very sharp" may stand beside "Viewers note heavy blur".

    Args:
        root: folder koniq10k, or the one that holds it.
        scale: "acr" (mean of the votes 1..5, which the deviation belongs to) or "zscore".
        size: folder of images, "1024x768" or "512x384"; None: the larger one that is there.
        attributes: "indicators", "defects" (the votes of KonIQ++) or "both", whose files must then be there; None: the votes where they are there,
            else the indicators; where neither is, records have no attributes.
        options: see OfficialSet.

    Raises:
        IncompatibleChoice: no such scale, size or attributes.
    """

    protocols = ("official", "random")
    release = Release(
        title="KonIQ-10k",
        folders=FOLDERS,
        needs=(),  # either file of scores and either folder of images will do: `entries` looks for them
        layout=f"koniq10k/\n  1024x768/*.jpg (or 512x384/*.jpg)\n  {SETS} (has the split) or {SCORES}\n"
        f"  {INDICATORS} or {VOTES[0]} (for descriptions=attributes)",
        source="https://database.mmsp-kn.de/koniq-10k-database.html; the split: https://github.com/subpic/koniq",
    )

    def __init__(
        self,
        *,
        root: str | Path,
        scale: str = "acr",
        size: str | None = None,
        attributes: str | None = None,
        **options: Any,  # noqa: ANN401 (OfficialSet's)
    ) -> None:
        if scale not in SCALES:
            raise IncompatibleChoice(f"data.scale={scale} is not known for KonIQ-10k: choose {' or '.join(SCALES)}.")
        if size is not None and size not in SIZES:
            raise IncompatibleChoice(f"data.size={size} is not known for KonIQ-10k: choose {' or '.join(SIZES)}.")
        if attributes is not None and attributes not in ATTRIBUTES:
            raise IncompatibleChoice(f"data.attributes={attributes} is not known for KonIQ-10k: choose {', '.join(ATTRIBUTES)}.")
        self.scale = scale
        self.size = size
        self.attributes = attributes
        self.card = SCALES[scale]
        super().__init__(root=root, **options)

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of the file with the split, or of the file of scores where there is none and none is asked for."""
        place = next((place for place in PLACES if folder.find(place + SETS) or folder.find(place + SCORES)), None)
        if place is None:
            raise DatasetNotFound(
                f"{folder.path}: KonIQ-10k is not there (neither {SETS} nor {SCORES} is). Set data.root= to the unpacked folder, "
                f"or datasets= to the one that holds it. It looks like this:\n{self.release.layout}\nSource: {self.release.source}"
            )
        rows = self._rows(folder, place)
        attributes = self._attributes(folder, place)
        absent = "" if attributes else f"{folder.path / place / INDICATORS} is missing: {INDICATOR_SOURCE} ({VOTES[0]} of KonIQ++ will do too)"
        size = self.size or next((size for size in SIZES if folder.find(place + size)), SIZES[0])
        return [self._entry(row, f"{place}{size}", attributes, absent) for row in rows]

    def _attributes(self, folder: Folder, place: str) -> dict[str, Attributes]:
        """Name of each file of attributes that is wanted, and what stands in it."""
        indicators = folder.find(place + INDICATORS)
        votes = next((file for name in VOTES if (file := folder.find(place + name))), None)
        for file, name, source, other in ((indicators, INDICATORS, INDICATOR_SOURCE, "defects"), (votes, VOTES[0], VOTE_SOURCE, "indicators")):
            if file is None and self.attributes not in (None, other):
                raise DatasetNotFound(f"{folder.path / place / name} is missing: {source}, or leave out data.attributes={self.attributes}.")
        chosen = self.attributes or ("defects" if votes else "indicators")
        found: dict[str, Attributes] = {}
        if votes and chosen != "indicators":
            found[votes.name] = _shares(votes)
        if indicators and chosen != "defects":
            found[indicators.name] = _indicators(indicators)
        return found

    def _rows(self, folder: Folder, place: str) -> list[Row]:
        columns = ["image_name", "c1", "c2", "c3", "c4", "c5", "MOS", "SD"]
        if (file := folder.find(place + SETS)) is not None:
            rows = read_rows(file, [*columns, "set"])
        elif self.protocol == "official":
            raise DatasetNotFound(
                f"{folder.path / place / SETS}: missing, and with it the official split. {SPLIT_SOURCE}, or set data.protocol=random."
            )
        else:
            file = folder.expect(place + SCORES)
            rows = read_rows(file, columns)
        if self.scale == "zscore" and "MOS_zscore" not in rows[0].cells and all(row.number("MOS") <= SCALES["acr"].high for row in rows):
            raise BadRecord(f"{file}: its MOS is on 1..5 and no z-score. Use the file of the release, or data.scale=acr.")
        return rows

    def _entry(self, row: Row, images: str, attributes: Mapping[str, Attributes], absent: str) -> Entry:
        name = row.cells["image_name"]
        number = Path(name).stem
        own: dict[str, float] = {}
        for file, values in attributes.items():
            if number not in values:
                raise BadRecord(f"{row.where}: {file} has no row for the image {quoted(name)}. Use the file of the release, or take that file away.")
            own |= values[number]
        side = row.cells.get("set")
        if side is not None and side not in SIDES:
            raise BadRecord(
                f'{row.where}, column set: "{quoted(side)}" is no split. Expected one of {", ".join(SIDES)}. Use the file of the release.'
            )
        std = row.number("SD") / 4.0 * (self.card.high - self.card.low)
        return Entry(
            where=row.where, image=name, file=f"{images}/{name}", score=self._score(row), group=name, std=std,
            side=None if side is None else SIDES[side], attributes=own, absent=absent,
        )  # fmt: skip

    def _score(self, row: Row) -> float:
        """Mean of the votes, or the z-score form. Where the row has the mean too, it must be that of its votes."""
        if self.scale == "zscore":
            return row.number("MOS_zscore" if "MOS_zscore" in row.cells else "MOS")
        votes = [row.number(f"c{grade}") for grade in range(1, 6)]
        if not sum(votes) > 0:
            raise BadRecord(f"{row.where}: there are no votes in c1..c5. Use the file of the release.")
        mean = sum(grade * vote for grade, vote in enumerate(votes, start=1)) / sum(votes)
        if "MOS_zscore" in row.cells and abs(row.number("MOS") - mean) > 0.01:
            raise BadRecord(
                f"{row.where}: MOS {quoted(row.cells['MOS'])} is not the mean of the votes c1..c5 ({mean:.3f}). Use the file of the release."
            )
        return round(mean, 9)  # shares have 12 digits: so equal means stay equal, and both files give the same


def _indicators(file: Path) -> Attributes:
    rows = read_rows(file, ["image_id", *INDICATOR_NAMES])
    return {row.cells["image_id"]: {feature: row.number(column) for column, feature in INDICATOR_NAMES.items()} for row in rows}


def _shares(file: Path) -> Attributes:
    """The votes for each defect as shares of the viewers."""
    found: dict[str, dict[str, float]] = {}
    for row in read_rows(file, ["filename", *VOTE_NAMES]):
        number = Path(row.cells["filename"]).stem
        if number in found:
            raise BadRecord(f"{row.where}: the image {quoted(row.cells['filename'])} stands in {file.name} twice. Use the file of the release.")
        found[number] = {feature: _share(row, column) for column, feature in VOTE_NAMES.items()}
    return found


def _share(row: Row, column: str) -> float:
    value = row.number(column)
    if not 0 <= value <= 1:  # NaN fails this comparison too
        raise BadRecord(f"{row.where}, column {column}: {quoted(row.cells[column])} is no share of votes 0..1. Use the file of the release.")
    return value
