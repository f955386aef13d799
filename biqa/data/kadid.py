"""KADID-10k, as unzipped from the authors' archive."""

import re

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card, Split
from biqa.data.rows import Row, quoted, read_rows
from biqa.errors import BadRecord
from biqa.language.features import KADID_DISTORTIONS

NAME = re.compile(r"I(\d\d)_(\d\d)_(\d\d)\.png", re.IGNORECASE)
REFERENCES = 81
LAST_TRAINING_REFERENCE = 65


class Kadid(OfficialSet):
    """KADID-10k, Konstanz Artificially Distorted Image quality Database.

    | | |
    |---|---|
    | Source | https://database.mmsp-kn.de/kadid-10k-database.html |
    | Citation | H. Lin, V. Hosu, D. Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database", QoMEX 2019 |
    | Licence | references: Pixabay licence |
    | Images | 10125: 81 references x 25 distortion types x 5 levels, 512 x 384, .png |
    | Score | mean of a degradation category rating on 1..5, 1.00..4.93. The column is called `dmos`; yet **higher is better** |
    | Deviation | column `var`: 0..1.593. Its numbers are standard deviations of the ratings, no variances: see below |
    | Groups | the reference |
    | Split | none published; `reference`: 80/20 by reference, over several seeds; `q-align`: I01..I65 to train (and validate), I66..I81 to test |

    The first row has a mean of 4.57 and a `var` of 0.496: of 30 ratings 17 fives and 13 fours, whose standard deviation is 0.496 and whose
    variance is 0.246. pyiqa and DeQA-Score read the column as a standard deviation too.

    Args: see OfficialSet.
    """

    card = Card(name="kadid", low=1.0, high=5.0, direction="mos", images=10125, published=(1.0, 4.94))
    protocols = ("reference", "q-align")
    release = Release(
        title="KADID-10k",
        folders=("kadid10k", "KADID-10k"),
        needs=("images", "dmos.csv"),
        layout="kadid10k/\n  images/I01_01_01.png ... I81_25_05.png (and the references I01.png ... I81.png)\n  dmos.csv",
        source="https://database.mmsp-kn.de/kadid-10k-database.html",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of dmos.csv."""
        return [_entry(row) for row in read_rows(folder.expect("dmos.csv"), ["dist_img", "ref_img", "dmos", "var"])]


def _entry(row: Row) -> Entry:
    name = row.cells["dist_img"]
    match = NAME.fullmatch(name)
    reference, kind, level = (int(part) for part in match.groups()) if match else (0, 0, 0)
    if not (1 <= reference <= REFERENCES and 1 <= kind <= len(KADID_DISTORTIONS) and 1 <= level <= 5):
        raise BadRecord(
            f'{row.where}: "{quoted(name)}" is no name of KADID-10k (I01_01_01.png: reference 01..81, type 01..25, level 01..05). '
            f"Use the file of the release."
        )
    group = f"I{reference:02}.png"
    if row.cells["ref_img"].casefold() != group.casefold():
        raise BadRecord(f'{row.where}: "{name}" is of the reference {group}, not {quoted(row.cells["ref_img"])}. Use the file of the release.')
    side: Split = "train" if reference <= LAST_TRAINING_REFERENCE else "test"
    return Entry(
        where=row.where, image=name, file=f"images/{name}", score=row.number("dmos"), group=group, std=row.number("var"), side=side,
        distortions=((KADID_DISTORTIONS[kind - 1].name, level),),
    )  # fmt: skip
